"""From one attack's candidates to where another one starts.

Axes: K candidates, M of them kept, C outputs.
"""
from jaxtyping import Float
import numpy as np
from scipy import optimize

from dsr.attack.release import Released

_COPY = 0.2  # RMSE, over the pixel range, below which candidates are copies.


def distinct(
    x: Float[np.ndarray, 'K ...'], released: Released, num: int
) -> Float[np.ndarray, 'M ...']:
  """The first `num` of `x` that are no copies of earlier ones.

  Copies fill up what is missing then.

  Raises:
    ValueError: there are fewer than `num`.
  """
  if len(x) < num:
    raise ValueError(f'`x` must hold at least {num} candidates, got {len(x)}.')
  flat = np.asarray(x, np.float64).reshape(len(x), -1)
  limit = _COPY * np.mean(np.asarray(released.high) - np.asarray(released.low))
  kept, copies = [], []
  for i, row in enumerate(flat):
    far = np.sqrt(np.mean((flat[kept] - row[None])**2, axis=1))
    (kept if np.all(far >= limit) else copies).append(i)
  return np.asarray(x)[(kept + copies)[:num]]


def balanced(out: Float[np.ndarray, 'M C']) -> Float[np.ndarray, 'M C']:
  """+-1 if C = 1, else one-hot less 1/C: M / C of each, nearest to `out`."""
  num, outputs = out.shape
  classes = (np.array([[-1.0], [1.0]]) if outputs == 1 else
             np.eye(outputs) - 1 / outputs)
  places = np.repeat(classes, num // len(classes), axis=0)
  rows, columns = optimize.linear_sum_assignment(-out @ places.T)
  return places[columns[np.argsort(rows)]]
