r"""Which images are easy to rebuild: duals, outliers and errors side by side.

Training fits y - f_0 = K a with the NTK K; \Delta\theta = \sum_j a_j \phi_j.
Without image j, refitting all others, \Delta\theta is missed by exactly

  v_j = \min_b |\Delta\theta - \sum_{i \ne j} b_i \phi_i|^2
      = a_j^2 / [K^{-1}]_jj  =  a_j e_j,

with e_j the leave-one-out residual: the loss that an attack saves by finding
image j. Images that are hard to fit, and unlike the others, have most of it:
arXiv:2302.01428 finds that reconstructed images tend to be outliers.
"""
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Key
import numpy as np
from scipy import linalg, stats
from scipy.spatial import distance

from dsr import checks
from dsr.attack import pairwise


class Table(NamedTuple):
  """One row an image, in the order given; see `per_image`.

  Attributes:
    dual: (N,) |a_j|, over outputs.
    leave_one_out: (N,) v_j.
    from_mean: (N,) L2 to the mean of the training images.
    from_neighbours: (N,) mean L2 to the nearest other training images.
    error: (N,) as given.
  """

  dual: Float[np.ndarray, 'N']
  leave_one_out: Float[np.ndarray, 'N']
  from_mean: Float[np.ndarray, 'N']
  from_neighbours: Float[np.ndarray, 'N']
  error: Float[np.ndarray, 'N']


class Correlation(NamedTuple):
  """A rank correlation in [-1, 1] and the ends of its interval."""

  value: float
  low: float
  high: float


def per_image(
    truth: Float[Array | np.ndarray, 'N ...'],
    error: Float[np.ndarray, 'N'], *,
    duals: Float[Array | np.ndarray, 'N C'],
    kernel: Float[Array | np.ndarray, 'N N'],
    num_neighbours: int = 5) -> Table:
  """What sets an image apart, beside the error of its reconstruction.

  Args:
    truth: (N, ...) training images, pixels in [0, 1].
    error: (N,) of the reconstruction, e.g. `Score.rmse`; inf where missed.
    duals: (N, C) true duals K^-1 (y - f_0).
    kernel: (N, N) kernel of the training set that the duals belong to.
    num_neighbours: for `from_neighbours`; with fewer images, all others.

  Raises:
    ValueError: shapes that do not fit, N = 1, or as `leave_one_out`.
  """
  truth = pairwise.pixels('truth', truth)
  checks.at_least('num_neighbours', num_neighbours, 1)
  if len(truth) < 2:
    raise ValueError('`truth` must hold at least 2 images, got 1.')
  error = _vector('error', error)
  value = leave_one_out(duals, kernel)
  checks.same_rows(truth=truth, error=error, duals=duals)
  flat = truth.reshape(len(truth), -1)
  gaps = distance.cdist(flat, flat)
  np.fill_diagonal(gaps, np.inf)
  closest = np.sort(gaps, axis=1)[:, :min(num_neighbours, len(truth) - 1)]
  return Table(
      np.linalg.norm(np.asarray(duals, np.float64), axis=1), value,
      np.linalg.norm(flat - flat.mean(axis=0, keepdims=True), axis=1),
      closest.mean(axis=1), error)


def leave_one_out(
    duals: Float[Array | np.ndarray, 'N C'],
    kernel: Float[Array | np.ndarray, 'N N']) -> Float[np.ndarray, 'N']:
  r"""v_j = \sum_c a_jc^2 / [K^{-1}]_jj: the loss of doing without image j.

  Args:
    duals: (N, C); all outputs share one kernel, as at infinite width.
    kernel: (N, N), positive definite.

  Raises:
    ValueError: shapes that do not fit, or a kernel that is not positive
      definite in float64.
  """
  duals, kernel = np.asarray(duals), np.asarray(kernel)
  checks.square('kernel', kernel)
  checks.targets('duals', duals, rows=len(kernel))
  checks.finite('kernel', kernel)
  checks.finite('duals', duals)
  try:
    factor = linalg.cholesky(kernel.astype(np.float64), lower=True)
  except linalg.LinAlgError as error:
    raise ValueError(
        f'`kernel` must be positive definite: {error}.') from error
  inverse = linalg.solve_triangular(factor, np.eye(len(kernel)), lower=True)
  precision = (inverse**2).sum(axis=0)  # The diagonal of K^-1.
  return (duals.astype(np.float64)**2).sum(axis=1) / precision


def rank_correlation(
    key: Key[Array, ''], x: Float[np.ndarray, 'N'],
    y: Float[np.ndarray, 'N'], *, level: float = 0.95,
    num_resamples: int = 2000) -> Correlation:
  """Spearman's rank correlation, with a percentile bootstrap interval.

  Equal values share their mean rank, and infinities rank last, so missed
  images may be left in. Pairs (x_i, y_i) are resampled together; the interval
  is about other images of the same kind, not about other runs.

  Args:
    key: of the resampling.
    x: (N,), e.g. `Table.dual`.
    y: (N,), e.g. `Table.error`.
    level: coverage, in (0, 1).
    num_resamples: of N pairs each.

  Raises:
    ValueError: fewer than 3 pairs, NaN, or a vector of equal values.
  """
  x, y = _vector('x', x), _vector('y', y)
  checks.same_rows(x=x, y=y)
  checks.at_least('num_resamples', num_resamples, 1)
  checks.within('level', level, 0, 1)
  if len(x) < 3:
    raise ValueError(f'`x` must have at least 3 values, got {len(x)}.')
  for name, values in (('x', x), ('y', y)):
    if (values == values[0]).all():
      raise ValueError(f'`{name}` must not be constant, got {values[0]} only.')
  drawn = np.asarray(jax.random.randint(
      key, (num_resamples, len(x)), 0, len(x), dtype=np.int32))
  found = _spearman(x[drawn], y[drawn])
  # A resample of one value has no correlation, and no say.
  ends = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
  return Correlation(float(_spearman(x[None], y[None])[0]), *map(float, ends))


def _spearman(x, y):
  """Correlation of ranks along the last axis of (R, N); NaN if one is flat."""
  a, b = (stats.rankdata(v, axis=1) - (v.shape[1] + 1) / 2 for v in (x, y))
  scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
  return np.divide((a * b).sum(axis=1), scale,
                   out=np.full(len(a), np.nan), where=scale > 0)


def _vector(name, values):
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or np.isnan(values).any():
    raise ValueError(f'`{name}` must be a vector without NaN, got shape '
                     f'{values.shape} with {np.isnan(values).sum()} NaN.')
  return values
