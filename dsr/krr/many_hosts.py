r"""Kernel ridge regression over many processes: CG, each with its rows.

With D devices, device d holds the blocks X_d, V_d of inputs and vectors. A
product K V goes round a ring: in each of D turns a device adds K(X_d, X_e) V_e
for the blocks (X_e, V_e) that it has, in row tiles, and passes them on. So a
device holds two blocks of inputs, never a kernel matrix, and a step sends each
block to everyone: N (D - 1) / D rows to each device.

The preconditioner's basis U has its rows dealt out as well: pivots are found by
their devices, U is orthogonal by `linalg.rows.qr`. State is saved by orbax from
all hosts, each its rows; another number of hosts may go on from it.

Axes: N training examples, n of them on a device; C outputs; R rank.
"""
from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Key
import numpy as np

from dsr import checks, hosts, linalg, loop, numerics
from dsr.hosts import AXIS
from dsr.krr.predictor import Regressor, map_row_tiles
from dsr.linalg import cg, info as info_lib, rows as rows_lib
from dsr.types import Examples, KernelFn, Status

_DEALT, _WHOLE = PartitionSpec(AXIS), PartitionSpec()
_STATE = cg.State(_DEALT, _DEALT, _DEALT, _WHOLE, _WHOLE, _WHOLE)


class System(NamedTuple):
  """What a step of CG reads.

  Attributes:
    x: (N, ...) inputs, dealt; rows beyond the examples are padding.
    y: (N, C) targets in the dtype of the solve, dealt; 0 in padded rows.
    low_rank: of the preconditioner; the rows of its basis are dealt.
    shift: the absolute ridge.
  """

  x: Any
  y: Any
  low_rank: linalg.LowRank
  shift: Any


_SYSTEM = System(_DEALT, _DEALT, linalg.LowRank(_DEALT, _WHOLE, _WHOLE), _WHOLE)


