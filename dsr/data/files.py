"""One reader of arrays for all files that users bring: never a pickle.

An `.npz` is a ZIP archive of `.npy` files. What a header claims is held against
what the file holds before memory is taken for it, and every way in which a file
can be broken ends in one `ValueError` that names the file.
"""
from collections.abc import Iterable, Mapping
import math
import os
import pathlib
import struct
import tempfile
from typing import Any
import zipfile
import zlib

import numpy as np

_KINDS = 'biufcSU'  # Of dtypes: numbers, booleans, texts; no objects.
_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DENSEST = 1100  # Bytes that one byte can stand for; 1032 is deflate's best.
_BROKEN = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError,
           OverflowError, SyntaxError, RecursionError, NotImplementedError,
           RuntimeError, MemoryError, struct.error, zlib.error,
           zipfile.BadZipFile)


def read_npz(
    name: str, path: str | os.PathLike, *, only: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
  """The arrays of the `.npz` file at `path`.

  Args:
    name: of the argument or flag that gave the path, for the message.
    path: of the file; `~` is the home folder.
    only: names of arrays; others are not read. Unset: all.

  Raises:
    ValueError: no such file, no ZIP archive, or one with a member that is
      broken, encrypted, packed in a way of its own, of objects, or smaller than
      it claims to be. The message names the file.
  """
  try:
    path = pathlib.Path(path).expanduser()
    if path.exists() and not path.is_file():  # A pipe would never end.
      raise ValueError('it is no regular file')
    with open(path, 'rb') as file:
      start = file.read(6)
      if start.startswith(b'\x93NUMPY'):
        raise ValueError('it is an .npy file, one array without a name; write '
                         'several by np.savez(path, name=array)')
      if not start.startswith(b'PK'):
        raise ValueError('it is no ZIP archive')
      file.seek(0)
      return _members(file, None if only is None else set(only))
  except _BROKEN as error:
    raise ValueError(f'`{name}` must be a readable .npz file, {path} is not: '
                     f'{_reason(error)}.') from error


def write_npz(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes `arrays` to `path` under another name first: whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, suffix='.tmp')
  try:
    with os.fdopen(handle, 'wb') as file:
      np.savez(file, **arrays)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def read_npy(name: str, path: str | os.PathLike) -> np.ndarray:
  """The array of the `.npy` file at `path`; as `read_npz` otherwise."""
  try:
    path = pathlib.Path(path).expanduser()
    with open(path, 'rb') as file:
      return _array(file, os.fstat(file.fileno()).st_size)
  except _BROKEN as error:
    raise ValueError(f'`{name}` must be a readable .npy file, {path} is not: '
                     f'{_reason(error)}.') from error


def channels_last(name: str, x: Any) -> None:
  """Refuses images whose channels stand first, (N, C, H, W).

  These are arrays of four axes whose second has at most four entries and whose
  last two have more: images so low, and of so many channels, are not known to
  us.

  Raises:
    ValueError: names the line of NumPy that mends it.
  """
  shape = tuple(np.shape(x))
  if len(shape) == 4 and 0 < shape[1] <= 4 < min(shape[2:]):
    raise ValueError(
        f'`{name}` must have its channels last, (N, H, W, C), got {shape}, '
        f'where they seem to be first: {name} = np.moveaxis({name}, 1, -1).')


def _members(file, only) -> dict[str, np.ndarray]:
  arrays = {}
  with zipfile.ZipFile(file) as archive:
    for info in archive.infolist():
      stem = info.filename.removesuffix('.npy')
      if stem == info.filename or (only is not None and stem not in only):
        continue
      if info.flag_bits & 1:
        raise ValueError(f'{info.filename} is encrypted')
      if info.compress_type not in _STORED:
        raise ValueError(f'{info.filename} is compressed in an unknown way')
      if info.file_size > _DENSEST * (info.compress_size + 1):
        raise ValueError(f'{info.filename} claims {info.file_size:,} bytes in '
                         f'{info.compress_size:,}')
      with archive.open(info) as member:
        arrays[stem] = _array(member, info.file_size)
  return arrays


def _array(file, size: int) -> np.ndarray:
  """The array in `file`, which has `size` bytes with its header."""
  shape, fortran, dtype = _header(file)
  if dtype.hasobject or dtype.kind not in _KINDS:
    raise ValueError(f'it holds {dtype} instead of numbers')
  claimed = math.prod(shape) * dtype.itemsize
  held = size - file.tell()
  if claimed != held:
    raise ValueError(f'an array claims {claimed:,} bytes, {held:,} are there')
  data = file.read(claimed + 1)  # To the end, where ZIP checks its sum.
  if len(data) != claimed:
    raise EOFError(f'it ends after {len(data):,} of {claimed:,} bytes')
  array = np.frombuffer(bytearray(data), dtype)
  return array.reshape(shape, order='F' if fortran else 'C')


def _header(file):
  version = np.lib.format.read_magic(file)
  readers = {(1, 0): np.lib.format.read_array_header_1_0,
             (2, 0): np.lib.format.read_array_header_2_0}
  if version not in readers:
    raise ValueError(f'its .npy format is {version[0]}.{version[1]}')
  try:
    return readers[version](file)
  except Exception as error:  # Of the tokenizer, of ast, of NumPy, of struct.
    raise ValueError(f'its header cannot be read ({_reason(error)})') from error


def _reason(error: Exception) -> str:
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return str(error).strip().partition('\n')[0].rstrip('.') or (
      type(error).__name__)
