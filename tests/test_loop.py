"""The runner: against a plain Python loop, through stops, saves and resumes."""
import collections
import dataclasses
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import loop
from dsr.types import Status

DTYPES = pytest.mark.parametrize('dtype', ['float32', 'float64'])
OPTIMIZER = optax.adam(1e-2)


class State(NamedTuple):
  x: Any  # (D,)
  opt_state: Any
  key: Any
  legacy: Any  # An old-style key: plain uint32.
  empty: Any  # Orbax cannot save arrays without entries.
  steps: Any


class Info(NamedTuple):
  loss: Any
  finite: Any


def _step(state, data):
  """Adam on a noisy quadratic; the noise comes from the carried key."""
  key, subkey = jax.random.split(state.key)
  noise = jax.random.normal(subkey, state.x.shape, state.x.dtype)
  loss_fn = lambda x: 0.5 * jnp.sum((x - data + 0.1 * noise) ** 2)
  loss, grad = jax.value_and_grad(loss_fn)(state.x)
  updates, opt_state = OPTIMIZER.update(grad, state.opt_state)
  state = state._replace(x=optax.apply_updates(state.x, updates), key=key,
                         opt_state=opt_state, steps=state.steps + 1)
  return state, Info(loss, jnp.isfinite(loss))


def _problem(dtype='float32'):
  x = jnp.linspace(-1, 1, 5, dtype=dtype)
  state = State(x, OPTIMIZER.init(x), jax.random.key(3), jax.random.PRNGKey(4),
                jnp.zeros((0, 2)), 0)
  return state, jnp.ones(5, dtype)


