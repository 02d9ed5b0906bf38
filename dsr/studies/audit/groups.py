"""Groups of images that users give: attributes in files, and their crossings.

A `.npy` has an attribute of each image, (N,) integers or texts, or two of them,
(N, 2): then a group is a pair of values, 'a & b'.
"""
from typing import Any

import numpy as np

from dsr import checks
from dsr.data import files

FEW = 20  # Images of a group below which it is marked.
_FEWEST = 2  # Below which it cannot be measured, and is left out.
FLAGS = {'groups': 'test', 'train_groups': 'training'}


def load(flag: str, path: str) -> np.ndarray:
  """The group of each image, (N,).

  Args:
    flag: that gave the path, one of `FLAGS`, for messages.
    path: of a `.npy`.

  Raises:
    ValueError: no readable .npy of one or two columns of integers or strings.
  """
  groups = files.read_npy(flag, path)
  if groups.dtype.kind not in 'iuU' or groups.ndim not in (1, 2) or (
      groups.ndim == 2 and groups.shape[1] != 2):
    raise ValueError(
        f'`{flag}` must hold integers or strings, a vector (N,) or pairs '
        f'(N, 2), got {groups.dtype} {groups.shape}.')
  if groups.ndim == 1:
    return groups
  return np.array([' & '.join(map(str, pair)) for pair in groups.tolist()])


def check(config: Any, **sizes: int) -> None:
  """Raises a ValueError for files of other images.

  Args:
    config: its flags of `FLAGS`.
    **sizes: flag -> images that it must have a value for.
  """
  for flag, size in sizes.items():
    if path := getattr(config, flag):
      if (num := len(load(flag, path))) != size:
        raise ValueError(f'`{flag}` must have a value for each of {size} '
                         f'{FLAGS[flag]} images, got {num}.')


def measurable(groups: np.ndarray) -> np.ndarray:
  """(N,) which images are in groups of two or more.

  Raises:
    ValueError: there are not two such groups.
  """
  values, index, sizes = np.unique(
      groups, return_inverse=True, return_counts=True)
  if (sizes >= _FEWEST).sum() < 2:
    raise ValueError(f'`groups` must hold two groups of {_FEWEST} images or '
                     f'more, got {dict(zip(values.tolist(), sizes.tolist()))}.')
  return (sizes >= _FEWEST)[index]


def sizes(groups: np.ndarray) -> dict[str, int]:
  """Group -> images of it."""
  return {str(name): int(n) for name, n in zip(
      *np.unique(groups, return_counts=True))}


def few(counts: dict[str, int], what: str) -> str:
  """A warning of groups whose intervals say little; '' if none is so small.

  Args:
    counts: group -> images.
    what: they are called, 'class' or 'group'.
  """
  told = [f'{name} ({num})' for name, num in counts.items() if num < FEW]
  return (f' Fewer than {FEW} test images, so that little can be said: {what} '
          f'{", ".join(told)}.' if told else '')


def of_asked(config: Any, rows: np.ndarray) -> np.ndarray | None:
  """The groups of images that were asked about membership.

  Args:
    config: its flags of `FLAGS`.
    rows: (N,) rows of the training set, or -1 less the row of the test set.

  Returns:
    (N,), or None where a file that is needed was not given.
  """
  found = np.full(len(rows), '', object)
  for flag, here in (('train_groups', rows >= 0), ('groups', rows < 0)):
    if here.any():
      if not getattr(config, flag):
        return None
      groups = load(flag, getattr(config, flag))
      place = np.where(rows < 0, -1 - rows, rows)[here]
      checks.labels(flag, place, len(groups))
      found[here] = [str(g) for g in groups[place].tolist()]
  return found.astype(str)
