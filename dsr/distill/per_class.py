"""What every selection method shares: choose rows class by class.

Axes: N examples, D values of one, K chosen rows of a class. A method is a
function from the examples of one class, (n, D), to K positions among them.
"""
from collections.abc import Callable, Sequence

from jaxtyping import Array, Float, Int
import numpy as np

from dsr import checks


def flat(
    x: Float[Array | np.ndarray, 'N ...'],
    labels: Int[Array | np.ndarray, 'N']
) -> tuple[Float[np.ndarray, 'N D'], Int[np.ndarray, 'N']]:
  """Both on the host and checked; x as (N, D) in its own dtype.

  Raises:
    ValueError: x is not floating, not finite or empty; labels are not (N,)
      integers.
  """
  checks.inputs('x', x)
  checks.class_indices('labels', labels)
  checks.same_rows(x=x, labels=labels)
  x = np.asarray(x)
  checks.finite('x', x)
  return x.reshape(x.shape[0], -1), np.asarray(labels)


def members(labels: Int[np.ndarray, 'N']) -> dict[int, np.ndarray]:
  """Class -> its rows in increasing order; classes in increasing order."""
  return {int(c): np.flatnonzero(labels == c) for c in np.unique(labels)}


def choose(
    x: Float[Array | np.ndarray, 'N ...'],
    labels: Int[Array | np.ndarray, 'N'],
    num_per_class: int | Sequence[int],
    method: Callable) -> Int[np.ndarray, 'K']:
  """Rows that `method(x of one class (n, D), its number)` picks.

  `num_per_class` is for all classes, or a number for each that occurs.

  Returns:
    Indices into x: the classes in increasing order, within a class in the
    order of `method`.

  Raises:
    ValueError: misshapen x or labels, `num_per_class` below 1 or above the
      size of a class.
  """
  x, labels = flat(x, labels)
  rows = members(labels)
  sizes = checks.one_each('num_per_class', num_per_class, len(rows))
  for size, (c, r) in zip(sizes, rows.items()):
    if size > len(r):
      raise ValueError(
          f'`num_per_class` must be at most the size of a class, got '
          f'{size} where class {c} has {len(r)}.')
  return np.concatenate(
      [r[method(x[r], size)] for size, r in zip(sizes, rows.values())])
