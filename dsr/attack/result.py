"""What every attack returns, and where its candidates start."""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
import numpy as np

from dsr.attack.release import Released
from dsr.types import Status

CLAIM = 0.95  # Of `Reconstruction.confidence`.


class Reconstruction(NamedTuple):
  """What every attack returns.

  Attributes:
    candidates: (M, *input_shape) inputs, in the units of `Released.low`.
    duals: (M, C) coefficients of their gradients; NaN where an attack has none.
    loss: relative to its value without candidates, |Delta theta|^2 in most
      attacks; NaN if that is not known to the attacker.
    curve: (steps,) the loss of each step, in the attack's own unit.
    status: why the run ended.
    info: numbers and arrays special to the attack.
    confidence: (M,) in [0, 1], known without the truth: from `CLAIM` on, the
      attack claims that the candidate is a training image, up to an RMSE of
      0.05. None where an attack cannot tell, and claims nothing.
  """

  candidates: Float[np.ndarray, 'M ...']
  duals: Float[np.ndarray, 'M C']
  loss: float
  curve: Float[np.ndarray, 'steps']
  status: Status
  info: dict[str, Any]
  confidence: Float[np.ndarray, 'M'] | None = None

  @property
  def claimed(self) -> Bool[np.ndarray, 'M']:
    """Which candidates the attack claims to be training images."""
    if self.confidence is None:
      return np.zeros(len(self.candidates), bool)
    return self.confidence >= CLAIM


def noise(
    key: Key[Array, ''], released: Released, num: int, *, scale: float,
    dtype=jnp.float32) -> Float[Array, 'M ...']:
  """`num` candidates scale N(0, 1), which know the data's mean only."""
  return scale * jax.random.normal(key, (num, *released.input_shape), dtype)
