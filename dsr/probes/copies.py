r"""Does a set hold copies of training images?

With d_1 <= d_2 <= ... the distances of an image to the training images nearest
to it, its nearness is

  r = d_1 / mean(d_2, ..., d_{k+1}),

1 where all neighbours are as near as each other, and small where one of them
stands out, as in the detection of training images that generative models give
back (arXiv:2301.13188). Noise of the size at which d_1 is what an unrelated
image has leaves a copy's r far below that of unrelated images.

An image is a near-copy if its r is 0 or below what 1 of 100 unrelated images
has, by at least two of the distances measured (by the one, if there is one).
Of unrelated images that happens to a share of at most m / 200 for m > 1
distances, whatever ties them (Markov), and to 1 / 100 for one: `chance` is the
probability that a set of unrelated images has as many or more.
"""
from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int
import numpy as np
from scipy import stats

from dsr import checks
from dsr.probes.nearest import Nearest

NEIGHBOURS = 10  # k, beside the nearest.
RARE = 0.01  # Share of unrelated images that a distance alone calls copies.
_BLOCK = 2**23  # Distances at a time: 32 MB in float32.


class Copies(NamedTuple):
  """Which of S images are near-copies.

  Attributes:
    near: (S,) whether it is one.
    nearness: name of a distance -> r (S,).
    limits: name -> r that 1 of 100 unrelated images is below.
    expected: share of unrelated images that would count, at most.
    chance: probability of as many or more among S unrelated images.
  """

  near: Bool[np.ndarray, 'S']
  nearness: dict[str, Float[np.ndarray, 'S']]
  limits: dict[str, float]
  expected: float
  chance: float


def neighbours(
    x: Float[Array | np.ndarray, 'N ...'],
    others: Float[Array | np.ndarray, 'M ...'], num: int
) -> tuple[Int[np.ndarray, 'N K'], Float[np.ndarray, 'N K']]:
  """The `num` nearest of `others` by l2, from near to far, and their distance.

  Candidates come from float32 products, twice as many as are asked for, and
  distances from differences in float64.

  Args:
    x: (N, ...) examples.
    others: (M, ...) examples of the same shape.
    num: K; M where there are fewer.

  Raises:
    ValueError: shapes that do not fit, values that are not finite, or `num`
      below 1.
  """
  checks.inputs('x', x)
  checks.inputs('others', others)
  if x.shape[1:] != others.shape[1:]:
    raise ValueError(f'`others` has examples of shape {others.shape[1:]}, '
                     f'expected {x.shape[1:]}.')
  checks.at_least('num', num, 1)
  checks.finite('x', x)
  checks.finite('others', others)
  x, others = (np.asarray(a, float).reshape(len(a), -1) for a in (x, others))
  num = min(num, len(others))
  wide = min(2 * num, len(others))
  shift = others.mean(0)
  single = (others - shift).astype(np.float32)
  square = np.einsum('md,md->m', single, single)
  index = np.empty((len(x), num), int)
  distance = np.empty((len(x), num))
  size = max(1, _BLOCK // len(others))
  for start in range(0, len(x), size):
    rows = slice(start, start + size)
    far = square - 2 * ((x[rows] - shift).astype(np.float32) @ single.T)
    wider = np.sort(np.argpartition(far, wide - 1, axis=1)[:, :wide], axis=1)
    exact = np.linalg.norm(x[rows, None] - others[wider], axis=-1)
    order = np.argsort(exact, axis=1, kind='stable')[:, :num]
    index[rows] = np.take_along_axis(wider, order, 1)
    distance[rows] = np.take_along_axis(exact, order, 1)
  return index, distance


def nearest_of(
    index: Int[np.ndarray, 'N K'], distance: Float[np.ndarray, 'N K']
) -> Nearest:
  """The nearest of K candidates by a distance of another kind."""
  best = distance.argmin(1)
  rows = np.arange(len(distance))
  return Nearest(index[rows, best], distance[rows, best])


def nearness(distance: Float[np.ndarray, 'N K']) -> Float[np.ndarray, 'N']:
  """r of each row of distances to candidates, in any order; 0 for an equal one.

  Raises:
    ValueError: fewer than 2 candidates, or distances below 0.
  """
  checks.features('distance', distance)
  checks.finite('distance', distance)
  if distance.shape[1] < 2 or distance.min() < 0:
    raise ValueError('`distance` must be (N, K), at least 0, of K at least 2 '
                     f'candidates, got {distance.shape} from '
                     f'{distance.min():.4g}.')
  ranked = np.sort(distance, axis=1)[:, :NEIGHBOURS + 1]
  rest = ranked[:, 1:].mean(1)
  return np.divide(ranked[:, 0], rest, out=np.zeros(len(ranked)),
                   where=ranked[:, 0] > 0)


def find(
    own: Mapping[str, Float[np.ndarray, 'S K']],
    unrelated: Mapping[str, Float[np.ndarray, 'U K']]) -> Copies:
  """Which images are near-copies, by the distances of unrelated images.

  Args:
    own: name of a distance -> (S, K) to the candidates of each image.
    unrelated: the same names -> (U, K) of images that no set was made of.

  Raises:
    ValueError: other names on the two sides, none, or no such distances.
  """
  if not own or own.keys() != unrelated.keys():
    raise ValueError('`own` and `unrelated` must name the same distances, got '
                     f'{sorted(own)} and {sorted(unrelated)}.')
  found = {name: nearness(d) for name, d in own.items()}
  usual = {name: nearness(d) for name, d in unrelated.items()}
  limits = {name: float(np.quantile(r, RARE, method='lower'))
            for name, r in usual.items()}
  # Of few unrelated images the least is the limit; data may repeat images.
  rare = max(max(RARE, 1 / (len(r) + 1), float(np.mean(r == 0)))
             for r in usual.values())
  votes = np.sum([(r < limits[name]) | (r == 0)
                  for name, r in found.items()], axis=0)
  needed = min(2, len(found))
  near = votes >= needed
  expected = min(1.0, rare * len(found) / needed)
  return Copies(near, found, limits, expected, float(
      stats.binom.sf(near.sum() - 1, len(near), expected)))
