"""Datasets that TensorFlow Datasets has prepared, read once and then cached."""
import contextlib
import hashlib
import os
import pathlib
import socket
import urllib.request

from dsr.data import files
from dsr.data.arrays import Splits, pixels, splits

NUM_CLASSES = {'mnist': 10, 'fashion_mnist': 10, 'cifar10': 10, 'cifar100': 100,
               'svhn_cropped': 10}
SHAPES = {'mnist': (28, 28, 1), 'fashion_mnist': (28, 28, 1),
          'cifar10': (32, 32, 3), 'cifar100': (32, 32, 3),
          'svhn_cropped': (32, 32, 3)}  # Of an image.
_ARRAYS = ('x_train', 'y_train', 'x_test', 'y_test')
_HOST = ('storage.googleapis.com', 443)  # Of TFDS.
_PATIENCE = 5.0  # Seconds for its answer.


def load(name: str, data_dir, cache_dir) -> Splits:
  """One of `NUM_CLASSES`, decoded once and then kept as an `.npz`.

  Args:
    name: of the set.
    data_dir: TFDS folder, or None: see `dsr.data.load`.
    cache_dir: of what was decoded, or None.

  Raises:
    ValueError: the set is not there, or cannot be downloaded.
    ImportError: it was never decoded, and TensorFlow is not installed.
  """
  folder = data_dir or os.environ.get('TFDS_DATA_DIR')
  folder = pathlib.Path(os.path.expanduser(
      folder or '~/tensorflow_datasets')).resolve()
  if not _prepared(folder, name):
    if data_dir is not None:
      raise ValueError(
          f'`data_dir` must hold the prepared set {name!r}, but there is no '
          f'{folder / name}/<version>/dataset_info.json. {_advice(name)}')
    _download(name, folder)
  cache = pathlib.Path(os.path.expanduser(
      cache_dir or os.environ.get('DSR_CACHE_DIR') or '~/.cache/dsr'))
  path = cache / f'{name}-{_fingerprint(folder, name)}.npz'
  if path.exists():
    found = files.read_npz('cache_dir', path)
    arrays = [found[array] for array in _ARRAYS]
  else:
    arrays = _decode_tfds(name, folder)
    files.write_npz(path, dict(zip(_ARRAYS, arrays)))
  arrays[0], arrays[2] = (pixels('x', x) for x in (arrays[0], arrays[2]))
  return splits(arrays, NUM_CLASSES[name], name)


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
  if not _reachable():  # TFDS tries for minutes before it says so.
    raise ValueError(f'{name!r} is not in {folder}, and there is no network to '
                     f'download it. {_advice(name)}')
  tfds = _import_tfds()
  try:
    tfds.builder(name, data_dir=str(folder)).download_and_prepare()
  except Exception as error:  # TFDS, HTTP and disk errors have no common base.
    raise ValueError(
        f'{name!r} is not in {folder} and could not be downloaded '
        f'({error}). {_advice(name)}') from error


def _reachable() -> bool:
  """Whether the host that TFDS asks first answers within seconds."""
  if urllib.request.getproxies().get('https'):
    return True  # The proxy will say.
  try:
    socket.create_connection(_HOST, timeout=_PATIENCE).close()
  except OSError:
    return False
  return True


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
