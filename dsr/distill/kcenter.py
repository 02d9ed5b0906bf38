r"""Greedy k-centre: the farthest point joins the centres, k - 1 times.

The radius max_i min_s |x_i - x_s| is at most twice the smallest possible
(Gonzalez, Theor. Comput. Sci. 38 (1985) 293-306). As a coreset:
arXiv:1708.00489.
"""
from collections.abc import Callable, Sequence
import functools

from jaxtyping import Array, Float, Int
import numpy as np

from dsr import checks
from dsr.distill import distances, per_class


def kcenter(
    x: Float[Array | np.ndarray, 'N ...'],
    labels: Int[Array | np.ndarray, 'N'],
    num_per_class: int | Sequence[int], *, norm: str = 'l2'
) -> Int[np.ndarray, 'K']:
  """Farthest-first rows of each class, from the one nearest to its mean.

  Deterministic; ties go to the first row. O(N K D) time, O(N) memory.

  Args:
    x: (N, ...) examples or features.
    labels: (N,) class indices.
    num_per_class: rows a class, or a number for each class that occurs.
    norm: 'l1', 'l2' or 'linf'; also that of the nearness to the mean.

  Returns:
    Rows of x, classes in increasing order, in the order of choice.

  Raises:
    ValueError: misshapen inputs, an unknown norm, more rows than a class has.
  """
  checks.one_of('norm', norm, distances.NORMS)
  return per_class.choose(
      x, labels, num_per_class, functools.partial(_one_class, norm=norm))


def farthest_first(
    distances_to: Callable, start: int, count: int
) -> tuple[Int[np.ndarray, 'K'], Float[np.ndarray, 'K']]:
  """`count` centres from `start` on, and the radius after each of them.

  Args:
    distances_to: row i -> (n,) distances of all rows to it.
    start: the first centre.
    count: number of centres, at most n.

  Returns:
    (centres, radii). A centre is never taken twice, even if all other rows
    are copies of centres.
  """
  centres, radii = np.empty(count, np.intp), np.empty(count)
  chosen = start
  gap = np.inf
  for step in range(count):
    centres[step] = chosen
    # Centres get -1, below copies of them, which are at 0.
    gap = np.minimum(gap, distances_to(chosen))
    gap[chosen] = -1
    chosen = int(gap.argmax())
    radii[step] = max(gap[chosen], 0)
  return centres, radii


def central(x: Float[np.ndarray, 'n D'], norm: str) -> int:
  """The row nearest to the mean."""
  mean = x.mean(0, dtype=np.float64)
  return int(distances.exact(x, mean[None], norm=norm)[:, 0].argmin())


def _one_class(x, count, norm):
  distances_to = lambda i: distances.exact(x[[i]], x, norm=norm)[0]
  return farthest_first(distances_to, central(x, norm), count)[0]
