"""Ridge regression and gradient flow against slow NumPy references."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from dsr import krr, linalg
from dsr.krr import on_device
from dsr.types import Examples, KernelFn
from tests.reference import krr as oracle

N, M, D, C = 20, 7, 3, 2
SCALE = 1.5


def _gaussian(x1, x2):
  d2 = ((x1[:, None] - x2[None]) ** 2).sum(-1)
  return 2 * jnp.exp(-d2 / (2 * SCALE**2))


GAUSSIAN = KernelFn(
    cross=_gaussian, symmetric=lambda x: _gaussian(x, x),
    diag=lambda x: 2 * jnp.ones(x.shape[0], x.dtype), name='gaussian')


def _data(n=N, *, dtype=np.float64, seed=0):
  rng = np.random.default_rng(seed)
  x, x_test = rng.normal(size=(n, D)), rng.normal(size=(M, D))
  y = np.c_[np.sin(x.sum(1)), rng.normal(size=n)]
  return Examples(*jax.tree.map(lambda a: jnp.asarray(a, dtype), (x, y))), (
      jnp.asarray(x_test, dtype))


def _grams(data, x_test):
  x, x_test = np.asarray(data.x, float), np.asarray(x_test, float)
  return oracle.gaussian(x_test, x, SCALE), oracle.gaussian(x, x, SCALE)


@pytest.mark.parametrize('ridge', [1e-6, 0.3])
@pytest.mark.parametrize('method', ['cholesky', 'eigh', 'cg'])
def test_fit_meets_the_reference(method, ridge):
  data, x_test = _data()
  fit = krr.fit if method == 'cg' else jax.jit(
      krr.fit, static_argnums=0, static_argnames='method')
  predict_fn = fit(GAUSSIAN, data, ridge=ridge, method=method)
  linalg.raise_if_failed(predict_fn.info, ridge=ridge)
  want = oracle.ridge_predict(
      *_grams(data, x_test), np.asarray(data.y), ridge)
  np.testing.assert_allclose(
      predict_fn(x_test), want, rtol=1e-5 if method == 'cg' else 1e-8,
      atol=1e-6 if method == 'cg' else 1e-9)


def test_float32_data_give_float32_outputs_from_a_float64_solve():
  data, x_test = _data(dtype=np.float32)
  predict_fn = krr.fit(GAUSSIAN, data, ridge=1e-3)
  assert predict_fn.dual.dtype == jnp.float64
  outputs = predict_fn(x_test)
  assert outputs.dtype == jnp.float32
  want = oracle.ridge_predict(*_grams(data, x_test), np.asarray(data.y), 1e-3)
  np.testing.assert_allclose(outputs, want, rtol=2e-4, atol=2e-4)


def test_fit_is_differentiable_jittable_and_batched():
  data, x_test = _data(8)

  def loss(data):
    return (krr.fit(GAUSSIAN, data, ridge=1e-2)(x_test) ** 2).mean()

  grads = jax.jit(jax.grad(loss))(data)

  def numpy_loss(flat):
    x, y = flat[:8 * D].reshape(8, D), flat[8 * D:].reshape(8, C)
    grams = _grams(Examples(x, y), x_test)
    return (oracle.ridge_predict(*grams, y, 1e-2) ** 2).mean()

  flat = np.concatenate([np.ravel(data.x), np.ravel(data.y)])
  numeric = scipy.optimize.approx_fprime(flat, numpy_loss, 1e-7)
  np.testing.assert_allclose(
      np.concatenate([np.ravel(grads.x), np.ravel(grads.y)]), numeric,
      rtol=1e-4, atol=1e-6)
  twice = jax.tree.map(lambda a: 2 * a, data)
  both = jax.tree.map(lambda a, b: jnp.stack([a, b]), data, twice)
  np.testing.assert_allclose(
      jax.jit(jax.vmap(loss))(both)[1], jax.jit(loss)(twice), rtol=1e-8)


def test_predictor_passes_in_and_out_of_jit():
  data, x_test = _data()
  fit = jax.jit(krr.fit, static_argnums=0)
  predict_fn = fit(GAUSSIAN, data)
  assert isinstance(predict_fn, krr.Regressor)
  np.testing.assert_allclose(
      jax.jit(lambda f, x: f(x))(predict_fn, x_test),
      krr.fit(GAUSSIAN, data)(x_test), rtol=1e-6)


@pytest.mark.parametrize('tile', [1, 3, 7, 100])
def test_prediction_in_tiles_is_prediction(tile):
  data, x_test = _data()
  predict_fn = krr.fit(GAUSSIAN, data, ridge=1e-3)
  tiled = krr.predict_in_tiles(predict_fn, np.asarray(x_test), tile=tile)
  np.testing.assert_allclose(tiled, predict_fn(x_test), rtol=1e-12)
  plain = krr.predict_in_tiles(jnp.sin, x_test, tile=tile)
  np.testing.assert_allclose(plain, np.sin(x_test), rtol=1e-12)


def test_tiles_compile_once():
  data, _ = _data()
  sizes = []

  def cross(x1, x2):
    sizes.append(x1.shape[0])
    return _gaussian(x1, x2)

  predict_fn = krr.fit(GAUSSIAN._replace(cross=cross), data)
  krr.predict_in_tiles(predict_fn, data.x, tile=6)
  assert sizes == [6]


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('overwrite', [False, True])
def test_fit_gram_meets_fit(dtype, overwrite):
  data, x_test = _data()
  gram = np.array(_gaussian(data.x, data.x), dtype)
  before = gram.copy()
  predict_fn = krr.fit_gram(
      gram, GAUSSIAN, data, ridge=1e-2, dtype=dtype, overwrite=overwrite)
  assert np.array_equal(gram, before) is not overwrite
  want = krr.fit(GAUSSIAN, data, ridge=1e-2)
  tol = 1e-4 if dtype == 'float32' else 1e-10
  np.testing.assert_allclose(
      predict_fn(x_test), want(x_test), rtol=tol, atol=tol)
  assert predict_fn.dual.dtype == dtype
  # The residual is computed from the triangle that LAPACK left alone.
  k = oracle.system(np.asarray(before, float), 1e-2)
  dual, y = np.asarray(predict_fn.dual, float), np.asarray(data.y)
  true = np.linalg.norm(y - k @ dual, axis=0) / np.linalg.norm(y, axis=0)
  eps = np.finfo(dtype).eps
  np.testing.assert_allclose(
      predict_fn.info.residual, true, rtol=0.5, atol=20 * eps)
  assert predict_fn.info.residual.max() < 100 * eps


def test_fit_gram_takes_a_jax_array_and_leaves_it():
  data, _ = _data()
  gram = _gaussian(data.x, data.x)
  krr.fit_gram(gram, GAUSSIAN, data, ridge=1e-2, overwrite=True)
  np.testing.assert_array_equal(gram, _gaussian(data.x, data.x))


def test_fit_gram_failure_is_an_error_with_advice():
  data, _ = _data()
  gram = np.asarray(_gaussian(data.x, data.x))
  bad = gram.copy()
  bad[4, 2] = bad[2, 4] = np.nan
  for matrix in (-gram, bad):
    with pytest.raises(FloatingPointError, match='Raise `ridge`'):
      krr.fit_gram(matrix, GAUSSIAN, data)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_fit_on_device_meets_fit(dtype, monkeypatch):
  monkeypatch.setattr(on_device, '_TILE', 8)  # The last tile overlaps.
  on_device._solve.clear_cache()
  data, x_test = _data()
  gram = _gaussian(data.x, data.x).astype(dtype)
  found = krr.fit_on_device(gram, GAUSSIAN, data, ridge=1e-2, dtype=dtype)
  want = krr.fit(GAUSSIAN, data, ridge=1e-2)
  tol = 1e-4 if dtype == 'float32' else 1e-10
  np.testing.assert_allclose(found(x_test), want(x_test), rtol=tol, atol=tol)
  assert found.dual.dtype == dtype
  k = oracle.system(np.asarray(gram, float), 1e-2)
  y = np.asarray(data.y)
  true = (np.linalg.norm(y - k @ np.asarray(found.dual, float), axis=0)
          / np.linalg.norm(y, axis=0))
  eps = np.finfo(dtype).eps
  np.testing.assert_allclose(found.info.residual, true, rtol=1, atol=20 * eps)
  assert found.info.residual.max() < 100 * eps


def test_fit_on_device_failure_is_an_error():
  data, _ = _data()
  gram = _gaussian(data.x, data.x)
  for matrix in (-gram, gram.at[4, 2].set(jnp.nan)):
    with pytest.raises(FloatingPointError, match='Raise `ridge`'):
      krr.fit_on_device(matrix, GAUSSIAN, data)
  with jax.enable_x64(False), pytest.raises(ValueError, match='needs jax_ena'):
    krr.fit_on_device(gram, GAUSSIAN, data)


def test_cg_never_forms_the_matrix_and_is_exact_on_the_diagonal(key):
  data, x_test = _data(300)
  sizes = []

  def cross(x1, x2):
    sizes.append(x1.shape[0])
    # As from a float32 product: wrong on the diagonal alone.
    return _gaussian(x1, x2) + 0.1 * (x1[:, None] == x2[None]).all(-1)

  def full(_):
    raise AssertionError('the full matrix was asked for')

  kernel_fn = GAUSSIAN._replace(cross=cross, symmetric=full)
  v = jnp.asarray(np.random.default_rng(1).normal(size=(300, C)))
  product = jax.jit(krr.kernel_matvec(kernel_fn, data.x, tile=64))(v)
  np.testing.assert_allclose(
      product, _gaussian(data.x, data.x) @ v, rtol=1e-10, atol=1e-10)
  low_rank = krr.nystrom(key, GAUSSIAN, data.x, rank=50, tile=64)
  predict_fn = krr.fit_by_cg(
      kernel_fn, data, ridge=1e-2, low_rank=low_rank, tile=64, tol=1e-9)
  assert predict_fn.info.converged
  assert predict_fn.info.steps < 40
  want = krr.fit(GAUSSIAN, data, ridge=1e-2)(x_test)
  np.testing.assert_allclose(predict_fn(x_test), want, atol=1e-6)
  assert max(sizes) == 64


def test_cg_shows_its_progress(capfd):
  data, _ = _data()
  krr.fit_by_cg(GAUSSIAN, data, ridge=1e-2, progress=True)
  assert 'residual=' in capfd.readouterr().err


def test_cg_out_of_steps_is_a_flag():
  data, _ = _data(60)
  low_rank = krr.pivoted_cholesky(GAUSSIAN, data.x, rank=2)
  predict_fn = krr.fit_by_cg(
      GAUSSIAN, data, ridge=1e-8, low_rank=low_rank, max_steps=3)
  with pytest.raises(FloatingPointError, match='`max_steps`'):
    linalg.raise_if_failed(predict_fn.info)


@pytest.mark.parametrize('ridge', [1e-4, 0.1])
def test_leave_one_out_equals_n_refits(ridge):
  data, x_test = _data()
  _, k = _grams(data, x_test)
  np.testing.assert_allclose(
      krr.leave_one_out(GAUSSIAN, data, ridge=ridge),
      oracle.leave_one_out(k, np.asarray(data.y), ridge), rtol=1e-8)


@pytest.mark.parametrize('ridge', [0.0, 0.05])
@pytest.mark.parametrize('t', [1.0, 300.0])
def test_gradient_flow_meets_the_integrated_equation(t, ridge):
  data, x_test = _data()
  rng = np.random.default_rng(2)
  f0_x, f0_train = rng.normal(size=(M, C)), rng.normal(size=(N, C))
  flow = krr.gradient_flow(GAUSSIAN, data, ridge=ridge)
  got = flow(x_test, t, f0_x=jnp.asarray(f0_x), f0_train=jnp.asarray(f0_train))
  want = oracle.gradient_flow(
      *_grams(data, x_test), np.asarray(data.y), t, ridge, f0_x, f0_train)
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_gradient_flow_is_gradient_descent_on_the_stated_loss():
  """Small steps on |X w - y|^2 / (2N) of a linear model, by autodiff."""
  data, x_test = _data()
  linear = KernelFn(
      cross=lambda a, b: a @ b.T, symmetric=lambda a: a @ a.T,
      diag=lambda a: (a * a).sum(1), name='linear')
  loss = lambda w: ((data.x @ w - data.y) ** 2).sum() / (2 * N)
  rate, steps = 1e-3, 2000
  descend = lambda _, w: w - rate * jax.grad(loss)(w)
  w = jax.lax.fori_loop(0, steps, descend, jnp.zeros((D, C)))
  flow = krr.gradient_flow(linear, data)  # Singular: rank 3 of 20.
  np.testing.assert_allclose(
      flow(x_test, rate * steps), x_test @ w, atol=2e-3)
  least_squares = np.linalg.lstsq(data.x, data.y, rcond=None)[0]
  for t in (1e9, np.inf, jnp.inf):
    np.testing.assert_allclose(
        flow(x_test, t), x_test @ least_squares, rtol=1e-9, atol=1e-12)


def test_gradient_flow_ends_at_ridge_regression():
  data, x_test = _data()
  flow = krr.gradient_flow(GAUSSIAN, data, ridge=1e-2)
  predict_fn = krr.fit(GAUSSIAN, data, ridge=1e-2)
  np.testing.assert_allclose(flow.dual(jnp.inf), predict_fn.dual, rtol=1e-9)
  times = jnp.asarray([0.0, 1.0, jnp.inf])
  paths = jax.vmap(flow, (None, 0))(x_test, times)
  np.testing.assert_array_equal(paths[0], 0)
  np.testing.assert_allclose(paths[2], predict_fn(x_test), rtol=1e-9)

  def end(fit, x):
    return fit(data._replace(x=x)).sum()

  by_flow = lambda d: krr.gradient_flow(GAUSSIAN, d, ridge=1e-2)(
      x_test, jnp.inf)
  by_solve = lambda d: krr.fit(GAUSSIAN, d, ridge=1e-2)(x_test)
  grad = jax.jit(jax.grad(end, 1), static_argnums=0)
  np.testing.assert_allclose(
      grad(by_flow, data.x), grad(by_solve, data.x), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('num', [1, 3, N])
def test_an_array_of_times_adds_an_axis(num):
  """As many times as examples once met the eigenvalues one by one."""
  data, x_test = _data()
  f0 = {'f0_x': jnp.ones((M, C)), 'f0_train': 2 * jnp.ones((N, C))}
  flow = krr.gradient_flow(GAUSSIAN, data, ridge=1e-2)
  times = np.append(np.linspace(0, 3, num)[1:], np.inf)
  paths = flow(x_test, times, **f0)
  assert paths.shape == (num, M, C)
  for path, dual, t in zip(paths, flow.dual(jnp.asarray(times)), times):
    np.testing.assert_allclose(path, flow(x_test, t, **f0), rtol=1e-9)
    np.testing.assert_allclose(dual, flow.dual(t), rtol=1e-9)
  np.testing.assert_array_equal(flow(x_test), flow(x_test, np.inf))
  with pytest.raises(ValueError, match='`t` must not be negative'):
    flow(x_test, np.asarray([1.0, -1.0]))


def test_accuracy_and_mse():
  outputs = jnp.asarray([[1.0, 0.0], [0.2, 0.3], [jnp.nan, 5.0], [2.0, 1.0]])
  # The row with NaN is of the class that argmax names: NaN, or 5.0.
  for guess in (0, 1):
    assert krr.accuracy(outputs, np.array([0, 1, guess, 1])) == 0.5
  signs = jnp.asarray([[0.3], [-2.0], [4.0]])
  assert krr.accuracy(signs, np.array([1, 0, 1])) == 1
  signs = signs.at[1].set(jnp.nan)
  assert krr.accuracy(signs, np.array([1, 0, 1])) == jnp.asarray(2 / 3)
  assert krr.mse(jnp.asarray([[1.0, 2.0]]), jnp.asarray([[0.0, 4.0]])) == 2.5


@pytest.mark.errors
def test_errors_name_the_argument():
  data, x_test = _data()
  predict_fn = krr.fit(GAUSSIAN, data)
  flow = krr.gradient_flow(GAUSSIAN, data)
  gram = np.eye(N)
  one = jnp.zeros((M, C))
  cases = [
      (lambda: krr.fit(GAUSSIAN, data, ridge=-1), '`ridge` must be finite'),
      (lambda: krr.fit(GAUSSIAN, data, method='qr'), '`method` must be one of'),
      (lambda: krr.fit(GAUSSIAN, data._replace(y=data.y[1:])),
       '`data.y` has 19 rows, expected 20'),
      (lambda: krr.fit(GAUSSIAN, data._replace(y=data.y[:, 0])), '`data.y`'),
      (lambda: krr.fit(GAUSSIAN, data._replace(x=data.x[:0])), '`data.x`'),
      (lambda: predict_fn(x_test[:, :2]), r'examples of shape \(2,\)'),
      (lambda: predict_fn(x_test.astype(jnp.float32)), '`x` has dtype float32'),
      (lambda: krr.fit_by_cg(GAUSSIAN, data, ridge=0.0), '`ridge` must be pos'),
      (lambda: krr.fit_by_cg(GAUSSIAN, data, tile=0), '`tile` must be'),
      (lambda: krr.predict_in_tiles(predict_fn, x_test, tile=0), '`tile`'),
      (lambda: krr.fit_gram(gram[1:, 1:], GAUSSIAN, data), '`gram` has 19'),
      (lambda: krr.fit_gram(gram[1:], GAUSSIAN, data), r'must have shape \(N,'),
      (lambda: krr.fit_gram(gram, GAUSSIAN, data, dtype='int8'), '`dtype`'),
      (lambda: krr.fit_on_device(gram[1:, 1:], GAUSSIAN, data), '`gram` has'),
      (lambda: krr.fit_on_device(gram, GAUSSIAN, data, ridge=-1), '`ridge`'),
      (lambda: flow(x_test, -1.0), '`t` must not be negative, got -1.0'),
      (lambda: flow(x_test, 1.0, f0_x=one), 'must be given together'),
      (lambda: krr.gradient_flow(GAUSSIAN, data, ridge=-1), '`ridge`'),
      (lambda: krr.accuracy(one, np.zeros(M)), '`y` must be a vector of int'),
      (lambda: krr.accuracy(one, np.zeros(3, int)), '`y` has 3'),
      (lambda: krr.mse(one, one[:, :1]), '`y` has D=1, expected D=2'),
  ]
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()
