"""Datasets by name: digits, TFDS sets, files and folders, and tasks of them.

A name is one of `known()`, a path ending in '.npz', or a folder of pictures by
class (`dsr.data.folders`), and may carry a choice of classes: 'mnist[3,8]' or
'cifar10[0:5]' (classes 0 to 4), relabelled 0, 1... Where classes have names it
is of these: 'pictures[cat,dog]'. Pixels are float32 in [0, 1]; eight-bit ones
are exactly uint8 / 255.
"""
from collections.abc import Callable
import dataclasses
import functools
import math
import os
import pathlib
import re
from typing import NamedTuple

import jax
import numpy as np

from dsr import checks
from dsr.data import (
  arrays as arrays_lib,
  classes as classes_lib,
  files,
  folders,
  prepared,
  tasks,
)
from dsr.data.arrays import Splits
from dsr.types import Dataset

_ARRAYS = ('x_train', 'y_train', 'x_test', 'y_test')
_DIGITS_TEST_FRACTION = 0.2
_MOST_CLASSES = 100_000  # Beyond any dataset.


class Source(NamedTuple):
  """A line of the table.

  Attributes:
    load: (*, data_dir, cache_dir, seed) -> `Splits`, all three as of `load`.
    help: in a line.
  """

  load: Callable[..., Splits]
  help: str


def known() -> tuple[str, ...]:
  """The names that `load` takes, besides paths and choices of classes."""
  return (*SOURCES, *tasks.BINARY)


def describe() -> str:
  """The datasets, a line each, for `--help`."""
  lines = [f'{name}: {source.help}' for name, source in SOURCES.items()]
  return 'datasets: ' + '; '.join(lines) + (
      f'; tasks of two classes: {", ".join(tasks.BINARY)}; or an .npz file, or '
      'a folder of pictures, with a folder for each class')


def load(
    name: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
) -> Splits:
  """Loads the training and test part of a dataset or task.

  TFDS sets are decoded once and kept as `.npz` in the cache folder, so that
  later loads need no TensorFlow. The cache key holds the TFDS folder and the
  state of what is prepared there: another folder, or other data in the same
  one, is decoded anew.

  Args:
    name: one of `known()`, or the path of an `.npz` file with the arrays
      x_train, x_test, images (N, H, W) or (N, H, W, C), uint8 or float in
      [0, 1], or tables (N, D) of any numbers, and y_train, y_test, (N,)
      integers or texts, perhaps `classes`, (C,) names of the integers from 0
      on; or the path of a folder of pictures, perhaps with a size as in
      'pictures@32'. Any may be followed by classes in brackets.
    data_dir: TFDS folder that holds the prepared set; nothing is downloaded
      to it. By default $TFDS_DATA_DIR or ~/tensorflow_datasets, where a missing
      set is downloaded.
    seed: decides the split of 'digits', and of folders without test pictures,
      which have none of their own: a stratified 20 % is the test set. The
      other sources ignore it.
    cache_dir: folder for decoded TFDS sets; by default $DSR_CACHE_DIR or
      ~/.cache/dsr.

  Returns:
    `Splits(train, test)`.

  Raises:
    ValueError: unknown name (lists the known ones), bad choice of classes,
      TFDS data that is missing (says how to get it), malformed `.npz`, folder
      or picture.
    ImportError: first load of a TFDS set without TensorFlow; the message names
      the extra that has it.
  """
  checks.at_least('seed', seed, 0)
  name = os.fspath(name)
  base, chosen = parse(name)
  if base in tasks.BINARY:
    source, positive = tasks.BINARY[base]
    splits = load(source, data_dir=data_dir, cache_dir=cache_dir)
    splits = Splits(*(tasks.binary(s, positive, base) for s in splits))
  elif base.endswith('.npz'):
    splits = _load_npz(base)
  elif base in SOURCES:
    splits = SOURCES[base].load(
        data_dir=data_dir, cache_dir=cache_dir, seed=seed)
  elif folders.is_folder(base):
    splits = folders.load('name', base, seed=seed)
  else:
    raise ValueError(
        f'`name` must be one of {", ".join(known())}, any of these with '
        "classes as in 'mnist[3,8]', or the path of an .npz file or of a "
        f'folder of pictures; got {name!r}.')
  if chosen is not None:
    if splits.train.classes:
      parts = np.array([part.strip() for part in chosen.split(',')])
      classes = classes_lib.look_up(
          'name', parts, splits.train.classes).tolist()
    else:
      classes = _numbers(name, chosen)
    splits = Splits(*(tasks.subset_classes(s, classes, name=name)
                      for s in splits))
  return splits


