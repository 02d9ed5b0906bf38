r"""The inverse of a kernel matrix whose rows are dealt out, block by block.

A = K + \lambda tr(K)/N I is turned into A^{-1} in place: for each block J of
rows, with D = A_JJ,

  A_J* <- D^{-1} A_J*,   A_i* <- A_i* - A_iJ A_J*,   A_iJ <- -A_iJ D^{-1},
  A_JJ <- D^{-1}.

Every device gets one block of rows at a time, D is factorised by Cholesky, and
2 N^3 operations are made, the same number by each. That is six times a Cholesky
factor of A, as much as the diagonal of A^{-1} takes, which leave-one-out needs.
Without pivoting, which a positive definite matrix does not want.

Axes: N examples, n of them on a device; C outputs; b rows of a block.
"""
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, hosts, kernels, linalg, numerics
from dsr.hosts import AXIS
from dsr.krr.many_hosts import DealtRegressor
from dsr.krr.shadows import InOut
from dsr.linalg import info as info_lib, rows as rows_lib
from dsr.types import Examples, KernelFn

_DEALT, _WHOLE = PartitionSpec(AXIS), PartitionSpec()
BLOCK = 256  # Rows of a block, at most; they divide the rows of a device.


class Solved(NamedTuple):
  r"""What the inverse tells of a regression.

  Attributes:
    dual: (N, C) \alpha = A^{-1} Y, refined once.
    diag: (N,) of A^{-1}.
    shift: \lambda tr(K)/N.
    info: of the solve, with true residuals.
  """

  dual: Any
  diag: Any
  shift: Any
  info: linalg.Info