def _assert_identical(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    u, v = (jax.random.key_data(w) if jnp.issubdtype(
        jnp.result_type(w), jax.dtypes.prng_key) else w for w in (u, v))
    assert u.dtype == v.dtype
    np.testing.assert_array_equal(u, v)


def _count_down(state, data):
  """The loss is 1 / (data - step): not finite at step `data`, ever after."""
  loss = jnp.where(state < data, 1.0 / jnp.maximum(data - state, 1), jnp.nan)
  return state + 1, Info(loss, jnp.isfinite(loss))


@pytest.fixture(autouse=True)
def default_signals():
  """As in a terminal, also where the tests run in the background."""
  old = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  yield
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  for number, handler in old.items():
    signal.signal(number, handler)


@DTYPES
def test_run_is_a_plain_loop_of_steps(dtype):
  state, data = _problem(dtype)
  step, losses, expected = jax.jit(_step), [], state
  for _ in range(7):
    expected, info = step(expected, data)
    losses.append(info.loss)
  seen = []

  def on_chunk(done, state, info):
    seen.append((done, int(state.steps), len(info.loss)))

  result = loop.run(_step, state, data, num_steps=7, chunk=3, on_chunk=on_chunk)
  assert seen == [(3, 3, 3), (6, 6, 3), (7, 7, 1)]
  assert (result.status, result.steps_done) == (Status.FINISHED, 7)
  assert result.state.x.dtype == dtype
  rtol = 1e-5 if dtype == 'float32' else 1e-12
  np.testing.assert_allclose(result.state.x, expected.x, rtol=rtol)
  np.testing.assert_allclose(result.infos.loss, losses, rtol=rtol)
  assert isinstance(result.infos.loss, np.ndarray)
  np.testing.assert_array_equal(
      jax.random.key_data(result.state.key), jax.random.key_data(expected.key))


def test_the_first_state_stays_usable_and_chunks_compile_once():
  state, data = _problem()
  loop.run(_step, state, data, num_steps=2, chunk=2)
  before = loop.run_chunk._cache_size()
  again = state._replace(steps=jnp.asarray(0))
  loop.run(_step, again, data, num_steps=2, chunk=2)
  misses = loop.run_chunk._cache_size() - before
  result = loop.run(_step, again, data, num_steps=8, chunk=2)
  assert misses <= 1
  assert loop.run_chunk._cache_size() - before == misses
  assert float(state.x[0]) == -1.0
  assert result.steps_done == 8


@DTYPES
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed_is_bit_identical(tmp_path, dtype, number):
  state, data = _problem(dtype)
  kwargs = dict(num_steps=23, chunk=5, checkpoint_every=10, fingerprint='f')
  whole = loop.run(_step, state, data, **kwargs)

  def kill(done, *_):
    if done == 15:
      os.kill(os.getpid(), number)

  part = loop.run(_step, state, data, workdir=tmp_path, on_chunk=kill, **kwargs)
  assert (part.status, part.steps_done) == (Status.INTERRUPTED, 15)
  fresh = state._replace(x=jnp.zeros(5, dtype), key=jax.random.key(9))
  rest = loop.run(_step, fresh, data, workdir=tmp_path, **kwargs)
  assert (rest.status, rest.steps_done) == (Status.FINISHED, 23)
  assert rest.state.key.dtype == state.key.dtype  # Typed, as it was.
  _assert_identical(rest.state, whole.state)
  _assert_identical(rest.infos, whole.infos)
  once_more = loop.run(_step, fresh, data, workdir=tmp_path, **kwargs)
  _assert_identical(once_more.state, whole.state)
  assert len(list((tmp_path / 'checkpoints').iterdir())) == 2


def test_a_longer_run_continues_a_finished_one(tmp_path):
  state, data = _problem()
  whole = loop.run(_step, state, data, num_steps=20, chunk=5)
  loop.run(_step, state, data, num_steps=7, chunk=5, workdir=tmp_path)
  longer = loop.run(_step, state, data, num_steps=20, chunk=5, workdir=tmp_path)
  np.testing.assert_allclose(longer.state.x, whole.state.x, rtol=1e-6)
  np.testing.assert_allclose(longer.infos.loss, whole.infos.loss, rtol=1e-5)


def test_extra_is_saved_and_updated_in_place(tmp_path):
  state, data = _problem()
  extra = {'best': -np.inf, 'x': jnp.zeros(5), 'history': np.zeros(0)}

  def on_chunk(done, state, info):
    extra.update(best=float(info.loss[-1]), x=state.x,
                 history=np.append(extra['history'], done))

  loop.run(_step, state, data, num_steps=4, chunk=2, workdir=tmp_path,
           extra=extra, on_chunk=on_chunk)
  found = {'best': 0.0, 'x': jnp.zeros(5), 'history': np.zeros(0)}
  loop.run(_step, state, data, num_steps=4, chunk=2, workdir=tmp_path,
           extra=found)
  assert found['best'] == extra['best'] != 0
  assert isinstance(found['best'], float)
  np.testing.assert_array_equal(found['x'], extra['x'])
  np.testing.assert_array_equal(found['history'], [2, 4])


def test_a_second_signal_raises_at_once(tmp_path):
  def twice(*_):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)

  state, data = _problem()
  with pytest.raises(KeyboardInterrupt):
    loop.run(_step, state, data, num_steps=9, chunk=3, on_chunk=twice)


def test_ctrl_c_in_a_real_process(tmp_path):
  """SIGINT while the device works: saved, reported, and resumed."""
  code = textwrap.dedent(f'''
      import collections, signal, jax, jax.numpy as jnp
      from dsr import loop
      signal.signal(signal.SIGINT, signal.default_int_handler)
      Info = collections.namedtuple('Info', 'loss finite')
      def step(x, data):
        y = jax.lax.fori_loop(0, 1000, lambda _, v: jnp.cos(data @ v), x)
        return y, Info(y.sum(), jnp.isfinite(y.sum()))
      run = lambda n: loop.run(step, jnp.ones(64), jnp.eye(64), num_steps=n,
          chunk=10, workdir={str(tmp_path)!r},
          on_chunk=lambda *_: print('chunk', flush=True))
      r = run(10**7)
      print(r.status.name, r.steps_done, len(r.infos.loss), flush=True)
      print(run(r.steps_done + 10).status.name)
  ''')
  with subprocess.Popen([sys.executable, '-c', code], text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        ) as process:
    assert process.stdout.readline() == 'chunk\n'
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
  assert process.returncode == 0, err
  *_, status, _, last = out.splitlines()
  name, done, rows = status.split()
  assert (name, last) == ('INTERRUPTED', 'FINISHED')
  assert done == rows
  assert int(done) % 10 == 0


