"""Tasks as views of a dataset: classes, two-way splits, balanced subsets.

Everything here works on the host and leaves its input as it is. Random draws
take a jax key, so one key discipline holds in the whole library; what is drawn
does not depend on the device or on x64.
"""
from collections.abc import Collection, Sequence
import dataclasses

import jax
from jaxtyping import Array, Int, Key
import numpy as np

from dsr import checks
from dsr.types import Dataset

# Name -> (dataset, its classes that become class 1). The same rule makes the
# training and the test labels.
BINARY = {
    'mnist_odd_even': ('mnist', (1, 3, 5, 7, 9)),
    'cifar10_animal_vehicle': ('cifar10', (0, 1, 8, 9)),
}


def subset_classes(
    dataset: Dataset, classes: Sequence[int], *, name: str | None = None
) -> Dataset:
  """The examples of `classes`, relabelled 0..k-1 in the order of `classes`.

  Args:
    dataset: what to select from; the order of its rows is kept.
    classes: two or more different class indices of `dataset`.
    name: of the result; by default as in 'mnist[3,8]'.

  Raises:
    ValueError: a class is unknown, named twice or has no example, or there
      are fewer than two.
  """
  classes = _classes('classes', classes, dataset)
  if len(classes) < 2:
    raise ValueError(f'`classes` must name two or more, got {classes}.')
  relabel = np.full(dataset.num_classes, -1, np.int32)
  relabel[classes] = np.arange(len(classes))
  y = relabel[dataset.y]
  rows = np.flatnonzero(y >= 0)
  if name is None:
    name = f'{dataset.name}[{",".join(map(str, classes))}]'
  called = tuple(dataset.classes[c] for c in classes if dataset.classes)
  return Dataset(dataset.x[rows], y[rows], len(classes), name, called,
                 dataset.notes)


def binary(
    dataset: Dataset, positive_classes: Collection[int], name: str) -> Dataset:
  """All examples; class 1 is `positive_classes`, class 0 is all the others.

  Raises:
    ValueError: a positive class is unknown, named twice or has no example, or
      no example is left for class 0.
  """
  positive = _classes('positive_classes', positive_classes, dataset)
  y = np.isin(dataset.y, positive).astype(np.int32)
  if not positive or y.all():
    raise ValueError(
        '`positive_classes` must be some of the classes but not all, '
        f'got {positive} of {dataset.num_classes}.')
  return dataclasses.replace(
      dataset, y=y, num_classes=2, name=name, classes=())


def balanced_rows(
    key: Key[Array, ''],
    y: Int[Array | np.ndarray, 'N'],
    per_class: int | Sequence[int],
    num_classes: int,
) -> Int[np.ndarray, 'R']:
  """`per_class` random rows of every class, class after class.

  Each example draws its own score and the lowest of a class are taken, so the
  choices in two classes are independent (one key used again for every class
  would pick related positions). For one key, the rows of a smaller
  `per_class` are among those of a larger one.

  Args:
    key: decides the draw.
    y: (N,) labels in [0, num_classes).
    per_class: rows of each class, 1 or more, without replacement; of a sequence
      class c gets `per_class[c]`.
    num_classes: classes 0..num_classes-1 must all have enough rows.

  Returns:
    Row indices, R the sum over classes.

  Raises:
    ValueError: a class has fewer rows than asked; it is named with its count.
      A sequence without a number for each class.
  """
  checks.at_least('num_classes', num_classes, 1)
  sizes = checks.one_each('per_class', per_class, num_classes)
  checks.labels('y', y, num_classes)
  counts = np.bincount(y, minlength=num_classes)
  if (counts < sizes).any():
    scarce = int((counts - sizes).argmin())
    raise ValueError(
        f'`per_class` must be at most the size of each class, got '
        f'{sizes[scarce]} but class {scarce} has {counts[scarce]} examples.')
  order = _shuffled_by_class(key, y)
  starts = np.cumsum(counts) - counts
  return np.concatenate([order[s:s + n] for s, n in zip(starts, sizes)])


def balanced_subset(
    key: Key[Array, ''], dataset: Dataset, per_class: int) -> Dataset:
  """`per_class` random examples of every class, as `balanced_rows` has them.

  Raises:
    ValueError: a class has fewer examples than asked.
  """
  return dataset.take(
      balanced_rows(key, dataset.y, per_class, dataset.num_classes))


def split(
    key: Key[Array, ''], dataset: Dataset, fraction_or_count: float | int
) -> tuple[Dataset, Dataset]:
  """Splits off a random part that keeps the shares of the classes.

  Class c gives N_c n / N examples to the part of size n, rounded such that the
  sum is exactly n (largest remainders).

  Args:
    key: decides the draw.
    dataset: what to split; both parts keep the order of its rows.
    fraction_or_count: size of the part split off: a float in (0, 1) is a share
      of the whole, an integer a number of examples.

  Returns:
    (rest, part): for example (training, validation).

  Raises:
    ValueError: the part would be empty or leave nothing, or would take all
      examples of some class.
  """
  total = len(dataset)
  if isinstance(fraction_or_count, float):
    checks.within('fraction_or_count', fraction_or_count, 0.0, 1.0)
    size = round(fraction_or_count * total)
  else:
    checks.at_least('fraction_or_count', fraction_or_count, 1)
    size = fraction_or_count
  if not 0 < size < total:
    raise ValueError(
        '`fraction_or_count` must leave examples on both sides, got '
        f'{fraction_or_count!r}, which is {size} of {total}.')
  counts = np.bincount(dataset.y, minlength=dataset.num_classes)
  quota, remainder = np.divmod(counts * size, total)
  largest = np.argsort(-remainder, kind='stable')
  quota[largest[:size - quota.sum()]] += 1
  emptied = np.flatnonzero((quota == counts) & (counts > 0))
  if emptied.size:
    c = int(emptied[0])
    raise ValueError(
        f'`fraction_or_count` = {fraction_or_count!r} would take all '
        f'{counts[c]} examples of class {c}; ask for less.')
  order = _shuffled_by_class(key, dataset.y)
  starts = np.cumsum(counts) - counts
  part = np.zeros(total, bool)
  for start, n in zip(starts, quota):
    part[order[start:start + n]] = True
  return dataset.take(~part), dataset.take(part)


def _shuffled_by_class(key, y):
  """Row indices by class, in random order within each class."""
  scores = np.asarray(jax.random.bits(key, (len(y),), 'uint32'))
  return np.lexsort((scores, y))


def _classes(argument, classes, dataset) -> list[int]:
  """`classes` as a list of distinct classes that have examples."""
  classes = list(classes)
  checks.labels(argument, np.array(classes or [0]), dataset.num_classes)
  if len(set(classes)) < len(classes):
    raise ValueError(f'`{argument}` must not repeat, got {classes}.')
  empty = [int(c) for c in classes if not (dataset.y == c).any()]
  if empty:
    raise ValueError(
        f'`{argument}` names classes without examples: {empty} '
        f'in {dataset.name!r}.')
  return [int(c) for c in classes]
