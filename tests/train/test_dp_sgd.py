"""DP-SGD: gradients against one example at a time, sampling, guarantees."""
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

from dsr import nets, train
from dsr.train import accounting, dp_sgd
from dsr.types import Examples
from tests.train import problem

MLP = nets.MLP(3, widths=(4,))
N = 10
CLIP = {'cross_entropy': 0.7, 'mse': 3.0}  # Some are clipped, some not.
LINEAR = nets.MLP(3, widths=())
SGD = optax.sgd(0.5)


def _data(loss='cross_entropy', num=N):
  data = problem.examples(num, outputs=3)
  if loss == 'cross_entropy':
    data = data._replace(y=jax.nn.softmax(3 * data.y))
  return data


def _example_loss(params, x, y, loss):
  out = MLP.apply({'params': params}, x[None])[0]
  if loss == 'mse':
    return 0.5 * jnp.sum((out - y)**2)
  return -jnp.sum(y * jax.nn.log_softmax(out))


@functools.partial(jax.jit, static_argnames='loss')
def _gradients(params, data, loss):
  """(N, P): of every example, one by one."""
  grads = jax.lax.map(
      lambda d: jax.grad(_example_loss)(params, d.x, d.y, loss), data)
  return jnp.concatenate(
      [g.reshape(len(data.x), -1) for g in jax.tree.leaves(grads)], 1)


@functools.cache
def _clipped_sum(loss):
  return jax.jit(lambda params, data, drawn: dp_sgd.clipped_sum(
      MLP, params, data, drawn, clip=CLIP[loss], loss=loss))


@functools.cache
def _params():
  return jax.jit(MLP.init)(jax.random.key(0), _data().x)['params']


@pytest.mark.parametrize(('loss', 'rate', 'capacity'), [
    ('cross_entropy', 0.4, 7),
    pytest.param('mse', 1.0, N, marks=pytest.mark.slow)])
def test_a_step_without_noise_is_the_sum_of_clipped_gradients(
    key, loss, rate, capacity):
  data = _data(loss)
  solver = dp_sgd.dp_sgd(
      MLP, SGD, clip=CLIP[loss], noise_multiplier=0.0, sampling_rate=rate,
      capacity=capacity, loss=loss)
  state = solver.init(key, data)
  step, sizes = jax.jit(solver.step), []
  for _ in range(3):
    key_rows, _ = jax.random.split(jax.random.fold_in(state.key, state.step))
    rows, drawn = dp_sgd.poisson_rows(key_rows, N, rate, capacity)
    rows = np.asarray(rows)[np.asarray(drawn)]
    each = np.asarray(_gradients(state.params, data, loss))
    norms = np.linalg.norm(each, axis=1, keepdims=True)
    assert norms.min() < CLIP[loss] < norms.max()
    each = each * np.minimum(1, CLIP[loss] / norms)
    want = problem.flat(state.params) - 0.5 * each[rows].sum(0) / (rate * N)
    state, info = step(state, data)
    np.testing.assert_allclose(
        problem.flat(state.params), want, rtol=1e-9, atol=1e-12)
    assert info.finite
    sizes.append(len(rows))
  assert sizes == [N] * 3 if rate == 1 else len(set(sizes)) > 1


def test_the_loss_is_that_of_the_examples_drawn():
  loss, data, drawn = 'cross_entropy', _data(), np.arange(N) % 3 == 1
  value, _ = _clipped_sum(loss)(_params(), data, drawn)
  each = jax.jit(jax.vmap(_example_loss, (None, 0, 0, None)),
                 static_argnums=3)(_params(), data.x, data.y, loss)
  np.testing.assert_allclose(value, each[drawn].mean(), rtol=1e-9)
  value, grads = _clipped_sum(loss)(_params(), data, np.zeros(N, bool))
  assert value == 0
  assert not problem.flat(grads).any()


