"""One writer a folder: a lock that tells who holds it, and ends with him.

The lock is a file `.lock` of the folder, made by `open(..., 'x')`: of two runs
that start at once one makes it, and the other one is refused. Its JSON names
the owner (host, process, when that process started); the owner touches it
every `_BEAT` seconds. A lock is dead, and taken over, if its process is gone
from this host, or if it is of another host and was not touched for `_OLD`
seconds.
"""
from collections.abc import Iterator
import contextlib
import datetime
import json
import os
import pathlib
import socket
import threading
import time
from typing import Any
import uuid

_NAME = '.lock'
_BEAT = 10.0  # Seconds between two signs of life.
_OLD = 120.0  # Seconds without one after which another host's lock is dead.
_held: dict[pathlib.Path, int] = {}  # Folders of this process, how many times.
_guard = threading.Lock()  # Of `_held`.


@contextlib.contextmanager
def held(folder: str | os.PathLike) -> Iterator[None]:
  """Keeps other processes from writing to `folder`, which is made if need be.

  A process may take the lock of a folder that it has: a comparison locks its
  own folder, and those of its runs while they are made.

  Raises:
    BlockingIOError: a run that is alive has it; names that run.
    OSError: the folder cannot be made or written.
  """
  folder = pathlib.Path(folder).absolute()
  with _guard:
    _held[folder] = _held.get(folder, 0) + 1
    first = _held[folder] == 1
  try:
    with _own(folder) if first else contextlib.nullcontext():
      yield
  finally:
    with _guard:
      _held[folder] -= 1
      if not _held[folder]:
        del _held[folder]


@contextlib.contextmanager
def _own(folder: pathlib.Path) -> Iterator[None]:
  path, made = folder / _NAME, _missing(folder)
  folder.mkdir(parents=True, exist_ok=True)
  token = _take(path)
  ended = threading.Event()
  beat = threading.Thread(target=_beat, args=(path, ended), daemon=True)
  beat.start()
  try:
    yield
  finally:
    ended.set()
    beat.join()
    with contextlib.suppress(OSError):
      if _read(path).get('token') == token:  # Not if it was taken over.
        path.unlink()
    for empty in made:  # A run that was refused at once leaves no folder.
      with contextlib.suppress(OSError):
        empty.rmdir()


def _missing(folder) -> list[pathlib.Path]:
  """The folders that are to be made, the innermost first."""
  return [p for p in (folder, *folder.parents) if not p.exists()]


def _take(path: pathlib.Path) -> str:
  """Makes the lock, and returns the token that tells it from others."""
  token = uuid.uuid4().hex
  mine = json.dumps({
      'host': socket.gethostname(), 'process': os.getpid(),
      'started': _started(os.getpid()), 'token': token,
      'since': datetime.datetime.now(datetime.UTC).isoformat(
          timespec='seconds')})
  # Complete from its first moment: written elsewhere, then linked.
  part = path.with_name(f'{_NAME}.{token}')
  try:
    part.write_text(mine, encoding='utf-8')
    for _ in range(3):  # A dead lock may be taken by somebody else meanwhile.
      try:
        os.link(part, path)
        return token
      except FileExistsError:
        owner = _read(path)
        if owner and not _is_dead(path, owner):
          raise BlockingIOError(_refusal(path, owner)) from None
        with contextlib.suppress(FileNotFoundError):
          _bury(path, owner)
    raise BlockingIOError(_refusal(path, _read(path)))
  finally:
    part.unlink(missing_ok=True)


def _bury(path: pathlib.Path, owner: dict[str, Any]) -> None:
  """Takes a dead lock away, unless it was replaced since it was read."""
  grave = path.with_name(f'{_NAME}.{uuid.uuid4().hex}')
  os.rename(path, grave)
  try:
    if _read(grave).get('token') != owner.get('token'):
      with contextlib.suppress(FileExistsError):
        os.link(grave, path)  # It is somebody's after all: given back.
  finally:
    grave.unlink(missing_ok=True)


def _beat(path: pathlib.Path, ended: threading.Event) -> None:
  while not ended.wait(_BEAT):
    with contextlib.suppress(OSError):
      os.utime(path)


def _read(path: pathlib.Path) -> dict[str, Any]:
  """The owner; {} where there is none, or no readable one."""
  try:
    owner = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError):
    return {}
  return owner if isinstance(owner, dict) else {}


def _is_dead(path: pathlib.Path, owner: dict[str, Any]) -> bool:
  if owner.get('host') == socket.gethostname():
    return _started(owner.get('process', 0)) != owner.get('started')
  try:
    return time.time() - path.stat().st_mtime > _OLD
  except OSError:
    return False


def _started(process: int) -> str | None:
  """When a process of this host began; None if there is no such process.

  Numbers of processes are used again, and so the number alone says little.
  """
  stat = pathlib.Path(f'/proc/{process}/stat')
  if pathlib.Path('/proc/self/stat').exists():
    try:
      return stat.read_text('ascii', 'replace').rpartition(')')[2].split()[19]
    except OSError:
      return None
  try:  # No /proc: is there a process of that number at all?
    os.kill(process, 0)
  except ProcessLookupError:
    return None
  except PermissionError:
    pass
  return 'unknown'


def _refusal(path: pathlib.Path, owner: dict[str, Any]) -> str:
  who = (f'process {owner.get("process")} on {owner.get("host")} has it since '
         f'{owner.get("since")}' if owner else 'another run has it')
  return (f'`workdir` must have one writer: {who} ({path.parent}). Wait for '
          'it, or choose another.')
