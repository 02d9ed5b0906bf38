"""Adversarial training: linear networks in closed form, weights, resuming."""
import functools
import signal

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import nets, train
from dsr.probes.attacks import pgd
from dsr.train import adversarial
from dsr.types import Examples

EPSILON = 0.15
LINEAR = nets.MLP(2, widths=())
SMALL = nets.MLP(3, widths=(7,))
FREE = {'low': -jnp.inf, 'high': jnp.inf}
# One step from anywhere in the ball to the corner that a linear network has.
CORNER = functools.partial(
    pgd.pgd, epsilon=EPSILON, steps=1, step_size=2 * EPSILON, restarts=6,
    batch_size=100, **FREE)
STILL = functools.partial(pgd.pgd, epsilon=0.0, steps=1, **FREE)
FIXED = functools.partial(
    pgd.pgd, epsilon=EPSILON, steps=3, random_start=False, **FREE)
RATE = optax.sgd(0.3)


def _examples(num=12, dim=5, classes=2, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, num)
  return Examples(rng.normal(size=(num, dim)), np.eye(classes)[labels])


def _fit(data, module=LINEAR, optimizer=RATE, seed=0, **kwargs):
  kwargs = {'num_steps': 4, 'num_networks': 2} | kwargs
  return adversarial.fit_adversarial(
      jax.random.key(seed), module, data, optimizer=optimizer, **kwargs)


LONG = functools.partial(_fit, _examples(classes=3), SMALL, attack=CORNER,
                         batch_size=5, num_steps=60)


def _assert_same(one, other, rtol=1e-10):
  np.testing.assert_allclose(one.curve, other.curve, rtol=rtol)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12),
      one.params, other.params)


def _linear(data):
  """(R, N) margins z_other - z_label at the start, and (R,) their slope."""
  start = train.init_networks(jax.random.key(0), LINEAR, data.x,
                              num_networks=2)['readout']
  kernel, bias = np.asarray(start['kernel']), np.asarray(start['bias'])
  sign = np.where(data.y[:, 0] == 1, 1, -1)
  slope = kernel[:, :, 1] - kernel[:, :, 0]
  margins = sign * (slope @ data.x.T + (bias[:, 1:] - bias[:, :1]))
  return margins, np.abs(slope).sum(1)[:, None]


def _softplus(v):
  return np.log1p(np.exp(v))


@pytest.mark.slow
def test_without_attack_ball_or_penalty_it_is_fit_networks(key):
  data, inputs = _examples(classes=3), lambda x: 2 * x - 0.3
  seen = data._replace(x=inputs(data.x))
  want = train.fit_networks(
      key, SMALL, seen, optimizer=RATE, num_steps=4, num_networks=2,
      batch_size=5, loss='cross_entropy')
  fit = functools.partial(_fit, data, SMALL, inputs=inputs, batch_size=5)
  _assert_same(fit(method='standard'), want)
  _assert_same(fit(attack=STILL), want)
  none = fit(method='trades', attack=CORNER, beta=0.0)
  _assert_same(none, want)
  np.testing.assert_allclose(train.predict(none, seen.x),
                             train.predict(want, seen.x), rtol=1e-9)


def test_linear_network_faces_the_exact_worst_case():
  data, weights = _examples(), np.arange(12.0)
  margins, slope = _linear(data)
  fit = _fit(data, method='pgd', attack=CORNER, weights=weights)
  want = _softplus(margins + EPSILON * slope) @ (weights / weights.sum())
  np.testing.assert_allclose(fit.curve[0], want, rtol=1e-9)


