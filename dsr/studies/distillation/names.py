"""Names of sets that users bring, as folders and as titles.

A file may be called anything. Its folder keeps the letters, digits, `_`, `-`
and inner dots of the name and stays below the workdir; its title is the name
as it stands, without what cannot be printed. Both are made here alone.
"""
from collections.abc import Iterable
import hashlib
import pathlib
import re

_MOST = 60  # Characters of a folder's name, before what tells it from others.
_TAKEN = ('all', 'dp', 'lira', 'leakage', 'claims', 'con', 'nul', 'aux', 'prn')


def folder(path: str) -> str:
  """A folder's name for the file at `path`: safe, and short.

  Where the name had to be changed, six digits of its SHA-256 follow, so that
  different names have different folders.
  """
  stem = _stem(path)
  safe = re.sub(r'[^A-Za-z0-9_.-]+', '_', stem).strip('._-')[:_MOST].rstrip('.')
  if safe == stem and safe.lower() not in _TAKEN:
    return safe
  digest = hashlib.sha256(stem.encode('utf-8', 'surrogateescape')).hexdigest()
  return f'{safe or "set"}-{digest[:6]}'


def folders(paths: Iterable[str]) -> dict[str, str]:
  """Path -> its folder, all different whatever the case of their letters.

  Raises:
    ValueError: two files of one name.
  """
  found, owner = {}, {}
  for path in paths:
    name = folder(path)
    other = owner.setdefault(name.lower(), path)
    if path in found or other != path:
      raise ValueError(f'`distilled` must have a name of its own, got {path!r} '
                       f'beside {other!r}.')
    found[path] = name
  return found


def title(path: str) -> str:
  """The file's name without its suffix, as one printable line."""
  text = _stem(path).encode('utf-8', 'replace').decode('utf-8')
  text = ''.join(c if c.isprintable() else '?' for c in text)
  return ' '.join(text.split()) or 'set'


def dataset(name: str) -> str:
  """A dataset in a title: of a file its name, and the classes chosen of it."""
  name, bracket, classes = name.partition('[')
  if '/' in name or name.endswith('.npz'):
    name = title(name)
  return f'{name}{bracket}{classes}'


def inside(root: str | pathlib.Path, name: str) -> pathlib.Path:
  """`root` / `name`, which must be a folder directly below `root`.

  Raises:
    ValueError: it is not.
  """
  root = pathlib.Path(root)
  path = root / name
  if pathlib.Path(name).name != name or name in ('', '.', '..'):
    raise ValueError(f'`workdir` must hold all that is written, got the name '
                     f'{name!r} for a folder in it.')
  return path


def _stem(path) -> str:
  name = pathlib.Path(path).name
  return name.removesuffix(pathlib.Path(name).suffix) or name
