"""MTT against NumPy: the unrolled student, its rate, and the rows it sees."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import loop, nets
from dsr.distill import mtt, support
from tests.distill import mlp, problem

CLASSES, STEPS, START_RATE = 3, 3, 0.2
PIXELS, OF_RATE = 0.5, 1e-3
MODULE = nets.MLP(CLASSES, (5,))
_SIZE = 6 * 5 + 5 + 5 * CLASSES + CLASSES


@pytest.fixture(scope='module')
def start():
  rng = np.random.default_rng(1)
  y = np.eye(CLASSES)[np.repeat(np.arange(CLASSES), 2)]
  return support.support(rng.normal(size=(6, 2, 3, 1)), y - 1 / CLASSES)


@pytest.fixture(scope='module')
def params():
  """Two trajectories of four epochs that drift away from a random start."""
  rng = np.random.default_rng(2)
  drift = np.cumsum(0.1 * rng.normal(size=(2, 5, _SIZE)), axis=1)
  return jnp.asarray(0.5 * rng.normal(size=_SIZE) + drift)


def _solver(**options):
  return mtt.mtt(MODULE, optax.sgd(PIXELS), optax.sgd(OF_RATE), **{
      'student_steps': STEPS, 'target_epochs': 2, 'most_start': 3,
      'start_rate': START_RATE,
      'probabilities': lambda y: y + 1 / CLASSES} | options)


@pytest.fixture(scope='module')
def run(start, params):
  """(solver, state at the start)."""
  solver = _solver()
  return solver, solver.init(jax.random.key(3), start, params)


def _drawn(state):
  """The expert and the epoch of this step."""
  keys = jax.random.split(state.key, 5)
  draw = lambda key, num: int(
      jax.random.randint(key, (), 0, num, dtype=jnp.int32))
  return draw(keys[1], 2), draw(keys[2], 3)


def _oracle(x, rate, y, params, expert, epoch):
  """L of the module text, by a loop in NumPy."""
  vectors = np.asarray(params)[expert]
  theta = mlp.unravel(vectors[epoch], 6, CLASSES)
  for _ in range(STEPS):
    slopes = mlp.cross_entropy_slopes(mlp.forward(theta, x)[1], y)
    theta = mlp.step(theta, mlp.backward(theta, x, slopes), rate)
  end, target = mlp.ravel(theta), vectors[epoch + 2]
  return np.sum((end - target)**2) / np.sum((vectors[epoch] - target)**2)


def test_loss_and_unrolled_gradient_equal_finite_differences(
    run, start, params):
  solver, state = run
  after, info = jax.jit(solver.step)(state, params)
  x, y = np.asarray(start.x), np.asarray(start.y) + 1 / CLASSES
  of_x = lambda a: _oracle(a, START_RATE, y, params, *_drawn(state))
  of_rate = lambda a: _oracle(x, a[0], y, params, *_drawn(state))
  np.testing.assert_allclose(info.loss, of_x(x), rtol=1e-10)
  np.testing.assert_allclose(
      after.support.x, x - PIXELS * mlp.central_differences(of_x, x),
      rtol=1e-6, atol=1e-8)
  rate = np.array([START_RATE])
  slope, = mlp.central_differences(of_rate, rate)
  np.testing.assert_allclose(after.rate, START_RATE - OF_RATE * slope,
                             rtol=1e-6)
  assert abs(slope) > 0.01
  np.testing.assert_array_equal(after.support.y, start.y)


def test_resumed_is_bit_identical_with_its_rate(run, params, tmp_path):
  solver, state = run
  straight = loop.run(solver.step, state, params, num_steps=4, chunk=2,
                      progress=False)
  for steps in (2, 4):
    resumed = loop.run(solver.step, state, params, num_steps=steps, chunk=2,
                       workdir=tmp_path, progress=False)
  problem.assert_identical(resumed.state, straight.state)
  assert straight.state.rate != START_RATE
  np.testing.assert_array_equal(resumed.infos.rate, straight.infos.rate)
  broken = loop.run(solver.step, state, params.at[:].set(jnp.nan),
                    num_steps=4, chunk=2, progress=False)
  assert broken.broken_at == 0


def test_every_image_is_seen_before_any_again():
  rows = np.asarray(mtt._rows(jax.random.key(0), 6, 2, 7))
  assert rows.shape == (7, 2)
  for first in (0, 3):
    assert sorted(rows[first:first + 3].ravel()) == list(range(6))
  np.testing.assert_array_equal(
      mtt._rows(jax.random.key(0), 3, 0, 2), [[0, 1, 2]] * 2)


@pytest.mark.errors
def test_refusals(start, params):
  for name in ('student_steps', 'target_epochs', 'most_start', 'start_rate'):
    with pytest.raises(ValueError, match=f'`{name}`'):
      _solver(**{name: 0})
  with pytest.raises(ValueError, match='`batch_size`'):
    _solver(batch_size=-1)
  with pytest.raises(ValueError, match='`params` must be.*got'):
    _solver(most_start=4).init(jax.random.key(0), start, params)
  with pytest.raises(ValueError, match='`params` must be.*for this module'):
    _solver().init(jax.random.key(0), start, params[:, :, 1:])