def test_trades_faces_the_exact_largest_divergence():
  data = _examples()
  margins, slope = _linear(data)
  fit = _fit(data, method='trades', attack=CORNER, beta=2.5)
  found = []
  for end in (-1, 1):
    p = 1 / (1 + np.exp(margins))
    q = 1 / (1 + np.exp(margins + end * EPSILON * slope))
    found.append(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
  want = _softplus(margins) + 2.5 * np.maximum(*found)
  np.testing.assert_allclose(fit.curve[0], want.mean(1), rtol=1e-9)


def test_weights_leave_examples_out_and_repeat_them():
  data = _examples()
  counts = np.array([0, 3, 1, 0, 2, 1, 1, 0, 1, 2, 0, 1])
  fit = functools.partial(_fit, module=nets.MLP(2, (6,)), attack=FIXED)
  weighted = fit(data, weights=counts)
  repeated = jax.tree.map(lambda a: np.repeat(a, counts, axis=0), data)
  _assert_same(fit(repeated), weighted, rtol=1e-9)
  kept = jax.tree.map(lambda a: a[counts > 0], data)
  _assert_same(fit(kept, weights=0.1 * counts[counts > 0]), weighted, rtol=1e-9)


def test_batches_estimate_the_weighted_loss_without_bias():
  data, weights = _examples(), np.arange(12.0)
  want = _softplus(_linear(data)[0]) @ (weights / weights.sum())
  curve = _fit(data, method='standard', optimizer=optax.sgd(0.0),
               weights=weights, batch_size=4, num_steps=6).curve
  assert np.ptp(curve, axis=0).min() > 0.01
  epochs = curve.reshape(2, 3, 2).mean(1)  # Each visits all examples once.
  np.testing.assert_allclose(epochs, [want, want], rtol=1e-9)


def test_no_gradient_flows_through_the_search(key):
  data = _examples()
  seen = []

  def attack(key, predict_fn, x, labels):
    del key
    seen.append(labels)
    raised = lambda x: jnp.sum(optax.softmax_cross_entropy_with_integer_labels(
        predict_fn(x), labels))
    return x + jax.grad(raised)(x)  # Depends on the parameters.

  fit = _fit(data, attack=attack, optimizer=RATE, num_steps=1, num_networks=1)
  start = train.init_networks(key, LINEAR, data.x, num_networks=1)
  start = jax.tree.map(lambda a: a[0], start)
  loss = lambda params, x: optax.softmax_cross_entropy(
      LINEAR.apply({'params': params}, x), data.y)
  x = data.x + jax.grad(lambda x: loss(start, x).sum())(data.x)
  slope = jax.grad(lambda params: loss(params, x).mean())(start)
  jax.tree.map(
      lambda new, old, g: np.testing.assert_allclose(
          new[0], old - 0.3 * g, rtol=1e-10), fit.params, start, slope)
  assert seen[0].shape == (12,)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
  want, info = LONG(), logging.info

  def stop(*args):
    if 'step %d of' in args[0]:
      signal.raise_signal(signal.SIGINT)
    info(*args)

  with monkeypatch.context() as patch:
    patch.setattr(logging, 'info', stop)
    with pytest.raises(KeyboardInterrupt):
      LONG(workdir=tmp_path, fingerprint='a')
  steps = [int(p.name) for p in (tmp_path / 'checkpoints').iterdir()]
  assert steps == [1]  # Of three, with 20 updates each.
  got = LONG(workdir=tmp_path, fingerprint='a')
  np.testing.assert_array_equal(got.curve, want.curve)
  jax.tree.map(np.testing.assert_array_equal, got.params, want.params)
  with pytest.raises(ValueError, match='`fingerprint` must match'):
    LONG(workdir=tmp_path, fingerprint='b')
  assert np.abs(want.curve - LONG(seed=1).curve).min() > 0


@pytest.mark.slow
def test_networks_side_by_side_equal_those_in_turn():
  # Rounding of a step changes what an attack finds only after many of them.
  one, both = LONG(num_steps=20), LONG(num_steps=20, parallel=2)
  _assert_same(one, both, rtol=1e-8)


@pytest.mark.parametrize('method', [
    'pgd', pytest.param('trades', marks=pytest.mark.slow)])
def test_digits_become_robust(method, key):
  from sklearn import datasets

  x, y = datasets.load_digits(return_X_y=True)
  x, targets = (x / 16).astype('float32'), np.eye(10, dtype='float32')[y]
  module, optimizer = nets.MLP(10, (32,)), optax.adam(5e-3)
  inputs = lambda x: (x - 0.3) / 0.37
  attack = functools.partial(
      pgd.pgd, epsilon=EPSILON, steps=5, batch_size=64)
  strong = functools.partial(pgd.pgd, epsilon=EPSILON, steps=20)
  run = jax.jit(lambda params, x: module.apply({'params': params}, inputs(x)))
  robust = {}
  for name in ('standard', method):
    fit = adversarial.fit_adversarial(
        key, module, Examples(x[:900], targets[:900]), optimizer=optimizer,
        num_steps=160, num_networks=1, batch_size=64, method=name,
        attack=None if name == 'standard' else attack, beta=3.0,
        inputs=inputs)
    assert fit.curve.dtype == np.float32
    predict = jax.tree_util.Partial(
        run, jax.tree.map(lambda a: a[0], fit.params))
    right = lambda x: np.mean(predict(x).argmax(1) == y[900:])  # noqa: B023
    assert right(x[900:]) > 0.8
    robust[name] = right(strong(key, predict, x[900:], y[900:]))
  assert robust['standard'] < 0.3
  assert robust[method] > 0.4


@pytest.mark.parametrize('module', [
    nets.ConvNet(num_outputs=3, depth=1, width=4),
    nets.LeNet(num_outputs=3, channels=(2, 3), widths=(4, 4)),
    SMALL], ids=['convnet', 'lenet', 'mlp'])
@pytest.mark.parametrize('method', ['pgd', 'trades'])
def test_networks_of_all_kinds_keep_the_dtype(module, method, key):
  data = adversarial.Weighted(
      jnp.ones((5, 12, 12, 1), jnp.float32), jnp.ones((5, 3), jnp.float32) / 3,
      jnp.ones(5, jnp.float32) / 5)
  solver = adversarial.adversarial_descent(
      module, RATE, method=method, attack=CORNER, batch_size=2)
  state = jax.eval_shape(solver.init, key, data)
  after, info = jax.eval_shape(solver.step, state, data)
  assert jax.tree.map(jnp.shape, after.params) == jax.tree.map(
      jnp.shape, state.params)
  floats = {a.dtype for a in jax.tree.leaves((after, info.loss))
            if jnp.issubdtype(a.dtype, jnp.floating)}
  assert floats == {jnp.dtype('float32')}


@pytest.mark.errors
def test_bad_input_is_refused():
  data = _examples()
  for method, attack in (('standard', CORNER), ('pgd', None), ('trades', None)):
    with pytest.raises(ValueError, match='`attack` must be None with method'):
      _fit(data, method=method, attack=attack)
  fit = functools.partial(_fit, data, attack=CORNER)
  by_rows = functools.partial(CORNER, batch_size=5)
  with pytest.raises(ValueError, match='must hand all rows .* got 5 of 12'):
    _fit(data, method='trades', attack=by_rows)
  with pytest.raises(ValueError, match='`method` must be one of standard'):
    fit(method='fgsm')
  with pytest.raises(ValueError, match='`beta` must be finite and not neg'):
    fit(beta=-1.0)
  with pytest.raises(ValueError, match='`weights` has 11 rows, expected 12'):
    fit(weights=np.ones(11))
  with pytest.raises(ValueError, match='`weights` must be finite, got 1'):
    fit(weights=np.where(np.arange(12) > 0, 1.0, np.nan))
  for weights in (np.zeros(12), np.arange(12.0) - 1):
    with pytest.raises(ValueError, match='`weights` must not be negative, nor'):
      fit(weights=weights)
  with pytest.raises(ValueError, match='probabilities'):
    _fit(data._replace(y=data.y - 0.5), attack=CORNER)
  for name in ('num_steps', 'num_networks', 'batch_size', 'parallel'):
    with pytest.raises(ValueError, match=f'`{name}` .* at least 1, got 0'):
      fit(**{name: 0})
  images = Examples(np.ones((4, 8, 8, 1)), data.y[:4])
  with pytest.raises(ValueError, match='got ConvNet with batch normalisation'):
    _fit(images, nets.ConvNet(2, depth=1, width=4, norm='batch'), attack=CORNER)


@pytest.mark.errors
def test_divergence_of_the_loss_is_an_error_with_advice():
  data = _examples(num=12, classes=3)
  with pytest.raises(FloatingPointError, match='standard loss of MLP .* lower'):
    _fit(data, SMALL, optimizer=optax.sgd(1e200), method='standard')
