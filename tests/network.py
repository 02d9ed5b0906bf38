"""Two hosts with addresses of their own: network namespaces, joined by a link.

For root on Linux, with `ip` of iproute2.
"""
from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[1]
ADDRESSES = ('10.77.0.1', '10.77.0.2')


def _ip(*words: str) -> None:
  subprocess.run(['ip', *words], check=True, capture_output=True, text=True)


class Hosts:
  """The two; `start` runs a process on one, `link` sets their connection."""

  def __init__(self, folder: pathlib.Path):
    self._folder, mark = folder, uuid.uuid4().hex[:6]
    self._names = [f'dsr{mark}{i}' for i in range(2)]

  def make(self) -> None:
    """Raises a CalledProcessError where that is not allowed."""
    a, b = self._names
    for name in self._names:
      _ip('netns', 'add', name)
    _ip('link', 'add', a, 'netns', a, 'type', 'veth', 'peer', 'name', b,
        'netns', b)
    for name, address in zip(self._names, ADDRESSES):
      _ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', name)
      _ip('-n', name, 'link', 'set', 'lo', 'up')
      # Gloo listens where the host's own name leads.
      (self._folder / name).write_text(f'{address} {socket.gethostname()}\n')
    self.link('up')

  def remove(self) -> None:
    for name in self._names:
      with contextlib.suppress(subprocess.CalledProcessError):
        _ip('netns', 'del', name)

  def link(self, state: str) -> None:
    """'up' or 'down'."""
    for name in self._names:
      _ip('-n', name, 'link', 'set', name, state)

  def start(self, host: int, function: str, *args: str) -> subprocess.Popen:
    """Process `host` of two, which calls `function` as of `tests.hosts`."""
    name = self._names[host]
    command = [sys.executable, '-m', 'tests.hosts', f'{ADDRESSES[0]}:7654',
               '2', str(host), function, *args]
    inside = (f'mount --bind {self._folder / name} /etc/hosts && '
              'exec "$0" "$@"')
    return subprocess.Popen(
        ['ip', 'netns', 'exec', name, 'unshare', '-m', 'sh', '-c', inside,
         *command],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'})


@contextlib.contextmanager
def two(folder: pathlib.Path) -> Iterator[Hosts | None]:
  """The two hosts; None where this user cannot make them."""
  found = Hosts(folder)
  try:
    if os.getuid() or not (shutil.which('ip') and shutil.which('unshare')):
      yield None
      return
    try:
      found.make()
    except (OSError, subprocess.CalledProcessError):
      yield None
      return
    yield found
  finally:
    found.remove()
