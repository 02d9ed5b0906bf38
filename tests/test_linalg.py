"""Ridge solves against NumPy: values, derivatives, failures, cost."""
import collections
import functools
import re

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from dsr import linalg
from tests.reference import krr as oracle

N, C = 24, 3
both_methods = pytest.mark.parametrize('method', ['cholesky', 'eigh'])


def _problem(n=N, *, seed=0, dtype=np.float64):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(n, 4))
  k = oracle.gaussian(x, x, 1.5).astype(dtype)
  return jnp.asarray(k), jnp.asarray(rng.normal(size=(n, C)).astype(dtype))


@both_methods
@pytest.mark.parametrize('ridge', [0.0, 0.1])
def test_solve_meets_elimination(method, ridge):
  k, y = _problem()
  factor = linalg.factorise(k, ridge=ridge, method=method)
  x = linalg.solve(factor, y)
  np.testing.assert_allclose(
      x, np.linalg.solve(oracle.system(np.asarray(k), ridge), y), rtol=1e-8)
  info = linalg.residual_info(factor, x, y)
  assert info.converged
  assert info.residual.max() < 1e-11
  linalg.raise_if_failed(info)


@both_methods
def test_ridge_is_relative_to_the_scale_of_the_kernel(method):
  k, y = _problem()
  one = linalg.solve(linalg.factorise(k, ridge=0.1, method=method), y)
  many = linalg.solve(linalg.factorise(1e4 * k, ridge=0.1, method=method), y)
  np.testing.assert_allclose(1e4 * many, one, rtol=1e-10)


def test_float32_systems_are_solved_in_float64_under_x64():
  k, y = _problem(dtype=np.float32)
  x = linalg.solve(linalg.factorise(k, ridge=1e-6), y)
  assert x.dtype == jnp.float64
  exact = np.linalg.solve(oracle.system(np.asarray(k, float), 1e-6), y)
  np.testing.assert_allclose(x, exact, rtol=1e-8)


def test_float32_without_x64():
  k, y = _problem(dtype=np.float32)
  exact = np.linalg.solve(oracle.system(np.asarray(k, float), 1e-2), y)
  with jax.enable_x64(False):
    for method in ('cholesky', 'eigh'):
      x = linalg.solve(linalg.factorise(k, ridge=1e-2, method=method), y)
      assert x.dtype == jnp.float32
      np.testing.assert_allclose(x, exact, rtol=2e-3, atol=2e-3)


@both_methods
def test_derivatives_meet_those_of_elimination(method):
  k, y = _problem()
  weights = jnp.cos(jnp.arange(N * C, dtype=float)).reshape(N, C)

  def ours(k, y, ridge):
    factor = linalg.factorise(k, ridge=ridge, method=method)
    return (weights * linalg.solve(factor, y) ** 2).sum()

  def plain(k, y, ridge):
    a = k + ridge * jnp.trace(k) / N * jnp.eye(N)
    return (weights * jnp.linalg.solve(a, y) ** 2).sum()

  ridge = jnp.asarray(0.05)
  first = lambda f: jax.jit(jax.grad(f, (0, 1, 2)))(k, y, ridge)
  for got, want in zip(first(ours), first(plain)):
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)
  if method == 'cholesky':
    along = lambda f: lambda s: f(s * k + s**2 * k * k, y, ridge)
    second = lambda f: jax.jit(jax.grad(jax.grad(along(f))))(1.0)
    np.testing.assert_allclose(second(ours), second(plain), rtol=1e-7)


def test_derivative_does_not_touch_the_factor():
  """Forward and backward hold one Cholesky and four triangular solves."""
  k, y = _problem()
  loss = lambda k: linalg.solve(linalg.factorise(k), y).sum()
  text = jax.jit(jax.grad(loss)).lower(k).compile().as_text()
  calls = collections.Counter(re.findall(r'target="lapack_(\w+)_ffi"', text))
  # The derivative of the factor itself would add two N x N `dtrsm`.
  assert calls == {'dpotrf': 1, 'dtrsm': 4}


def test_vmap_solves_a_batch_of_systems():
  ks, ys = zip(*[_problem(seed=s) for s in range(3)])
  f = lambda k, y: linalg.solve(linalg.factorise(k, ridge=1e-3), y)
  together = jax.vmap(f)(jnp.stack(ks), jnp.stack(ys))
  for k, y, x in zip(ks, ys, together):
    np.testing.assert_allclose(x, f(k, y), rtol=1e-9)


def test_with_ridge_reuses_the_eigenvectors():
  k, y = _problem()
  factor = linalg.factorise(k, method='eigh')
  for ridge in (1e-3, 1.0):
    other = linalg.with_ridge(factor, ridge)
    want = np.linalg.solve(oracle.system(np.asarray(k), ridge), y)
    np.testing.assert_allclose(linalg.solve(other, y), want, rtol=1e-9)


