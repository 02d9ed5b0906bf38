r"""Nearest neighbours, and attacks of those who see a distilled set alone.

Whoever is shown S images, and nothing that was trained, can ask of an example
x whether it was among the images that these were made from:

  nearest  -min_s |x - s|,
  density  log (1/S) sum_s N(x; s, h^2 I), a Gaussian kernel density,
  kernel   -min_s |k(x, .) - k(s, .)|^2, the same in a kernel's space.

As in `scores`, larger is likelier a member.

Axes: N, M, S examples; D numbers in an example.
"""
from collections.abc import Callable
import math
from typing import NamedTuple

from jaxtyping import Array, Float, Int
import numpy as np
from scipy import special
from scipy.spatial import distance as distance_lib

from dsr import checks

METRICS = ('l2', 'linf')
_BLOCK = 2**23  # Distances at a time: 32 MB in float32.
_GRID = 64  # Bandwidths tried.
_LEFT_OUT = 500  # Examples that judge them, at most.

Images = Float[Array | np.ndarray, 'N ...']


class Nearest(NamedTuple):
  """The nearest of some examples, for each of others.

  Attributes:
    index: (N,) its place; of equally near ones, the first.
    distance: (N,) to it, in float64.
  """

  index: Int[np.ndarray, 'N']
  distance: Float[np.ndarray, 'N']


