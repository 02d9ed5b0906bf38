r"""Direct ridge solves: one factorisation, many right-hand sides.

A = K + \lambda tr(K)/N I. The ridge \lambda is relative to the mean of the
kernel's diagonal, so it means the same whatever the kernel's scale.

On paper -> code: K -> k, \lambda -> ridge, \lambda tr(K)/N -> shift.
Axes: N examples; C right-hand sides.

Derivatives come from the identity A dX = dY - dA X: the backward pass of a
solve is one more solve with the same factor and an outer product. Neither
the Cholesky factor nor the eigenvectors are ever differentiated.

Entries of a float32 kernel are rounded, so that its least eigenvalues may fall
below minus the ridge. Then directions of eigenvalues up to the size of the
most negative one are hidden by rounding. They are left out, which predicts
better than a ridge of that size (BUILD_NOTES), and is said.
"""
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from dsr import checks, numerics
from dsr.linalg import info as info_lib
from dsr.linalg.info import Info, relative_residual

METHODS = ('cholesky', 'eigh')
# A direct solve that leaves this much of the target has lost the problem.
RESIDUAL_LIMIT = 1e-3
# A negative eigenvalue beyond this share of the mean diagonal is no rounding.
_MOST_ROUNDING = 1e-2
# Eigenvalues that float32 arithmetic tells from 0, relative to the largest.
_FLOOR = 8 * np.finfo(np.float32).eps


class Factor(NamedTuple):
  """A factorised ridge system, in the dtype of the solve.

  `k` and `shift` carry the derivatives; `basis` and `values` carry none.

  Attributes:
    k: (N, N) the kernel matrix, without its ridge.
    shift: what is added to its diagonal.
    basis: (N, N) the lower Cholesky factor of A, or the eigenvectors of K.
    values: (N,) ascending eigenvalues of K; None if `basis` can be nothing but
      a Cholesky factor.
    ok: whether the factorisation succeeded.
    hidden: (N,) the directions that are left out, since rounding hides them;
      None for a float64 K, where there are none.
    spectral: whether `basis` holds eigenvectors, where Cholesky gave way to
      them; None if it is known beforehand.
  """

  k: Float[Array, 'N N']
  shift: Float[Array, '']
  basis: Float[Array, 'N N']
  values: Float[Array, 'N'] | None
  ok: Bool[Array, '']
  hidden: Bool[Array, 'N'] | None = None
  spectral: Bool[Array, ''] | None = None


def factorise(
    k: Float[Array, 'N N'], *, ridge: float | Float[Array, ''] = 1e-6,
    method: str = 'cholesky') -> Factor:
  r"""Factorises A = K + \lambda tr(K)/N I in `numerics.solve_dtype`.

  Where a float32 `k` leaves A indefinite, by less than 1e-2 of its diagonal,
  Cholesky gives way to eigenvectors, and the directions that rounding hides
  (`Factor.hidden`) are left out: A^-1 is a pseudo-inverse. A float64 `k` gets
  the inverse that was asked for, or fails.

  Args:
    k: (N, N) symmetric, positive semi-definite. Cholesky reads its lower
      triangle.
    ridge: \lambda >= 0, relative to tr(K)/N; its share in the derivative with
      respect to K is kept.
    method: 'cholesky', N^3/3 operations; or 'eigh', some 25 times as many,
      after which `with_ridge` changes the ridge at no cost.

  Returns:
    A `Factor`; its `ok` is False where the factorisation failed.

  Raises:
    ValueError: `k` is not square and floating, or an option is out of range.
  """
  checks.square('k', k)
  checks.one_of('method', method, METHODS)
  dtype = numerics.solve_dtype(k.dtype)
  k, rounded = k.astype(dtype), k.dtype != jnp.float64
  shift = _shift(k, ridge)
  fixed, start = lax.stop_gradient((k, shift))

  if method == 'eigh':
    basis, values = lax.linalg.eigh(fixed, symmetrize_input=False)
    return _spectral(Factor(k, shift, basis, values, jnp.array(True)), rounded)
  a = fixed + start * jnp.eye(k.shape[0], dtype=dtype)
  basis = lax.linalg.cholesky(a, symmetrize_input=False)
  factor = Factor(k, shift, basis, None, jnp.isfinite(jnp.trace(basis)))
  if not rounded:
    return factor

  def give_way(state):
    basis, values = lax.linalg.eigh(state[0], symmetrize_input=False)
    return basis, values, jnp.array(True)

  # A loop of one step at most: `vmap` would run both branches of a `cond`. The
  # matrix is part of the state, lest XLA moves eigh out of the loop and makes
  # it always.
  vectors, values, spectral = lax.while_loop(
      lambda state: ~(factor.ok | state[2]), give_way,
      (fixed, jnp.ones(k.shape[0], dtype), jnp.array(False)))
  basis = jnp.where(spectral, vectors, basis)
  factor = factor._replace(basis=basis, values=values, spectral=spectral)
  return _spectral(factor, rounded)


