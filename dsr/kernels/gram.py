r"""Large kernel matrices: tiled, symmetric ones once, over all devices.

`kernel_fn(x1, x2)` holds a few temporaries of the size of its result. `gram`
instead fills the result tile by tile, in place, so that its peak is the result
plus a few tiles. Rows are dealt out to the devices in equal blocks; of a
symmetric matrix only the tiles on and above the diagonal are computed, and the
mirror image of a tile goes to the device that owns its rows. Over the devices
of many processes that is `many_hosts`.
"""
from collections.abc import Sequence
import functools
import sys

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, hosts, numerics
from dsr.kernels import many_hosts
from dsr.types import KernelFn

# What the temporaries of one tile may take on CPUs; a kernel holds about six.
_TILE_BYTES = 2**26
_TEMPORARIES = 6


def gram(
    kernel_fn: KernelFn, x1: Float[Array, 'N ...'],
    x2: Float[Array, 'M ...'] | None = None, *,
    tile_bytes: int | None = None, devices: Sequence[jax.Device] | None = None,
    progress: bool = False) -> Float[Array, 'N M']:
  """k(x1, x2) as an (N, M) array, in tiles of bounded size.

  Equal to `kernel_fn(x1, x2)` up to rounding, and the same for any number of
  devices. Not for use under `jit`: it dispatches from the host.

  Args:
    kernel_fn: the kernel.
    x1: (N, ...) inputs, on the host or on a device.
    x2: (M, ...) inputs; None means x1.
    tile_bytes: memory for the temporaries of one tile; by default 64 MiB on
      CPUs and an eighth of the device's memory elsewhere.
    devices: where to compute; by default all, those of other processes too.
      Then each process calls this with the same inputs, on its host.
    progress: show a bar, if stderr is a terminal; of one process alone.

  Returns:
    The matrix; its rows are sharded over the devices if they divide N, else
    it lies on the first device.

  Raises:
    ValueError: inputs that do not match, a non-positive `tile_bytes`, or rows
      that the devices of many processes do not divide.
  """
  checks.inputs('x1', x1)
  if x2 is not None:
    checks.inputs('x2', x2, like=x1)
  if tile_bytes is None:
    tile_bytes = (_TILE_BYTES if numerics.on_cpu()
                  else numerics.working_memory() // 2)
  checks.at_least('tile_bytes', tile_bytes, 1)
  devices = list(devices or jax.devices())
  symmetric = x2 is None
  if any(d.process_index != jax.process_index() for d in devices):
    tile = _tile_size(jnp.asarray(x1[:0]).dtype, tile_bytes)
    return many_hosts.gram(
        kernel_fn, x1, x2, lambda part: _cuts(part, tile), _write,
        on=hosts.mesh(devices))
  left, right = jnp.asarray(x1), jnp.asarray(x1 if symmetric else x2)
  rows, cols = left.shape[0], right.shape[0]
  tile = _tile_size(left.dtype, tile_bytes)
  bounds = [rows * i // len(devices) for i in range(len(devices) + 1)]
  # Tiles do not straddle devices: cut the rows at the device bounds too.
  row_cuts = _cuts(bounds, tile)
  col_cuts = row_cuts if symmetric else _cuts([0, cols], tile)
  work = [(i, j) for i in range(len(row_cuts)) for j in range(len(col_cuts))
          if not symmetric or i <= j]
  owner = [int(np.searchsorted(bounds, lo, side='right')) - 1
           for lo, _ in row_cuts]
  x_of = [jax.device_put((left, right), d) for d in devices]
  blocks = [jnp.zeros((hi - lo, cols), left.dtype, device=d)
            for lo, hi, d in zip(bounds, bounds[1:], devices)]

  def put(i, j, value):
    """Writes `value` to rows i and columns j of the block that owns them."""
    at = owner[i]
    value = jax.device_put(value, devices[at])
    blocks[at] = _write(blocks[at], value, row_cuts[i][0] - bounds[at],
                        col_cuts[j][0])

  for count, (i, j) in enumerate(_with_progress(work, progress)):
    # Either owner may compute an off-diagonal tile: take turns, to balance.
    at = owner[i] if not symmetric or (i + j) % 2 == 0 else owner[j]
    a, b = x_of[at]
    one = a[slice(*row_cuts[i])]
    if symmetric and i == j:
      put(i, i, kernel_fn(one))
      continue
    value = kernel_fn(one, b[slice(*col_cuts[j])])
    put(i, j, value)
    if symmetric:
      put(j, i, value.T)
    if count % (2 * len(devices)) == 0:
      value.block_until_ready()  # Else all tiles would be queued at once.
  return _assemble(blocks, devices, (rows, cols))


@functools.partial(jax.jit, donate_argnums=0)
def _write(block, value, row, col):
  return jax.lax.dynamic_update_slice(block, value, (row, col))


def _tile_size(dtype, tile_bytes):
  side = int((tile_bytes / (_TEMPORARIES * dtype.itemsize)) ** 0.5)
  return max(1, side - side % 128 if side > 128 else side)


def _cuts(bounds, tile):
  """[lo, hi) ranges that cover each part of `bounds`, at most `tile` long.

  All have one length, if the parts allow, so that there is one program to
  compile: the last one of a part overlaps the one before it.
  """
  parts = list(zip(bounds, bounds[1:]))
  longest = max(hi - lo for lo, hi in parts)
  tile = -(-longest // -(-longest // tile))
  cuts = []
  for lo, hi in parts:
    size = min(tile, hi - lo)
    starts = [*range(lo, hi - size, size), hi - size] if size else []
    cuts += [(start, start + size) for start in starts]
  return cuts


def _with_progress(work, progress):
  if not (progress and sys.stderr.isatty()):
    return work
  import tqdm

  return tqdm.tqdm(work, desc='gram', unit='tile', dynamic_ncols=True)


def _assemble(blocks, devices, shape):
  if len(devices) == 1:
    return blocks[0]
  if shape[0] % len(devices):
    return jnp.concatenate([jax.device_put(b, devices[0]) for b in blocks])
  mesh = Mesh(np.asarray(devices), ('rows',))
  return jax.make_array_from_single_device_arrays(
      shape, NamedSharding(mesh, PartitionSpec('rows', None)), blocks)
