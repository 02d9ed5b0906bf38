"""Training of finite networks: NumPy gradient descent, batches, protocols."""
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import nets, train
from dsr.types import Examples


class Constant(nn.Module):
  """Outputs a learned number: its loss tells which rows a batch holds."""

  @nn.compact
  def __call__(self, x):
    value = self.param('value', nn.initializers.zeros, (1,), x.dtype)
    return jnp.zeros((x.shape[0], 1), x.dtype) + value.reshape(1, 1)


def _examples(num=12, dim=5, classes=3, dtype='float64', seed=0):
  rng = np.random.default_rng(seed)
  return Examples(rng.normal(size=(num, dim)).astype(dtype),
                  rng.normal(size=(num, classes)).astype(dtype))


def _images(num=6, dtype='float32'):
  rng = np.random.default_rng(0)
  return Examples(rng.normal(size=(num, 8, 8, 1)).astype(dtype),
                  rng.normal(size=(num, 3)).astype(dtype))


@pytest.fixture(scope='module')
def digits():
  """(support of 20 a class, test inputs, test labels), standardised."""
  from sklearn import datasets

  x, y = datasets.load_digits(return_X_y=True)
  x = x.reshape(-1, 8, 8, 1).astype('float32')
  x = (x - x.mean()) / x.std()
  rows = np.concatenate([np.flatnonzero(y[:900] == c)[:20] for c in range(10)])
  targets = np.equal(y[rows, None], np.arange(10)).astype('float32')
  return Examples(x[rows], targets), x[900:], y[900:]


def _numpy_softmax(z):
  z = np.exp(z - z.max(1, keepdims=True))
  return z / z.sum(1, keepdims=True)


@pytest.mark.parametrize('loss', train.LOSSES)
def test_linear_model_equals_numpy_momentum_descent(loss, key):
  data = _examples()
  if loss == 'cross_entropy':
    data = data._replace(y=_numpy_softmax(data.y))
  protocol = train.Protocol(optimizer='sgd', learning_rate=0.05, momentum=0.8,
                            weight_decay=0.02)
  module = nets.MLP(3, widths=())
  fit = train.fit_networks(
      key, module, data, num_steps=7, num_networks=2, loss=loss,
      optimizer=train.make_optimizer(protocol, num_steps=7))
  start = train.init_networks(key, module, data.x, num_networks=2)
  for r in range(2):
    w = np.asarray(start['readout']['kernel'][r])
    b = np.asarray(start['readout']['bias'][r])
    velocity_w, velocity_b, curve = 0, 0, []
    for _ in range(7):
      out = data.x @ w + b
      if loss == 'mse':
        curve.append(0.5 * ((out - data.y)**2).sum(1).mean())
        slope = (out - data.y) / 12
      else:
        prob = _numpy_softmax(out)
        curve.append(-(data.y * np.log(prob)).sum(1).mean())
        slope = (prob - data.y) / 12
      velocity_w = 0.8 * velocity_w + data.x.T @ slope + 0.02 * w
      velocity_b = 0.8 * velocity_b + slope.sum(0) + 0.02 * b
      w, b = w - 0.05 * velocity_w, b - 0.05 * velocity_b
    np.testing.assert_allclose(fit.curve[:, r], curve, rtol=1e-12)
    np.testing.assert_allclose(
        fit.params['readout']['kernel'][r], w, rtol=1e-11)
    np.testing.assert_allclose(fit.params['readout']['bias'][r], b, rtol=1e-11)


@pytest.mark.slow
def test_networks_side_by_side_equal_each_one_alone(key):
  data = _images(dtype='float64')
  module = nets.ConvNet(num_outputs=3, depth=1, width=4)
  optimizer = optax.sgd(0.05, momentum=0.9)
  fits = [train.fit_networks(
      key, module, data, optimizer=optimizer, num_steps=6, num_networks=3,
      batch_size=4, parallel=parallel) for parallel in (1, 3)]
  for fit in fits:
    assert fit.curve.shape == (6, 3)
  solver = train.gradient_descent(module, optimizer, batch_size=4)
  step = jax.jit(solver.step)
  data = jax.tree.map(jnp.asarray, data)
  for r, one_key in enumerate(jax.random.split(key, 3)):
    state, curve = jax.jit(solver.init)(one_key, data), []
    for _ in range(6):
      state, info = step(state, data)
      curve.append(info.loss)
    for fit in fits:
      np.testing.assert_allclose(fit.curve[:, r], curve, rtol=1e-9)
      network = jax.tree.map(lambda a, r=r: a[r], fit.params)
      jax.tree.map(lambda a, b: np.testing.assert_allclose(
          a, b, rtol=1e-8, atol=1e-10), network, state.params)
  assert np.ptp(fits[0].curve[0]) > 1e-3  # The starts differ.


