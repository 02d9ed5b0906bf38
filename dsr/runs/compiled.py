"""Compiles once what many runs share: those of one process, or of one user.

Each run makes functions of its own, which `jax.jit` takes for new programs.
Inside `once` the compilation cache knows those that are the same: runs on data
of one shape, unless a function has captured the data. Commands call `keep`
besides, after which the cache is a folder that the next command finds.
"""
from collections.abc import Iterator
import contextlib
import hashlib
import os
import pathlib
import platform
import tempfile

from absl import logging
import jax
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = 'DSR_COMPILED'  # Of the environment: another folder, or 'off'.
_FOLDER = 'jax_compilation_cache_dir'
_CACHE = {'jax_persistent_cache_min_compile_time_secs': 0.05,
          'jax_persistent_cache_min_entry_size_bytes': -1}
_MOST_BYTES = 2 * 2**30  # Of all that is kept; what was used last stays.


@contextlib.contextmanager
def once() -> Iterator[None]:
  """Shares compiled programs; a cache folder that is set already is used."""
  if getattr(jax.config, _FOLDER):
    yield
    return
  before = {name: getattr(jax.config, name) for name in (_FOLDER, *_CACHE)}
  with tempfile.TemporaryDirectory(
      prefix='compiled', ignore_cleanup_errors=True) as folder:
    try:
      _use(folder)
      yield
    finally:
      for name, value in before.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()


def keep() -> pathlib.Path | None:
  """Keeps compiled programs for later commands; returns where, if anywhere.

  In `$XDG_CACHE_HOME/dsr/jax`, or `~/.cache/dsr/jax`: at most 2 GiB, what was
  used last. The variable DSR_COMPILED of the environment names another folder,
  or is 'off'. A cache that jax has already, such as by
  JAX_COMPILATION_CACHE_DIR, stays. A folder that cannot be written is a warning
  and no cache. Programs for one processor do not run on another one, as where
  machines share a home: each has a folder of its own.
  """
  chosen = os.environ.get(VARIABLE, '')
  if chosen == 'off' or getattr(jax.config, _FOLDER):
    return None
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  try:
    root = pathlib.Path(chosen or pathlib.Path(home, 'dsr', 'jax')).expanduser()
    folder = root / _processor()
    root.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True, mode=0o700)  # What is in it is run.
    if not os.access(folder, os.W_OK):
      raise PermissionError(f'{folder} is not writable')
    _prune(root)
  except (OSError, RuntimeError) as error:  # No home: RuntimeError.
    logging.warning('Compiled programs are not kept: %s', error)
    return None
  _use(str(folder))
  return folder


def _use(folder: str) -> None:
  for name, value in {_FOLDER: folder, **_CACHE}.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def _processor() -> str:
  """Names a kind of processor by what it can do."""
  told = [platform.machine(), platform.processor()]
  with contextlib.suppress(OSError):
    lines = pathlib.Path('/proc/cpuinfo').read_text('utf-8').splitlines()
    told += sorted({line for line in lines if line.startswith(
        ('model name', 'flags', 'Features'))})
  return hashlib.sha256('\n'.join(told).encode()).hexdigest()[:12]


def _prune(root: pathlib.Path) -> None:
  """Deletes what was not used for longest, beyond `_MOST_BYTES`."""
  files = []
  for path in root.rglob('*'):
    with contextlib.suppress(OSError):  # Another command may prune as well.
      if path.is_file():
        state = path.stat()
        files.append((max(state.st_atime, state.st_mtime), state.st_size, path))
  total = sum(size for _, size, _ in files)
  for _, size, path in sorted(files):
    if total <= _MOST_BYTES:
      break
    path.unlink(missing_ok=True)
    total -= size
