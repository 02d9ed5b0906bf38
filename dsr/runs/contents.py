"""What a run reads, by contents: so that a changed file is seen.

A dataset and a set are known to a run by their names. What the name stands for
may change, and then no finished work belongs to it any more: records, and
fingerprints of checkpoints, hold digests of the contents.
"""
from collections.abc import Hashable
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
          'groups': 'groups.npy', 'train_groups': 'groups.npy',
          'fit': 'networks.npz',
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
    found['dataset'] = _dataset_of(config)[0]
  for flag, inside in _FILES.items():
    path = getattr(config, flag, '')
    if path:
      parts = [pathlib.Path(os.path.expanduser(path), inside)]
      parts = parts if parts[0].is_file() else data_lib.released.files_of(path)
      if digest := _files(parts):
        found[flag] = digest
  for flag in _LISTS:
    sets = [data_lib.released.files_of(part.strip())
            for part in getattr(config, flag, '').split(',') if part.strip()]
    digests = list(map(_files, sets))
    if digests and all(digests):
      found[flag] = _joined(digests)
  return found


def paths(config: Any) -> list[str]:
  """Files and folders that are there and that flags of `config` name."""
  named = [getattr(config, flag, '') for flag in ('dataset', *_FILES)]
  named += [part.strip() for flag in _LISTS
            for part in getattr(config, flag, '').split(',')]
  return [path for path in named if path and os.path.exists(path)]


def described(config: Any) -> dict[str, Any]:
  """What the reader of the data had to decide, for records; {} if nothing.

  Args:
    config: as of `of`.

  Returns:
    `classes`, their names in the order of their numbers, and `notes`.
  """
  return _dataset_of(config)[1] if getattr(config, 'dataset', '') else {}


def _dataset_of(config) -> tuple[str, dict[str, Any]]:
  return _dataset(config.dataset, getattr(config, 'data_dir', None),
                  getattr(config, 'seed', 0), state(config.dataset))


def _files(paths) -> str:
  """A digest of all of these files; '' if one is missing, or there is none."""
  if not paths or not all(map(os.path.isfile, paths)):
    return ''
  digests = [_file(str(path), state(str(path))) for path in paths]
  return digests[0] if len(paths) == 1 else _joined(
      f'{path.parent.name}/{path.name} {digest}'
      for path, digest in zip(paths, digests))


def _joined(texts) -> str:
  return hashlib.sha256(' '.join(texts).encode()).hexdigest()[:_DIGITS]


def fingerprint(config: Any, *, ignore: tuple[str, ...] = ()) -> str:
  """`loop.config_fingerprint`, with the contents of what the flags name."""
  fields = json.loads(loop.config_fingerprint(config, ignore=ignore))
  found = {flag: digest for flag, digest in of(config).items()
           if flag not in ignore}
  return json.dumps(fields | {'contents': found}, sort_keys=True)


@functools.lru_cache(maxsize=32)
def _dataset(name, data_dir, seed, state) -> tuple[str, dict[str, Any]]:
  """The digest, and what `described` has."""
  del state  # Part of the key alone.
  with checks.renamed(name='dataset'):
    splits = data_lib.load(name, data_dir=data_dir, seed=seed)
  told = {'classes': list(splits.train.classes),
          'notes': list(splits.train.notes)}
  return data_lib.digest(splits), told if any(told.values()) else {}


@functools.lru_cache(maxsize=100_000)  # A folder may have as many pictures.
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


def state(name: str) -> Hashable:
  """Changes whenever the file `name` does; None where there is no such file.

  Args:
    name: of a file, or of a dataset as `data.load` takes it: for a folder it
      changes with every file in it.
  """
  try:
    if not os.path.exists(os.path.expanduser(name)):
      name, _ = data_lib.sources.parse(name)
    folder, _ = data_lib.folders.parse(name)
    if folder.is_dir():
      return data_lib.folders.state(folder)
    found = os.stat(folder)
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