def input_size(name: str | os.PathLike) -> int | None:
  """D, the numbers in one input of a dataset that need not be there.

  Args:
    name: as of `load`.

  Returns:
    None for a name that `load` does not know or a file that is missing.

  Raises:
    ValueError: bad choice of classes, malformed `.npz`.
  """
  base, _ = parse(name)
  base = tasks.BINARY.get(base, (base,))[0]
  if base not in SOURCES and folders.is_folder(base):
    return math.prod(folders.load('name', base).train.x.shape[1:])
  if base.endswith('.npz'):
    if not pathlib.Path(os.path.expanduser(base)).exists():
      return None
    found = files.read_npz('name', base, only=('x_train',))
    shape = found['x_train'].shape[1:] if found else ()
  else:
    shape = ({'digits': (8, 8, 1)} | prepared.SHAPES).get(base, ())
  return math.prod(shape) if shape else None


def parse(name: str | os.PathLike) -> tuple[str, str | None]:
  """'mnist[3,5:8]' -> ('mnist', '3,5:8'); None: no classes were chosen."""
  match = re.fullmatch(r'(.+)\[([^\[\]]*)\]', os.fspath(name))
  return (os.fspath(name), None) if match is None else (match[1], match[2])


def _numbers(name, chosen) -> list[int]:
  """'3,5:8' -> [3, 5, 6, 7]."""
  classes = []
  for part in chosen.split(','):
    bounds = re.fullmatch(r'\s*(\d+)\s*(?::\s*(\d+)\s*)?', part)
    if bounds is None:
      raise ValueError(
          "`name` must choose classes as in 'mnist[3,8]' or 'mnist[0:5]', "
          f'got {name!r}.')
    first = int(bounds[1])
    last = int(bounds[2]) if bounds[2] else first + 1
    if max(first, last) > _MOST_CLASSES:
      raise ValueError(f'`name` must choose classes below {_MOST_CLASSES}, got '
                       f'{name!r}.')
    classes += range(first, last)
  return classes


def _load_digits(*, data_dir, cache_dir, seed):
  import sklearn.datasets

  del data_dir, cache_dir  # It comes with scikit-learn.
  raw = sklearn.datasets.load_digits()
  x = (raw.images[..., None] / 16).astype(np.float32)  # 17 grey levels: exact.
  whole = Dataset(x, raw.target.astype(np.int32), 10, 'digits')
  return Splits(
      *tasks.split(jax.random.key(seed), whole, _DIGITS_TEST_FRACTION))


def _load_npz(path):
  found = files.read_npz('name', path, only=(*_ARRAYS, 'classes'))
  missing = [name for name in _ARRAYS if name not in found]
  if missing:
    raise ValueError(
        f'`name` must be a file with the arrays {", ".join(_ARRAYS)}; '
        f'{path!r} lacks {", ".join(missing)}.')
  x_train, y_train, x_test, y_test = (found[name] for name in _ARRAYS)
  x_train, x_test = (arrays_lib.pixels(name, x) for name, x in (
      ('x_train', x_train), ('x_test', x_test)))
  checks.inputs('x_test', x_test, like=x_train)
  checks.same_rows(x_train=x_train, y_train=y_train)
  checks.same_rows(x_test=x_test, y_test=y_test)
  names = tuple(map(str, found.get('classes', np.array([])).tolist()))
  notes, ys = (), {'y_train': y_train, 'y_test': y_test}
  if not names:
    y_train, names = classes_lib.number('y_train', y_train)
    ys = {'y_test': y_test}
    notes = (classes_lib.note(names),) if names else ()
  for name, y in ys.items():
    if y.dtype.kind in 'SU' or notes:
      ys[name] = classes_lib.look_up(name, y, names)
  y_train, y_test = ys.get('y_train', y_train), ys['y_test']
  num_classes = len(names) or int(y_train.max()) + 1
  for name, y in (('y_train', y_train), ('y_test', y_test)):
    checks.labels(name, y, num_classes)
  if empty := np.setdiff1d(np.arange(num_classes), y_train).tolist():
    raise ValueError(
        f'`y_train` must have every class from 0 to {num_classes - 1}, '
        f'got no example of class {empty[0]}.')
  if len(set(names)) < len(names):
    raise ValueError('`classes` must name each class once, got '
                     f'{classes_lib.listed(names)}.')
  return Splits(*(dataclasses.replace(part, classes=names, notes=notes)
                  for part in arrays_lib.splits(
                      [x_train, y_train, x_test, y_test], num_classes, path)))


def _load_tfds(name, *, data_dir, cache_dir, seed):
  del seed  # These sets have a test set of their own.
  return prepared.load(name, data_dir, cache_dir)


SOURCES: dict[str, Source] = {
    'digits': Source(_load_digits, '1,797 digits of 8 x 8 pixels, embedded'),
    **{name: Source(functools.partial(_load_tfds, name),
                    f'of TensorFlow Datasets, {classes} classes')
       for name, classes in prepared.NUM_CLASSES.items()},
}
