"""Arrays over many hosts: one process each, connected by `jax.distributed`.

Every process runs the same program on the devices of all of them. Rows of large
arrays are dealt out to the devices in order, an equal block each; what is small
lies on all of them. `dsr.runs.distributed` starts the processes' connection;
without one there is a single process, and nothing here is used.
"""
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree
import numpy as np

AXIS = 'rows'  # The one axis of a mesh.
# Rows are a multiple of this where the devices divide it, so that state saved
# by two hosts has the shape that four of them need.
_MULTIPLE = 64


def several() -> bool:
  """Whether there is more than one process; looks for no device if not."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
  """Whether this process is the one that writes records and figures."""
  return not several() or jax.process_index() == 0


def mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """All devices of all processes, or those given, in a row."""
  return Mesh(np.asarray(devices or jax.devices()), (AXIS,))


def dealt(on: Mesh) -> NamedSharding:
  """Rows in blocks, one a device."""
  return NamedSharding(on, PartitionSpec(AXIS))


def whole(on: Mesh) -> NamedSharding:
  """The same on every device."""
  return NamedSharding(on, PartitionSpec())


def padded(rows: int, on: Mesh) -> int:
  """The least number of rows, at least `rows`, that `deal` deals out."""
  num = on.devices.size
  multiple = _MULTIPLE if _MULTIPLE % num == 0 else num
  return -(-rows // multiple) * multiple


def deal(
    x: Float[Array | np.ndarray, 'N ...'], on: Mesh, *, pad: bool = True
) -> Array:
  """Rows of `x` in equal blocks over the devices; each host reads its own.

  Args:
    x: (N, ...) on the host (a memory map will do), the same in each process.
    on: the devices.
    pad: whether to repeat the last row up to `padded`, else they divide N.
  """
  rows = padded(x.shape[0], on) if pad else x.shape[0]

  def block(index):
    part = np.asarray(x[index[0]])
    start, stop, _ = index[0].indices(rows)
    short = stop - start - len(part)
    last = np.broadcast_to(x[-1:], (short, *x.shape[1:]))
    return np.concatenate([part, last]) if short else part

  return jax.make_array_from_callback(
      (rows, *x.shape[1:]), dealt(on), block)


def spread(tree: PyTree, on: Mesh) -> PyTree:
  """`tree`, the same in each process, as arrays that lie on all devices."""
  return jax.jit(lambda t: t, out_shardings=whole(on))(tree)


def constrain(tree: PyTree, on: Mesh | None) -> PyTree:
  """Inside of `jit`: all arrays on every device; without `on` as they are."""
  return tree if on is None else jax.tree.map(
      lambda a: jax.lax.with_sharding_constraint(a, whole(on)), tree)


def mean_of_parts(fn: Callable, on: Mesh | None) -> Callable:
  """(tree, rows) -> what `fn` gives on each device's block of rows, averaged.

  Equal to `fn` where that is a mean over rows.

  Args:
    fn: (tree, pytree of arrays with N rows) -> pytree.
    on: the devices; None, or devices that do not divide N, is `fn` itself.
  """
  def apply(tree, rows):
    if on is None or jax.tree.leaves(rows)[0].shape[0] % on.devices.size:
      return fn(tree, rows)
    every, block = PartitionSpec(), PartitionSpec(AXIS)
    part = lambda *args: jax.lax.pmean(fn(*args), AXIS)
    return jax.shard_map(part, mesh=on, in_specs=(every, block),
                         out_specs=every, check_vma=False)(tree, rows)
  return apply


def own(tree: PyTree) -> PyTree:
  """Arrays that lie on all devices as arrays of this process alone."""
  def one(leaf):
    if not is_global(leaf):
      return leaf
    return leaf.addressable_data(0)
  return jax.tree.map(one, tree)


def is_global(tree: PyTree) -> bool:
  """Whether an array of `tree` lies on devices of other processes, too."""
  return any(isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
             for leaf in jax.tree.leaves(tree))


def any_of(flag: bool) -> bool:
  """Whether `flag` is set in any process; all of them must ask."""
  if not several():
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def gathered(x: Any) -> np.ndarray:
  """All rows of a dealt array, on every host: for what is small."""
  if not is_global(x):
    return np.asarray(x)
  return np.asarray(multihost_utils.process_allgather(x, tiled=True))
