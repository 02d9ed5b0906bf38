"""An object store in which processes meet that share no disk.

What is at a path, a file or a folder, is kept as the files of one call of `put`
and a manifest that names them. The manifest is written last, and takes the
place of the one before: whoever reads finds all files of one call or of none.

  <url>/<path>/<token>/<file>    <url>/<path>/manifest.json

Files keep their dates, by which a record is older than what it was made of. A
folder below that has a record of its own is another path, which is not copied.
"""
from collections.abc import Iterator
import json
import os
import pathlib
import uuid

_MANIFEST = 'manifest.json'


class Store:
  """Files at a URL: `file://...`, or with s3fs or gcsfs `s3://...`, `gs://...`.

  Args:
    url: of a folder, as fsspec takes it.

  Raises:
    ValueError: fsspec does not know the URL.
    ImportError: the package for such URLs is missing.
  """

  def __init__(self, url: str):
    import fsspec

    try:
      self._files, root = fsspec.core.url_to_fs(url)
    except ValueError as error:
      raise ValueError('`store` must be a URL such as s3://bucket/folder or '
                       f'file:///folder, got {url!r}: {error}.') from error
    self._root = root.rstrip('/')

  def put(self, path: str | os.PathLike) -> None:
    """Copies the file or folder at `path` into the store, if it is newer.

    Raises:
      ValueError: `path` is not below the current folder.
    """
    root, found = self._at(path), {}
    for name, local in _inside(path):
      found[name] = os.stat(local).st_mtime_ns
    before = self._manifest(root)
    if not found or (before is not None and before['files'] == found):
      return
    token = uuid.uuid4().hex
    for name in found:
      self._write(f'{root}/{token}/{name or "file"}', pathlib.Path(
          path, name).read_bytes())
    self._write(f'{root}/{_MANIFEST}', json.dumps(
        {'token': token, 'files': found}).encode())
    if before is not None:
      self._files.rm(f'{root}/{before["token"]}', recursive=True)

  def get(self, path: str | os.PathLike) -> bool:
    """Brings what the store has of `path`; False if it has nothing.

    A local record that is as new stays, and all beside it.

    Raises:
      ValueError: `path` is not below the current folder.
    """
    root, target = self._at(path), pathlib.Path(path)
    manifest = self._manifest(root)
    if manifest is None:
      return False
    dates = manifest['files']
    newest = 'record.json' if 'record.json' in dates else next(iter(dates))
    mine = target / newest
    if mine.exists() and mine.stat().st_mtime_ns >= dates[newest]:
      return True
    # The record last: with it the folder counts as finished.
    for name in sorted(dates, key=lambda name: name == 'record.json'):
      local = target / name if name else target
      local.parent.mkdir(parents=True, exist_ok=True)
      part = local.with_name(f'.{local.name}.{manifest["token"]}.part')
      part.write_bytes(self._files.cat_file(
          f'{root}/{manifest["token"]}/{name or "file"}'))
      os.utime(part, ns=(dates[name], dates[name]))
      os.replace(part, local)
    return True

  def _at(self, path) -> str:
    return f'{self._root}/{key(path)}'

  def _write(self, where, content: bytes) -> None:
    self._files.makedirs(where.rpartition('/')[0], exist_ok=True)
    self._files.pipe_file(where, content)

  def _manifest(self, root):
    self._files.invalidate_cache()  # Others write as well.
    try:
      return json.loads(self._files.cat_file(f'{root}/{_MANIFEST}'))
    except FileNotFoundError:
      return None


def key(path: str | os.PathLike) -> str:
  """The name of `path` in a store: relative, as it means the same everywhere.

  Raises:
    ValueError: it is absolute, or leads out of the current folder.
  """
  name = os.path.normpath(path)
  if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir:
    raise ValueError('`store` needs paths below the current folder, such as '
                     f'--workdir=out/audit, got {os.fspath(path)!r}.')
  return pathlib.PurePath(name).as_posix()


def _inside(path) -> Iterator[tuple[str, pathlib.Path]]:
  """(name, file) of all files; the name of a file itself is ''."""
  path = pathlib.Path(path)
  if path.is_file():
    yield '', path
  for folder, below, names in os.walk(path):
    below[:] = sorted(
        name for name in below if not name.startswith('.')
        and not pathlib.Path(folder, name, 'record.json').exists())
    for name in sorted(names):
      if not name.startswith('.'):  # Locks, and files that are not complete.
        local = pathlib.Path(folder, name)
        yield local.relative_to(path).as_posix(), local
