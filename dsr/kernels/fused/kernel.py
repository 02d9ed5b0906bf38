"""A pooled kernel on images whose first layers run as fused stages.

Pairs go through in chunks, and nothing of a chunk is kept for derivatives but
its inputs. The layers after the last fused stage, whose maps are small, run
as the rules of `layers` on joint maps.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsr.kernels.fused import stage
from dsr.kernels.layers import Pair, unlike

_CHUNK = 512  # Pairs at once; 2 MB each in float32 at 32 x 32 pixels.


class Rest(NamedTuple):
  """The layers after the stages, for one pair, on joint maps or positions.

  Attributes:
    alone: (first, q, pair) -> (tapes from layer `first` on, kernel value).
    finish: (first, tapes1, tapes2, pair) -> kernel value.
    last_pool: index of the last pooling layer; before it maps are joint.
  """

  alone: Callable
  finish: Callable
  last_pool: int


class _Ready(NamedTuple):
  """What pairs need of N images."""

  maps: Any  # (N, C, H, W)
  variances: Any  # a tuple over stages
  inner: Any  # a tuple over stages of (N, h, w): the pools' own terms
  q: Any  # (N, h, w) after the stages
  tapes: Any  # of the layers after the stages


def make(layers, plan: stage.Plan, rest: Rest):
  """(cross, symmetric, diag) of `layers`, whose first stages `plan` lists."""
  first = plan.starts[-1]

  def opened(maps):
    """From shift order to what the rest takes."""
    if first <= rest.last_pool:
      return tuple(stage.to_joint(m) for m in maps)
    return tuple(m[:, 0, 0] for m in maps)  # Equal positions.

  def pair_of(share, q1, q2, gap, ntk):
    if gap.ndim == 4:
      q1, q2 = q1[:, :, None, None], q2[None, None]
    return Pair(gap, share * (q1 + q2) - gap, ntk, share)

  def alone(x):
    """(what pairs need, k(x, x)) of a chunk of images."""
    maps = jnp.moveaxis(x, -1, 1)
    own = jnp.arange(x.shape[0])
    q, inputs, variances, inner = jnp.mean(x**2, -1), (maps, maps), [], []
    for scales, start in zip(plan.scales, plan.starts):
      before, after = q, []
      for conv in range(len(scales)):
        q, _ = jax.vmap(layers[start + 2 * conv].variance, (0, None))(q, None)
        after.append(q)
        q = 0.5 * q  # The ReLU.
      one = stage.Variances(before, jnp.stack(after, axis=1))
      gap, ntk = stage.run(
          scales, own, own, jnp.ones_like(own), inputs, one, one)
      variances.append(one)
      inner.append(0.5 * gap[:, 0, 0])
      q = _tile_means(q) - gap[:, 0, 0]
      gap = gap - inner[-1][:, None, None] - stage.at_right(inner[-1])
      inputs = gap, ntk

    def finish(q, gap, ntk):
      return rest.alone(first, q, pair_of(0.5, q, q, gap, ntk))

    tapes, value = jax.vmap(finish)(q, *opened(inputs))
    return _Ready(maps, tuple(variances), tuple(inner), q, tapes), value

  def pairs(one, two, lefts, rights):
    """The kernel of a chunk of listed pairs."""
    inputs = one.maps, two.maps
    size1, size2 = (jnp.mean(maps**2, (1, 2, 3))[at] for maps, at in (
        (one.maps, lefts), (two.maps, rights)))
    alike = ~unlike(size1, size2)
    weight = alike.astype(size1.dtype)[:, None, None]
    for i, scales in enumerate(plan.scales):
      gap, ntk = stage.run(
          scales, lefts, rights, alike.astype(jnp.int32), inputs,
          one.variances[i], two.variances[i])
      inner = (weight * _of(one.inner[i], lefts),
               weight * _of(two.inner[i], rights))
      gap = gap - inner[0][:, None, None] - stage.at_right(inner[1])
      inputs = gap, ntk

    def finish(share, left, right, gap, ntk):
      (q1, tapes1), (q2, tapes2) = left, right
      return rest.finish(
          first, tapes1, tapes2, pair_of(share, q1, q2, gap, ntk))

    pick = lambda ready, at: jax.tree.map(
        lambda a: _of(a, at), (ready.q, ready.tapes))
    return jax.vmap(finish)(0.5 * weight[:, 0, 0], pick(one, lefts),
                            pick(two, rights), *opened(inputs))

  pairs, alone = jax.checkpoint(pairs), jax.checkpoint(alone)

  def listed(one, two, lefts, rights):
    return _chunked(lambda l, r: pairs(one, two, l, r), lefts, rights)

  def ready(x):
    return _chunked(alone, x)

  def cross(x1, x2):
    (one, _), (two, _) = ready(x1), ready(x2)
    n, m = x1.shape[0], x2.shape[0]
    lefts, rights = np.divmod(np.arange(n * m), m)
    return listed(one, two, jnp.asarray(lefts), jnp.asarray(rights)).reshape(
        n, m)

  def symmetric(x):
    one, diag = ready(x)
    n = x.shape[0]
    rows, cols = np.triu_indices(n, 1)
    out = jnp.zeros((n, n), diag.dtype)
    if rows.size:
      upper = listed(one, one, jnp.asarray(rows), jnp.asarray(cols))
      out = out.at[rows, cols].set(upper).at[cols, rows].set(upper)
    return out.at[np.arange(n), np.arange(n)].set(diag)

  def diag(x):
    return ready(x)[1]

  return cross, symmetric, diag


@jax.custom_vjp
def _of(values, at):
  """values[at]; its derivative is a product, not a scatter in any order."""
  return values[at]


def _of_backward(args, slope):
  at, size = args
  hot = jax.nn.one_hot(at, size, axis=0, dtype=slope.dtype)
  return jnp.tensordot(hot, slope, 1, precision='highest'), None


_of.defvjp(lambda values, at: (values[at], (at, values.shape[0])),
           _of_backward)


def _tile_means(q):
  n, h, w = q.shape
  return jnp.mean(q.reshape(n, h // 2, 2, w // 2, 2), axis=(2, 4))


def _chunked(fn, *arrays):
  """fn on chunks of equal size along the first axis, the last one filled."""
  total = arrays[0].shape[0]
  count = -(-total // _CHUNK)
  size = -(-total // count)

  def split(a):
    widths = [(0, count * size - total)] + [(0, 0)] * (a.ndim - 1)
    return jnp.pad(a, widths, mode='edge').reshape(count, size, *a.shape[1:])

  if count == 1:
    return fn(*arrays)
  out = jax.lax.map(lambda chunk: fn(*chunk), tuple(split(a) for a in arrays))
  return jax.tree.map(
      lambda a: a.reshape(count * size, *a.shape[2:])[:total], out)
