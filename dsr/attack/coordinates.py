r"""Where candidates are sought: all inputs, or the span of the training inputs.

The change of a dense first layer reveals that span (see `span`). If it has
fewer dimensions than an input has numbers, a candidate is

  x = origin + z axes,   z in R^K,   K = N - 1, or N without biases:

N unknown numbers or fewer instead of D. Axes: M candidates, D numbers in an
input, K dimensions.
"""
from typing import NamedTuple

from absl import logging
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import numerics
from dsr.attack import span
from dsr.attack.release import Released
from dsr.nets import MLP


class Coordinates(NamedTuple):
  """The affine map above; both are None where all inputs are searched."""

  origin: Float[Array, 'D'] | None = None
  axes: Float[Array, 'K D'] | None = None

  def dim(self, size: int) -> int:
    """K, of inputs of `size` numbers."""
    return size if self.axes is None else self.axes.shape[0]

  def inputs(
      self, place: Float[Array, 'M K'], shape: tuple[int, ...]
  ) -> Float[Array, 'M ...']:
    """The candidates at `place`, of that shape each."""
    if self.axes is not None:
      place = self.origin[None] + numerics.matmul(place, self.axes)
    return place.reshape(len(place), *shape)

  def places(self, x: Float[Array, 'M ...']) -> Float[Array, 'M K']:
    """Of candidates within the span, or of what is nearest to them there."""
    flat = x.reshape(len(x), -1)
    if self.axes is None:
      return flat
    return numerics.matmul(flat - self.origin[None], self.axes.T)


def of(released: Released, *, subspace: bool, dtype) -> Coordinates:
  """Those of the span, where it can be had and `subspace` asks for it.

  Args:
    released: with both parameters.
    subspace: False takes all inputs.
    dtype: of the arrays.
  """
  module = released.module
  if not subspace or not (
      isinstance(module, MLP) and module.widths and 1 < released.num_train
      < min(released.size, module.widths[0])):
    return Coordinates()
  try:
    within = _affine(released)
  except ValueError as error:  # Full rank, as by Adam or under noise.
    logging.info('Candidates are sought among all inputs: %s', error)
    return Coordinates()
  return Coordinates(*(jnp.asarray(a, dtype) for a in within))


def _affine(released):
  """(origin (D,), orthonormal axes (K, D)) of the inputs within the span."""
  factors = span.span(released)
  basis = factors.basis
  if not factors.biased:
    return np.zeros(released.size), basis.T
  last = basis[-1]
  origin = (basis @ last / (last @ last))[:-1]
  within = np.linalg.svd(last[None])[2][1:]  # z with [.; 0] = U z.
  axes = np.linalg.qr((basis @ within.T)[:-1])[0].T
  return origin - axes.T @ (axes @ origin), axes