@both_methods
def test_diag_inverse_and_log_det(method):
  k, _ = _problem()
  a = oracle.system(np.asarray(k), 1e-2)
  factorise = functools.partial(linalg.factorise, ridge=1e-2, method=method)
  factor = factorise(k)
  np.testing.assert_allclose(
      linalg.diag_inverse(factor), np.diag(np.linalg.inv(a)), rtol=1e-9)
  np.testing.assert_allclose(
      linalg.log_det(factor), np.linalg.slogdet(a)[1], rtol=1e-10)
  direction = k * k  # Symmetric, and positive definite by Schur.
  for fn in (linalg.log_det, lambda f: linalg.diag_inverse(f).sum()):
    along = lambda s, fn=fn: fn(factorise(k + s * direction))
    jax.test_util.check_grads(jax.jit(along), (0.1,), order=1, rtol=1e-5)


@both_methods
def test_failure_is_a_flag_then_an_error(method):
  k, y = _problem()
  for bad in (-k, k.at[3, 3].set(jnp.nan)):
    factor = linalg.factorise(bad, ridge=1e-6, method=method)
    x, info = jax.jit(_solve_and_info)(factor, y)
    assert np.isnan(x).all()
    assert not info.converged
    with pytest.raises(FloatingPointError, match=r'Raise `ridge` \(got 1e-06'):
      linalg.raise_if_failed(info, ridge=1e-6)
    for use in (linalg.log_det, linalg.diag_inverse,
                lambda factor: linalg.solve(factor, y)):
      with pytest.raises(FloatingPointError, match='Raise `ridge`'):
        use(factor)


def _solve_and_info(factor, y):
  x = linalg.solve(factor, y)
  return x, linalg.residual_info(factor, x, y)


@both_methods
def test_rounding_of_float32_is_left_out(method):
  """Of an indefinite float32 kernel the hidden directions do not count."""
  rng = np.random.default_rng(0)
  basis, _ = np.linalg.qr(rng.normal(size=(N, N)))
  values = np.r_[-1e-4, 5e-5, -2e-5, np.linspace(1, 3, N - 3)]
  k, y = (basis * values) @ basis.T, rng.normal(size=(N, C))
  want = basis[:, 3:] @ (basis[:, 3:].T @ y / values[3:, None])

  def solve(k, y):
    factor = linalg.factorise(k, ridge=0.0, method=method)
    x = linalg.solve(factor, y)
    return x, linalg.residual_info(factor, x, y), linalg.log_det(factor)

  x, info, log_det = jax.jit(jax.vmap(solve, (0, None)))(
      jnp.asarray(np.stack([k, np.eye(N)]), jnp.float32), jnp.asarray(y))
  np.testing.assert_allclose(x[0], want, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(x[1], y, rtol=1e-6)
  np.testing.assert_array_equal(info.dropped, [3, 0])
  assert info.converged.all()
  np.testing.assert_allclose(
      log_det, [np.log(values[3:]).sum() + 3 * np.log(1e-4), 0], atol=1e-2)
  with pytest.warns(RuntimeWarning, match='3 directions that rounding hides'):
    linalg.report(jax.tree.map(lambda a: a[0], info))


def test_advice_names_x64_where_it_is_off():
  k = -jnp.ones((N, N), jnp.float32)  # No rounding of a kernel.
  with jax.enable_x64(False):
    factor = linalg.factorise(k, ridge=0.0)
    y = jnp.eye(N, C, dtype=jnp.float32)
    with pytest.raises(FloatingPointError, match='or enable x64'):
      linalg.solve(factor, y)


def _hard(n=200):
  """A kernel with fast spectral decay and a tiny ridge: condition 1e8."""
  rng = np.random.default_rng(1)
  x = rng.normal(size=(n, 2))
  k = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / 2)
  y = np.c_[rng.normal(size=(n, C)), np.zeros(n)]
  return jnp.asarray(k), jnp.asarray(y)


