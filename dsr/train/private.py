r"""Differentially private gradients: clipped example by example, then noised.

  g = 1/B (sum_n c_n g_n + \sigma C N(0, I)),  c_n = min(1, C / |g_n|)

with clipping norm C and noise multiplier \sigma (arXiv:1607.00133). As
c_n g_n = J_n' (c_n r_n), only the norms need a gradient for each example; the
sum is one backward pass on weighted residuals. What that guarantees depends on
B / N, \sigma and the number of steps: no accountant is included.
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from dsr import numerics

_TILE = 16  # Gradients of single examples held at once.


def clip_weights(
    forward: Callable, params: PyTree, x: Float[Array, 'B ...'],
    cotangents: Float[Array, 'B C'], clip: float) -> Float[Array, 'B']:
  """c_n = min(1, clip / |g_n|), with g_n the vjp of `forward` at example n.

  Args:
    forward: (params, x (B, ...)) -> (B, C), row by row.
    params: where it is differentiated.
    x: a batch.
    cotangents: of its outputs; their sign does not matter.
    clip: C, positive.
  """
  def norm(example):
    x, cotangent = example
    _, vjp = jax.vjp(lambda p: forward(p, x[None]), params)
    return numerics.tree_norm(vjp(cotangent[None]))

  norms = jax.lax.map(norm, (x, cotangents), batch_size=min(_TILE, len(x)))
  return weights_of(norms, clip)


def weights_of(norms: Float[Array, 'B'], clip: float) -> Float[Array, 'B']:
  """min(1, clip / norm)."""
  return jnp.where(norms > clip, clip / jnp.where(norms > clip, norms, 1), 1)


def add_noise(key: Key[Array, ''], grads: PyTree, std: float) -> PyTree:
  """`grads` + std N(0, I)."""
  leaves, tree = jax.tree.flatten(grads)
  keys = jax.random.split(key, len(leaves))
  return tree.unflatten([
      g + std * jax.random.normal(k, g.shape, g.dtype)
      for k, g in zip(keys, leaves)])