@pytest.mark.parametrize('scale', [1.0, 1e3])
def test_one_example_changes_the_sum_by_the_clipping_norm_at_most(scale):
  data = _data('mse')
  data, clip = data._replace(y=scale * data.y), CLIP['mse']
  total = lambda drawn: problem.flat(
      _clipped_sum('mse')(_params(), data, drawn)[1])
  whole = total(np.ones(N, bool))
  changes = [np.linalg.norm(whole - total(np.arange(N) != n))
             for n in range(N)]
  assert max(changes) <= clip * (1 + 1e-9)
  assert np.isclose(max(changes), clip)  # And not by less.
  assert (min(changes) < 0.9 * clip) == (scale == 1)


def test_noise_has_its_deviation_and_its_own_draw_at_each_step(key):
  module = nets.MLP(100, widths=())
  x = problem.examples(4).x
  fit = dp_sgd.dp_sgd(module, optax.sgd(1.0), clip=0.1, noise_multiplier=3.0,
                      sampling_rate=0.25, capacity=4, loss='mse')
  data = Examples(x, jnp.zeros((4, 100)))
  first = jax.jit(fit.init)(key, data)
  # Outputs that are right have no gradient.
  data = data._replace(y=module.apply({'params': first.params}, x))
  step = jax.jit(fit.step)
  one, _ = step(first, data)
  two, _ = step(first._replace(step=first.step + 1), data)
  moves = [problem.flat(s.params) - problem.flat(first.params)
           for s in (one, two)]
  for move in moves:
    error = move.std() / (3.0 * 0.1 / (0.25 * 4)) - 1
    assert abs(error) < 4 / math.sqrt(2 * move.size)
    assert abs(move.mean()) < 4 * 0.3 / math.sqrt(move.size)
  assert abs(np.corrcoef(moves)[0, 1]) < 4 / math.sqrt(moves[0].size)


def test_every_example_is_drawn_alone_with_the_rate():
  num, rate, draws = 12, 0.3, 20_000
  keys = jax.random.split(jax.random.key(3), draws)
  rows, drawn = jax.jit(jax.vmap(
      lambda key: dp_sgd.poisson_rows(key, num, rate, num)))(keys)
  rows, drawn = np.asarray(rows), np.asarray(drawn)
  chosen = np.zeros((draws, num + 1), bool)
  np.put_along_axis(chosen, np.where(drawn, rows, num), True, axis=1)
  chosen = chosen[:, :num]
  assert (chosen.sum(1) == drawn.sum(1)).all()  # Nobody twice.
  deviation = math.sqrt(rate * (1 - rate) / draws)
  assert np.abs(chosen.mean(0) - rate).max() < 4 * deviation
  pairs = np.corrcoef(chosen.T)[np.triu_indices(num, 1)]
  assert np.abs(pairs).max() < 4.5 / math.sqrt(draws)
  # Sizes are binomial, not fixed: that is what the accountant assumes.
  found = np.bincount(chosen.sum(1), minlength=num + 1)
  expected = stats.binom.pmf(np.arange(num + 1), num, rate) * draws
  common = expected > 20
  assert stats.chisquare(
      np.r_[found[common], found[~common].sum()],
      np.r_[expected[common], expected[~common].sum()]).pvalue > 1e-3


def test_more_rows_than_the_buffer_holds_lose_the_last(key):
  rows, drawn = dp_sgd.poisson_rows(key, 5, 1.0, 3)
  assert (rows.tolist(), drawn.tolist()) == ([0, 1, 2], [True] * 3)
  rows, drawn = dp_sgd.poisson_rows(key, 5, 0.0, 3)
  assert (rows.tolist(), drawn.tolist()) == ([0, 0, 0], [False] * 3)


@pytest.mark.parametrize(('num', 'rate', 'steps', 'overflow'), [
    (40, 0.3, 7, 1e-3), (40, 0.02, 100, 1e-9), (1437, 0.05, 500, 1e-12)])