@pytest.mark.usefixtures('optimised')
def test_conjugate_gradient_and_its_preconditioners(key):
  k, y = _hard()
  n, shift = len(k), 1e-5
  a = k + shift * jnp.eye(n)
  exact = np.linalg.solve(a, y)
  matvec = lambda v: a @ v
  low_ranks = {
      'none': None,
      'pivoted': linalg.pivoted_cholesky(
          jnp.diagonal(k), lambda i: k[i], 60),
      'nystrom': linalg.nystrom(key, lambda v: k @ v, n, 60),
  }
  steps = {}
  for name, low_rank in low_ranks.items():
    precondition = (
        None if low_rank is None else linalg.woodbury(low_rank, shift))
    x, info = jax.jit(lambda y, p=precondition: linalg.conjugate_gradient(
        matvec, y, preconditioner=p, tol=1e-10, max_steps=2000))(y)
    assert info.converged
    assert info.residual.shape == (C + 1,)
    true = np.linalg.norm(y - a @ x, axis=0)[:C]
    np.testing.assert_allclose(
        info.residual[:C], true / np.linalg.norm(y, axis=0)[:C], rtol=1e-3)
    np.testing.assert_allclose(x, exact, atol=1e-6 * np.abs(exact).max())
    np.testing.assert_array_equal(x[:, -1], 0)  # A zero column stays zero.
    steps[name] = int(info.steps)
  assert steps['pivoted'] < 0.25 * steps['none']
  assert steps['nystrom'] < 0.25 * steps['none']


def test_conjugate_gradient_reports_what_it_did_not_reach():
  k, y = _hard()
  seen = []
  _, info = linalg.conjugate_gradient(
      lambda v: k @ v + 1e-5 * v, y, tol=1e-10, max_steps=5,
      on_step=lambda step, residual: seen.append(int(step)))
  jax.effects_barrier()
  assert not info.converged
  assert info.steps == 5
  assert seen == [1, 2, 3, 4, 5]
  with pytest.raises(FloatingPointError, match='5 steps .* `max_steps`'):
    linalg.raise_if_failed(info)
  for bad in (lambda v: -v, lambda v: jnp.nan * v):  # Stops, and says so.
    _, info = linalg.conjugate_gradient(bad, y, max_steps=100)
    assert info.steps < 3
    assert not info.converged


def test_pivoted_cholesky_is_exact_at_full_numerical_rank():
  rng = np.random.default_rng(0)
  left = rng.normal(size=(30, 5))
  k = jnp.asarray(left @ left.T)
  low_rank = linalg.pivoted_cholesky(jnp.diagonal(k), lambda i: k[i], 8)
  np.testing.assert_allclose(
      (low_rank.basis * low_rank.values[None]) @ low_rank.basis.T, k,
      atol=1e-10)
  np.testing.assert_allclose(low_rank.values[5:], 0, atol=1e-12)


def test_nystrom_finds_the_leading_eigenvalues(key):
  k, _ = _hard()
  low_rank = linalg.nystrom(key, lambda v: k @ v, len(k), 60)
  exact = np.linalg.eigvalsh(k)[::-1]
  np.testing.assert_allclose(low_rank.values[:20], exact[:20], rtol=1e-3)
  np.testing.assert_allclose(
      low_rank.basis.T @ low_rank.basis, np.eye(60), atol=1e-12)


def test_woodbury_is_the_inverse_up_to_its_factor(key):
  k, y = _hard()
  for low_rank in (linalg.nystrom(key, lambda v: k @ v, len(k), 20),
                   linalg.pivoted_cholesky(
                       jnp.diagonal(k), lambda i: k[i], 20)):
    u, s, floor = low_rank
    full = (u * s[None]) @ u.T + floor * (np.eye(len(k)) - u @ u.T)
    shift = 1e-3
    want = (floor + shift) * np.linalg.solve(
        full + shift * np.eye(len(k)), y)
    np.testing.assert_allclose(
        linalg.woodbury(low_rank, shift)(y), want, atol=1e-9)


@pytest.mark.errors
def test_errors_name_the_argument(key):
  k, y = _problem()
  cases = [
      (lambda: linalg.factorise(k[:3]), r'`k` must have shape \(N, N\)'),
      (lambda: linalg.factorise(k, ridge=-1.0), '`ridge` must be finite'),
      (lambda: linalg.factorise(k, method='lu'), '`method` must be one of'),
      (lambda: linalg.solve(linalg.factorise(k), y[:5]), '`y` has 5 rows'),
      (lambda: linalg.with_ridge(linalg.factorise(k), 1.0), 'eigh'),
      (lambda: linalg.pivoted_cholesky(jnp.diagonal(k), None, N + 1), '`rank`'),
      (lambda: linalg.nystrom(key, None, N, 0), '`rank` must be'),
      (lambda: linalg.conjugate_gradient(None, y, max_steps=0), '`max_steps`'),
      (lambda: linalg.conjugate_gradient(None, y, tol=0, max_steps=1), '`tol`'),
  ]
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()


def test_eigenvectors_are_made_only_where_cholesky_fails():
  """XLA must not move the fallback out of its loop, and make it always."""
  k = jnp.eye(5, dtype=jnp.float32)
  text = jax.jit(lambda k: linalg.factorise(k).basis).lower(
      k).compile().as_text()
  entry = text[text.index('ENTRY'):]
  assert 'syevd' in text
  assert 'syevd' not in entry
  assert 'potrf' in entry
