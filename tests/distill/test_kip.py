"""KIP: loss, gradient and step against NumPy; what may move and what not."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import loop
from dsr.distill import support as support_lib
from dsr.distill.kip import batch_loss, kip
from dsr.types import Status
from tests.distill import problem
from tests.reference import distill as oracle

FCN1, GAUSSIAN, RIDGE = problem.FCN1, problem.GAUSSIAN, problem.RIDGE
ADAM = optax.adam(0.02)


def _solver(optimizer=ADAM, kernel_fn=GAUSSIAN, **kwargs):
  kwargs = {'ridge': RIDGE, 'batch_size': 9, **kwargs}
  return kip(kernel_fn, optimizer, **kwargs)


def _run(solver, start, data, steps, seed=0):
  state = solver.init(jax.random.key(seed), start)
  return loop.run_chunk(solver.step, state, data, num_steps=steps)


@pytest.mark.parametrize(('loss', 'classes', 'min_distance', 'kernel'), [
    ('mse', 3, 0.0, 'fcn1'), ('mse', 2, 0.5, 'gaussian'),
    ('cross_entropy', 3, 0.5, 'gaussian'),
    ('cross_entropy', 2, 0.0, 'gaussian')])
def test_a_step_meets_numpy(key, loss, classes, min_distance, kernel):
  kernel_fn, numpy_kernel = {
      'fcn1': (FCN1, oracle.fcn1),
      'gaussian': (GAUSSIAN, problem.numpy_gaussian)}[kernel]
  data = problem.blobs(classes)
  start = problem.start(data)
  solver = _solver(
      optax.sgd(0.1), kernel_fn, batch_size=0, learn_labels=True, loss=loss,
      min_distance=min_distance, distance_weight=3.0)
  a = 0.3 if loss == 'cross_entropy' else 0.0
  state = solver.init(key, start)._replace(log_temperature=jnp.asarray(a))
  moved, info = jax.jit(solver.step)(state, data)
  x, y, x_t, y_t = problem.host(start.x, start.y, data.x, data.y)

  def numpy_loss(x=x, y=y, a=a):
    total = oracle.kip_loss(
        numpy_kernel, x, y, x_t, y_t, ridge=RIDGE, loss=loss, a=float(a))
    if min_distance:
      total += 3 * oracle.closeness(x, x_t, min_distance)
    return total

  np.testing.assert_allclose(info.loss, numpy_loss(), rtol=1e-9)
  assert info.finite
  for got, fn, at in [(moved.support.x, lambda x: numpy_loss(x=x), x),
                      (moved.support.y, lambda y: numpy_loss(y=y), y),
                      (moved.log_temperature, lambda a: numpy_loss(a=a), a)]:
    slope = oracle.gradient(fn, at)
    np.testing.assert_allclose(got - at, -0.1 * slope, rtol=1e-5, atol=1e-8)
  assert abs(moved.support.x - start.x).max() > 1e-3


@pytest.mark.parametrize('x64', [True, False])
def test_float32_meets_numpy_and_stays_float32(x64):
  with jax.enable_x64(x64):
    data = problem.blobs(dtype='float32')
    start = problem.start(data)
    solver = _solver(optax.sgd(0.1), batch_size=0, learn_labels=True)
    moved, info = _run(solver, start, data, 1)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(
        (moved.support, moved.log_temperature, info.loss)))
  x, y, x_t, y_t = problem.host(start.x, start.y, data.x, data.y)
  want = lambda x: oracle.kip_loss(
      problem.numpy_gaussian, x, y, x_t, y_t, ridge=RIDGE)
  np.testing.assert_allclose(info.loss[0], want(x), rtol=1e-3)
  np.testing.assert_allclose(
      moved.support.x - start.x, -0.1 * oracle.gradient(want, x), atol=1e-3)


def _margin_loss(margin, classes, a=0.0):
  """Cross-entropy of one example whose right class leads by `margin`."""
  if classes == 1:
    outputs, y = jnp.array([[-margin]]), jnp.array([[-1.0]])
  else:
    outputs = jnp.zeros((1, classes)).at[0, 1].set(margin)
    y = jnp.full((1, classes), -1 / classes).at[0, 1].add(1)
  return batch_loss(outputs, y, 'cross_entropy', a)


@pytest.mark.parametrize('classes', [1, 2, 5])
def test_cross_entropy_is_bounded_below_and_pulls_on_what_is_wrong(classes):
  margins = jnp.linspace(-30.0, 30.0, 61)
  losses = jax.vmap(lambda m: _margin_loss(m, classes))(margins)
  slopes = jax.vmap(jax.grad(lambda m: _margin_loss(m, classes)))(margins)
  assert (losses >= 0).all()
  assert (jnp.diff(losses) < 0).all()
  others = max(classes - 1, 1)
  np.testing.assert_allclose(
      losses, np.log1p(others * np.exp(-np.asarray(margins))), rtol=1e-9,
      atol=1e-14)
  assert (slopes[margins <= 0] <= -0.5).all()  # Wrong ones feel it most.
  np.testing.assert_allclose(slopes[0], -1, rtol=1e-9)


@pytest.mark.parametrize('classes', [1, 3])
def test_temperature_rises_where_the_margin_is_right(classes):
  slope = lambda m: jax.grad(lambda a: _margin_loss(m, classes, a))(0.5)
  assert slope(1.0) < 0 < slope(-1.0)
  np.testing.assert_allclose(
      _margin_loss(2.0, classes, math.log(3)), _margin_loss(6.0, classes))


@pytest.mark.parametrize('classes', [2, 3])
def test_cross_entropy_learns_images_and_temperature(classes):
  data = problem.blobs(classes)
  solver = _solver(batch_size=0, loss='cross_entropy')
  state, info = _run(solver, problem.start(data), data, 30)
  assert state.log_temperature > 0.3  # By about one learning rate a step.
  assert info.loss[-1] < 0.6 * info.loss[0]


@pytest.mark.parametrize(('learn_labels', 'corrupt'), [
    (False, False), (False, True), (True, True)])
def test_only_what_is_learned_moves_whatever_the_optimizer(
    key, learn_labels, corrupt):
  data = problem.blobs()
  start = problem.start(data)
  if corrupt:
    start = support_lib.corrupt(key, start, 0.6)
    assert (start.frozen.sum(1) == 3).all()
  optimizer = optax.chain(
      optax.clip_by_global_norm(1.0), optax.adamw(0.02, weight_decay=0.1))
  solver = _solver(optimizer, learn_labels=learn_labels)
  state, _ = _run(solver, start, data, 20)
  frozen = start.frozen if corrupt else np.zeros(start.x.shape, bool)
  np.testing.assert_array_equal(state.support.x == start.x, frozen)
  assert (state.support.y != start.y).all() == learn_labels
  assert (state.support.y == start.y).all() != learn_labels
  assert state.log_temperature == 0
  assert (state.support.frozen is None) != corrupt


def test_augmented_balanced_batches_reach_the_loss(key):
  data = problem.blobs()
  start, seen = problem.start(data), []

  def augment(key, x):
    jax.debug.callback(
        lambda *seen_now: seen.append(seen_now), jax.random.key_data(key), x)
    return 1.5 * x

  solver = _solver(batch_size=7, augment=augment)
  state, step = solver.init(key, start), jax.jit(solver.step)
  for _ in range(3):
    x, y = problem.host(*state.support.examples())
    state, info = step(state, data)
    jax.effects_barrier()
    x_t = np.asarray(seen[-1][1])
    rows = (np.asarray(data.x) == x_t[:, None]).all(-1).argmax(1)
    assert [np.isin(rows, r).sum() for r in np.asarray(data.rows)] == [2, 2, 2]
    want = oracle.kip_loss(problem.numpy_gaussian, x, y, 1.5 * x_t,
                           np.asarray(data.y)[rows], ridge=RIDGE)
    np.testing.assert_allclose(info.loss, want, rtol=1e-9)
  assert len(seen) == 3
  for values in zip(*seen):  # Keys, then batches: all different.
    assert len({np.asarray(v).tobytes() for v in values}) == 3


def test_penalty_keeps_images_away_from_the_training_set():
  data = problem.blobs()
  start = problem.start(data, noise=0.05)

  def nearest(min_distance):
    solver = _solver(batch_size=0, min_distance=min_distance)
    x = np.asarray(_run(solver, start, data, 60)[0].support.x)
    gaps = x[:, None] - np.asarray(data.x)
    return np.sqrt((gaps**2).mean(-1)).min()

  assert nearest(0.8) > 0.72
  assert nearest(0.0) < 0.6


def test_scan_jit_and_vmap_agree_with_single_steps():
  data = problem.blobs()
  start, solver = problem.start(data), _solver(learn_labels=True)
  keys = jax.random.split(jax.random.key(5), 3)
  many = jax.vmap(solver.init, (0, None))(keys, start)
  many, info = jax.vmap(
      lambda s: loop.run_chunk(solver.step, s, data, num_steps=4))(many)
  assert info.loss.shape == info.finite.shape == (3, 4)
  step = jax.jit(solver.step)
  for i, key in enumerate(keys):
    state = solver.init(key, start)
    for j in range(4):
      state, one = step(state, data)
      np.testing.assert_allclose(info.loss[i, j], one.loss, rtol=1e-8)
    np.testing.assert_allclose(many.support.x[i], state.support.x, rtol=1e-8)
  assert len(set(np.asarray(info.loss[:, 0]).tolist())) == 3


def test_the_seed_decides_bit_by_bit():
  data = problem.blobs(dtype='float32')
  start, solver = problem.start(data), _solver()
  one, again, other = (
      _run(solver, start, data, 10, seed) for seed in (0, 0, 1))
  problem.assert_identical(one, again)
  assert (one[0].support.x != other[0].support.x).any()


def test_many_steps_compile_once():
  traced, data = [], problem.blobs()

  def symmetric(x):
    traced.append(x.shape)
    return GAUSSIAN.symmetric(x)

  solver = _solver(kernel_fn=GAUSSIAN._replace(symmetric=symmetric))
  step = jax.jit(solver.step)
  state = solver.init(jax.random.key(0), problem.start(data))
  for _ in range(5):
    state, _ = step(state, data)
  assert step._cache_size() == 1
  assert len(traced) == 1


def test_resumed_run_is_bit_identical(tmp_path, key):
  data = problem.blobs(dtype='float32')
  start = support_lib.corrupt(key, problem.start(data), 0.4)
  solver = _solver(learn_labels=True, loss='cross_entropy')
  state = solver.init(key, start)
  kwargs = dict(chunk=10, checkpoint_every=10)
  whole = loop.run(solver.step, state, data, num_steps=20, **kwargs)
  loop.run(solver.step, state, data, num_steps=10, workdir=tmp_path, **kwargs)
  other = solver.init(jax.random.key(9), start._replace(x=0 * start.x))
  rest = loop.run(solver.step, other, data, num_steps=20, workdir=tmp_path,
                  **kwargs)
  assert rest.steps_done == 20
  problem.assert_identical(rest.state, whole.state)
  problem.assert_identical(rest.infos, whole.infos)


def test_not_finite_is_a_flag(key):
  data, solver = problem.blobs(), _solver(batch_size=0, learn_labels=True)
  start = problem.start(data)
  step, good = jax.jit(solver.step), solver.init(key, start)
  assert step(good, data)[1].finite
  for bad in (data._replace(x=data.x.at[3, 1].set(jnp.nan)),
              data._replace(y=data.y.at[3, 1].set(jnp.inf))):
    assert not step(good, bad)[1].finite
  result = loop.run(solver.step, good, bad, num_steps=4, chunk=2)
  assert (result.status, result.steps_done) == (Status.NOT_FINITE, 0)


@pytest.mark.parametrize('field', ['x', 'y'])
def test_a_step_beyond_the_finite_is_a_flag_though_the_loss_is_not(key, field):
  data = problem.blobs()
  start = problem.start(data)
  frozen = jnp.full(start.x.shape, field == 'y')
  solver = _solver(optax.sgd(np.inf), learn_labels=field == 'y')
  state = solver.init(key, start._replace(frozen=frozen))
  info = jax.jit(solver.step)(state, data)[1]
  assert jnp.isfinite(info.loss)
  assert not info.finite


def test_digits_improve_on_the_random_subset(key):
  data, start, accuracy = problem.digits()
  solver = _solver(optax.adam(0.04), FCN1, ridge=1e-6, batch_size=500)
  state, info = _run(solver, start, data, 100)
  assert info.loss[-10:].mean() < 0.6 * info.loss[:3].mean()
  before, after = (
      accuracy(FCN1, s.examples()) for s in (start, state.support))
  assert before < 0.7
  assert after > before + 0.15


@pytest.mark.errors
@pytest.mark.parametrize(('name', 'value', 'need'), [
    ('ridge', 0.0, 'must be positive and finite, got 0.0'),
    ('ridge', float('nan'), 'must be positive and finite, got nan'),
    ('batch_size', -1, 'must be an integer of at least 0, got -1'),
    ('batch_size', 2.5, 'must be an integer of at least 0, got 2.5'),
    ('loss', 'hinge', "must be one of mse, cross_entropy; got 'hinge'"),
    ('min_distance', -0.1, 'must be finite and not negative, got -0.1'),
    ('distance_weight', float('inf'), 'must be finite and not negative')])
def test_options_out_of_range_are_named(name, value, need):
  with pytest.raises(ValueError, match=f'`{name}` {need}'):
    _solver(**{name: value})


@pytest.mark.errors
def test_sets_that_do_not_fit_are_named(key):
  data, solver = problem.blobs(), _solver()
  start = problem.start(data)
  step = lambda start: jax.eval_shape(
      solver.step, solver.init(key, start), data)
  with pytest.raises(ValueError, match='`support.y` has 4 rows, expected 6'):
    solver.init(key, start._replace(y=start.y[:4]))
  with pytest.raises(ValueError, match='`data.y` has D=3, expected D=1'):
    step(start._replace(y=start.y[:, :1]))
  with pytest.raises(ValueError, match='`x` has examples of shape .5,., exp'):
    step(start._replace(x=start.x[:, :2]))
  with pytest.raises(ValueError, match='`x` has dtype float64, expected float'):
    step(start._replace(x=start.x.astype('float32')))


