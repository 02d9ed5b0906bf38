r"""Tensors that PyTorch has saved, read without PyTorch and without its risks.

Such a file is a pickle, and a pickle may run any program while it is read. The
reader here knows containers, tensors and their storages, and refuses all other
names, as `torch.load(weights_only=True)` does. It reads both formats of
`torch.save`. Before version 1.6: four pickles (a magic number, a version, sizes
of types, the object), a pickle of the names of all storages, then for each the
number of its entries, 8 bytes, and those. Since then: a ZIP archive with the
object in `NAME/data.pkl` and each storage in `NAME/data/KEY`.
"""
from collections import OrderedDict
import io
import math
import os
import pathlib
import pickle
from typing import Any, NamedTuple
import zipfile
import zlib

import numpy as np

_MAGIC = 0x1950a86a20f9469cfc6c
_VERSION = 1001
_STORAGES = {'HalfStorage': '<f2', 'FloatStorage': '<f4',
             'DoubleStorage': '<f8', 'ByteStorage': '|u1', 'CharStorage': '|i1',
             'ShortStorage': '<i2', 'IntStorage': '<i4', 'LongStorage': '<i8',
             'BoolStorage': '|b1'}
# Numbers of NumPy, as files have them beside tensors: read as nothing.
_IGNORED = {(f'numpy{core}.multiarray', 'scalar')
            for core in ('.core', '._core')} | {
                ('numpy', 'dtype'), ('_codecs', 'encode')}
_BROKEN = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError,
           AttributeError, OverflowError, RecursionError, MemoryError,
           NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile,
           pickle.UnpicklingError)


class _Storage(NamedTuple):
  """What a tensor points to: its place in the file is not known yet."""

  dtype: str
  name: str
  size: int


class _Tensor(NamedTuple):
  """A view of a storage; offset and strides count entries."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _Ignored:
  """What is no tensor and no plain container, and does not count."""

  def __init__(self, *args):
    del args

  def __setstate__(self, state):
    del state


def read_weights(
    name: str, path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The tensors of a state dictionary that `torch.save` wrote.

  Args:
    name: of the argument or flag that gave the path, for the message.
    path: of the file; `~` is the home folder.

  Returns:
    Their names -> arrays of the dtype and shape that they were saved with.

  Raises:
    ValueError: as `read`, or anything but tensors by name.
  """
  found, wrong = read(name, path), None
  if not isinstance(found, dict):
    wrong = 'it holds no dictionary'
  elif other := [key for key, value in found.items() if not (
      isinstance(key, str) and isinstance(value, np.ndarray))]:
    wrong = f'its entry {other[0]!r} is no tensor'
  if wrong:
    raise ValueError(f'`{name}` must be a file of weights by torch.save, '
                     f'{path} is not: {wrong}.')
  return found


def read(name: str, path: str | os.PathLike) -> Any:
  """What `torch.save` wrote: arrays in lists, tuples and dictionaries.

  Args:
    name: of the argument or flag that gave the path, for the message.
    path: of the file; `~` is the home folder.

  Raises:
    ValueError: no such file, another format, one that is broken, or one that
      holds anything but tensors, numbers and texts in plain containers. The
      message names the file.
  """
  path = pathlib.Path(os.path.expanduser(path))
  try:
    with open(path, 'rb') as file:
      start = file.read(2)
      file.seek(0)
      if start == b'PK':
        with zipfile.ZipFile(file) as archive:
          return _arrays(*_read_zip(archive))
      if start != b'\x80\x02':
        raise ValueError('it does not start with a pickle')
      return _arrays(*_read_old(file))
  except _BROKEN as error:
    raise ValueError(f'`{name}` must be a file of tensors by torch.save, '
                     f'{path} is not: {error or type(error).__name__}.'
                     ) from error


