r"""k-medoids: rows of a class that minimise \sum_i min_s |x_i - x_s|.

A k-medoids++ start (a row joins with odds in proportion to its distance from
the medoids so far), then swaps as in FasterPAM (arXiv:2008.05171): each row in
turn is tried in the place of every medoid at once, at O(n) a row, and the best
swap is made if it lowers the cost. Ends in a local optimum of such swaps.
"""
from collections.abc import Sequence
import functools

import jax
from jaxtyping import Array, Float, Int, Key
import numpy as np

from dsr import checks
from dsr.distill import distances, per_class


def kmedoids(
    key: Key[Array, ''],
    x: Float[Array | np.ndarray, 'N ...'],
    labels: Int[Array | np.ndarray, 'N'],
    num_per_class: int | Sequence[int], *, norm: str = 'l2',
    max_rounds: int = 50) -> Int[np.ndarray, 'K']:
  """Medoids of each class.

  Args:
    key: decides the start.
    x: (N, ...) examples or features.
    labels: (N,) class indices.
    num_per_class: rows a class, or a number for each class that occurs.
    norm: 'l1', 'l2' or 'linf'.
    max_rounds: times that every row is tried, at most.

  Returns:
    Rows of x, classes in increasing order, sorted within a class.

  Raises:
    ValueError: misshapen inputs, an unknown norm, more rows than a class has,
      `max_rounds` below 0.
  """
  checks.one_of('norm', norm, distances.NORMS)
  checks.at_least('max_rounds', max_rounds, 0)
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
  return per_class.choose(x, labels, num_per_class, functools.partial(
      _one_class, rng=rng, norm=norm, max_rounds=max_rounds))


def cost(
    x: Float[Array | np.ndarray, 'N ...'],
    labels: Int[Array | np.ndarray, 'N'],
    rows: Int[np.ndarray, 'K'], *,
    norm: str = 'l2') -> Float[np.ndarray, 'C']:
  """Sum of distances to the nearest of `rows` of the own class, by class.

  In float64, for any selection; classes in increasing order.

  Raises:
    ValueError: misshapen inputs, an unknown norm, a class without a row.
  """
  checks.one_of('norm', norm, distances.NORMS)
  x, labels = per_class.flat(x, labels)
  rows = np.asarray(rows)
  checks.class_indices('rows', rows)
  sums = []
  for c, inside in per_class.members(labels).items():
    own = rows[labels[rows] == c]
    if not len(own):
      raise ValueError(f'`rows` must have a row of every class, got none of '
                       f'class {c}.')
    sums.append(distances.nearest(x[inside], x[own], norm=norm)[1].sum())
  return np.asarray(sums)


def _one_class(x, count, *, rng, norm, max_rounds):
  d = distances.pairwise(x, norm=norm)
  if count == 1:
    return np.asarray([d.sum(1, dtype=np.float64).argmin()])
  return np.sort(_swap(d, _start(d, count, rng), max_rounds))


def _start(d, count, rng):
  medoids = [int(d.sum(1, dtype=np.float64).argmin())]
  gap = d[medoids[0]].astype(np.float64)
  while len(medoids) < count:
    odds = gap.copy()
    odds[medoids] = 0
    if not odds.any():  # Only copies of medoids are left.
      odds[:] = 1
      odds[medoids] = 0
    medoids.append(int(rng.choice(len(d), p=odds / odds.sum())))
    gap = np.minimum(gap, d[medoids[-1]])
  return np.asarray(medoids)


def _swap(d, medoids, max_rounds):
  """FasterPAM's swaps, until every row was tried since the last one made."""
  first, near, second = _two_nearest(d, medoids)
  removal = np.bincount(first, second - near, len(medoids))
  since = 0
  is_medoid = np.zeros(len(d), bool)
  is_medoid[medoids] = True
  for trial in range(max_rounds * len(d)):
    row = trial % len(d)
    since += 1
    if since > len(d):
      break
    if is_medoid[row]:
      continue
    # Change of cost if `row` joins, and what that spares when slot s leaves.
    to = d[row].astype(np.float64)
    closer = to < near
    between = (to < second) & ~closer
    joining = (to - near)[closer].sum()
    spared = np.where(closer, near - second, np.where(between, to - second, 0))
    change = joining + removal + np.bincount(first, spared, len(medoids))
    slot = int(change.argmin())
    if change[slot] < -1e-7 * near.sum():  # Below that, float32 decides.
      is_medoid[[medoids[slot], row]] = False, True
      medoids[slot] = row
      first, near, second = _two_nearest(d, medoids)
      removal = np.bincount(first, second - near, len(medoids))
      since = 0
  return medoids


def _two_nearest(d, medoids):
  """Slot of the nearest medoid, its distance, and that of the second."""
  to = d[medoids]  # (K, n)
  slot = to.argmin(0)
  two = np.partition(to, 1, axis=0)[:2].astype(np.float64)
  return slot, two[0], two[1]
