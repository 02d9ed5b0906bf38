"""The strict session: x64 on, rank promotion raises, TFDS found if there."""
import gc
from importlib import metadata
import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['DSR_COMPILED'] = 'off'  # Commands called here keep no programs.
# Most of the time here is the compiler's; `make test-all` optimises.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
# XLA's older code generator compiles in half the time; from jaxlib 0.12 on
# there is none, and XLA ends the process at a flag that it does not know.
os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false' * (
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] == '1'
    and metadata.version('jaxlib') < '0.11'))

import jax
import pytest

jax.config.update('jax_enable_x64', True)
jax.config.update('jax_numpy_rank_promotion', 'raise')


def _tfds_folder() -> pathlib.Path | None:
  here = pathlib.Path(__file__).resolve().parents[1]
  for folder in (os.environ.get('TFDS_DATA_DIR'), here.parent / 'shared/tfds'):
    if folder and (pathlib.Path(folder) / 'mnist').is_dir():
      return pathlib.Path(folder)
  return None


_MAPS = pathlib.Path('/proc/self/maps')
_MOST_MAPS = 25_000  # Linux allows 65,530 of a process.


@pytest.fixture(scope='module', autouse=True)
def _few_programs():
  """Forgets compiled programs before their memory maps run out.

  XLA:CPU maps some hundred pieces of memory for every few programs; a process
  that ran most of these tests was killed for having too many.
  """
  yield
  if _MAPS.exists() and _MAPS.read_bytes().count(b'\n') > _MOST_MAPS:
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def optimised():
  """Optimises what the test compiles: for results exact to the last digits."""
  name = 'jax_disable_most_optimizations'
  before = jax.config.read(name)
  jax.clear_caches()
  jax.config.update(name, False)
  yield
  jax.config.update(name, before)
  jax.clear_caches()


@pytest.fixture(scope='session')
def tfds_dir() -> str:
  """Folder with prepared TFDS sets; tests that need it are skipped without."""
  folder = _tfds_folder()
  if folder is None:
    pytest.skip('no prepared TFDS folder (set TFDS_DATA_DIR)')
  return str(folder)


@pytest.fixture
def key():
  return jax.random.key(0)
