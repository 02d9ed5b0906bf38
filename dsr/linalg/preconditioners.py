r"""Low-rank preconditioners of K + \mu I, from few rows or few products.

K ~= U S U^T with R columns. The full matrix is never formed: pivoted Cholesky
reads R of its rows, Nystrom makes one product with R columns. With `axis`, of a
`shard_map`, each device has its block of the N rows: see `linalg.rows`.
On paper -> code: U -> basis, S -> values, \mu -> shift.
Axes: N examples; R rank; C right-hand sides.
"""
from collections.abc import Callable
from typing import NamedTuple

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dsr import checks, numerics
from dsr.linalg import rows as rows_lib


class LowRank(NamedTuple):
  r"""K ~= U S U^T, and what is assumed of K outside the span of U.

  Attributes:
    basis: (N, R) U, orthonormal columns.
    values: (R,) S, descending.
    floor: K's assumed eigenvalue on the complement: 0, or S_R for Nystrom.
  """

  basis: Float[Array, 'N R']
  values: Float[Array, 'R']
  floor: Float[Array, '']


def pivoted_cholesky(
    diag: Float[Array, 'N'], row_fn: Callable, rank: int, *,
    axis: rows_lib.Axis = None) -> LowRank:
  r"""Greedy partial Cholesky: K ~= L L^T from `rank` rows of K.

  Each step takes the example with the largest unexplained variance d_i as
  pivot, and adds the column l = (K_i - L L_i^T) / sqrt(d_i); d -= l^2. Stops
  adding columns once the unexplained part is rounding. Ref: Harbrecht, Peters
  & Schneider (2012); as a preconditioner, arXiv:1809.11165.

  Args:
    diag: (N,) the diagonal of K; the arithmetic runs in its dtype.
    row_fn: i -> (N,), row i of K; traced, `i` being an integer array.
    rank: number of rows to take, in [1, N].
    axis: whose devices have the rows.

  Raises:
    ValueError: `rank` is out of range.
  """
  n = rows_lib.number(diag.shape[0], axis)
  checks.at_least('rank', rank, 1)
  checks.within('rank', rank, 1, n)
  enough = n * jnp.finfo(diag.dtype).eps * rows_lib.largest(diag, axis)
  index = rows_lib.index(diag.shape[0], axis)

  def body(m, carry):
    rows, left = carry  # rows: (R, N), L transposed.
    i = rows_lib.argmax(left, axis)
    top = rows_lib.pick(left, i, axis)
    row = row_fn(i).astype(diag.dtype) - numerics.matmul(
        rows_lib.pick(rows.T, i, axis), rows)
    scale = jnp.where(top > enough, top, jnp.inf)
    row = row / jnp.sqrt(scale)
    left = jnp.where(index == i, 0, jnp.maximum(left - row * row, 0))
    return rows.at[m].set(row), left

  rows, _ = lax.fori_loop(
      0, rank, body, (jnp.zeros((rank, diag.shape[0]), diag.dtype), diag))
  basis, roots = rows_lib.svd(rows.T, axis)
  return LowRank(basis, roots**2, jnp.zeros((), diag.dtype))


def nystrom(
    key: Key[Array, ''], matvec: Callable, n: int, rank: int, *, dtype=float,
    axis: rows_lib.Axis = None) -> LowRank:
  r"""Randomised Nystrom approximation of a positive semi-definite K.

  K ~= (K Q)(Q^T K Q)^+ (K Q)^T for a random orthonormal Q, made stable by a
  shift \nu of the size of rounding. Ref: arXiv:2110.02820, algorithm 2.1.

  Args:
    key: draws the sketch Q.
    matvec: (N, R) -> (N, R), V -> K V, without ridge; called once.
    n: N, the size of K; with `axis` the rows of this device.
    rank: number of columns, in [1, N].
    dtype: of the arithmetic.
    axis: whose devices have the rows.

  Raises:
    ValueError: `rank` is out of range.
  """
  checks.at_least('rank', rank, 1)
  size = rows_lib.number(n, axis)
  checks.within('rank', rank, 1, size)
  sketch, _ = rows_lib.qr(rows_lib.normal(key, (n, rank), dtype, axis), axis)
  image = matvec(sketch)
  norm = jnp.sqrt(rows_lib.total(image * image, axis).sum())
  nu = jnp.sqrt(size) * jnp.finfo(image.dtype).eps * norm
  image = image + nu * sketch
  core = rows_lib.inner(sketch, image, axis)
  lower = lax.linalg.cholesky(core)  # Symmetrises first.
  half = lax.linalg.triangular_solve(
      lower, image, left_side=False, lower=True, transpose_a=True)
  basis, roots = rows_lib.svd(half, axis)
  values = jnp.maximum(roots**2 - nu, 0)
  return LowRank(basis, values, values[-1])


def woodbury(
    low_rank: LowRank, shift: float | Float[Array, ''], *,
    axis: rows_lib.Axis = None) -> Callable:
  r"""P^-1 of the preconditioner for K + \mu I, as a function of (N, C).

  P^-1 = U (f + \mu)/(S + \mu) U^T + (I - U U^T), f being the floor: by
  Woodbury's identity (f + \mu) times the inverse of U S U^T + \mu I, with f
  in the complement. CG does not see the constant factor, and without it
  nothing is divided by a small \mu.

  Args:
    low_rank: from `pivoted_cholesky` or `nystrom`.
    shift: \mu > 0, the ridge in absolute terms, as in `Factor.shift`.
    axis: whose devices have the rows.
  """
  basis, values, floor = low_rank
  weights = (floor + shift) / (values + shift)

  def project(r):
    return rows_lib.inner(basis, r, axis)

  def apply(r):
    inside = project(r)
    outside = r - numerics.matmul(basis, inside)
    # Again: one pass leaves rounding in span U that 1/weights would dwarf.
    outside = outside - numerics.matmul(basis, project(outside))
    return outside + numerics.matmul(basis, weights[:, None] * inside)

  return apply