def solve(
    gram: Float[Array, 'N N'], y: Float[Array | np.ndarray, 'N C'], *,
    ridge: float = 1e-6, on: Mesh | None = None, block: int = BLOCK
) -> Solved:
  """A direct solve over the devices of many processes; no host has a matrix.

  Args:
    gram: (N, N) of `kernels.gram` over these devices; it is kept.
    y: (N, C) on the host, the same in each process.
    ridge: >= 0, relative to tr(K)/N.
    on: the devices; by default all of all processes.
    block: rows of a block, at most: the largest divisor of n is taken.

  Raises:
    ValueError: misshapen arguments, or an option out of range.
    FloatingPointError: the matrix is not positive definite, or not finite.
  """
  checks.square('gram', gram)
  checks.targets('y', y, rows=gram.shape[0])
  checks.non_negative('ridge', ridge)
  checks.at_least('block', block, 1)
  on = on or hosts.mesh()
  size = block_size(gram.shape[0] // on.devices.size, block)
  found = _solve(gram, np.asarray(y), ridge, on=on, size=size)
  linalg.raise_if_failed(hosts.own(found.info), ridge=ridge)
  return found


def block_size(n: int, most: int) -> int:
  """The largest divisor of `n` that is at most `most`."""
  return next(b for b in range(min(most, n), 0, -1) if n % b == 0)


def fit(
    kernel_fn: KernelFn, data: Examples, *, ridge: float = 1e-6,
    on: Mesh | None = None) -> DealtRegressor:
  """`krr.fit` over many processes, which call it alike: a direct solve.

  Args:
    kernel_fn: the kernel.
    data: inputs and targets on the host; the devices divide their N rows.
    ridge: relative to tr(K)/N.
    on: the devices; by default all of all processes.

  Raises:
    ValueError, FloatingPointError: as `solve`, and as `kernels.gram`.
  """
  on = on or hosts.mesh()
  gram = kernels.gram(kernel_fn, data.x, devices=list(on.devices.flat))
  found = solve(gram, data.y, ridge=ridge, on=on)
  return DealtRegressor(
      kernel_fn, hosts.deal(data.x, on, pad=False), found.dual,
      hosts.own(found.info), on)


def in_out(
    gram: Float[Array, 'N N'], y: Float[Array | np.ndarray, 'N C'], *,
    ridge: float = 1e-6, on: Mesh | None = None) -> InOut:
  """`krr.in_out` of a matrix that is dealt out; its outside is leave-one-out.

  Every process has all outputs. Arguments and errors are those of `solve`.
  """
  found = solve(gram, y, ridge=ridge, on=on)
  dual, diag = hosts.gathered(found.dual), hosts.gathered(found.diag)
  y, shift = np.asarray(y, dual.dtype), np.asarray(hosts.own(found.shift))
  return InOut(y - shift * dual, y - dual / diag[:, None])


@functools.partial(jax.jit, static_argnames=('on', 'size'))
def _solve(gram, y, ridge, *, on, size) -> Solved:
  dtype = numerics.solve_dtype(gram.dtype)

  def part(k, y, ridge):
    own = rows_lib.index(k.shape[0], AXIS)
    at = jnp.arange(k.shape[0]), own
    k, y = k.astype(dtype), y.astype(dtype)
    shift = ridge.astype(dtype) * lax.psum(k[at].sum(), AXIS) / y.shape[0]
    dual, inverse, info = solve_rows(k.at[at].add(shift), y, size)
    return Solved(dual, inverse[at], shift, info)

  out = Solved(_DEALT, _DEALT, _WHOLE, _WHOLE)
  return jax.shard_map(
      part, mesh=on, in_specs=(_DEALT, _WHOLE, _WHOLE), out_specs=out,
      check_vma=False)(gram, y, jnp.asarray(ridge))


def solve_rows(
    a: Float[Array, 'n N'], y: Float[Array, 'N C'], size: int
) -> tuple[Float[Array, 'n C'], Float[Array, 'n N'], linalg.Info]:
  """The rows of A^{-1} Y, refined once, and of A^{-1}; inside of `shard_map`.

  Args:
    a: rows of A of this device.
    y: all of Y.
    size: rows of a block, which divide n.
  """
  own = rows_lib.index(a.shape[0], AXIS)
  inverse = _invert(a, size)
  left = lambda dual: y[own] - numerics.matmul(
      a, lax.all_gather(dual, AXIS, tiled=True))
  dual = numerics.matmul(inverse, y)
  dual = dual + numerics.matmul(
      inverse, lax.all_gather(left(dual), AXIS, tiled=True))
  residual = info_lib.relative_residual(left(dual), y[own], axis=AXIS)
  limit = linalg.RESIDUAL_LIMIT * (10 if a.dtype == jnp.float32 else 1)
  return dual, inverse, linalg.Info(
      residual, jnp.zeros((), int), jnp.all(residual <= limit))


def _invert(a, size):
  """The rows (n, N) of the inverse, from those of A."""
  n, total = a.shape
  mine, blocks = lax.axis_index(AXIS), n // size  # Of each device.
  eye = jnp.eye(size, dtype=a.dtype)

  def sweep(j, a):
    here, row = j // blocks == mine, j % blocks * size
    cut = lambda rows, at, axis: lax.dynamic_slice_in_dim(rows, at, size, axis)
    panel = lax.psum(jnp.where(here, cut(a, row, 0), 0), AXIS)
    lower = lax.linalg.cholesky(cut(panel, j * size, 1))
    half = lambda b, **how: lax.linalg.triangular_solve(
        lower, b, left_side=True, lower=True, **how)
    put = lambda rows, value: lax.dynamic_update_slice_in_dim(
        rows, value, j * size, 1)
    panel = half(half(put(panel, eye)), transpose_a=True)
    column = cut(a, j * size, 1)
    swept = put(a, jnp.zeros_like(column)) - numerics.matmul(column, panel)
    pivot = lax.dynamic_update_slice_in_dim(swept, panel, row, 0)
    return jnp.where(here, pivot, swept)

  return lax.fori_loop(0, total // size, sweep, a)
