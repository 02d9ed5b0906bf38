r"""A direct solve on an accelerator, for as many examples as it holds.

`fit` keeps K, A = K + \lambda tr(K)/N I and its factor, which derivatives
need. Without derivatives the factor may replace A: a float32 matrix and a
float64 solve take 20 bytes an entry, 72 GB for 60,000 examples, by count.
"""
import functools

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import checks, linalg, numerics
from dsr.krr.predictor import Regressor, map_row_tiles
from dsr.linalg import info
from dsr.types import Examples, KernelFn

_TILE = 1024  # Rows of K that are turned to the dtype of the solve at once.


def fit_on_device(
    gram: Float[Array, 'N N'], kernel_fn: KernelFn, data: Examples, *,
    ridge: float = 1e-6, dtype: str = 'float64') -> Regressor:
  r"""`fit` from a given kernel matrix, where `gram` lies; no derivatives.

  \alpha = (K + \lambda tr(K)/N I)^{-1} Y by Cholesky: N^3/3 operations, and
  beside `gram` at most two (N, N) arrays of `dtype`.

  Args:
    gram: (N, N) the kernel at `data.x`, on one device; it is kept.
    kernel_fn: for predictions.
    data: inputs (N, ...) and targets (N, C).
    ridge: \lambda >= 0, relative to tr(K)/N.
    dtype: of the solve: 'float64', which needs x64 mode, or 'float32'.

  Raises:
    ValueError: misshapen arguments, an option out of range, or 'float64'
      without x64 mode.
    FloatingPointError: the matrix is not positive definite, or not finite.
  """
  checks.square('gram', gram)
  checks.same_rows(**{'gram': gram, 'data.x': data.x})
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  checks.non_negative('ridge', ridge)
  checks.one_of('dtype', dtype, ('float32', 'float64'))
  if dtype == 'float64' and not jax.config.jax_enable_x64:
    raise ValueError("`dtype` 'float64' needs jax_enable_x64, which is off.")
  y = jnp.asarray(data.y, dtype)
  dual, residual = _solve(gram, y, jnp.asarray(ridge, dtype))
  converged = jnp.all(residual <= linalg.RESIDUAL_LIMIT)
  found = linalg.Info(residual, jnp.zeros((), int), converged)
  linalg.raise_if_failed(found, ridge=ridge)
  return Regressor(kernel_fn, jnp.asarray(data.x), dual, found)


def bytes_needed(num: int, gram_bytes: int, dtype: str) -> int:
  """Of the device, for `num` examples and a matrix of `gram_bytes` an entry."""
  return num**2 * (gram_bytes + 2 * jnp.dtype(dtype).itemsize)


@jax.jit
def _solve(gram, y, ridge):
  """(dual, residual of each column relative to |y|)."""
  shift = ridge * jnp.mean(jnp.diagonal(gram).astype(y.dtype))
  rows = lax.broadcasted_iota(jnp.int32, gram.shape, 0)
  cols = lax.broadcasted_iota(jnp.int32, gram.shape, 1)
  a = gram.astype(y.dtype) + jnp.where(rows == cols, shift, 0)
  factor = lax.linalg.cholesky(a, symmetrize_input=False)
  solve = functools.partial(
      lax.linalg.triangular_solve, factor, left_side=True, lower=True)
  dual = solve(solve(y), transpose_a=True)

  def product(_, block):
    return numerics.matmul(block.astype(y.dtype), dual)

  applied = map_row_tiles(product, gram, jnp.zeros_like(y), tile=_TILE)
  return dual, info.relative_residual(y - applied - shift * dual, y)