def nearest(
    x: Images, others: Float[Array | np.ndarray, 'M ...'], *,
    metric: str | Callable = 'l2', exclude_self: bool = False) -> Nearest:
  r"""For each row of `x`, the nearest of `others`.

  By 'l2' and 'linf' the result is exact: the float32 product behind the former
  only rules out what is farther than its rounding error can explain, and the
  rest is summed from differences. No N x M array is held: 10,000 x 10,000
  examples of 784 numbers take 200 MB beside the inputs.

  Args:
    x: (N, ...) examples.
    others: (M, ...) examples of the same shape.
    metric: 'l2', 'linf', or a function of a block of rows (B, ...) and all of
      `others` that gives their distances (B, M).
    exclude_self: `others` are the examples `x` themselves, and none is its own
      neighbour.

  Raises:
    ValueError: shapes that do not fit, values that are not finite, an unknown
      metric, or a function that returns another shape.
  """
  x, others = _examples('x', x), _examples('others', others)
  if x.shape[1:] != others.shape[1:]:
    raise ValueError(f'`others` has examples of shape {others.shape[1:]}, '
                     f'expected {x.shape[1:]}.')
  if exclude_self and (len(x) != len(others) or len(x) < 2):
    raise ValueError(
        '`exclude_self` needs the same two or more examples twice, got '
        f'{len(x)} and {len(others)}.')
  if callable(metric):
    search = _by_function(metric, others)
  else:
    checks.one_of('metric', metric, METRICS)
    x, others = (a.reshape(len(a), -1) for a in (x, others))
    search = _by_product(x, others) if metric == 'l2' else _by_function(
        lambda a, b: distance_lib.cdist(a, b, 'chebyshev'), others)
  index, distance = np.empty(len(x), int), np.empty(len(x))
  size = max(1, _BLOCK // len(others))
  for start in range(0, len(x), size):
    rows = slice(start, min(start + size, len(x)))
    own = np.arange(rows.start, rows.stop) if exclude_self else None
    index[rows], distance[rows] = search(x[rows], own)
  return Nearest(index, distance)


def nearest_scores(
    x: Images, shown: Float[Array | np.ndarray, 'S ...'], *,
    metric: str | Callable = 'l2') -> Float[np.ndarray, 'N']:
  """-min_s d(x, s): members should lie nearer to what was made of them.

  Args:
    x: (N, ...) examples in question.
    shown: (S, ...) all that the attacker sees, e.g. a distilled set.
    metric: as in `nearest`.

  Raises:
    ValueError: as `nearest`.
  """
  return -nearest(x, shown, metric=metric).distance


def density_scores(
    x: Images, shown: Float[Array | np.ndarray, 'S ...'], *,
    bandwidth: float | None = None) -> Float[np.ndarray, 'N']:
  r"""log (1/S) sum_s N(x; s, h^2 I), the log-likelihood of a kernel density.

  Args:
    x: (N, ...) examples in question.
    shown: (S, ...) all that the attacker sees, e.g. a distilled set.
    bandwidth: h, in units of the examples; None takes that of a grid under
      which each shown example is likeliest given the others.

  Raises:
    ValueError: shapes that do not fit, values that are not finite, a bandwidth
      that is not positive, or one to be chosen from fewer than two different
      examples.
  """
  x, shown = _examples('x', x), _examples('shown', shown)
  if x.shape[1:] != shown.shape[1:]:
    raise ValueError(f'`shown` has examples of shape {shown.shape[1:]}, '
                     f'expected {x.shape[1:]}.')
  x, shown = (a.reshape(len(a), -1).astype(float) for a in (x, shown))
  if bandwidth is None:
    bandwidth = _bandwidth(shown)
  checks.positive('bandwidth', bandwidth)
  found = np.empty(len(x))
  size = max(1, _BLOCK // len(shown))
  for start in range(0, len(x), size):
    rows = slice(start, start + size)
    square = distance_lib.cdist(x[rows], shown, 'sqeuclidean')
    found[rows] = _log_density(square, bandwidth, x.shape[1], len(shown))
  return found


def kernel_scores(
    k_xx_diag: Float[Array | np.ndarray, 'N'],
    k_xs: Float[Array | np.ndarray, 'N S'],
    k_ss_diag: Float[Array | np.ndarray, 'S']) -> Float[np.ndarray, 'N']:
  """-min_s k(x, x) - 2 k(x, s) + k(s, s): the distance that a network sees.

  Args:
    k_xx_diag: (N,) k(x, x) of the examples in question.
    k_xs: (N, S) kernel between them and the shown ones.
    k_ss_diag: (S,) k(s, s) of the shown ones.

  Returns:
    (N,) at most 0; what rounding has above it is cut off.

  Raises:
    ValueError: shapes that do not fit, or values that are not finite.
  """
  checks.features('k_xs', k_xs)
  rows, columns = k_xs.shape
  checks.numbers('k_xx_diag', k_xx_diag, rows=rows)
  checks.numbers('k_ss_diag', k_ss_diag, rows=columns)
  for name, value in (('k_xs', k_xs), ('k_xx_diag', k_xx_diag),
                      ('k_ss_diag', k_ss_diag)):
    checks.finite(name, value)
  far = np.asarray(k_ss_diag, float)[None] - 2 * np.asarray(k_xs, float)
  return -np.maximum(far.min(axis=1) + np.asarray(k_xx_diag, float), 0)


def _examples(name, x) -> np.ndarray:
  x = x if hasattr(x, 'shape') else np.asarray(x)
  checks.inputs(name, x)
  checks.finite(name, x)
  return np.asarray(x)


def _by_function(metric, others):
  """Blocks of all distances, as the function gives them."""

  def search(block, own):
    far = np.array(metric(block, others), float)
    if far.shape != (len(block), len(others)):
      raise ValueError(
          f'`metric` must map {len(block)} and {len(others)} examples to '
          f'{(len(block), len(others))}, got {far.shape}.')
    checks.finite('metric', far)
    if own is not None:
      far[np.arange(len(block)), own] = np.inf
    index = far.argmin(axis=1)
    return index, far[np.arange(len(block)), index]

  return search


def _by_product(x, others):
  r"""|a - b|^2 = |a|^2 - 2 a'b + |b|^2 in float32, and what it leaves open.

  Its error is below (D + 8) eps (|a| + |b|)^2 after shift and scale, D eps
  being the bound for any order of summation. Whoever is that near to the least
  is compared by differences.
  """
  exact = others.astype(float)
  shift = exact.mean(axis=0)
  scale = max(float(np.abs(a - shift).max()) for a in (x, others)) or 1.0
  single = ((exact - shift) / scale).astype(np.float32)
  square = np.einsum('md,md->m', single, single)
  eps = (x.shape[1] + 8) * float(np.finfo(np.float32).eps)

  def search(block, own):
    block = block.astype(float)
    a = ((block - shift) / scale).astype(np.float32)
    length = np.einsum('nd,nd->n', a, a)
    far = a @ single.T
    far *= -2
    far += square
    far += length[:, None]
    if own is not None:
      far[np.arange(len(a)), own] = np.inf
    # Of two distances, with (|a| + |b|)^2 <= 2 |a|^2 + 2 |b|^2.
    slack = 4 * eps * (length + square.max())
    near = far <= (far.min(axis=1) + slack)[:, None]
    return _least(block, exact, *np.nonzero(near))

  return search


def _least(block, others, row, column):
  """The nearest of the pairs (row, column), in ascending order of both."""
  square = np.empty(len(row))
  size = max(1, _BLOCK // block.shape[1])
  for start in range(0, len(row), size):
    part = slice(start, start + size)
    gap = block[row[part]] - others[column[part]]
    square[part] = np.einsum('pd,pd->p', gap, gap)
  order = np.lexsort((column, square, row))
  first = order[np.unique(row[order], return_index=True)[1]]
  return column[first], np.sqrt(square[first])


def _bandwidth(shown) -> float:
  r"""The h of a grid that maximises sum_i log p_h(s_i | the others).

  The derivative vanishes where D h^2 is a weighted mean of squared distances,
  so the grid reaches from the least to the greatest of them. The sum is over
  500 examples at most, evenly spaced.
  """
  rows = np.unique(np.linspace(
      0, len(shown) - 1, min(len(shown), _LEFT_OUT)).round().astype(int))
  square = distance_lib.cdist(shown[rows], shown, 'sqeuclidean')
  if not square.any():
    raise ValueError('`bandwidth` must be given where `shown` has fewer than '
                     f'two different examples, got {len(shown)} alike.')
  dim = shown.shape[1]
  grid = np.sqrt(np.geomspace(
      square[square > 0].min(), square.max(), _GRID) / dim)
  square[np.arange(len(rows)), rows] = np.inf  # Left out.
  worth = [np.sum(_log_density(square, h, dim, len(shown) - 1)) for h in grid]
  return float(grid[np.argmax(worth)])


def _log_density(square, h: float, dim: int, num: int) -> np.ndarray:
  """Of rows of squared distances to `num` centres."""
  scale = dim * (math.log(h) + math.log(2 * math.pi) / 2) + math.log(num)
  return special.logsumexp(-square / (2 * h**2), axis=1) - scale
