"""FRePo against NumPy: its loss, its pool, and what it leaves alone."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import loop, nets
from dsr.distill import frepo, support, targets
from tests.distill import mlp, problem

CLASSES, RIDGE, RATE, ONLINE = 3, 1e-3, 0.25, 0.1


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  labels = np.array([2, 0, 1, 1, 0, 2, 1, 0, 1, 2, 1])
  return targets.targets(rng.normal(size=(len(labels), 2, 3, 1)),
                         np.eye(CLASSES)[labels] - 1 / CLASSES, labels)


@pytest.fixture(scope='module')
def start():
  """Six images; the labels of two have a margin below 1/3."""
  rng = np.random.default_rng(1)
  y = np.eye(CLASSES)[np.repeat(np.arange(CLASSES), 2)] - 1 / CLASSES
  y[0] = [0.2, 0.1, -0.3]
  y[5] = [-0.1, 0.0, 0.2]
  return support.support(rng.normal(size=(6, 2, 3, 1)), y)


def _solver(**options):
  return frepo.frepo(
      nets.MLP(CLASSES, (5,)), optax.sgd(RATE), **{
          'online': optax.sgd(ONLINE), 'num_networks': 2, 'most_steps': 3,
          'ridge': RIDGE, 'batch_size': 0} | options)


@pytest.fixture(scope='module')
def run(data, start):
  """(solver, jitted step, state at the start)."""
  solver = _solver()
  return (solver, jax.jit(solver.step),
          solver.init(jax.random.key(3), start, data))


def _network(state, i):
  return jax.tree.map(lambda a: np.asarray(a[i]), state.pool.params)


def _picked(state):
  key = jax.random.split(state.key, 4)[1]
  return int(jax.random.randint(key, (), 0, 2, dtype=jnp.int32))


def _oracle(params, x, y, data, margin=True):
  """The loss of the module text, in NumPy."""
  phi_s, phi_t = (mlp.forward(params, a)[0] for a in (x, np.asarray(data.x)))
  k = phi_s @ phi_s.T
  dual = np.linalg.solve(
      k + RIDGE * np.trace(k) / len(k) * np.eye(len(k)), y)
  error = np.asarray(data.y) - phi_t @ phi_s.T @ dual
  loss = 0.5 * (error**2).sum(1).mean()
  if not margin:
    return loss
  top = np.sort(y, axis=1)
  return loss - np.minimum(top[:, -1] - top[:, -2], 1 / CLASSES).mean()


def test_a_step_moves_images_labels_and_network_as_in_numpy(run, data, start):
  _, step, state = run
  after, info = step(state, data)
  i = _picked(state)
  params, x, y = _network(state, i), np.asarray(start.x), np.asarray(start.y)
  np.testing.assert_allclose(
      info.loss, _oracle(params, x, y, data), rtol=1e-10)
  x_moved = x - RATE * mlp.central_differences(
      lambda a: _oracle(params, a, y, data), x)
  y_moved = y - RATE * mlp.central_differences(
      lambda a: _oracle(params, x, a, data), y)
  np.testing.assert_allclose(after.support.x, x_moved, rtol=1e-6, atol=1e-8)
  np.testing.assert_allclose(after.support.y, y_moved, rtol=1e-6, atol=1e-8)
  slopes = (mlp.forward(params, x_moved)[1] - y_moved) / len(y)
  want = mlp.step(params, mlp.backward(params, x_moved, slopes), ONLINE)
  got = _network(after, i)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
               got, want)
  other = 1 - i
  problem.assert_identical(_network(after, other), _network(state, other))


def test_networks_are_replaced_at_their_age(run, data):
  """Ages start apart; a turn adds 1, or at `most_steps` brings a fresh one."""
  _, step, state = run
  ages = [0, 1]  # 3 * i // 2
  np.testing.assert_array_equal(state.pool.age, ages)
  replaced = 0
  for _ in range(12):
    i, key_net = _picked(state), jax.random.split(state.key, 4)[3]
    state, _ = step(state, data)
    if ages[i] == 3:
      ages[i], replaced = 0, replaced + 1
      fresh = nets.MLP(CLASSES, (5,)).init(key_net, data.x[:1])['params']
      jax.tree.map(np.testing.assert_array_equal, _network(state, i), fresh)
    else:
      ages[i] += 1
    np.testing.assert_array_equal(state.pool.age, ages)
  assert replaced >= 2


def test_resumed_is_bit_identical_with_its_pool(run, data, tmp_path):
  solver, _, state = run
  straight = loop.run(solver.step, state, data, num_steps=4, chunk=2,
                      progress=False)
  for steps in (2, 4):
    resumed = loop.run(solver.step, state, data, num_steps=steps, chunk=2,
                       workdir=tmp_path, progress=False)
  problem.assert_identical(resumed.state, straight.state)
  np.testing.assert_array_equal(resumed.infos.loss, straight.infos.loss)


@pytest.mark.slow
def test_fixed_labels_and_mirror_images(data, start):
  solver = _solver(learn_labels=False, flip=True)
  state = solver.init(jax.random.key(3), start, data)
  after, info = jax.jit(solver.step)(state, data)
  x, y = np.asarray(start.x), np.asarray(start.y)
  want = _oracle(_network(state, _picked(state)),
                 np.concatenate([x, x[:, :, ::-1]]), np.concatenate([y, y]),
                 data, margin=False)
  np.testing.assert_allclose(info.loss, want, rtol=1e-10)
  np.testing.assert_array_equal(after.support.y, y)
  assert np.abs(after.support.x - x).max() > 1e-4


def test_margins_by_hand():
  y = jnp.array([[0.9, -0.1, 0.2], [0.3, 0.2, -0.5], [0.1, 0.1, 0.0]])
  np.testing.assert_allclose(frepo.margins(y), [1 / 3, 0.1, 0], atol=1e-12)
  signs = jnp.array([[-1.0], [0.2]])
  np.testing.assert_allclose(frepo.margins(signs), [0.5, 0.2], atol=1e-12)


@pytest.mark.slow
def test_moments_are_those_of_the_distilled_images(data):
  """A training image's features depend on no other one, with batch norm too."""
  module = nets.ConvNet(CLASSES, depth=1, width=2, norm='batch')
  x = data.x[:, :, :2] + 1.0
  params = module.init(jax.random.key(0), x[:1])['params']
  variables = frepo._variables(module, params, x[:4])
  want = module.apply({'params': params}, x[:4], features=True)
  found = frepo._features(module, variables, x)  # Eleven: two blocks.
  np.testing.assert_allclose(found[:4], want, rtol=1e-9, atol=1e-12)
  alone = frepo._features(module, variables, x[10:])
  np.testing.assert_allclose(found[10:], alone, rtol=1e-9, atol=1e-12)


def test_nan_in_the_data_is_seen_at_its_step(run, data):
  solver, _, state = run
  result = loop.run(
      solver.step, state, data._replace(x=data.x.at[0].set(jnp.nan)),
      num_steps=4, chunk=2, progress=False)
  assert result.broken_at == 0


@pytest.mark.errors
def test_refusals(run, data, start):
  for name in ('num_networks', 'most_steps', 'ridge'):
    with pytest.raises(ValueError, match=f'`{name}`'):
      _solver(**{name: 0})
  with pytest.raises(ValueError, match='`batch_size`'):
    _solver(batch_size=-1)
  with pytest.raises(ValueError, match='`start.x`'):
    run[0].init(jax.random.key(0), support.support(
        start.x[:, :1], start.y), data)
