"""Victims against NumPy, optax and the identities of their duals."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import nets, train
from dsr.types import Examples, Status
from tests.train.problem import examples, flat, jacobian

LINEAR = nets.MLP(2, widths=())
SMALL = nets.MLP(2, (12, 9), b_std=0.2)
SGD = train.Recipe(learning_rate=0.05, momentum=0.8)


def _fit(module, data, seed=0, **kwargs):
  kwargs = {'tolerance': 0, 'max_steps': 7, 'progress': False} | kwargs
  return train.fit_victim(jax.random.key(seed), module, data, **kwargs)


def _probabilities(y):
  y = np.exp(np.asarray(y))
  return y / y.sum(1, keepdims=True)


def _targets(data, kind):
  if kind == 'softmax':
    return data._replace(y=jnp.asarray(_probabilities(data.y)))
  if kind == 'logistic':
    return data._replace(y=jnp.sign(data.y[:, :1]))
  return data


def _numpy_loss(kind, out, y):
  """(loss, residual) of each kind."""
  if kind == 'mse':
    return ((out - y)**2).mean(), y - out
  if kind == 'logistic':
    return np.log1p(np.exp(-y * out)).mean(), y / (1 + np.exp(y * out))
  p = _probabilities(out)
  return -(y * np.log(p)).sum(1).mean(), y - p


@pytest.mark.parametrize('decay', [0.0, 0.03])
@pytest.mark.parametrize('kind', ['mse', 'softmax', 'logistic'])
def test_linear_model_equals_numpy_momentum_descent(kind, decay):
  data = _targets(examples(), kind)
  module = nets.MLP(data.y.shape[1], widths=())
  recipe = SGD._replace(loss='mse' if kind == 'mse' else 'cross_entropy',
                        weight_decay=decay)
  victim = _fit(module, data, recipe=recipe)
  x, y = np.asarray(data.x), np.asarray(data.y)
  w, b = (np.asarray(victim.theta_0['readout'][k]) for k in ('kernel', 'bias'))
  velocity_w = velocity_b = velocity = duals = 0
  curve = []
  for _ in range(7):
    loss, residual = _numpy_loss(kind, x @ w + b, y)
    curve.append(loss)
    velocity_w = 0.8 * velocity_w - x.T @ residual / 6 + decay * w
    velocity_b = 0.8 * velocity_b - residual.sum(0) / 6 + decay * b
    w, b = w - 0.05 * velocity_w, b - 0.05 * velocity_b
    velocity = 0.8 * velocity + residual / 6
    duals = duals + 0.05 * velocity
  curve.append(_numpy_loss(kind, x @ w + b, y)[0])
  np.testing.assert_allclose(victim.theta_T['readout']['kernel'], w, rtol=1e-11)
  np.testing.assert_allclose(victim.theta_T['readout']['bias'], b, rtol=1e-11)
  np.testing.assert_allclose(victim.curve, curve, rtol=1e-11)
  if decay:
    assert victim.duals is None
  else:
    np.testing.assert_allclose(victim.duals, duals, rtol=1e-11)
  assert victim.status == Status.FINISHED
  assert victim.learning_rate == 0.05


@pytest.mark.parametrize('batch_size', [None, 4])
@pytest.mark.parametrize('kind', ['mse', 'softmax'])
def test_duals_rebuild_a_linearised_network_at_any_time(kind, batch_size):
  data = _targets(examples(), kind)
  recipe = SGD._replace(loss='mse' if kind == 'mse' else 'cross_entropy',
                        batch_size=batch_size)
  victim = _fit(SMALL, data, recipe=recipe, linearised=True, max_steps=37)
  j = jacobian(SMALL, victim.theta_0, data.x)
  change = flat(victim.theta_T) - flat(victim.theta_0)
  want = np.einsum('ncp,nc->p', j, victim.duals)
  assert np.linalg.norm(change) > 0.1
  assert np.linalg.norm(change - want) < 1e-10 * np.linalg.norm(change)
  out = SMALL.apply({'params': victim.theta_0}, data.x) + j @ change
  np.testing.assert_allclose(train.outputs(victim, data.x), out, rtol=1e-9)


def test_duals_of_a_network_go_along_its_path():
  """One step from theta_0, then one with the gradients at theta_1."""
  data = examples()
  one, two = (_fit(SMALL, data, recipe=SGD._replace(momentum=0.0), max_steps=n)
              for n in (1, 2))
  j = [jacobian(SMALL, theta, data.x) for theta in (one.theta_0, one.theta_T)]
  steps = [one.duals, two.duals - one.duals]
  want = sum(np.einsum('ncp,nc->p', a, d) for a, d in zip(j, steps))
  np.testing.assert_allclose(
      flat(two.theta_T) - flat(two.theta_0), want, rtol=1e-10, atol=1e-13)


def test_batches_visit_every_row_once_an_epoch():
  data = examples()
  recipe = train.Recipe(learning_rate=1e-12, momentum=0.0, batch_size=2)
  victim = _fit(LINEAR, data, recipe=recipe, max_steps=3)
  out = LINEAR.apply({'params': victim.theta_0}, data.x)
  # All residuals are those at the start, and each counted once, over B = 2.
  np.testing.assert_allclose(
      victim.duals, 1e-12 * (data.y - out) / 2, rtol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('linearised', [False, True])
def test_fits_to_the_tolerance_in_the_dtype_of_the_data(dtype, linearised):
  data = examples(outputs=1, dtype=dtype)
  module = nets.MLP(1, (64, 64))
  victim = _fit(module, data, linearised=linearised, tolerance=1e-10,
                max_steps=20_000)
  assert victim.status == Status.CONVERGED
  assert len(victim.curve) % 50 == 1
  assert victim.curve[-11:].max() < 1e-10
  assert victim.linearised == linearised
  leaves = jax.tree.leaves((victim.theta_T, victim.duals))
  assert {a.dtype.name for a in leaves} == {dtype}
  assert victim.curve.dtype == dtype
  error = train.outputs(victim, data.x, tile=4) - data.y
  np.testing.assert_allclose(
      (error**2).mean(), victim.curve[-1], rtol=1e-2, atol=1e-13)


def test_an_automatic_rate_gives_way_where_the_curvature_grows():
  """Small weights: the curvature at the start is far below what comes."""
  data = examples(outputs=1)
  module = nets.MLP(1, (32, 32), w_std=0.3, use_bias=False)
  victim = _fit(module, data, max_steps=50)
  fixed = _fit(module, data, max_steps=50, linearised=True)
  assert victim.learning_rate == fixed.learning_rate / 16
  assert victim.curve.max() <= 4 * victim.curve[0]
  with pytest.raises(FloatingPointError):
    _fit(module, data, max_steps=50, recipe=train.Recipe(
        learning_rate=fixed.learning_rate / 4))


def test_seeds_decide_and_theta_0_may_be_given():
  data = examples()
  victim, again, other = (_fit(SMALL, data, seed) for seed in (0, 0, 1))
  np.testing.assert_array_equal(flat(victim.theta_T), flat(again.theta_T))
  assert np.abs(flat(victim.theta_0) - flat(other.theta_0)).max() > 0.1
  given = _fit(SMALL, data, 2, theta_0=victim.theta_0, recipe=SGD)
  want = _fit(SMALL, data, 0, recipe=SGD)
  np.testing.assert_array_equal(flat(given.theta_T), flat(want.theta_T))


def test_an_optax_optimizer_does_what_it_does_alone():
  data = examples()
  optimizer = optax.adam(1e-2)
  victim = _fit(SMALL, data, recipe=train.Recipe(optimizer=optimizer))
  params = victim.theta_0
  state = optimizer.init(params)

  @jax.jit
  def step(params, state):
    def loss(p):
      return 0.5 * ((SMALL.apply({'params': p}, data.x) - data.y)**2
                    ).sum(1).mean()
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  for _ in range(7):
    params, state = step(params, state)
  np.testing.assert_allclose(flat(victim.theta_T), flat(params), rtol=1e-9)
  assert victim.duals is None
  assert victim.learning_rate is None


def test_checkpoints_are_the_parameters_of_shorter_runs():
  data = examples()
  recipe = SGD._replace(learning_rate=0.02)
  victim = _fit(SMALL, data, recipe=recipe, max_steps=60)
  first = lambda level: int(np.argmax(victim.curve <= level))
  levels = [float(victim.curve[5]) * 1.001, float(victim.curve[-1]), 1e-20]
  saved = _fit(SMALL, data, recipe=recipe, max_steps=60, save_losses=levels,
               save_steps=(0, 3, 60, 99)).checkpoints
  assert [c.step for c in saved] == sorted({0, 3, first(levels[0]), 60})
  for checkpoint in saved:
    np.testing.assert_allclose(
        checkpoint.loss, victim.curve[checkpoint.step], rtol=1e-12)
    want = victim.theta_0 if checkpoint.step == 0 else _fit(
        SMALL, data, recipe=recipe, max_steps=checkpoint.step).theta_T
    np.testing.assert_allclose(
        flat(checkpoint.params), flat(want), rtol=1e-12, atol=1e-15)
  assert victim.checkpoints == ()


def test_stops_and_goes_on_bit_for_bit(tmp_path):
  data = examples()
  recipe = SGD._replace(batch_size=4)
  fit = lambda **kwargs: _fit(
      SMALL, data, recipe=recipe, save_steps=(30, 120), **kwargs)
  whole = fit(max_steps=150)
  fit(max_steps=100, workdir=tmp_path, fingerprint='a')
  resumed = fit(max_steps=150, workdir=tmp_path, fingerprint='a')
  for name in ('theta_T', 'duals', 'curve'):
    np.testing.assert_array_equal(
        flat(getattr(resumed, name)), flat(getattr(whole, name)))
  assert [c.step for c in resumed.checkpoints] == [30, 120]
  with pytest.raises(ValueError, match='`fingerprint`'):
    fit(max_steps=150, workdir=tmp_path, fingerprint='b')


def _first_update(data, recipe, seed=0):
  victim = _fit(SMALL, data, seed, recipe=recipe, max_steps=1)
  return (flat(victim.theta_0) - flat(victim.theta_T)) / recipe.learning_rate


def test_clipping_equals_optax_example_by_example():
  data = examples(num=16)
  private = train.Recipe(learning_rate=0.1, momentum=0.0, clip=2.0)
  victim = _fit(SMALL, data, recipe=private, max_steps=1)
  assert victim.duals is None

  def loss(p, x, y):
    return 0.5 * ((SMALL.apply({'params': p}, x[None])[0] - y)**2).sum()

  grad = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
  grads = grad(victim.theta_0, *data)
  norms = np.sqrt(sum((a.reshape(16, -1)**2).sum(1)
                      for a in jax.tree.leaves(grads)))
  assert norms.min() < 2 < norms.max()  # Some are clipped, some are not.
  oracle = optax.contrib.differentially_private_aggregate(
      2.0, 0.0, key=jax.random.key(0))
  want, _ = jax.jit(oracle.update)(grads, oracle.init(victim.theta_0))
  np.testing.assert_allclose(
      _first_update(data, private), flat(want), rtol=1e-9, atol=1e-12)


def test_noise_has_the_deviation_asked_for_and_a_key():
  data = examples()
  quiet = train.Recipe(learning_rate=0.1, momentum=0.0, clip=0.5)
  loud = quiet._replace(noise=3.0)
  noise = _first_update(data, loud) - _first_update(data, quiet)
  std = 3.0 * 0.5 / 6
  count = noise.size
  assert abs(noise.mean()) < 5 * std / np.sqrt(count)
  assert abs(noise.std() / std - 1) < 5 / np.sqrt(2 * count)
  np.testing.assert_array_equal(
      _first_update(data, loud), _first_update(data, loud))
  other = _first_update(data, loud, 1) - _first_update(data, quiet, 1)
  assert np.corrcoef(noise, other)[0, 1] < 5 / np.sqrt(count)
  # Every step has its own: two steps would otherwise add up in phase.
  two = [_fit(SMALL, data, recipe=r, max_steps=2) for r in (loud, quiet)]
  apart = (flat(two[0].theta_T) - flat(two[1].theta_T)) / 0.1
  assert apart.std() < 1.7 * std


@pytest.mark.errors
def test_bad_recipes_are_refused():
  bad = [
      ({'loss': 'hinge'}, '`loss` must be one of mse, cross_entropy'),
      ({'learning_rate': 0.0}, '`learning_rate` must be positive'),
      ({'momentum': 1.0}, r'`momentum` must be in \[0, 1\)'),
      ({'momentum': -0.1}, r'`momentum` must be in \[0, 1\)'),
      ({'batch_size': 0}, '`batch_size` must be .* at least 1'),
      ({'weight_decay': -1.0}, '`weight_decay` must be .* not negative'),
      ({'clip': 0.0}, '`clip` must be positive'),
      ({'noise': 1.0}, '`clip` is needed with `noise`'),
      ({'optimizer': optax.adam(1.0), 'momentum': 0.9},
       '`momentum` must be None with an `optimizer`'),
      ({'optimizer': optax.adam(1.0), 'learning_rate': 0.9},
       '`learning_rate` must be None with an `optimizer`')]
  for fields, message in bad:
    with pytest.raises(ValueError, match=message):
      _fit(SMALL, examples(), recipe=train.Recipe(**fields))


@pytest.mark.errors
def test_bad_problems_are_refused():
  data = examples()
  logistic = train.Recipe(loss='cross_entropy')
  with pytest.raises(ValueError, match='`data.y` must hold probabilities'):
    _fit(SMALL, data, recipe=logistic)
  with pytest.raises(ValueError, match='`data.y` must hold -1 and 1 .* one'):
    _fit(nets.MLP(1), data._replace(y=data.y[:, :1]), recipe=logistic)
  with pytest.raises(ValueError, match='`data.y` has 5 rows, expected 6'):
    _fit(SMALL, data._replace(y=data.y[:5]))
  with pytest.raises(ValueError, match=r'`module` has outputs of .* \(6, 3\)'):
    _fit(nets.MLP(3), data)
  with pytest.raises(ValueError, match='`data.x` must be float32 or float64'):
    _fit(SMALL, Examples(data.x.astype('float16'), data.y))
  with pytest.raises(ValueError, match='`save_losses` must be positive'):
    _fit(SMALL, data, save_losses=(0.0,))
  with pytest.raises(ValueError, match='`save_steps` .* at least 0, got -1'):
    _fit(SMALL, data, save_steps=(-1,))
  with pytest.raises(ValueError, match='`max_steps` .* at least 1'):
    _fit(SMALL, data, max_steps=0)
  theta = _fit(SMALL, data).theta_0
  with pytest.raises(ValueError, match='`theta_0` must have the structure'):
    _fit(SMALL, data, theta_0={'hidden_0': theta['hidden_0']})
  wrong = jax.tree.map(lambda a: a.astype('float32'), theta)
  with pytest.raises(ValueError, match=r"`theta_0\['hidden_0'\]\['bias'\]` "
                     r'must be float64\[12\], got float32\[12\]'):
    _fit(SMALL, data, theta_0=wrong)
  with pytest.raises(ValueError, match='`theta_0.* must be finite'):
    _fit(SMALL, data, theta_0=jax.tree.map(lambda a: a * jnp.nan, theta))


def test_divergence_is_an_error():
  with pytest.raises(FloatingPointError, match='not finite.* was 1000'):
    _fit(LINEAR, examples(), max_steps=500,
         recipe=train.Recipe(learning_rate=1000.0))
