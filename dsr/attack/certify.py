r"""Which candidates are training images, told by rows of the first layer.

Plain gradient descent changes a dense first layer by X~' G, where an image's
row of G is 0 at each unit that the image never made active (`first_layer`).
Attacks that match gradients or simulate training do not use these zeros, so
they test any candidates, whatever those were fitted to:

  row         of least energy on the units that are most clearly inactive at the
              candidate, before and after training; it counts if it is 0 at more
              units than a vector of the span can be by chance
  image       that all rows so found tell together, with its `agreement`, which
              is 1 - e for an image with an RMSE of about e (`rows.Read`)
  confidence  the largest agreement less RMSE between candidate and image

So a confidence from 0.95 on claims an RMSE of 0.05 at most. Wrong candidates
lead to no row, or to the row of an image far from them. Where the identity does
not hold, as after Adam, or under noise, or without a dense first layer, there
are no such rows, and nothing is claimed.

Axes: M candidates, N images.
"""
from jaxtyping import Array, Float
import numpy as np

from dsr.attack import first_layer_config, restore, rows as rows_lib
from dsr.attack.release import Released
from dsr.attack.span import Span, span
from dsr.nets import MLP

_SHARE = 0.25  # Of the units, from which a candidate's row is read.


def confidence(
    released: Released, x: Float[Array | np.ndarray, 'M ...']
) -> Float[np.ndarray, 'M'] | None:
  """How sure it is that candidates are training images; see the module's text.

  Args:
    released: what the attacker has; nothing is told without both parameters.
    x: candidates of any attack, in the units of `released.low`.

  Returns:
    (M,) in [0, 1], or None where the first layer tells nothing: it is not
    dense, or `span` refuses its change, which is of full rank then.
  """
  if released.threat != 'parameters' or not isinstance(released.module, MLP):
    return None
  released = restore.restored(released)
  try:
    factors = span(released)
  except ValueError:  # It says which condition does not hold.
    return None
  flat = np.asarray(x, np.float64).reshape(len(x), -1)
  ones = np.ones((len(x), int(factors.biased)))
  rows = _rows(np.concatenate([flat, ones], axis=1) @ factors.basis, factors)
  found = rows_lib.read(
      released, factors, rows, first_layer_config.DEFAULT.refinements)
  sure = np.zeros(len(x))
  extent = np.mean(np.asarray(released.high - released.low))
  for image, agreement in zip(found.x, found.confidence):
    gap = np.sqrt(np.mean((flat - image.reshape(1, -1))**2, axis=1)) / extent
    sure = np.maximum(sure, agreement - gap)
  return sure


def _rows(
    places: Float[np.ndarray, 'M N'], factors: Span
) -> Float[np.ndarray, 'K N']:
  """Independent rows that candidates at `places` lead to, K of them."""
  num, width = factors.codes.shape
  units = min(max(int(_SHARE * width), int(1.25 * num)), width)
  found = rows_lib.near(places, factors, num_units=units)
  least = first_layer_config.least_zeros(num, width)
  known, kept = np.zeros((0, num)), []
  for i in np.argsort(-found.zeros, kind='stable'):
    rest = found.rows[i] - known.T @ (known @ found.rows[i])
    length = np.linalg.norm(rest)
    if (found.zeros[i] > least and found.second[i] > first_layer_config.MIXTURE
        and length > first_layer_config.INDEPENDENT):
      known = np.concatenate([known, rest[None] / length])
      kept.append(i)
  return found.rows[kept]
