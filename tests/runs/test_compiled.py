"""Programs are shared within `once`, and kept by commands alone."""
import os
import pathlib
import subprocess
import sys

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import pytest

from dsr.runs import compiled

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ('jax_compilation_cache_dir', *compiled._CACHE)


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A home without caches; settings of jax are put back."""
  before = {name: getattr(jax.config, name) for name in NAMES}
  monkeypatch.delenv(compiled.VARIABLE)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  yield tmp_path
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


_EVENTS = []
jax.monitoring.register_event_listener(lambda name, **_: _EVENTS.append(name))
_HIT = '/jax/compilation_cache/cache_hits'


def _new_function():
  """The same program of another function object, as each run makes one."""
  return jax.jit(lambda x: jnp.cumsum(jnp.sin(x)) @ jnp.cos(x))


def test_equal_programs_are_compiled_once_by_later_runs_too(home):
  folder = compiled.keep()
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  x = jnp.ones(7)
  first = _new_function()(x)
  files = set(folder.glob('*-cache'))
  assert files
  _EVENTS.clear()
  second = _new_function()(x)
  assert _EVENTS.count(_HIT) == 1
  assert set(folder.glob('*-cache')) == files
  assert float(second) == float(first)
  assert folder.is_relative_to(home / 'dsr' / 'jax')
  assert folder.stat().st_mode & 0o077 == 0  # Nobody else may write programs.


def test_once_uses_what_is_kept_and_else_leaves_nothing(home):
  with compiled.once():
    folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
    assert folder.is_dir()
  assert not folder.exists()
  assert jax.config.jax_compilation_cache_dir is None
  kept = compiled.keep()
  with compiled.once():
    assert jax.config.jax_compilation_cache_dir == str(kept)
  assert kept.is_dir()


def test_the_environment_names_another_folder_or_none(home, monkeypatch):
  monkeypatch.setenv(compiled.VARIABLE, 'off')
  assert compiled.keep() is None
  assert jax.config.jax_compilation_cache_dir is None
  monkeypatch.setenv(compiled.VARIABLE, str(home / 'mine'))
  assert compiled.keep().parent == home / 'mine'


def test_a_cache_that_jax_has_stays(home):
  jax.config.update('jax_compilation_cache_dir', str(home / 'own'))
  assert compiled.keep() is None
  assert jax.config.jax_compilation_cache_dir == str(home / 'own')


def test_a_folder_that_cannot_be_made_is_no_error(home):
  (home / 'dsr').write_text('in the way')
  assert compiled.keep() is None
  assert jax.config.jax_compilation_cache_dir is None


def test_what_was_used_last_stays(home, monkeypatch):
  folder = compiled.keep()
  for i, name in enumerate(('old', 'older', 'new')):
    (folder / name).write_bytes(b'0' * 10)
    date = (2, 1, 3)[i]
    os.utime(folder / name, (date, date))
  monkeypatch.setattr(compiled, '_MOST_BYTES', 15)
  jax.config.update('jax_compilation_cache_dir', None)
  compiled.keep()
  assert [path.name for path in folder.iterdir()] == ['new']


_COMMAND = """
import dataclasses, sys
import jax
from dsr.runs import launch
import dsr.studies.audit.audit
assert jax.config.jax_compilation_cache_dir is None
@dataclasses.dataclass(frozen=True)
class Config:
  seed: int = 0
launch.launch(Config, lambda _: print(jax.config.jax_compilation_cache_dir))
"""


def test_commands_keep_programs_and_imports_do_not(tmp_path):
  environment = {name: value for name, value in os.environ.items()
                 if name != compiled.VARIABLE} | {
                     'XDG_CACHE_HOME': str(tmp_path)}
  run = subprocess.run(
      [sys.executable, '-c', _COMMAND], cwd=ROOT, env=environment, text=True,
      capture_output=True, check=True)
  assert run.stdout.startswith(str(tmp_path / 'dsr' / 'jax'))
