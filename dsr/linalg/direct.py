r"""Direct ridge solves: one factorisation, many right-hand sides.

A = K + \lambda tr(K)/N I. The ridge \lambda is relative to the mean of the
kernel's diagonal, so it means the same whatever the kernel's scale.

On paper -> code: K -> k, \lambda -> ridge, \lambda tr(K)/N -> shift.
Axes: N examples; C right-hand sides.

Derivatives come from the identity A dX = dY - dA X: the backward pass of a
solve is one more solve with the same factor and an outer product. Neither
the Cholesky factor nor the eigenvectors are ever differentiated.
"""
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dsr import checks, numerics
from dsr.linalg.info import Info, relative_residual

METHODS = ('cholesky', 'eigh')
# A direct solve that leaves this much of the target has lost the problem.
RESIDUAL_LIMIT = 1e-3


class Factor(NamedTuple):
  """A factorised ridge system, in the dtype of the solve.

  `k` and `shift` carry the derivatives; `basis` and `values` carry none.

  Attributes:
    k: (N, N) the kernel matrix, without its ridge.
    shift: what is added to its diagonal.
    basis: (N, N) the lower Cholesky factor of A, or the eigenvectors of K.
    values: (N,) ascending eigenvalues of K; None with Cholesky.
    ok: whether the factorisation succeeded.
  """

  k: Float[Array, 'N N']
  shift: Float[Array, '']
  basis: Float[Array, 'N N']
  values: Float[Array, 'N'] | None
  ok: Bool[Array, '']


def factorise(
    k: Float[Array, 'N N'], *, ridge: float | Float[Array, ''] = 1e-6,
    method: str = 'cholesky') -> Factor:
  r"""Factorises A = K + \lambda tr(K)/N I in `numerics.solve_dtype`.

  Args:
    k: (N, N) symmetric, positive semi-definite. Cholesky reads its lower
      triangle.
    ridge: \lambda >= 0, relative to tr(K)/N; its share in the derivative with
      respect to K is kept.
    method: 'cholesky', N^3/3 operations; or 'eigh', some 25 times as many,
      after which `with_ridge` changes the ridge at no cost.

  Raises:
    ValueError: `k` is not square and floating, or an option is out of range.
  """
  checks.square('k', k)
  checks.one_of('method', method, METHODS)
  dtype = numerics.solve_dtype(k.dtype)
  k = k.astype(dtype)
  shift = _shift(k, ridge)
  fixed = lax.stop_gradient(k)
  if method == 'eigh':
    basis, values = lax.linalg.eigh(fixed, symmetrize_input=False)
    lowest = values.min() + lax.stop_gradient(shift)
    return Factor(k, shift, basis, values, lowest > 0)
  a = fixed + lax.stop_gradient(shift) * jnp.eye(k.shape[0], dtype=dtype)
  basis = lax.linalg.cholesky(a, symmetrize_input=False)
  return Factor(k, shift, basis, None, jnp.isfinite(jnp.trace(basis)))


def with_ridge(factor: Factor, ridge: float | Float[Array, '']) -> Factor:
  """The same kernel at another relative ridge; needs method 'eigh'."""
  if factor.values is None:
    raise ValueError('`factor` must come from method eigh; got cholesky.')
  shift = _shift(factor.k, ridge)
  lowest = factor.values.min() + lax.stop_gradient(shift)
  return factor._replace(shift=shift, ok=lowest > 0)


def _shift(k, ridge):
  if not isinstance(ridge, jax.Array):  # Traced values cannot be looked at.
    checks.non_negative('ridge', ridge)
  return jnp.asarray(ridge, k.dtype) * jnp.trace(k) / k.shape[0]


def solve(factor: Factor, y: Float[Array, 'N C']) -> Float[Array, 'N C']:
  """A^-1 Y, in the factor's dtype: cast the result, not the system.

  Differentiable, forward and backward and to any order, in `y` and in the K
  and ridge of `factorise`; each derivative costs one more solve, 2 N^2 C.
  NaN if the factorisation failed: see `residual_info`.

  Raises:
    ValueError: `y` is not floating with N rows.
  """
  checks.targets('y', y, rows=factor.k.shape[0])
  basis, values, shift = lax.stop_gradient(
      (factor.basis, factor.values, factor.shift))

  def inverse(_, b):
    if values is None:
      half = lax.linalg.triangular_solve(
          basis, b, left_side=True, lower=True)
      return lax.linalg.triangular_solve(
          basis, half, left_side=True, lower=True, transpose_a=True)
    coefficients = numerics.matmul(basis.T, b) / (values + shift)[:, None]
    return numerics.matmul(basis, coefficients)

  return lax.custom_linear_solve(
      functools.partial(_apply, factor.k, factor.shift),
      y.astype(factor.k.dtype), inverse, symmetric=True)


def _apply(k, shift, x):
  return numerics.matmul(k, x) + shift * x


def residual_info(
    factor: Factor, x: Float[Array, 'N C'], y: Float[Array, 'N C']) -> Info:
  """How well `x` solves the system for `y`: one product, no derivative."""
  factor, x, y = lax.stop_gradient((factor, x, y))
  y = y.astype(factor.k.dtype)
  residual = relative_residual(y - _apply(factor.k, factor.shift, x), y)
  converged = factor.ok & jnp.all(residual <= RESIDUAL_LIMIT)
  return Info(residual, jnp.zeros((), int), converged)


def diag_inverse(factor: Factor) -> Float[Array, 'N']:
  """The diagonal of A^-1, by 2 N^3 operations; differentiable.

  Leave-one-out residuals are alpha_i / [A^-1]_ii, for alpha = A^-1 y.
  """
  return jnp.diagonal(_inverse(factor))


def _inverse(factor):
  return solve(factor, jnp.eye(factor.k.shape[0], dtype=factor.k.dtype))


def log_det(factor: Factor) -> Float[Array, '']:
  """log det A from the factor, by N operations.

  Differentiable: d log det A = tr(A^-1 dA), for which A^-1 is then formed.
  """
  return _log_det(factor.k, factor.shift, lax.stop_gradient(factor))


@jax.custom_jvp
def _log_det(k, shift, factor):
  del k, shift  # They are the inputs of the derivative alone.
  if factor.values is None:
    return 2 * jnp.log(jnp.diagonal(factor.basis)).sum()
  return jnp.log(factor.values + factor.shift).sum()


@_log_det.defjvp
def _log_det_jvp(primals, tangents):
  k, shift, factor = primals
  dk, dshift, _ = tangents
  inverse = _inverse(factor._replace(k=k, shift=shift))
  tangent = jnp.vdot(inverse, dk, precision='highest')
  tangent += dshift * jnp.trace(inverse)
  return _log_det(k, shift, factor), tangent
