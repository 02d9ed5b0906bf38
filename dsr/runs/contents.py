"""What a run reads, by contents: so that a changed file is seen.

A dataset and a set are known to a run by their names. What the name stands for
may change, and then no finished work belongs to it any more: records, and
fingerprints of checkpoints, hold digests of the contents.
"""
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from typing import Any
import zipfile

from dsr import checks, data as data_lib, loop

_DIGITS = 12  # Of a digest.
# Flags that name a file, or a workdir with this file.
_FILES = {'set': 'distilled.npz', 'images': 'distilled.npz',
          'groups': 'groups.npy', 'fit': 'networks.npz',
          'reference': 'networks.npz', 'victim': 'victim.npz'}
# Flags that name several files, with commas between their paths.
_LISTS = ('distilled', 'own')


def of(config: Any) -> dict[str, str]:
  """Flag -> digest of what it names, for the flags that name data.

  Args:
    config: a dataclass of flags: `dataset` is loaded and hashed (once a
      process, as long as its file stays the same); `set`, `fit` and others
      are files, or workdirs with a file of a known name; `distilled` and `own`
      are lists of files.

  Raises:
    ValueError: the data cannot be loaded.
  """
  found = {}
  if getattr(config, 'dataset', ''):
    data_dir = getattr(config, 'data_dir', None)
    found['dataset'] = _dataset(
        config.dataset, data_dir, getattr(config, 'seed', 0),
        state(config.dataset))
  for flag, inside in _FILES.items():
    path = getattr(config, flag, '')
    if path:
      path = pathlib.Path(os.path.expanduser(path))
      path = path / inside if path.is_dir() else path
      if path.is_file():
        found[flag] = _file(str(path), state(str(path)))
  for flag in _LISTS:
    paths = [os.path.expanduser(part.strip())
             for part in getattr(config, flag, '').split(',') if part.strip()]
    if paths and all(map(os.path.isfile, paths)):
      inside = [_file(path, state(path)) for path in paths]
      found[flag] = hashlib.sha256(
          ' '.join(inside).encode()).hexdigest()[:_DIGITS]
  return found


def fingerprint(config: Any, *, ignore: tuple[str, ...] = ()) -> str:
  """`loop.config_fingerprint`, with the contents of what the flags name."""
  fields = json.loads(loop.config_fingerprint(config, ignore=ignore))
  found = {flag: digest for flag, digest in of(config).items()
           if flag not in ignore}
  return json.dumps(fields | {'contents': found}, sort_keys=True)


@functools.lru_cache(maxsize=32)
def _dataset(name, data_dir, seed, state) -> str:
  del state  # Part of the key alone.
  with checks.renamed(name='dataset'):
    return data_lib.digest(data_lib.load(name, data_dir=data_dir, seed=seed))


@functools.lru_cache(maxsize=256)
def _file(path, state) -> str:
  del state
  # An .npz also holds when it was written, which does not count. A damaged one
  # is told by its bytes here, and refused by its reader.
  with contextlib.suppress(zipfile.BadZipFile, ValueError, NotImplementedError):
    with zipfile.ZipFile(path) as archive:
      inside = sorted((m.filename, m.CRC, m.file_size)
                      for m in archive.infolist())
    return hashlib.sha256(repr(inside).encode()).hexdigest()[:_DIGITS]
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:_DIGITS]


def state(name: str) -> tuple[int, int] | None:
  """Changes whenever the file `name` does; None where there is no such file.

  Args:
    name: of a file, or of a dataset as `data.load` takes it.
  """
  name = os.path.expanduser(name.partition('[')[0])
  try:
    found = os.stat(name)
  except (OSError, ValueError):
    return None
  return found.st_mtime_ns, found.st_size


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
  """Flags whose contents are known on both sides, and not the same."""
  return sorted(flag for flag in old.keys() & new.keys()
                if old[flag] != new[flag])


def fields_of(config: Any) -> dict[str, Any]:
  """The flags of a dataclass as JSON has them: tuples are lists."""
  return json.loads(json.dumps(dataclasses.asdict(config)))
