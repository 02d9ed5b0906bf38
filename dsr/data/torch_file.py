r"""Weights that PyTorch has saved, read without PyTorch and without its risks.

Such a file is a pickle, and a pickle may run any program while it is read. The
reader here knows an ordered dictionary, tensors and their storages, and refuses
all other names, as `torch.load(weights_only=True)` does. It reads the format
that PyTorch wrote before version 1.6: four pickles (a magic number, a version,
sizes of types, the dictionary), a pickle of the names of all storages, then for
each the number of its entries, 8 bytes, and those.
"""
from collections import OrderedDict
import math
import os
import pathlib
import pickle
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950a86a20f9469cfc6c
_VERSION = 1001
_STORAGES = {'HalfStorage': '<f2', 'FloatStorage': '<f4',
             'DoubleStorage': '<f8', 'IntStorage': '<i4', 'LongStorage': '<i8'}
_BROKEN = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError,
           AttributeError, OverflowError, RecursionError, MemoryError,
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


def read_weights(
    name: str, path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The tensors of a state dictionary that `torch.save` wrote.

  Args:
    name: of the argument or flag that gave the path, for the message.
    path: of the file; `~` is the home folder.

  Returns:
    Their names -> arrays of the dtype and shape that they were saved with.

  Raises:
    ValueError: no such file, another format, one that is broken, or one that
      holds anything but tensors by name. The message names the file.
  """
  path = pathlib.Path(path).expanduser()
  try:
    with open(path, 'rb') as file:
      return _read(file)
  except _BROKEN as error:
    raise ValueError(f'`{name}` must be a file of weights by torch.save in the '
                     f'format before PyTorch 1.6, {path} is not: '
                     f'{error or type(error).__name__}.') from error


def _read(file) -> dict[str, np.ndarray]:
  if file.read(2) != b'\x80\x02':
    raise ValueError('it does not start with a pickle')
  file.seek(0)
  header = [_Unpickler(file).load() for _ in range(3)]
  if header[:2] != [_MAGIC, _VERSION] or not header[2]['little_endian']:
    raise ValueError('its header is another one')
  tensors = _Unpickler(file).load()
  if not isinstance(tensors, dict):
    raise ValueError('it holds no dictionary')
  for key, tensor in tensors.items():
    if not isinstance(key, str) or not isinstance(tensor, _Tensor):
      raise ValueError(f'its entry {key!r} is no tensor')
  storages = {t.storage.name: t.storage for t in tensors.values()}
  arrays = {key: _entries(file, storages[key])
            for key in _Unpickler(file).load()}
  return {key: _view(tensor, arrays) for key, tensor in tensors.items()}


def _entries(file, storage) -> np.ndarray:
  size = int.from_bytes(file.read(8), 'little')
  dtype = np.dtype(storage.dtype)
  if size != storage.size:
    raise ValueError(f'a storage has {size} entries, not {storage.size}')
  data = file.read(size * dtype.itemsize)  # No more than what is there.
  return np.frombuffer(data, dtype, size)


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


class _Unpickler(pickle.Unpickler):
  """Knows a few names, of which none runs anything."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('collections', 'OrderedDict'):
      return OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _tensor
    if module == 'torch' and name in _STORAGES:
      return _STORAGES[name]
    raise pickle.UnpicklingError(f'it asks for {module}.{name}, which is no '
                                 'part of weights')

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, name, _, size = pid[:5]
    if kind != 'storage' or dtype not in _STORAGES.values():
      raise pickle.UnpicklingError('it points to something outside')
    return _Storage(dtype, name, size)
