"""Sums of gradients of which each was clipped, as DP-SGD needs them.

Axes: B examples, C outputs.
"""
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dsr import numerics
from dsr.train import ghost, private, recipe
from dsr.types import Examples

_TILE = 16  # Examples at a time, whose activations stay in a CPU's cache.
_ACCELERATED_TILE = 256


def clipped_sum(
    module: nn.Module, params, batch: Examples, drawn: Bool[Array, 'B'], *,
    clip: float, loss: str) -> tuple[Float[Array, ''], object]:
  """Mean loss of the examples drawn, and the sum of their clipped gradients.

  Args:
    module: the network.
    params: its parameters.
    batch: x (B, ...), y (B, C).
    drawn: (B,) which rows count.
    clip: C; one example more or less changes the sum by no more.
    loss: one of `LOSSES`.
  """
  if ghost.covers(module, params, batch.x[:2]):
    return _tiled_sum(module, params, batch, drawn, clip=clip, loss=loss)
  forward = lambda params, x: module.apply({'params': params}, x)
  out, vjp = jax.vjp(lambda params: forward(params, batch.x), params)
  cotangents = -recipe.residual(loss, out, batch.y)
  weights = private.clip_weights(forward, params, batch.x, cotangents, clip)
  grads, = vjp(jnp.where(drawn, weights, 0)[:, None] * cotangents)
  total = _total_loss(loss, out, batch.y, drawn)
  return total / jnp.maximum(jnp.sum(drawn), 1), grads


def _tiled_sum(module, params, batch, drawn, *, clip, loss):
  """`clipped_sum` where layers tell the norms, a tile of examples at a time.

  Those that were drawn come first; tiles without any are left out.
  """
  num = len(batch.x)
  size = min(num, _TILE if numerics.on_cpu() else _ACCELERATED_TILE)
  order = jnp.argsort(~drawn, stable=True)
  fill = lambda a: jnp.pad(  # With rows that nobody drew.
      a[order], [(0, -num % size)] + [(0, 0)] * (a.ndim - 1)).reshape(
          -1, size, *a.shape[1:])
  parts = jax.tree.map(fill, (batch.x, batch.y, drawn))

  def tile(i, carry):
    total, grads = carry
    x, y, here = jax.tree.map(lambda a: a[i], parts)
    out, squares, weighted = ghost.backward(
        module, params, x, lambda out: -recipe.residual(loss, out, y))
    weights = jnp.where(here, private.weights_of(
        numerics.safe_sqrt(squares), clip), 0)
    grads = jax.tree.map(jnp.add, grads, weighted(weights))
    return total + _total_loss(loss, out, y, here), grads

  zeros = jax.tree.map(jnp.zeros_like, params)
  start = jnp.zeros((), jax.eval_shape(
      lambda: recipe.loss_value(loss, batch.y, batch.y)).dtype)
  count = jnp.sum(drawn)
  total, grads = jax.lax.fori_loop(
      0, (count + size - 1) // size, tile, (start, zeros))
  return total / jnp.maximum(count, 1), grads


def _total_loss(loss, out, y, drawn):
  each = jax.vmap(lambda out, y: recipe.loss_value(loss, out[None], y[None]))
  return jnp.sum(jnp.where(drawn, each(out, y), 0))