def _spectral(factor, rounded):
  """`factor` with what its eigenvalues say of `ok` and `hidden`."""
  values, shift = lax.stop_gradient((factor.values, factor.shift))
  lowest = values[0]
  if not rounded:
    return factor._replace(ok=lowest + shift > 0, hidden=None)
  floor = _FLOOR * values[-1]
  mean = lax.stop_gradient(jnp.trace(factor.k)) / values.shape[0]
  indefinite = lowest + shift <= floor
  if factor.spectral is not None:
    indefinite = factor.spectral
  hidden = indefinite & (values <= jnp.maximum(-lowest, floor))
  ok = (lowest + shift > 0) | (lowest > -_MOST_ROUNDING * mean)
  return factor._replace(ok=ok, hidden=hidden)


def with_ridge(factor: Factor, ridge: float | Float[Array, '']) -> Factor:
  """The same kernel at another relative ridge; needs method 'eigh'."""
  if factor.values is None or factor.spectral is not None:
    raise ValueError('`factor` must come from method eigh; got cholesky.')
  shift = _shift(factor.k, ridge)
  return _spectral(factor._replace(shift=shift), factor.hidden is not None)


def _shift(k, ridge):
  if not isinstance(ridge, jax.Array):  # Traced values cannot be looked at.
    checks.non_negative('ridge', ridge)
  return jnp.asarray(ridge, k.dtype) * jnp.trace(k) / k.shape[0]


def _raise_if_unusable(factor):
  """FloatingPointError outside of a trace, where a value is not to be had."""
  if info_lib.is_known(factor.ok) and not np.all(factor.ok):
    nothing = np.full(1, np.nan)
    info_lib.raise_if_failed(Info(nothing, np.zeros((), int), np.False_))


def solve(factor: Factor, y: Float[Array, 'N C']) -> Float[Array, 'N C']:
  """A^-1 Y, in the factor's dtype: cast the result, not the system.

  Differentiable, forward and backward and to any order, in `y` and in the K
  and ridge of `factorise`; each derivative costs one more solve, 2 N^2 C.
  Inside of a trace a failed factorisation gives NaN: see `residual_info`.

  Raises:
    ValueError: `y` is not floating with N rows.
    FloatingPointError: outside of a trace, the factorisation failed.
  """
  checks.targets('y', y, rows=factor.k.shape[0])
  _raise_if_unusable(factor)
  fixed = lax.stop_gradient(factor)

  def inverse(apply, b):
    x = _inverse_times(fixed, b)
    if b.dtype == jnp.float32:  # Refined once, where digits are few.
      x = x + _inverse_times(fixed, b - apply(x))
    return x

  return lax.custom_linear_solve(
      functools.partial(_apply, factor.k, factor.shift),
      y.astype(factor.k.dtype), inverse, symmetric=True)