class Info(NamedTuple):
  """Of one step, for `loop.run`: the worst relative residual."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('support', 'dual', 'info'), meta_fields=('kernel_fn', 'on'))
@dataclasses.dataclass(frozen=True)
class DealtRegressor(Regressor):
  """A `Regressor` whose support and dual lie on the devices of `on`.

  Every process calls it with the same inputs, and has all outputs.
  """

  on: Any = None

  def __call__(self, x: Float[Array, 'M ...']) -> Float[Array, 'M C']:
    """As of `Regressor`; each device has the M x n entries of its rows."""
    checks.inputs('x', x, like=self.support)
    return _predict(x, self.support, self.dual, kernel_fn=self.kernel_fn,
                    on=self.on)


def fit(
    kernel_fn: KernelFn, data: Examples, *, ridge: float = 1e-6,
    rank: int | None = None, key: Key[Array, ''] | None = None,
    tile: int = 512, tol: float = 1e-6, max_steps: int = 500,
    on: Mesh | None = None, workdir: str | os.PathLike | None = None,
    checkpoint_every: int = 10, fingerprint: str = '', progress: bool = False
) -> DealtRegressor:
  """`fit_by_cg` over the devices of all processes, which call it alike.

  Equal to it within rounding, as the preconditioner is. It never raises for a
  solve that fell short: call ``linalg.raise_if_failed(predict_fn.info)``.

  Args:
    kernel_fn: the kernel.
    data: inputs (N, ...) and targets (N, C) on the host (memory maps will do),
      the same in each process; each reads its rows alone.
    ridge: > 0, relative to tr(K)/N.
    rank: of the preconditioner; by default min(N, 200).
    key: for a Nystrom preconditioner, one product with `rank` columns; None for
      a pivoted Cholesky, `rank` kernel rows.
    tile: kernel rows computed at once, against the n of a device.
    tol: relative residual at which a column of targets counts as solved.
    max_steps: upper bound on the steps.
    on: the devices; by default all of all processes.
    workdir: a folder that all processes see, for checkpoints; None for none.
      If it has one the solve goes on from there, on any number of hosts.
    checkpoint_every: steps between two checkpoints.
    fingerprint: names the solve, see `loop.run`.
    progress: show the steps and the worst residual.

  Raises:
    ValueError: `data` is misshapen, or an option is out of range.
    KeyboardInterrupt: Ctrl-C or SIGTERM at any process; the last step is saved.
  """
  checks.inputs('data.x', data.x)
  n = data.x.shape[0]
  checks.targets('data.y', data.y, rows=n)
  checks.positive('ridge', ridge)
  checks.positive('tol', tol)
  checks.at_least('tile', tile, 1)
  checks.at_least('max_steps', max_steps, 1)
  rank = min(n, 200) if rank is None else rank
  checks.at_least('rank', rank, 1)
  checks.within('rank', rank, 1, n)
  on = on or hosts.mesh()
  x, y = (hosts.deal(a, on) for a in data)
  system = _prepare(x, y, ridge, key, kernel_fn=kernel_fn, on=on, n=n,
                    rank=rank, tile=tile)
  steps = functools.partial(
      _iteration, kernel_fn=kernel_fn, n=n, tile=tile, tol=tol)
  start = _shard(lambda s: steps(s).init(), on, (_SYSTEM,), _STATE)
  state = jax.jit(start)(system)
  result = loop.run(
      _step(steps, on), state, system, num_steps=max_steps, chunk=1,
      workdir=workdir, checkpoint_every=checkpoint_every,
      fingerprint=fingerprint, progress=progress and hosts.is_first(),
      on_chunk=lambda step, state, info: not np.any(state.active),
      description='conjugate gradients')
  if result.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  end = _shard(lambda state, s: steps(s).result(state), on,
               (_STATE, _SYSTEM), (_DEALT, _WHOLE))
  dual, info = jax.jit(end)(result.state, system)
  return DealtRegressor(kernel_fn, x, dual, hosts.own(info), on)


def _shard(fn, on, specs, out):
  # Kernels' loops and branches say nothing of what differs between devices.
  return jax.shard_map(
      fn, mesh=on, in_specs=specs, out_specs=out, check_vma=False)


def _step(steps: Callable, on: Mesh) -> Callable:
  """A step for `loop.run`: (state, system) -> (state, info)."""

  def one(state, system):
    new = steps(system).step(state)
    worst = info_lib.relative_residual(new.r, system.y, axis=AXIS).max()
    return new, Info(worst, jnp.isfinite(worst))

  return _shard(one, on, (_STATE, _SYSTEM), (_STATE, _WHOLE))


def _iteration(system, *, kernel_fn, n, tile, tol) -> cg.Iteration:
  """Of the rows of a device."""
  x, y, low_rank, shift = system
  product = ring_product(kernel_fn, x, n=n, tile=tile)
  return cg.iteration(
      lambda v: product(v) + shift * v, y, tol=tol, axis=AXIS,
      preconditioner=linalg.woodbury(low_rank, shift, axis=AXIS))


def ring_product(
    kernel_fn: KernelFn, x: Float[Array, 'n ...'], *, n: int, tile: int
) -> Callable:
  """V -> K V for the rows (n, C) of this device, inside of `shard_map`.

  Args:
    kernel_fn: the kernel.
    x: inputs of this device.
    n: N, the number of all examples; V has zeros beyond, and so has K V.
    tile: kernel rows computed at once.
  """
  num, there = lax.psum(1, AXIS), _there(x, n)
  pairs = [(i, (i - 1) % num) for i in range(num)]
  pass_on = lambda t: jax.tree.map(lambda a: lax.ppermute(a, AXIS, pairs), t)

  def product(v):

    def turn(k, carry):
      (x_e, v_e), out = carry

      def block(start, rows):
        i = jnp.arange(rows.shape[0])
        entries = kernel_fn.cross(rows, x_e)
        exact = jnp.where(k == 0, kernel_fn.diag(rows), entries[i, start + i])
        entries = entries.at[i, start + i].set(exact)
        return numerics.matmul(entries.astype(v.dtype), v_e)

      out = out + map_row_tiles(block, x, jnp.zeros_like(v), tile=tile)
      around = lax.cond(k < num - 1, pass_on, lambda t: t, (x_e, v_e))
      return around, out

    _, out = lax.fori_loop(0, num, turn, ((x, v), jnp.zeros_like(v)))
    return jnp.where(there[:, None], out, 0)

  return product


def _there(x, n):
  """Which rows of this device are examples, not padding."""
  return rows_lib.index(x.shape[0], AXIS) < n


@functools.partial(
    jax.jit, static_argnames=('kernel_fn', 'on', 'n', 'rank', 'tile'))
def _prepare(x, y, ridge, key, *, kernel_fn, on, n, rank, tile) -> System:
  dtype = numerics.solve_dtype(x.dtype)

  def prepare(x, y, ridge, key):
    there = _there(x, n)
    y = jnp.where(there[:, None], y.astype(dtype), 0)
    diag = jnp.where(there, kernel_fn.diag(x).astype(dtype), 0)
    if key is None:
      low_rank = linalg.pivoted_cholesky(diag, row(x, there), rank, axis=AXIS)
    else:
      low_rank = linalg.nystrom(
          key, ring_product(kernel_fn, x, n=n, tile=tile), x.shape[0], rank,
          dtype=dtype, axis=AXIS)
    shift = jnp.asarray(ridge, dtype) * rows_lib.total(diag, AXIS) / n
    return System(x, y, low_rank, shift)

  def row(x, there):
    def one(i):
      pivot = rows_lib.pick(x, i, AXIS)
      return jnp.where(there, kernel_fn.cross(pivot[None], x)[0], 0)
    return one

  return _shard(prepare, on, (_DEALT, _DEALT, _WHOLE, _WHOLE), _SYSTEM)(
      x, y, ridge, key)


@functools.partial(jax.jit, static_argnames=('kernel_fn', 'on'))
def _predict(x, support, dual, *, kernel_fn, on):
  def part(x, support, dual):
    k = kernel_fn(x, support)
    return lax.psum(numerics.matmul(k, dual.astype(k.dtype)), AXIS)
  return _shard(part, on, (_WHOLE, _DEALT, _DEALT), _WHOLE)(x, support, dual)