@pytest.mark.parametrize(('bad', 'good'), [(0, 0), (2, 0), (5, 4), (8, 4)])
def test_not_finite_returns_the_last_state_with_a_finite_loss(
    tmp_path, bad, good):
  # A chunk that starts badly casts doubt on the state it started from, so the
  # run goes back one chunk more: 8 -> 4.
  for _ in range(2):  # The second time from the checkpoint.
    result = loop.run(_count_down, jnp.asarray(0), jnp.asarray(bad),
                      num_steps=12, chunk=4, workdir=tmp_path,
                      checkpoint_every=1)
    assert result.status == Status.NOT_FINITE
    assert result.steps_done == int(result.state) == good
    assert result.infos.loss.shape == (good,)
    assert np.isfinite(result.infos.loss).all()


def test_on_chunk_ends_the_run_as_converged_for_good(tmp_path):
  data = jnp.asarray(100)
  stop = lambda done, state, info: info.loss[-1] > 0.0105
  kwargs = dict(num_steps=50, chunk=2, workdir=tmp_path, checkpoint_every=2)
  result = loop.run(_count_down, jnp.asarray(0), data, on_chunk=stop, **kwargs)
  assert (result.status, result.steps_done) == (Status.CONVERGED, 6)
  again = loop.run(_count_down, jnp.asarray(0), data, **kwargs)
  assert (again.status, again.steps_done) == (Status.CONVERGED, 6)


def test_should_stop_ends_the_run_as_interrupted():
  budget = collections.deque([False, False, True])
  result = loop.run(_count_down, jnp.asarray(0), jnp.asarray(100), num_steps=50,
                    chunk=4, should_stop=budget.popleft)
  assert (result.status, result.steps_done) == (Status.INTERRUPTED, 12)


def test_vector_losses_and_verdicts_of_parallel_restarts():
  def step(state, data):
    loss = state * data
    return state + 1, Info(loss, jnp.isfinite(loss))

  result = loop.run(step, jnp.ones(3), jnp.arange(3.0), num_steps=3, chunk=2)
  np.testing.assert_array_equal(
      result.infos.loss, np.outer([1, 2, 3], [0, 1, 2]))


class _Terminal(io.StringIO):

  def isatty(self):
    return True


def test_bar_on_a_terminal_and_log_lines_elsewhere(monkeypatch, caplog):
  logger = logging.get_absl_logger()
  monkeypatch.setattr(logger, 'propagate', True)
  args = _count_down, jnp.asarray(0), jnp.asarray(100)
  kwargs = dict(num_steps=40, chunk=1, description='countdown')
  for progress, stream in ((True, _Terminal()), (False, _Terminal()),
                           (True, io.StringIO())):
    caplog.clear()
    monkeypatch.setattr(sys, 'stderr', stream)
    with caplog.at_level('INFO', logger='absl'):
      loop.run(*args, progress=progress, **kwargs)
    lines = [m for m in caplog.messages if m.startswith('countdown: step')]
    bar = progress and stream.isatty()
    assert len(lines) == (0 if bar else 10)
    assert ('countdown' in stream.getvalue()) == bar
    assert ('40/40' in stream.getvalue()) == bar
    assert ('loss=' in stream.getvalue()) == bar
  assert lines[-1].startswith('countdown: step 40 of 40, loss 0.016')


def test_orbax_is_quiet(tmp_path, caplog, monkeypatch):
  monkeypatch.setattr(logging.get_absl_logger(), 'propagate', True)
  old = logging.get_verbosity()
  logging.set_verbosity(logging.INFO)
  try:
    loop.run(_count_down, jnp.asarray(0), jnp.asarray(100), num_steps=2,
             chunk=1, workdir=tmp_path)
    assert logging.get_verbosity() == logging.INFO
  finally:
    logging.set_verbosity(old)
  assert len(caplog.messages) == 2
  assert all(m.startswith('run: step') for m in caplog.messages)


