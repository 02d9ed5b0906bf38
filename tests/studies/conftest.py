"""One compilation of each program for all runs of all binaries."""
import jax
from jax.experimental.compilation_cache import compilation_cache
import pytest


@pytest.fixture(scope='package', autouse=True)
def compile_once(tmp_path_factory):
  """Every `run` makes new functions, of which many are the same program."""
  names = ('jax_compilation_cache_dir',
           'jax_persistent_cache_min_compile_time_secs',
           'jax_persistent_cache_min_entry_size_bytes')
  before = [getattr(jax.config, name) for name in names]
  folder = str(tmp_path_factory.mktemp('compiled'))
  for name, value in zip(names, (folder, 0.05, -1)):
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield
  for name, value in zip(names, before):
    jax.config.update(name, value)
  compilation_cache.reset_cache()
