"""A dataset as the methods see it: split, transformed, with encoded labels."""
import dataclasses
import functools
from typing import NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks, data as data_lib
from dsr.runs import contents
from dsr.types import Dataset, Examples

_VALIDATION = 5000  # At most so many validation examples.


class Problem(NamedTuple):
  """The data as solvers see them: transformed, with encoded labels."""

  train: Dataset
  test: Dataset
  validation: Dataset
  transform: data_lib.Transform
  start: Dataset  # The random subset: init, and the baseline.
  start_rows: np.ndarray  # Of `start` in `train`.
  unused: Dataset  # Training images that no part has, with `max_train`.
  rows: np.ndarray  # Of `train` in the training set as loaded.
  unused_rows: np.ndarray  # Of `unused` there.

  def inputs(self, dataset: Dataset) -> jax.Array:
    """`dataset.x` after the transform, on the device."""
    return jnp.asarray(data_lib.map_host(self.transform.apply, dataset.x))

  def examples(self, dataset: Dataset) -> Examples:
    """Inputs and encoded targets."""
    return Examples(self.inputs(dataset), encoded(dataset))


def refuse_tables(flag: str, value: str, problem: Problem) -> None:
  """Raises a ValueError if `flag` is of images, and the data are a table."""
  if problem.train.x.ndim == 2:
    raise ValueError(f'`{flag}` must leave tables (N, D) as they are: it moves '
                     f'pixels of images; got {value}.')


def encoded(dataset: Dataset) -> jax.Array:
  """The targets of `dataset`: +-1 for two classes, else one-hot less 1/C."""
  style = 'sign' if dataset.num_classes == 2 else 'centred'
  return data_lib.encode(dataset.y, dataset.num_classes, style=style)


def class_sizes(images_per_class: int | str) -> int | tuple[int, ...]:
  """Images of each class: one number for all, or of '3:1:2' one a class.

  Raises:
    ValueError: a part that is no positive integer.
  """
  if not isinstance(images_per_class, str):
    checks.at_least('images_per_class', images_per_class, 1)
    return images_per_class
  sizes = images_per_class.split(':')
  if not all(size.isdecimal() and int(size) for size in sizes):
    raise ValueError('`images_per_class` must be a positive integer, or one '
                     f'for each class as in 3:1:2, got {images_per_class!r}.')
  return tuple(map(int, sizes)) if len(sizes) > 1 else int(sizes[0])


def missing_classes(y: np.ndarray, dataset: Dataset) -> str:
  """The classes of `dataset` that `y` lacks, with commas; '' for none."""
  return ', '.join(map(dataset.called, np.setdiff1d(
      np.arange(dataset.num_classes), y)))


def prepare(
    dataset: str, *, data_dir: str | None, transform: str,
    images_per_class: int | str, max_train: int, validation: float, seed: int
) -> Problem:
  """Loads and splits a dataset, fits the transform, draws the start.

  Args:
    dataset: for `data.load`.
    data_dir: for `data.load`.
    transform: for `data.transforms.by_name`; fitted to the training set.
    images_per_class: of the start; see `class_sizes`.
    max_train: examples kept of the training set, balanced; 0 means all.
    validation: share of these held out, at most 5000 examples.
    seed: of all that is drawn.

  Returns:
    The same object for the same arguments and contents, of the last few.
  """
  state = contents.state(dataset)
  return _prepare(dataset, data_dir, transform, images_per_class, max_train,
                  validation, seed, state)


@functools.lru_cache(maxsize=4)
def _prepare(dataset, data_dir, transform, images_per_class, max_train,
             validation, seed, state) -> Problem:
  del state  # A file may change: part of the key.
  with checks.renamed(name='dataset'):
    splits = data_lib.load(dataset, data_dir=data_dir, seed=seed)
  key_limit, key_split, key_start = jax.random.split(jax.random.key(seed), 3)
  rest, used = splits.train, np.ones(len(splits.train), bool)
  kept = np.arange(len(rest))
  if max_train:
    classes = rest.num_classes
    most = classes * int(np.bincount(rest.y, minlength=classes).min())
    if not classes <= max_train < most + classes:
      raise ValueError(
          f'`max_train` must be 0 or from {classes} to {most}, as many of each '
          f'of {classes} classes, got {max_train}.')
    rows = data_lib.balanced_rows(
        key_limit, rest.y, max_train // rest.num_classes, rest.num_classes)
    used[:] = False
    used[rows] = True
    rest, kept = rest.take(rows), rows
  size = min(_VALIDATION, round(validation * len(rest)))
  held_out = rest.take(np.arange(0))
  if size:  # For every method, so that all start from the same images.
    numbered = dataclasses.replace(rest, x=kept)
    rest, held_out = data_lib.split(key_split, rest, size)
    kept = data_lib.split(key_split, numbered, size)[0].x
  with checks.renamed(per_class='images_per_class'):
    rows = data_lib.balanced_rows(
        key_start, rest.y, class_sizes(images_per_class), rest.num_classes)
  fitted = data_lib.transforms.by_name(transform, rest.x)
  if gaps := missing_classes(splits.test.y, rest):
    logging.warning('%s has no test images of classes %s: nothing that is '
                    'measured tells of them.', dataset, gaps)
  for note in splits.train.notes:
    logging.info('%s: %s.', dataset, note)
  return Problem(rest, splits.test, held_out, fitted, rest.take(rows), rows,
                 splits.train.take(~used), kept, np.flatnonzero(~used))
