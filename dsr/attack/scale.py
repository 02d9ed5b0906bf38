"""Candidates that are known up to a positive factor each.

A ReLU network without biases is 1-homogeneous in its input: (x, a) and
(c x, a / c) have the same features, so no attack can tell them apart. What
fixes c is the pixel range.
"""
from jaxtyping import Float
import numpy as np

from dsr.attack.release import Released


def fill_range(
    released: Released, x: Float[np.ndarray, 'M ...']
) -> Float[np.ndarray, 'M ...']:
  """c x with the largest c > 0 for which low <= c x <= high.

  Exact for images with a pixel at either end of the range, such as those with
  a black background; `low < 0 < high` must hold, as it does after a mean was
  subtracted. A candidate of zeros stays.

  Raises:
    ValueError: 0 is outside the pixel range.
  """
  low, high = (np.broadcast_to(end, released.input_shape)
               for end in (released.low, released.high))
  if not (np.all(low < 0) and np.all(high > 0)):
    raise ValueError('`released` must have low < 0 < high to fix the scale of '
                     f'candidates, got {released.low} and {released.high}.')
  x = np.asarray(x)
  share = np.maximum(x / high[None], x / low[None])  # Of the way to an end.
  most = share.reshape(len(x), -1).max(axis=1)
  most = np.where(most > 0, most, 1).reshape(-1, *(1,) * (x.ndim - 1))
  return x / most
