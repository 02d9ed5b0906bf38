"""IDC against NumPy and finite differences, class after class."""
import jax
import numpy as np
import optax
import pytest

from dsr import nets
from dsr.distill import idc, support, targets
from tests.distill.test_formations import TWO_TO_FOUR
from tests.reference import matching as oracle

CLASSES, PER_CLASS, RATE, MOMENTUM, BATCH = 2, 1, 0.05, 0.5, 4
SHAPE = (4, 4, 1)
NETWORK_RATE, EXAMPLES = 0.3, 7  # So two batches of four.


def _transform(x):
  return (x - 0.4) * 3


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  labels = np.array([1, 0, 1, 1, 0, 0, 1, 0, 1])
  return targets.targets(
      _transform(rng.uniform(size=(len(labels), *SHAPE))),
      np.eye(CLASSES)[labels], labels)


@pytest.fixture(scope='module')
def start():
  x = np.random.default_rng(1).uniform(0.1, 0.9, size=(CLASSES, *SHAPE))
  return support.support(x, np.eye(CLASSES))


def _solver(metric):
  made = idc.idc(
      nets.MLP(CLASSES, (5,)), optax.sgd(RATE, momentum=MOMENTUM), factor=2,
      metric=metric, inner=2, transform=_transform, batch_size=BATCH,
      network_rate=NETWORK_RATE, network_examples=EXAMPLES)
  return made._replace(step=jax.jit(made.step))


def _decoded(image):
  """The four images of a stored one (4, 4, 1)."""
  return np.stack([
      TWO_TO_FOUR @ image[i:i + 2, j:j + 2, 0] @ TWO_TO_FOUR.T
      for i in (0, 2) for j in (0, 2)])[..., None]


def _round(state, data, params, power, velocity):
  """Images, momentum and loss after a round of all classes, by NumPy."""
  key = jax.random.split(state.key, 5)[2]
  rows, _ = targets.by_class(key, data, BATCH)
  x, total = np.asarray(state.support.x), 0.0
  for c in range(CLASSES):
    y = np.repeat(np.eye(CLASSES)[c:c + 1], BATCH, 0)
    want = oracle.mlp_gradient(params, np.asarray(data.x[rows[c]]), y)

    def loss(own, y=y, want=want):
      return oracle.difference(want, oracle.mlp_gradient(
          params, _transform(_decoded(own)), y), power)

    total += loss(x[c])
    gradient = np.zeros_like(x)
    gradient[c] = oracle.numerical(loss, x[c])
    velocity = MOMENTUM * velocity + gradient  # Of all classes.
    x = x - RATE * velocity
  return x, velocity, total


def _fresh(state):
  key = jax.random.split(jax.random.split(state.key, 5)[1])[0]
  params = nets.MLP(CLASSES, (5,)).init(key, np.zeros((1, *SHAPE)))['params']
  return {layer: {'kernel': np.asarray(own['kernel']) / np.sqrt(3),
                  'bias': np.asarray(own['bias'])}
          for layer, own in params.items()}


def _trained(params, state, data):
  """Two batches of SGD with momentum 0.9 and weight decay 5e-4."""
  labels = np.zeros(len(data.x), int)
  labels[np.asarray(data.rows[1])] = 1  # Its list is full.
  key = jax.random.split(state.key, 5)[4]
  order = np.asarray(jax.random.permutation(key, len(data.x)))
  velocity = None
  for rows in (order[:4], order[4:8]):
    gradient = oracle.mlp_gradient(
        params, np.asarray(data.x)[rows], np.eye(CLASSES)[labels[rows]])
    gradient = oracle.descend(gradient, params, -5e-4)
    velocity = gradient if velocity is None else oracle.descend(
        gradient, velocity, -0.9)
    params = oracle.descend(params, velocity, NETWORK_RATE)
  return params


@pytest.mark.parametrize(('metric', 'power'), [('mse', 2), ('l1', 1)])
def test_rounds_equal_numpy(data, start, metric, power):
  """Tiles, momentum across classes, training on real images, cutting."""
  solver = _solver(metric)
  first = solver.init(jax.random.key(3), start, data)
  second, info = solver.step(first, data)
  params = _fresh(first)
  x, velocity, total = _round(
      first, data, params, power, np.zeros(start.x.shape))
  assert np.abs(x - start.x).max() > 5e-3
  np.testing.assert_allclose(info.loss, total, rtol=1e-9)
  np.testing.assert_allclose(second.support.x, x, rtol=1e-5, atol=1e-7)
  np.testing.assert_array_equal(second.support.y, start.y)
  params = _trained(params, first, data)
  for layer, own in params.items():
    for name, a in own.items():
      np.testing.assert_allclose(
          second.network.params[layer][name], a, rtol=1e-8, atol=1e-11)
  # Pixels far outside: the last round of a network cuts them.
  far = second._replace(support=second.support._replace(
      x=second.support.x.at[0, 0, 0].set(3.0)))
  third, info = solver.step(far, data)
  x, _, total = _round(far, data, params, power, velocity)
  np.testing.assert_allclose(info.loss, total, rtol=1e-8)
  np.testing.assert_allclose(
      third.support.x, np.clip(x, 0, 1), rtol=1e-5, atol=1e-6)
  assert float(third.support.x[0, 0, 0, 0]) == 1
  assert [int(s.turn) for s in (first, second, third)] == [0, 1, 0]
  bad = data._replace(x=data.x.at[:].set(np.nan))
  assert not bool(solver.step(first, bad)[1].finite)


def test_classes_are_read_off_the_lists_of_rows():
  labels = np.array([2, 0, 1, 1, 0, 2, 1])
  data = targets.targets(
      np.zeros((7, 2)), np.eye(3)[labels], labels)
  np.testing.assert_array_equal(idc._classes(data), labels)


@pytest.mark.errors
def test_refusals(data, start):
  module, sgd = nets.MLP(CLASSES, (5,)), optax.sgd(1.0)
  for name in ('factor', 'inner', 'batch_size', 'most'):
    with pytest.raises(ValueError, match=f'`{name}` must be an integer of at'):
      idc.idc(module, sgd, **{name: 0})
  with pytest.raises(ValueError, match='`metric` must be one of mse, l1'):
    idc.idc(module, sgd, metric='cos')
  with pytest.raises(ValueError, match='`cutmix` must be in'):
    idc.idc(module, sgd, cutmix=2.0)
  init = idc.idc(module, sgd).init
  with pytest.raises(ValueError, match=r'`start.x` must be pixels in \[0, 1\]'):
    init(jax.random.key(0), start._replace(x=start.x + 1), data)
  with pytest.raises(ValueError, match='2 classes.*got 1 images'):
    init(jax.random.key(0), support.support(start.x[:1], start.y[:1]), data)
  with pytest.raises(ValueError, match='`module` must have kernels below'):
    idc.idc(nets.MLP(CLASSES, ()), sgd).init(jax.random.key(0), start, data)
