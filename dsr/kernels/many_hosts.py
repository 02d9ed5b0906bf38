r"""The matrix of `gram` over many processes: no host ever has it.

With D devices, device d holds the rows X_d of its block. In round r it makes
K(X_d, X_{d+r}) (indices modulo D) and sends its mirror image to device d + r,
which owns those rows: (D + 1) / 2 blocks of (N/D)^2 entries each, and every
device has as many. In the round r = D / 2 both ends would make the same block,
so each makes one half of it. A device has its share of K, two blocks in
flight and the temporaries of a tile.
"""
from collections.abc import Iterator
import functools

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float
import numpy as np

from dsr import hosts
from dsr.types import KernelFn


def gram(
    kernel_fn: KernelFn, x1: Float[np.ndarray, 'N ...'],
    x2: Float[np.ndarray, 'M ...'] | None, cuts, write, *,
    on: Mesh) -> Float[Array, 'N M']:
  """As `kernels.gram`, of which it is a part: rows over the devices of `on`.

  A tile and its mirror image are one call of `kernel_fn`, with rows before
  columns as on one device. So the bits are those of one device wherever its
  tiles have the same bounds, which are those of `cuts`.

  Args:
    kernel_fn: the kernel.
    x1: (N, ...) on the host, the same in each process.
    x2: (M, ...), or None for x1.
    cuts: bounds [lo, hi) of a part -> bounds of its tiles.
    write: (block, tile, row, column) -> the block with the tile in its place.
    on: the devices.

  Raises:
    ValueError: the devices do not divide N.
  """
  devices = list(on.devices.flat)
  rows, num = x1.shape[0], len(devices)
  dtype = jnp.asarray(x1[:0]).dtype
  if rows % num:
    raise ValueError(
        f'`x1` must have rows that the {num} devices of all processes divide, '
        f'got {rows}: {rows // num * num} would do.')
  size, cols = rows // num, (x1 if x2 is None else x2).shape[0]
  bounds = [(i * size, (i + 1) * size) for i in range(num)]
  mine = {d: i for i, d in enumerate(devices)
          if d.process_index == jax.process_index()}
  blocks = {d: jnp.zeros((size, cols), dtype, device=d) for d in mine}
  if x2 is not None:
    for d, i in mine.items():
      tiles = [(a, b) for a in cuts(bounds[i]) for b in cuts((0, cols))]
      for count, (a, b) in enumerate(tiles):
        tile = kernel_fn(_at(x1, a, d), _at(x2, b, d))
        blocks[d] = write(blocks[d], tile, a[0] - bounds[i][0], b[0])
        _wait(tile, count)
    return _global(blocks, (rows, cols), on)
  for r in range(num // 2 + 1):
    sent = {}
    for d, i in mine.items():
      j = (i + r) % num
      row_cuts, col_cuts = cuts(bounds[i]), cuts(bounds[j])
      if 2 * r == num:
        half = _half(row_cuts)
        row_cuts, col_cuts = ((row_cuts[:half], col_cuts) if i < j else
                              (row_cuts, col_cuts[half:]))
      part = jnp.zeros((size, size), dtype, device=d) if r else None
      for count, (a, b, tile) in enumerate(
          _tiles(kernel_fn, x1, row_cuts, col_cuts, d)):
        row, col = a[0] - bounds[i][0], b[0] - bounds[j][0]
        blocks[d] = write(blocks[d], tile, row, b[0])
        if r:
          part = write(part, tile.T, col, row)
        elif a != b:
          blocks[d] = write(blocks[d], tile.T, col, a[0])
        _wait(tile, count)
      sent[d] = part
    if not r:
      continue
    for shard in _pass_on(
        _global(sent, (rows, size), on), on=on, by=r).addressable_shards:
      i, part, row, d = mine[shard.device], shard.data, 0, shard.device
      j = (i - r) % num  # Whence it came.
      if 2 * r == num and i < j:  # Of the other end: what is below our half.
        row_cuts = cuts(bounds[i])
        row = row_cuts[_half(row_cuts) - 1][1] - bounds[i][0]
        part = part[row:]
      elif 2 * r == num:
        col_cuts = cuts(bounds[j])
        part = part[:, :col_cuts[_half(col_cuts) - 1][1] - bounds[j][0]]
      blocks[d] = write(blocks[d], part, row, bounds[j][0])
  return _global(blocks, (rows, cols), on)


def _half(cuts):
  return -(-len(cuts) // 2)


def _tiles(kernel_fn, x, row_cuts, col_cuts, device) -> Iterator:
  """(rows, columns, value) of each tile that is no mirror image of another."""
  same = row_cuts == col_cuts
  for a in row_cuts:
    for b in col_cuts:
      if a == b:
        yield a, b, kernel_fn(_at(x, a, device))
      elif a < b:
        yield a, b, kernel_fn(_at(x, a, device), _at(x, b, device))
      elif not same:
        yield a, b, kernel_fn(_at(x, b, device), _at(x, a, device)).T


def _at(x, bounds, device):
  return jax.device_put(np.asarray(x[slice(*bounds)]), device)


def _wait(value, count):
  if count % 2 == 0:
    jax.block_until_ready(value)  # Else all tiles would be queued at once.


def _global(blocks, shape, on):
  sharding = NamedSharding(on, PartitionSpec(hosts.AXIS, None))
  return jax.make_array_from_single_device_arrays(
      shape, sharding, list(blocks.values()))


@functools.partial(jax.jit, static_argnames=('on', 'by'), donate_argnums=0)
def _pass_on(part, *, on, by):
  """Block d of each device goes to device d + `by`."""
  num, spec = on.devices.size, PartitionSpec(hosts.AXIS, None)
  pairs = [(i, (i + by) % num) for i in range(num)]
  return jax.shard_map(
      lambda a: lax.ppermute(a, hosts.AXIS, pairs),
      mesh=on, in_specs=spec, out_specs=spec, check_vma=False)(part)