@dataclasses.dataclass(frozen=True)
class _Config:
  rate: float = 0.1
  steps: int = 5
  layers: tuple[int, ...] = (1, 2)


def test_fingerprint_tells_configs_apart_but_for_the_ignored_fields():
  name = lambda **kw: loop.config_fingerprint(_Config(**kw), ignore=('steps',))
  assert name() == name(steps=9) == '{"layers": [1, 2], "rate": 0.1}'
  assert len({name(), name(rate=0.2), name(layers=(1, 3))}) == 3


@pytest.mark.errors
def test_a_checkpoint_of_another_run_is_refused(tmp_path):
  state, data = _problem()
  kwargs = dict(num_steps=2, chunk=2, workdir=tmp_path)
  name = loop.config_fingerprint(_Config())
  run = lambda state=state, **kw: loop.run(
      _step, state, data.astype(state.x.dtype),
      **{'fingerprint': name, **kwargs, **kw})
  run()
  other = loop.config_fingerprint(_Config(rate=0.2))
  with pytest.raises(ValueError, match='`rate` was 0.1, is 0.2. Choose ano'):
    run(fingerprint=other)
  with pytest.raises(ValueError, match="was '{.*}, is 'sha'|is 'sha'"):
    run(fingerprint='sha')
  with pytest.raises(ValueError, match='`num_steps` must be at least 2'):
    run(num_steps=1)
  with pytest.raises(ValueError, match=r'state.x. must be float32\[5\] as in'):
    run(state=_problem('float64')[0])
  with pytest.raises(ValueError, match=r"one of the two lacks extra\['best'\]"):
    run(extra={'best': 1.0})
  assert run().steps_done == 2


def test_a_damaged_checkpoint_falls_back_on_the_one_before(tmp_path, caplog):
  run = lambda steps: loop.run(
      _count_down, jnp.asarray(0), jnp.asarray(100), num_steps=steps, chunk=2,
      checkpoint_every=2, workdir=tmp_path)
  whole = run(8)
  kept = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()
                if p.name.isdigit())
  assert kept[-1] == 8
  for path in (tmp_path / 'checkpoints' / '8').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:20])
  again = run(8)
  assert again.status == Status.FINISHED
  np.testing.assert_array_equal(again.infos.loss, whole.infos.loss)
  assert int(again.state) == int(whole.state)


def test_the_first_step_that_broke_is_told():
  def step(state, data):
    loss = jnp.where(state == 5, jnp.nan, 1.0)
    return state + 1, Info(loss, jnp.isfinite(loss))

  result = loop.run(step, jnp.asarray(0), jnp.asarray(0), num_steps=9, chunk=4)
  assert (result.status, result.broken_at) == (Status.NOT_FINITE, 5)


@pytest.mark.errors
def test_bad_arguments_are_named_before_any_step(tmp_path):
  def step(state, data):
    raise AssertionError('must not run')

  for name in ('num_steps', 'chunk', 'checkpoint_every'):
    with pytest.raises(ValueError, match=f'`{name}` must be an integer of'):
      loop.run(step, 0, 0, **{'num_steps': 1, name: 0})
  with pytest.raises(ValueError, match='`extra.*must be a number or an array'):
    loop.run(step, 0, 0, num_steps=1, workdir=tmp_path, extra={'a': 'text'})
  with pytest.raises(ValueError, match='`config` must be a dataclass'):
    loop.config_fingerprint({'a': 1})
  with pytest.raises(ValueError, match='`ignore` must be one of rate, steps'):
    loop.config_fingerprint(_Config(), ignore=('stepz',))


def test_a_long_compilation_is_announced_once(monkeypatch):
  lines = []
  monkeypatch.setattr(
      logging, 'info', lambda text, *args: lines.append(text % args))
  monkeypatch.setattr(loop.runner, '_SILENT', 0.05)

  def slow(state, data):
    time.sleep(0.3)  # While it is traced, that is once a program.
    return _step(state, data)

  state, data = _problem()
  loop.run(slow, state, data, num_steps=4, chunk=2, description='here')
  told = [line for line in lines if 'compiling' in line]
  assert told == ['here: compiling the program of a step, once; no step is '
                  'made meanwhile']
