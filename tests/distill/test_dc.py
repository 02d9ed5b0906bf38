"""Gradient matching against NumPy, finite differences and descent by hand."""
import jax
import numpy as np
import optax
import pytest

from dsr import nets
from dsr.distill import dc, support, targets
from tests.reference import matching as oracle

CLASSES, PER_CLASS, RATE, INNER, NETWORK_RATE = 3, 2, 0.25, 3, 0.4


def _augment(key, x):
  """The same factor for all images of a call."""
  return x * jax.random.uniform(key, (), x.dtype, 0.5, 2.0)


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  labels = np.array([2, 0, 1, 1, 0, 2, 1, 0, 1, 2, 1])
  return targets.targets(
      rng.normal(size=(len(labels), 2, 2, 1)), np.eye(CLASSES)[labels], labels)


@pytest.fixture(scope='module')
def start():
  rng = np.random.default_rng(1)
  labels = np.repeat(np.arange(CLASSES), PER_CLASS)
  frozen = np.zeros((len(labels), 2, 2, 1), bool)
  frozen[0, 0] = True
  return support.support(
      rng.normal(size=frozen.shape), np.eye(CLASSES)[labels], frozen)


@pytest.fixture(scope='module')
def solver():
  """Two steps of the images a network; all images of each class."""
  made = dc.dc(
      nets.MLP(CLASSES, (5,)), optax.sgd(RATE), outer=2, inner=INNER,
      batch_size=100, network_rate=NETWORK_RATE, augment=_augment)
  return made._replace(step=jax.jit(made.step))


@pytest.fixture(scope='module')
def states(solver, data, start):
  """Before and after each of three steps, and what the steps said."""
  out, infos = [solver.init(jax.random.key(3), start, data)], []
  for _ in range(3):
    state, info = solver.step(out[-1], data)
    out.append(state)
    infos.append(info)
  return out, infos


def _fresh(state):
  """Parameters of the network that a step from `state` at turn 0 starts."""
  key = jax.random.split(jax.random.split(state.key, 4)[1])[0]
  params = nets.MLP(CLASSES, (5,)).init(key, np.zeros((1, 2, 2, 1)))['params']
  return {layer: {'kernel': np.asarray(own['kernel']) / np.sqrt(3),
                  'bias': np.asarray(own['bias'])}
          for layer, own in params.items()}


def _loss(state, data, params):
  """x -> the loss of a step from `state`, as a function of its images."""
  keys = jax.random.split(jax.random.split(state.key, 4)[3], CLASSES)
  factors = [float(_augment(key, np.ones(()))) for key in keys]
  one_hot = np.eye(CLASSES)

  def loss(x):
    total = 0.0
    for c in range(CLASSES):
      rows = np.asarray(data.rows[c])
      real = np.asarray(data.x)[rows[rows >= 0]] * factors[c]
      own = x[c * PER_CLASS:(c + 1) * PER_CLASS] * factors[c]
      total += oracle.cosine(*(oracle.mlp_gradient(
          params, z, np.repeat(one_hot[c:c + 1], len(z), 0))
                               for z in (real, own)))
    return total

  return loss


def _trained(params, state):
  y = np.repeat(np.eye(CLASSES), PER_CLASS, 0)
  for _ in range(INNER):
    params = oracle.descend(params, oracle.mlp_gradient(
        params, np.asarray(state.support.x), y), NETWORK_RATE)
  return params


def _assert_close(params, want):
  for layer, own in want.items():
    for name, a in own.items():
      np.testing.assert_allclose(params[layer][name], a, rtol=1e-9, atol=1e-12)


def test_loss_and_step_equal_numpy(states, data, start):
  """One factor a class for both sides, pulled back; frozen pixels stay."""
  (before, after, *_), infos = states
  loss = _loss(before, data, _fresh(before))
  x = np.asarray(start.x)
  np.testing.assert_allclose(infos[0].loss, loss(x), rtol=1e-12)
  moved = x - RATE * np.where(start.frozen, 0, oracle.numerical(loss, x))
  assert np.abs(moved - x).max() > 1e-2
  np.testing.assert_allclose(after.support.x, moved, rtol=1e-6, atol=1e-8)
  np.testing.assert_array_equal(after.support.y, start.y)


def test_the_network_is_trained_between_steps_and_then_replaced(states, data):
  (first, second, third, fourth), infos = states
  assert [int(s.turn) for s in (first, second, third, fourth)] == [0, 1, 0, 1]
  params = _trained(_fresh(first), second)
  _assert_close(second.network.params, params)
  np.testing.assert_allclose(infos[1].loss, _loss(second, data, params)(
      np.asarray(second.support.x)), rtol=1e-9)
  _assert_close(third.network.params, params)  # The last training is left out.
  _assert_close(fourth.network.params, _trained(_fresh(third), fourth))
  np.testing.assert_allclose(infos[2].loss, _loss(third, data, _fresh(third))(
      np.asarray(third.support.x)), rtol=1e-9)


def test_what_is_not_finite_is_told(solver, data, start):
  state = solver.init(jax.random.key(3), start, data)
  assert bool(solver.step(state, data)[1].finite)
  bad = data._replace(x=data.x.at[3].set(np.nan))
  assert not bool(solver.step(state, bad)[1].finite)


def test_published_loops():
  assert [dc.loops(n) for n in (1, 10, 20, 50)] == [
      (1, 1), (10, 50), (20, 25), (50, 10)]
  assert dc.loops(1000) == (1000, 1)


@pytest.mark.errors
def test_refusals(data, start):
  module, sgd = nets.MLP(CLASSES, (5,)), optax.sgd(1.0)
  for name in ('outer', 'inner', 'batch_size', 'block'):
    with pytest.raises(ValueError, match=f'`{name}` must be an integer of at'):
      dc.dc(module, sgd, **{name: 0})
  with pytest.raises(ValueError, match='`network_rate` must be positive'):
    dc.dc(module, sgd, network_rate=0.0)
  init = dc.dc(module, sgd).init
  with pytest.raises(ValueError, match='3 classes.*got 4 images'):
    init(jax.random.key(0), support.support(start.x[:4], start.y[:4]), data)
  with pytest.raises(ValueError, match='`start.x`'):
    init(jax.random.key(0), support.support(start.x[:, :1], start.y), data)
  with pytest.raises(ValueError, match='`module` must have 3 outputs.*got 2'):
    dc.dc(nets.MLP(2, (5,)), sgd).init(jax.random.key(0), start, data)
  with pytest.raises(ValueError, match='`images_per_class`'):
    dc.loops(0)
