"""Datasets by name: digits, TFDS sets, `.npz` files, and tasks made of them.

A name is one of `known()` or a path ending in '.npz', and may carry a choice
of classes: 'mnist[3,8]' or 'cifar10[0:5]' (classes 0 to 4), relabelled 0, 1...
Pixels are float32 in [0, 1]; eight-bit ones are exactly uint8 / 255.
"""
import contextlib
import hashlib
import os
import pathlib
import re
import tempfile
from typing import NamedTuple
import zipfile

import jax
import numpy as np

from dsr import checks
from dsr.data import tasks
from dsr.types import Dataset

# Read through TensorFlow Datasets; name -> number of classes.
_TFDS = {'mnist': 10, 'fashion_mnist': 10, 'cifar10': 10, 'cifar100': 100,
         'svhn_cropped': 10}
_ARRAYS = ('x_train', 'y_train', 'x_test', 'y_test')
_DIGITS_TEST_FRACTION = 0.2


class Splits(NamedTuple):
  """A dataset's training and test parts."""

  train: Dataset
  test: Dataset


def known() -> tuple[str, ...]:
  """The names that `load` takes, besides paths and choices of classes."""
  return ('digits', *_TFDS, *tasks.BINARY)


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
      x_train, x_test, (N, H, W) or (N, H, W, C), uint8 or float in [0, 1], and
      y_train, y_test, (N,) integers from 0 on. Either may be followed by
      classes in brackets.
    data_dir: TFDS folder that holds the prepared set; nothing is downloaded
      to it. By default $TFDS_DATA_DIR or ~/tensorflow_datasets, where a missing
      set is downloaded.
    seed: decides the split of 'digits', which has none of its own: a
      stratified 20 % is the test set. The other sources ignore it.
    cache_dir: folder for decoded TFDS sets; by default $DSR_CACHE_DIR or
      ~/.cache/dsr.

  Returns:
    `Splits(train, test)`.

  Raises:
    ValueError: unknown name (lists the known ones), bad choice of classes,
      TFDS data that is missing (says how to get it), malformed `.npz`.
    ImportError: first load of a TFDS set without TensorFlow; the message names
      the extra that has it.
  """
  checks.at_least('seed', seed, 0)
  name = os.fspath(name)
  base, classes = _parse(name)
  if base in tasks.BINARY:
    source, positive = tasks.BINARY[base]
    splits = load(source, data_dir=data_dir, cache_dir=cache_dir)
    splits = Splits(*(tasks.binary(s, positive, base) for s in splits))
  elif base.endswith('.npz'):
    splits = _load_npz(pathlib.Path(base).expanduser())
  elif base == 'digits':
    splits = _load_digits(seed)
  elif base in _TFDS:
    splits = _load_tfds(base, data_dir, cache_dir)
  else:
    raise ValueError(
        f'`name` must be one of {", ".join(known())}, any of these with '
        "classes as in 'mnist[3,8]', or the path of an .npz file; "
        f'got {name!r}.')
  if classes is not None:
    splits = Splits(*(tasks.subset_classes(s, classes, name=name)
                      for s in splits))
  return splits


def _parse(name):
  """'mnist[3,5:8]' -> ('mnist', [3, 5, 6, 7]); None: not given."""
  match = re.fullmatch(r'(.+)\[([^\[\]]*)\]', name)
  if match is None:
    return name, None
  classes = []
  for part in match[2].split(','):
    bounds = re.fullmatch(r'\s*(\d+)\s*(?::\s*(\d+)\s*)?', part)
    if bounds is None:
      raise ValueError(
          "`name` must choose classes as in 'mnist[3,8]' or 'mnist[0:5]', "
          f'got {name!r}.')
    first = int(bounds[1])
    classes += range(first, int(bounds[2]) if bounds[2] else first + 1)
  return match[1], classes


def _load_digits(seed):
  import sklearn.datasets

  raw = sklearn.datasets.load_digits()
  x = (raw.images[..., None] / 16).astype(np.float32)  # 17 grey levels: exact.
  whole = Dataset(x, raw.target.astype(np.int32), 10, 'digits')
  return Splits(
      *tasks.split(jax.random.key(seed), whole, _DIGITS_TEST_FRACTION))


def _load_npz(path):
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in _ARRAYS if name in file}
  except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
    raise ValueError(f'`name` must be a readable .npz file: {error}') from error
  missing = [name for name in _ARRAYS if name not in arrays]
  if missing:
    raise ValueError(
        f'`name` must be a file with the arrays {", ".join(_ARRAYS)}; '
        f'{str(path)!r} lacks {", ".join(missing)}.')
  x_train, y_train, x_test, y_test = arrays.values()
  x_train, x_test = _pixels('x_train', x_train), _pixels('x_test', x_test)
  checks.images('x_test', x_test, shape=x_train.shape[1:])
  for name, y in (('y_train', y_train), ('y_test', y_test)):
    checks.labels(name, y, np.iinfo(np.int32).max)
  checks.same_rows(x_train=x_train, y_train=y_train)
  checks.same_rows(x_test=x_test, y_test=y_test)
  present = np.unique(y_train)
  num_classes = len(present)
  if present[-1] != num_classes - 1:
    empty = int(np.argmax(present != np.arange(num_classes)))
    raise ValueError(
        f'`y_train` must have every class from 0 to {present[-1]}, '
        f'got no example of class {empty}.')
  checks.labels('y_test', y_test, num_classes)
  return _splits([x_train, y_train, x_test, y_test], num_classes, str(path))


def _load_tfds(name, data_dir, cache_dir):
  folder = pathlib.Path(
      data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  ).expanduser().resolve()
  if not _prepared(folder, name):
    if data_dir is not None:
      raise ValueError(
          f'`data_dir` must hold the prepared set {name!r}, but there is no '
          f'{folder / name}/<version>/dataset_info.json. {_advice(name)}')
    _download(name, folder)
  cache = pathlib.Path(
      cache_dir or os.environ.get('DSR_CACHE_DIR') or '~/.cache/dsr'
  ).expanduser()
  path = cache / f'{name}-{_fingerprint(folder, name)}.npz'
  if path.exists():
    with np.load(path, allow_pickle=False) as file:
      arrays = [file[array] for array in _ARRAYS]
  else:
    arrays = _decode_tfds(name, folder)
    _save(path, dict(zip(_ARRAYS, arrays)))
  arrays[0], arrays[2] = (_pixels('x', x) for x in (arrays[0], arrays[2]))
  return _splits(arrays, _TFDS[name], name)


def _prepared(folder, name):
  """TFDS writes this file last, so it marks a version that is complete."""
  return sorted((folder / name).glob('*/dataset_info.json'))


def _fingerprint(folder, name):
  """Changes with the folder and with what was prepared in it."""
  infos = [(str(p), p.stat().st_size, p.stat().st_mtime_ns)
           for p in _prepared(folder, name)]
  return hashlib.sha256(repr((str(folder), infos)).encode()).hexdigest()[:12]


def _decode_tfds(name, folder):
  """The four arrays as TFDS stores them: uint8 images, integer labels."""
  tfds = _import_tfds()
  arrays = []
  for part in ('train', 'test'):
    arrays += tfds.as_numpy(tfds.load(
        name, split=part, data_dir=str(folder), download=False, batch_size=-1,
        as_supervised=True, shuffle_files=False))
  return arrays


def _download(name, folder):
  tfds = _import_tfds()
  try:
    tfds.builder(name, data_dir=str(folder)).download_and_prepare()
  except Exception as error:  # TFDS, HTTP and disk errors have no common base.
    raise ValueError(
        f'{name!r} is not in {folder} and could not be downloaded '
        f'({error}). {_advice(name)}') from error


def _import_tfds():
  try:
    import tensorflow as tf
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ImportError(
        'The first load of a TFDS set (mnist, cifar10, ...) needs TensorFlow '
        'and TensorFlow Datasets, which the extra `datasets` has: '
        "pip install -e '.[datasets]'. `digits` and .npz files need neither."
    ) from error
  # Refused only if TensorFlow runs already; then its share is taken anyway.
  with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], 'GPU')
  return tfds


def _advice(name):
  return (
      'To get it, run `python -c "import tensorflow_datasets as tfds; '
      f'tfds.load(\'{name}\', data_dir=\'FOLDER\')"` where there is a network '
      "and `pip install -e '.[datasets]'` was run, and give that folder as "
      '`data_dir`.')


def _save(path, arrays):
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, suffix='.tmp')
  try:
    with os.fdopen(handle, 'wb') as file:
      np.savez(file, **arrays)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def _pixels(name, x):
  """Images as (N, H, W, C) float32 in [0, 1], checked."""
  if x.ndim == 3:
    x = x[..., None]
  if x.dtype == np.uint8:
    x = x.astype(np.float32)
    x /= np.float32(255)
    checks.images(name, x)
    return x
  if not np.issubdtype(x.dtype, np.floating):
    raise ValueError(
        f'`{name}` must be uint8, or float in [0, 1], got {x.dtype}.')
  checks.images(name, x)
  checks.finite(name, x)
  if x.min() < 0 or x.max() > 1:
    raise ValueError(
        f'`{name}` must be uint8, or float in [0, 1], '
        f'got {x.dtype} from {x.min():.4g} to {x.max():.4g}.')
  return x.astype(np.float32)


def _splits(arrays, num_classes, name):
  x_train, y_train, x_test, y_test = arrays
  return Splits(
      Dataset(x_train, y_train.astype(np.int32), num_classes, name),
      Dataset(x_test, y_test.astype(np.int32), num_classes, name))
