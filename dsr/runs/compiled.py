"""Compiles once what many runs of one process share.

Each run makes functions of its own, which `jax.jit` takes for new programs.
Inside `once` the compilation cache knows those that are the same: runs on data
of one shape, unless a function has captured the data.
"""
from collections.abc import Iterator
import contextlib
import tempfile

import jax
from jax.experimental.compilation_cache import compilation_cache

_FOLDER = 'jax_compilation_cache_dir'
_CACHE = {'jax_persistent_cache_min_compile_time_secs': 0.05,
          'jax_persistent_cache_min_entry_size_bytes': -1}


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
      for name, value in {_FOLDER: folder, **_CACHE}.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()
      yield
    finally:
      for name, value in before.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()