def _inverse_times(factor, b):
  """A^-1 b by the factor, without hidden directions."""

  def triangular(b):
    solve = functools.partial(
        lax.linalg.triangular_solve, factor.basis, left_side=True, lower=True)
    return solve(solve(b), transpose_a=True)

  def spectral(b):
    # Divided by, infinity leaves a direction out.
    values = factor.values + factor.shift
    if factor.hidden is not None:
      values = jnp.where(factor.hidden, jnp.inf, values)
    values = jnp.where(factor.ok, values, jnp.nan)
    return numerics.matmul(
        factor.basis, numerics.matmul(factor.basis.T, b) / values[:, None])

  if factor.values is None:
    return triangular(b)
  if factor.spectral is None:
    return spectral(b)
  return lax.cond(factor.spectral, spectral, triangular, b)


def _apply(k, shift, x):
  return numerics.matmul(k, x) + shift * x


def residual_info(
    factor: Factor, x: Float[Array, 'N C'], y: Float[Array, 'N C']) -> Info:
  """How well `x` solves the system for `y`: one product, no derivative."""
  factor, x, y = lax.stop_gradient((factor, x, y))
  y = y.astype(factor.k.dtype)
  left, dropped = y - _apply(factor.k, factor.shift, x), jnp.zeros((), int)
  if factor.hidden is not None:  # Hidden directions are not to be solved.
    basis = jnp.where(factor.hidden[None], factor.basis, 0)
    left = left - numerics.matmul(basis, numerics.matmul(basis.T, left))
    dropped = jnp.sum(factor.hidden)
  residual = relative_residual(left, y)
  # In float32 predictions are as good as their kernel up to ten times that.
  limit = RESIDUAL_LIMIT * (10 if y.dtype == jnp.float32 else 1)
  converged = factor.ok & jnp.all(residual <= limit)
  return Info(residual, jnp.zeros((), int), converged, dropped)


def diag_inverse(factor: Factor) -> Float[Array, 'N']:
  """The diagonal of A^-1, by 2 N^3 operations; differentiable.

  Leave-one-out residuals are alpha_i / [A^-1]_ii, for alpha = A^-1 y.

  Raises:
    FloatingPointError: as `solve`.
  """
  return jnp.diagonal(_inverse(factor))


def _inverse(factor):
  return solve(factor, jnp.eye(factor.k.shape[0], dtype=factor.k.dtype))


def log_det(factor: Factor) -> Float[Array, '']:
  """log det A from the factor, by N operations.

  Differentiable: d log det A = tr(A^-1 dA), for which A^-1 is then formed.
  NaN inside of a trace, where the factorisation failed.

  Raises:
    FloatingPointError: as `solve`.
  """
  _raise_if_unusable(factor)
  return _log_det(factor.k, factor.shift, lax.stop_gradient(factor))


@jax.custom_jvp
def _log_det(k, shift, factor):
  del k, shift  # They are the inputs of the derivative alone.
  triangular = lambda: 2 * jnp.log(jnp.diagonal(factor.basis)).sum()

  def spectral():
    values = factor.values
    if factor.hidden is not None:  # It counts as the level of rounding.
      level = jnp.max(jnp.where(factor.hidden, jnp.abs(values), 0))
      values = jnp.where(factor.hidden, level, values)
    return jnp.log(jnp.where(factor.ok, values + factor.shift, jnp.nan)).sum()

  if factor.values is None:
    return triangular()
  if factor.spectral is None:
    return spectral()
  return lax.cond(factor.spectral, spectral, triangular)


@_log_det.defjvp
def _log_det_jvp(primals, tangents):
  k, shift, factor = primals
  dk, dshift, _ = tangents
  inverse = _inverse(factor._replace(k=k, shift=shift))
  tangent = jnp.vdot(inverse, dk, precision='highest')
  tangent += dshift * jnp.trace(inverse)
  return _log_det(k, shift, factor), tangent
