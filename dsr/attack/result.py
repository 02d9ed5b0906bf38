"""What every attack returns, and where its candidates start."""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np

from dsr.attack.release import Released
from dsr.types import Status


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
  """

  candidates: Float[np.ndarray, 'M ...']
  duals: Float[np.ndarray, 'M C']
  loss: float
  curve: Float[np.ndarray, 'steps']
  status: Status
  info: dict[str, Any]


def noise(
    key: Key[Array, ''], released: Released, num: int, *, scale: float,
    dtype=jnp.float32) -> Float[Array, 'M ...']:
  """`num` candidates scale N(0, 1), which know the data's mean only."""
  return scale * jax.random.normal(key, (num, *released.input_shape), dtype)
