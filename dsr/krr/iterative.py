r"""Kernel ridge regression beyond memory: CG on row tiles of the kernel.

Each step recomputes the kernel, `tile` rows at a time, and never holds more
than `tile` x N of its entries. A low-rank preconditioner makes the number of
steps small. Axes: N training examples; C outputs; R rank.
"""
from collections.abc import Callable
import functools

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dsr import checks, linalg, numerics
from dsr.krr.predictor import Regressor, map_row_tiles
from dsr.types import Examples, KernelFn


def kernel_matvec(
    kernel_fn: KernelFn, x: Float[Array, 'N ...'], *, tile: int = 512
) -> Callable:
  """V -> K V for (N, C) arrays, from row tiles; K without ridge.

  Products accumulate in the dtype of V. The diagonal of K is `kernel_fn.diag`,
  exact, as in `kernel_fn.symmetric`.
  """
  checks.inputs('x', x)
  checks.at_least('tile', tile, 1)

  def matvec(v):

    def block(start, rows):
      i = jnp.arange(rows.shape[0])
      k = kernel_fn.cross(rows, x)
      k = k.at[i, start + i].set(kernel_fn.diag(rows))
      return numerics.matmul(k.astype(v.dtype), v)

    return map_row_tiles(block, x, jnp.zeros_like(v), tile=tile)

  return matvec


@functools.partial(jax.jit, static_argnums=0, static_argnames='rank')
def pivoted_cholesky(
    kernel_fn: KernelFn, x: Float[Array, 'N ...'], *, rank: int
) -> linalg.LowRank:
  """`linalg.pivoted_cholesky` of K(x, x): R kernel rows, deterministic."""
  diag = kernel_fn.diag(x)

  def row(i):
    return kernel_fn.cross(lax.dynamic_slice_in_dim(x, i, 1), x)[0]

  return linalg.pivoted_cholesky(
      diag.astype(numerics.solve_dtype(diag.dtype)), row, rank)


@functools.partial(jax.jit, static_argnums=1, static_argnames=('rank', 'tile'))
def nystrom(
    key: Key[Array, ''], kernel_fn: KernelFn, x: Float[Array, 'N ...'], *,
    rank: int, tile: int = 512) -> linalg.LowRank:
  """`linalg.nystrom` of K(x, x): all kernel entries once, in row tiles."""
  return linalg.nystrom(
      key, kernel_matvec(kernel_fn, x, tile=tile), x.shape[0], rank,
      dtype=numerics.solve_dtype(x.dtype))


def fit_by_cg(
    kernel_fn: KernelFn, data: Examples, *,
    ridge: float | Float[Array, ''] = 1e-6,
    low_rank: linalg.LowRank | None = None, tile: int = 512,
    tol: float = 1e-6, max_steps: int = 500, progress: bool = False
) -> Regressor:
  """`fit` by conjugate gradients: memory tile x N, time steps x N^2 entries.

  As `fit`, it never raises for a solve that fell short: call
  ``linalg.raise_if_failed(predict_fn.info, ridge=ridge)``.

  Args:
    kernel_fn: the kernel.
    data: inputs (N, ...) and targets (N, C).
    ridge: relative to tr(K)/N. The smaller, the more steps.
    low_rank: for the preconditioner, from `pivoted_cholesky` or `nystrom`;
      None takes a pivoted Cholesky of rank min(N, 200).
    tile: kernel rows computed at once.
    tol: relative residual at which a column of targets counts as solved.
    max_steps: upper bound on the steps.
    progress: show the steps and the worst residual on the terminal.

  Raises:
    ValueError: `data` is misshapen, or an option is out of range.
  """
  checks.inputs('data.x', data.x)
  rows = data.x.shape[0]
  checks.targets('data.y', data.y, rows=rows)
  checks.at_least('tile', tile, 1)
  if not isinstance(ridge, jax.Array):
    checks.positive('ridge', ridge)
  if low_rank is None:
    low_rank = pivoted_cholesky(kernel_fn, data.x, rank=min(rows, 200))
  solve = functools.partial(
      _solve, kernel_fn, data, ridge, low_rank, tile=tile, tol=tol,
      max_steps=max_steps)
  if not progress:
    dual, info = solve()
  else:
    import tqdm
    with tqdm.tqdm(total=max_steps, desc='conjugate gradients') as bar:

      def on_step(_, residual):
        bar.set_postfix(residual=f'{float(residual):.2e}', refresh=False)
        bar.update()

      dual, info = jax.block_until_ready(solve(on_step=on_step))
      jax.effects_barrier()
  return Regressor(kernel_fn, data.x, dual, info)


@functools.partial(
    jax.jit, static_argnums=0,
    static_argnames=('tile', 'tol', 'max_steps', 'on_step'))
def _solve(kernel_fn, data, ridge, low_rank, *, tile, tol, max_steps,
           on_step=None):
  y = data.y.astype(low_rank.basis.dtype)
  shift = jnp.asarray(ridge, y.dtype) * kernel_fn.diag(data.x).mean()
  product = kernel_matvec(kernel_fn, data.x, tile=tile)
  return linalg.conjugate_gradient(
      lambda v: product(v) + shift * v, y,
      preconditioner=linalg.woodbury(low_rank, shift), tol=tol,
      max_steps=max_steps, on_step=on_step)