def test_same_key_same_bits_other_key_other_networks(key):
  data, optimizer = _examples(dtype='float32'), optax.adam(1e-2)
  fit = lambda k: train.fit_networks(
      k, nets.MLP(3, (8,)), data, optimizer=optimizer, num_steps=5,
      num_networks=2, batch_size=5)
  first, again, other = fit(key), fit(key), fit(jax.random.key(1))
  jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
  np.testing.assert_array_equal(first.curve, again.curve)
  assert np.abs(first.curve - other.curve).min() > 0


@pytest.mark.parametrize(('num', 'size'), [(6, 4), (5, 1)])
def test_every_epoch_visits_every_row_in_a_new_order(num, size, key):
  # Row n has loss 2^n, so a batch's loss is the set of its rows in binary.
  y = np.sqrt(2 * 2.0**np.arange(num)).reshape(-1, 1)
  data = Examples(np.zeros((num, 1)), y)
  steps = -(-num // size)
  curve = train.fit_networks(
      key, Constant(), data, optimizer=optax.sgd(0.0), num_steps=6 * steps,
      num_networks=2, batch_size=size).curve
  sums = np.rint(size * curve).astype(int).T.reshape(2, 6, steps)
  rows = (sums[..., None] >> np.arange(num)) & 1
  np.testing.assert_array_equal(rows.sum(-1), size)  # Rows of a batch differ.
  seen = rows.sum(2)
  assert seen.min() == 1
  assert (seen.sum(-1) == steps * size).all()
  orders = {tuple(epoch.ravel()) for net in sums for epoch in net[:, None]}
  assert len(orders) > 4  # Epochs and networks have orders of their own.


def test_sets_within_one_batch_keep_their_order(key):
  solver = train.gradient_descent(nets.MLP(3, (4,)), optax.sgd(0.1),
                                  batch_size=12)
  data = jax.tree.map(jnp.asarray, _examples())
  assert solver.init(key, data).order is None


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('protocol', [
    train.FREPO._replace(schedule='cosine', weight_decay=1e-3),
    train.CONDENSATION._replace(loss='mse')], ids=['adam', 'sgd'])
def test_dtype_of_the_inputs_is_kept_under_x64(dtype, protocol, key):
  data = jax.tree.map(jnp.asarray, _images(dtype=dtype))
  optimizer = train.make_optimizer(protocol, num_steps=10)
  solver = train.gradient_descent(
      nets.ConvNet(num_outputs=3, depth=1, width=4), optimizer)
  state = jax.eval_shape(solver.init, key, data)
  state, info = jax.eval_shape(solver.step, state, data)
  floats = {a.dtype for a in jax.tree.leaves((state, info.loss))
            if jnp.issubdtype(a.dtype, jnp.floating)}
  assert floats == {jnp.dtype(dtype)}


@pytest.mark.parametrize(('schedule', 'want'), [
    ('constant', [0.5] * 8),
    ('cosine', 0.25 * (1 + np.cos(np.pi * np.arange(8) / 8))),
    ('step', [0.5] * 4 + [0.05] * 4)])
def test_schedules(schedule, want):
  protocol = train.Protocol(optimizer='sgd', learning_rate=0.5, momentum=0.0,
                            schedule=schedule)
  optimizer = train.make_optimizer(protocol, num_steps=8)
  params = jnp.zeros(())
  state, rates = optimizer.init(params), []
  for _ in range(8):
    update, state = optimizer.update(jnp.ones(()), state, params)
    rates.append(-update)
  np.testing.assert_allclose(rates, want, rtol=1e-6, atol=1e-9)


def test_augmentation_is_drawn_anew_for_each_step_and_network(key):
  data = Examples(np.ones((4, 2)), np.zeros((4, 3)))
  traces = []

  def augment(key, x):
    traces.append(x.shape)
    return x * jax.random.uniform(key)

  def fit(augment):
    return train.fit_networks(
        key, nets.MLP(3, widths=()), data, optimizer=optimizer, num_steps=4,
        num_networks=2, augment=augment)

  optimizer = optax.sgd(0.0)
  plain, augmented = fit(None), fit(augment)
  assert np.ptp(plain.curve, axis=0).max() == 0
  ratios = augmented.curve / plain.curve
  assert np.unique(ratios.round(12)).size == 8
  assert 0 < ratios.min() <= ratios.max() < 1
  count = len(traces)
  fit(augment)
  assert len(traces) == count  # Equal arguments compile nothing anew.
  assert set(traces) == {(4, 2)}


@pytest.mark.parametrize(('name', 'options', 'protocol'), [
    ('mlp', {'widths': (64,)},
     train.FREPO._replace(epochs=60, learning_rate=5e-3)),
    ('convnet3', {'width': 16, 'depth': 2},
     train.CONDENSATION._replace(epochs=40, learning_rate=0.1))])
def test_digits_are_learned(name, options, protocol, digits, key):
  support, x, labels = digits
  module = nets.build(name, 10, **options)
  result = train.evaluate(key, module, support, x, labels, protocol=protocol,
                          num_networks=3)
  curve = result.trained.curve
  assert curve.dtype == np.float32
  assert (curve[-1] < 0.5 * curve[0]).all()
  assert (result.accuracy > 0.6).all()  # Chance is 0.1.
  assert result.mean == pytest.approx(np.mean(result.accuracy))
  assert result.deviation == pytest.approx(
      np.sqrt(((result.accuracy - result.mean)**2).sum() / 2))


def test_tiles_do_not_change_predictions(key):
  module = nets.MLP(3, (8,))
  x = jnp.asarray(_examples(num=10).x)
  params = train.init_networks(key, module, x, num_networks=2)
  trained = train.Trained(module, params, None)
  alone = [jax.tree.map(lambda a, r=r: a[r], params) for r in range(2)]
  want = np.stack([module.apply({'params': p}, x) for p in alone])
  for tile in (3, 5, 10, 100):
    got = train.predict(trained, x, tile=tile)
    assert got.shape == (2, 10, 3)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_accuracy_of_known_outputs(key):
  del key
  module = nets.MLP(1, widths=(), use_bias=False)
  kernel = np.array([1.0, -1.0]).reshape(2, 1, 1)  # f(x) = x and f(x) = -x.
  trained = train.Trained(module, {'readout': {'kernel': kernel}}, None)
  x = np.array([[1.0], [2.0], [-1.0], [3.0]])
  np.testing.assert_array_equal(
      train.accuracy(trained, x, np.array([1, 1, 0, 0])), [0.75, 0.25])


@pytest.mark.errors
def test_divergence_is_an_error_with_advice(key):
  with pytest.raises(FloatingPointError, match='lower the learning rate'):
    train.fit_networks(key, nets.MLP(3, (16,)), _examples(dtype='float32'),
                       optimizer=optax.sgd(1e3), num_steps=100)


@pytest.mark.errors
def test_bad_input_is_refused(key):
  module, data = nets.MLP(3, (4,)), _examples()

  def fit(data=data, module=module, **kwargs):
    kwargs = dict(optimizer=optax.sgd(0.1), num_steps=2) | kwargs
    return train.fit_networks(key, module, data, **kwargs)

  with pytest.raises(ValueError, match='`data.y` has 11 rows, expected 12'):
    fit(data._replace(y=data.y[:-1]))
  with pytest.raises(ValueError, match='`data.x` must be finite, got 1'):
    fit(data._replace(x=np.where(np.arange(60).reshape(12, 5), data.x, np.nan)))
  with pytest.raises(ValueError, match='`data.y` must be floating'):
    fit(data._replace(y=np.ones((12, 3), int)))
  with pytest.raises(ValueError, match=r'outputs of shape \(12, 3\), expected'):
    fit(data._replace(y=data.y[:, :2]))
  with pytest.raises(ValueError, match='probabilities .* use loss .mse'):
    fit(loss='cross_entropy')
  with pytest.raises(ValueError, match='`loss` must be one of mse'):
    fit(loss='hinge')
  for name in ('num_networks', 'num_steps', 'batch_size', 'parallel'):
    with pytest.raises(ValueError, match=f'`{name}` .* at least 1, got 0'):
      fit(**{name: 0})
  for field, value in (('optimizer', 'lamb'), ('schedule', 'linear'),
                       ('learning_rate', 0.0), ('weight_decay', -1.0),
                       ('momentum', 2.0)):
    with pytest.raises(ValueError, match=f'`{field}` must be'):
      train.make_optimizer(train.FREPO._replace(**{field: value}), num_steps=2)
  labels = np.zeros(12, int)
  with pytest.raises(ValueError, match='`x` has examples of shape'):
    train.evaluate(key, module, data, data.x[:, :4], labels)
  with pytest.raises(ValueError, match='`epochs` .* at least 1, got 0'):
    train.evaluate(key, module, data, data.x, labels,
                   protocol=train.FREPO._replace(epochs=0))
  trained = fit()
  with pytest.raises(ValueError, match='`tile` .* at least 1'):
    train.predict(trained, data.x, tile=0)
  with pytest.raises(ValueError, match=r'`labels` must be in \[0, 3\)'):
    train.accuracy(trained, data.x, labels + 3)
  with pytest.raises(ValueError, match='`x` has 12, `labels` has 11'):
    train.accuracy(trained, data.x, labels[1:])
