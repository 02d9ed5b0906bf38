r"""CutMix (arXiv:1905.04899): a rectangle of each image comes from another one.

With probability p, for the whole batch: a partner for each image by a random
permutation, lambda uniform in [0, 1) (Beta(1, 1)), a box whose sides are
sqrt(1 - lambda) of the image's and whose centre is anywhere in it, so that the
edge may cut it off. The pixels of the box are the partner's, and so is the
share a of the targets that the box has of the area:

  y <- (1 - a) y + a y_partner.

Under the cross-entropy of probabilities that is the mixed loss as published.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dsr import checks


def cutmix(
    key: Key[Array, ''], x: Float[Array, 'B H W C'], y: Float[Array, 'B K'],
    probability: float = 1.0
) -> tuple[Float[Array, 'B H W C'], Float[Array, 'B K']]:
  """Mixed images and targets, or both as they are.

  Args:
    key: of all that is drawn; float32, so that x64 changes none of it.
    x: images.
    y: their targets.
    probability: that the batch is mixed.

  Raises:
    ValueError: `x` is not (B, H, W, C), or `probability` not in [0, 1].
  """
  checks.images('x', x)
  checks.within('probability', probability, 0, 1)
  x, y = jnp.asarray(x), jnp.asarray(y)
  keys = jax.random.split(key, 4)
  draw = lambda k, n: jax.random.uniform(k, (n,), jnp.float32)
  partner = jax.random.permutation(keys[0], x.shape[0])
  sizes = jnp.asarray(x.shape[1:3], jnp.float32)
  half = jnp.floor(jnp.sqrt(1 - draw(keys[1], 1)) * sizes) // 2
  centre = jnp.floor(draw(keys[2], 2) * sizes)
  low = jnp.maximum(centre - half, 0)
  high = jnp.minimum(centre + half, sizes)
  # An empty box mixes nothing.
  high = jnp.where(draw(keys[3], 1) < probability, high, low)
  rows, columns = (
      (jnp.arange(n) >= low[i]) & (jnp.arange(n) < high[i])
      for i, n in enumerate(x.shape[1:3]))
  box = rows[None, :, None, None] & columns[None, None, :, None]
  share = jnp.prod((high - low) / sizes).astype(y.dtype)
  return (jnp.where(box, x[partner], x),
          (1 - share) * y + share * y[partner])