def _read_old(file):
  """(the object, the entries of each storage) of the older format."""
  header = [_Unpickler(file).load() for _ in range(3)]
  if header[:2] != [_MAGIC, _VERSION] or not header[2]['little_endian']:
    raise ValueError('its header is another one')
  unpickler = _Unpickler(file)
  found = unpickler.load()
  entries = {}
  for key in _Unpickler(file).load():
    storage = unpickler.storages[key]
    size = int.from_bytes(file.read(8), 'little')
    if size != storage.size:
      raise ValueError(f'a storage has {size} entries, not {storage.size}')
    # No more than what is there.
    entries[key] = _entries(storage, file.read(
        size * np.dtype(storage.dtype).itemsize))
  return found, entries


def _read_zip(archive):
  """(the object, the entries of each storage) of the newer format."""
  (pickled,) = [n for n in archive.namelist() if n.endswith('/data.pkl')]
  folder = pickled.removesuffix('data.pkl')
  if f'{folder}byteorder' in archive.namelist() and (
      archive.read(f'{folder}byteorder') != b'little'):
    raise ValueError('its bytes are in another order')
  unpickler = _Unpickler(io.BytesIO(_member(archive, pickled)))
  found = unpickler.load()
  return found, {key: _entries(storage, _member(archive, f'{folder}data/{key}'))
                 for key, storage in unpickler.storages.items()}


def _member(archive, name) -> bytes:
  info = archive.getinfo(name)
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f'{name} is compressed')
  return archive.read(info)


def _entries(storage, data: bytes) -> np.ndarray:
  return np.frombuffer(data, np.dtype(storage.dtype), storage.size)


def _arrays(found, entries) -> Any:
  """`found` with an array for each tensor, and plain containers."""
  if isinstance(found, _Tensor):
    return _view(found, entries)
  if isinstance(found, dict):
    return {key: _arrays(value, entries) for key, value in found.items()}
  if isinstance(found, (list, tuple)):
    return type(found)(_arrays(value, entries) for value in found)
  return None if isinstance(found, (_Ignored, _Storage)) else found


def _view(tensor, arrays) -> np.ndarray:
  """The entries of a tensor, row by row, after a check that they exist."""
  numbers = (tensor.offset, *tensor.shape, *tensor.strides)
  if (len(tensor.shape) != len(tensor.strides)
      or not all(isinstance(n, int) and n >= 0 for n in numbers)):
    raise ValueError(f'a tensor has shape {tensor.shape} and strides '
                     f'{tensor.strides}')
  entries = arrays[tensor.storage.name]
  last = tensor.offset + sum(
      max(0, n - 1) * s for n, s in zip(tensor.shape, tensor.strides))
  if math.prod(tensor.shape) and last >= len(entries):
    raise ValueError('a tensor is larger than its storage')
  view = np.lib.stride_tricks.as_strided(
      entries[tensor.offset:], tensor.shape,
      [s * entries.itemsize for s in tensor.strides], writeable=False)
  return view.copy()


def _tensor(storage, offset, shape, strides, *rest):
  """What PyTorch calls `_rebuild_tensor_v2`; the rest is of no account."""
  del rest
  if not isinstance(storage, _Storage):
    raise pickle.UnpicklingError('a tensor has no storage')
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor, *rest):
  """What PyTorch calls `_rebuild_parameter`: a tensor that is trained."""
  del rest
  return tensor


class _Unpickler(pickle.Unpickler):
  """Knows a few names, of which none runs anything."""

  def __init__(self, file):
    super().__init__(file)
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('collections', 'OrderedDict'):
      return OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _tensor
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return _parameter
    if (module, name) in _IGNORED:
      return _Ignored
    if module == 'torch' and name in _STORAGES:
      return _STORAGES[name]
    raise pickle.UnpicklingError(f'it asks for {module}.{name}, which is no '
                                 'part of tensors')

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, name, _, size = pid[:5]
    if kind != 'storage' or dtype not in _STORAGES.values():
      raise pickle.UnpicklingError('it points to something outside')
    self.storages[name] = _Storage(dtype, name, size)
    return self.storages[name]
