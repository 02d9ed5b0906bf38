r"""Iterates an attack on a few examples at a time, and only on those left.

A tile of examples takes all its steps before the next tile begins, so that on
CPUs its activations stay in the cache. With `stop`, steps come in groups, and
before each group the examples that are fooled already are left out: the rest
moves up to fill tiles. Shapes are static throughout; only the number of tiles
is not. No example sees another one, so tiles change results by rounding alone.
"""
from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from dsr import checks, numerics
from dsr.probes.attacks import losses
from dsr.probes.attacks.threat import Threat

GROUP = 5  # Steps between two looks for examples that are fooled.

_CACHE = 2_000_000  # Bytes of activations in a tile; L2 of 1 MiB a core.
_SMALLEST = 8  # Examples in a tile, for matrix products to be efficient.
_FEWEST = 32  # Likewise with `stop`, where an eighth of the examples is a tile.
_TILES = 8
_COPIES = 4  # Of what is kept that a backward pass may hold on accelerators.
_MOST_FORMS = 64  # Of networks that are remembered; the oldest is forgotten.


def pick_size(
    predict: jax.tree_util.Partial, threat: Threat, batch_size: int | None,
    stop: bool) -> int:
  """Examples in a tile; unless given, as many as the device likes.

  What the backward pass keeps of a tile shall fit into the cache of a CPU, or
  be no larger than the weights, which each tile reads as well. On accelerators
  it shall fit into memory, which is all of them in most cases. With `stop`
  there are several tiles anyway, or none would be left out. No network is run.

  Raises:
    ValueError: `batch_size` below 1.
  """
  x, limit = threat.x, len(threat.x)
  if batch_size is not None:
    checks.at_least('batch_size', batch_size, 1)
    return min(batch_size, limit)
  if stop:
    limit = min(limit, max(_FEWEST, limit // _TILES))
  one, two = _kept(predict, x)
  each = max(1, two - one)
  room = (max(_CACHE, one - each) if numerics.on_cpu()
          else numerics.working_memory() // _COPIES)
  most = min(limit, max(_SMALLEST, room // each))
  return math.ceil(len(x) / math.ceil(len(x) / most))  # Tiles of equal size.


_bytes_of: dict[Any, tuple[int, int]] = {}  # Of forms of networks seen.


def _kept(predict, x) -> tuple[int, int]:
  """Bytes that the backward pass keeps of the weights and 1 or 2 examples.

  They depend on shapes alone. Tracing takes longer than the attack of a small
  network, so that they are remembered for networks of one form.
  """
  leaves, structure = jax.tree.flatten(predict)
  key = (structure, x.shape[1:], x.dtype, jax.config.jax_enable_x64, *(
      (isinstance(a, jax.core.Tracer), jax.typeof(a)) for a in leaves))
  if key not in _bytes_of:

    def kept(n):
      like = jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype)
      pull = jax.eval_shape(lambda y: jax.vjp(predict, y)[1], like)
      return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(pull))

    if len(_bytes_of) == _MOST_FORMS:
      del _bytes_of[next(iter(_bytes_of))]
    _bytes_of[key] = kept(1), kept(2)
  return _bytes_of[key]


def sweep(
    advance: Callable[[Threat, PyTree], PyTree], threat: Threat,
    state: PyTree, size: int, active: Bool[Array, 'N'] | None = None,
) -> PyTree:
  """`advance` of the active rows, `size` of them at a time.

  Args:
    advance: (threat, state) of a tile -> state, row by row.
    threat: of N examples.
    state: leaves (N, ...).
    size: rows of a tile; the last one is filled up with any rows, whose new
      state is dropped.
    active: the rows to be advanced; None: all.

  Returns:
    `state` with the active rows replaced.
  """
  count = len(threat.x)
  if active is None and size >= count:
    return advance(threat, state)
  size = min(size, count)
  padding = jnp.full(-count % size, count)
  if active is None:
    order, tiles = jnp.arange(count), math.ceil(count / size)
  else:
    order = jnp.argsort(~active, stable=True)
    order = jnp.where(active[order], order, count)  # `count` is no row.
    tiles = (jnp.sum(active) + size - 1) // size
  order = jnp.concatenate([order, padding.astype(order.dtype)])

  def tile(i, state):
    rows = jax.lax.dynamic_slice_in_dim(order, i * size, size)
    take = lambda a: a.at[rows].get(mode='clip') if a.ndim else a
    part = advance(*jax.tree.map(take, (threat, state)))
    return jax.tree.map(
        lambda a, b: a.at[rows].set(b, mode='drop'), state, part)

  return jax.lax.fori_loop(0, tiles, tile, state)


def iterate(
    step: Callable[[Threat, Any, PyTree], PyTree], threat: Threat,
    state: PyTree, *, steps: int, size: int, stop: bool) -> PyTree:
  """`steps` steps of every example, or until it is fooled.

  Args:
    step: (threat, k, state) of a tile -> state, with k = 0, 1, ...
    threat: of N examples.
    state: leaves (N, ...); `state.best` is a `losses.Best`.
    steps: of each example.
    size: examples of a tile.
    stop: whether to leave out, every `GROUP` steps, what is fooled.
  """
  if not stop:
    run = lambda threat, state: jax.lax.fori_loop(
        0, steps, functools.partial(step, threat), state)
    return sweep(run, threat, state, size)

  def group(state, first):
    last = jnp.minimum(first + GROUP, steps)
    run = lambda threat, state: jax.lax.fori_loop(
        first, last, functools.partial(step, threat), state)
    return sweep(run, threat, state, size, ~state.best.fooled), None

  return jax.lax.scan(group, state, jnp.arange(0, steps, GROUP))[0]


def look(
    predict: jax.tree_util.Partial, threat: Threat, best: losses.Best,
    y: Float[Array, 'N ...'], *, size: int, stop: bool) -> losses.Best:
  """`best` after a look at `y`, without a gradient.

  With `stop`, examples that are fooled already are not looked at.
  """
  def advance(threat, state):
    best, y = state
    return best.update(y, losses.margin(predict(y), threat)), y

  active = ~best.fooled if stop else None
  return sweep(advance, threat, (best, y), size, active)[0]
