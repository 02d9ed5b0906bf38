"""RKIP: a distance of functions, against NumPy and against exact identities."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import loop
from dsr.distill import support as support_lib
from dsr.distill.rkip import distance, interpolant, rkip
from dsr.types import Examples
from tests.distill import problem
from tests.reference import distill as oracle, krr

FCN1, GAUSSIAN, RIDGE = problem.FCN1, problem.GAUSSIAN, problem.RIDGE
DTYPES = pytest.mark.parametrize('dtype', ['float32', 'float64'])


def _problem(classes=3, kernel_fn=GAUSSIAN, dtype='float64', ridge=RIDGE):
  """(training set, its interpolant, a support)."""
  data = problem.blobs(classes, dtype=dtype)
  examples = Examples(data.x, data.y)
  return (examples, interpolant(kernel_fn, examples, ridge=ridge),
          problem.start(data))


def _solver(optimizer=None, **kwargs):
  return rkip(
      GAUSSIAN, optimizer or optax.adam(0.02), **{'ridge': RIDGE, **kwargs})


@DTYPES
@pytest.mark.parametrize('ridge', [1e-4, 0.3])
def test_interpolant_meets_numpy(dtype, ridge):
  data, target, _ = _problem(dtype=dtype, ridge=ridge)
  x, y = problem.host(data.x, data.y)
  k = problem.numpy_gaussian(x, x)
  dual = np.linalg.solve(krr.system(k, ridge), y)
  rtol = 1e-2 if dtype == 'float32' else 1e-9  # Rounding of k over the ridge.
  np.testing.assert_allclose(
      target.dual, dual, rtol=rtol, atol=rtol * abs(dual).max())
  np.testing.assert_allclose(
      target.norm, np.trace(dual.T @ k @ dual), rtol=rtol)
  assert target.dual.dtype == target.norm.dtype == np.float64
  assert target.x.dtype == dtype


@pytest.mark.parametrize('classes', [2, 3])
def test_a_step_meets_numpy(key, classes):
  data, target, start = _problem(classes)
  solver = _solver(optax.sgd(0.01), learn_labels=True)
  moved, info = jax.jit(solver.step)(solver.init(key, start), target)
  x, y, x_t, y_t = problem.host(start.x, start.y, data.x, data.y)
  loss = lambda x=x, y=y: oracle.rkip_loss(
      problem.numpy_gaussian, x, y, x_t, y_t, ridge=RIDGE)
  np.testing.assert_allclose(info.loss, loss(), rtol=1e-8)
  assert info.finite
  for got, at, fn in [(moved.support.x, x, lambda x: loss(x=x)),
                      (moved.support.y, y, lambda y: loss(y=y))]:
    np.testing.assert_allclose(
        got - at, -0.01 * oracle.gradient(fn, at), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('x64', [True, False])
def test_float32_keeps_its_dtype_and_meets_numpy(x64):
  with jax.enable_x64(x64):
    data, target, start = _problem(dtype='float32', ridge=0.1)
    solver = _solver(ridge=0.1)
    state = solver.init(jax.random.key(0), start)
    state, info = loop.run_chunk(solver.step, state, target, num_steps=1)
    assert state.support.x.dtype == state.support.y.dtype == np.float32
  want = oracle.rkip_loss(
      problem.numpy_gaussian,
      *problem.host(start.x, start.y, data.x, data.y), ridge=0.1)
  np.testing.assert_allclose(info.loss[0], want, rtol=1e-3)


@pytest.mark.parametrize('kernel_fn', [GAUSSIAN, FCN1], ids=lambda k: k.name)
def test_distance_and_gradient_vanish_at_the_training_set_alone(kernel_fn):
  data, target, _ = _problem(kernel_fn=kernel_fn)
  value_and_grad = jax.jit(jax.value_and_grad(
      lambda s: distance(kernel_fn, s, target, ridge=RIDGE)))
  order = np.random.default_rng(0).permutation(len(data.x))
  for same in (data, Examples(data.x[order], data.y[order])):
    value, slope = value_and_grad(same)
    assert abs(value) < 1e-11 * target.norm
    assert max(abs(slope.x).max(), abs(slope.y).max()) < 1e-8 * target.norm
  for other in (data._replace(x=data.x.at[0, 0].add(0.1)),
                data._replace(y=data.y.at[0, 0].add(0.1))):
    value, slope = value_and_grad(other)
    assert value > 1e-6 * target.norm
    assert abs(slope.x).max() > 1e-4 * target.norm


def test_leaving_an_example_out_costs_its_leave_one_out_value():
  """alpha_j^2 / [K^-1]_jj summed over classes, without ridge; no oracle."""
  data, target, _ = _problem(ridge=1e-12)
  inverse = np.linalg.inv(problem.numpy_gaussian(*problem.host(data.x, data.x)))
  dual = inverse @ np.asarray(data.y)
  measure = jax.jit(lambda s: distance(GAUSSIAN, s, target, ridge=1e-12))
  for j in (0, 5, 20):
    rest = np.delete(np.arange(len(data.x)), j)
    np.testing.assert_allclose(
        measure(Examples(data.x[rest], data.y[rest])),
        0.5 * (dual[j] ** 2).sum() / inverse[j, j], rtol=1e-5)


@pytest.mark.parametrize('learn_labels', [False, True])
def test_only_what_is_learned_moves_and_the_loss_falls(key, learn_labels):
  _, target, start = _problem()
  start = support_lib.corrupt(key, start, 0.4)
  solver = _solver(optax.adamw(0.05, weight_decay=0.01),
                   learn_labels=learn_labels)
  state, info = loop.run_chunk(
      solver.step, solver.init(key, start), target, num_steps=60)
  np.testing.assert_array_equal(state.support.x == start.x, start.frozen)
  assert (state.support.y == start.y).all() != learn_labels
  assert info.finite.all()
  assert (info.loss > 0).all()
  assert info.loss[-1] < 0.95 * info.loss[0]


def test_scan_vmap_and_single_steps_agree_and_compile_once(key):
  _, target, start = _problem()
  solver = _solver()
  starts = jax.tree.map(lambda a: jnp.stack([a, 1.1 * a]), start)
  many = jax.vmap(solver.init)(jax.random.split(key), starts)
  _, info = jax.vmap(
      lambda s: loop.run_chunk(solver.step, s, target, num_steps=3))(many)
  assert info.loss.shape == info.finite.shape == (2, 3)
  step, state = jax.jit(solver.step), solver.init(key, start)
  for j in range(3):
    state, one = step(state, target)
    np.testing.assert_allclose(info.loss[0, j], one.loss, rtol=1e-8)
  assert info.loss[1, 0] != info.loss[0, 0]
  assert step._cache_size() == 1


def test_resumed_run_is_bit_identical(tmp_path, key):
  _, target, start = _problem(dtype='float32')
  solver = _solver(learn_labels=True)
  state = solver.init(key, start)
  kwargs = dict(chunk=10, checkpoint_every=10)
  whole = loop.run(solver.step, state, target, num_steps=20, **kwargs)
  loop.run(solver.step, state, target, num_steps=10, workdir=tmp_path, **kwargs)
  other = solver.init(jax.random.key(9), start._replace(x=0 * start.x))
  rest = loop.run(solver.step, other, target, num_steps=20, workdir=tmp_path,
                  **kwargs)
  problem.assert_identical(rest.state, whole.state)
  problem.assert_identical(rest.infos, whole.infos)


def test_not_finite_is_a_flag_of_steps_and_an_error_of_the_host(key):
  data, target, start = _problem()
  solver = _solver()
  step, state = jax.jit(solver.step), solver.init(key, start)
  assert step(state, target)[1].finite
  assert not step(state, target._replace(norm=jnp.nan * target.norm))[1].finite
  bad = state._replace(support=start._replace(x=start.x.at[0].set(jnp.nan)))
  assert not step(bad, target)[1].finite
  with pytest.raises(FloatingPointError, match='Raise `ridge`'):
    interpolant(GAUSSIAN, data._replace(x=data.x.at[0, 0].set(jnp.nan)))


def test_digits_improve_on_the_random_subset(key):
  data, start, accuracy = problem.digits()

  def cross(x1, x2):
    x1, x2 = (x.reshape(len(x), -1) for x in (x1, x2))
    square = (x1**2).sum(1)[:, None] + (x2**2).sum(1)[None] - 2 * x1 @ x2.T
    return jnp.exp(-square / 2000)

  kernel_fn = GAUSSIAN._replace(cross=cross, symmetric=lambda x: cross(x, x))
  target = interpolant(kernel_fn, Examples(data.x, data.y), ridge=0.1)
  solver = rkip(kernel_fn, optax.adam(0.04), ridge=0.1)
  state, info = loop.run_chunk(
      solver.step, solver.init(key, start), target, num_steps=100)
  assert info.loss[-1] < 0.9 * info.loss[0]
  before, after = (
      accuracy(kernel_fn, s.examples()) for s in (start, state.support))
  assert before < 0.75
  assert after > before + 0.2


@pytest.mark.errors
def test_bad_arguments_are_named(key):
  data, target, start = _problem()
  for ridge in (0.0, -1.0, float('nan')):
    with pytest.raises(ValueError, match='`ridge` must be positive and finite'):
      _solver(ridge=ridge)
    with pytest.raises(ValueError, match='`ridge` must be positive and finite'):
      interpolant(GAUSSIAN, data, ridge=ridge)
  with pytest.raises(ValueError, match='`data.y` has 27 rows, expected 28'):
    interpolant(GAUSSIAN, data._replace(y=data.y[1:]))
  with pytest.raises(ValueError, match='`data.x` must be floating point'):
    interpolant(GAUSSIAN, data._replace(x=data.x.astype(int)))
  step = lambda start: jax.eval_shape(
      _solver().step, _solver().init(key, start), target)
  with pytest.raises(ValueError, match='`support.y` has 5 rows, expected 6'):
    step(start._replace(y=start.y[1:]))
  with pytest.raises(ValueError, match='`support.y` has D=1, expected D=3'):
    step(start._replace(y=start.y[:, :1]))
  with pytest.raises(ValueError, match='`support.x` has examples of shape'):
    step(start._replace(x=start.x[:, :2]))
  with pytest.raises(ValueError, match='`support.x` has dtype float32'):
    step(start._replace(x=start.x.astype('float32')))