def test_the_capacity_is_the_least_that_suffices(num, rate, steps, overflow):
  def tail(size):  # Summed from its small end.
    k = np.arange(num, size, -1)
    log_ways = special.gammaln(num + 1) - special.gammaln(
        k + 1) - special.gammaln(num - k + 1)
    return np.exp(
        log_ways + k * math.log(rate) + (num - k) * math.log1p(-rate)).sum()

  size = dp_sgd.capacity(num, rate, steps, overflow)
  assert steps * tail(size) <= overflow < steps * tail(size - 1)
  assert dp_sgd.capacity(num, 1.0, steps, overflow) == num


@pytest.fixture(scope='module')
def fitted():
  """A network on three blobs, with a guarantee that hardly binds."""
  rng = np.random.default_rng(0)
  labels = np.arange(60) % 3
  x = 3 * rng.normal(size=(3, 5))[labels] + rng.normal(size=(60, 5))
  data = Examples(jnp.asarray(x, jnp.float32),
                  jnp.asarray(np.eye(3)[labels], jnp.float32))
  fit = functools.partial(
      dp_sgd.fit_private, jax.random.key(0), LINEAR, data, epsilon=8.0,
      delta=1e-3, num_steps=40, expected_batch=15, clip=1.0,
      optimizer=optax.adam(0.05))
  return fit, data, labels


def test_the_guarantee_is_reached_from_below_and_networks_learn(fitted):
  fit, data, labels = fitted
  trained, privacy = fit(num_networks=2)
  assert 7.9 < privacy.epsilon <= 8
  assert privacy[1:] == (
      1e-3, privacy.noise_multiplier, 0.25, 40, 1.0)
  # A thousandth of delta is kept for batches beyond the buffer.
  assert privacy.epsilon == accounting.epsilon(
      privacy.noise_multiplier, 0.25, 40, 0.999 * privacy.delta)
  assert trained.curve.shape == (40, 2)
  accuracy = train.accuracy(trained, data.x, labels)
  assert accuracy.min() > 0.7
  assert {a.dtype.name for a in jax.tree.leaves(trained.params)} == {'float32'}


def test_less_epsilon_means_more_noise(fitted, monkeypatch):
  fit, _, _ = fitted
  seen = []
  monkeypatch.setattr(dp_sgd, 'train_all', lambda key, solver, data, **kwargs: (
      seen.append(kwargs) or (None, None)))
  noise = [fit(epsilon=epsilon, expected_batch=60)[1].noise_multiplier
           for epsilon in (1.0, 4.0)]
  assert noise[0] > 2 * noise[1]
  assert seen[0]['name'] == 'private cross_entropy loss of MLP'


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    ({'epsilon': 0.0}, r'`epsilon` must be in \[0.001, 100.0\], got 0.0'),
    ({'delta': 0.0}, '`delta` must be in'),
    ({'num_steps': 0}, '`num_steps` must be an integer of at least 1, got 0'),
    ({'expected_batch': 0}, '`expected_batch` must be positive'),
    ({'expected_batch': 61}, r'`expected_batch` must be in \[0, 60\], got 61'),
    ({'clip': 0.0}, '`clip` must be positive'),
    ({'loss': 'hinge'}, '`loss` must be one of mse, cross_entropy'),
])
def test_bad_arguments_are_named(fitted, change, message):
  with pytest.raises(ValueError, match=message):
    fitted[0](**change)


@pytest.mark.errors
def test_batch_norm_is_refused(key):
  data = Examples(jnp.zeros((4, 8, 8, 1)), jnp.eye(3)[jnp.arange(4) % 3])
  with pytest.raises(ValueError, match='`module` must treat each example alone '
                                       'to be private, got a ConvNet with bat'):
    dp_sgd.fit_private(
        key, nets.build('convnet3_batch', 3, depth=1, width=2), data,
        epsilon=1.0, delta=1e-5, num_steps=1, expected_batch=2, clip=1.0,
        optimizer=SGD)
