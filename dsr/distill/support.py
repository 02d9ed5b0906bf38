r"""The distilled set as a thing to learn: start, frozen pixels, constraints.

Shared by the methods that learn a support set by gradient steps.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from dsr import checks
from dsr.types import Examples


class Support(NamedTuple):
  """Images and labels of a distilled set; those not learned stay as given.

  Attributes:
    x: (S, ...) inputs.
    y: (S, C) labels.
    frozen: like x, True where a pixel is not learned; None if all are.
  """

  x: Float[Array, 'S ...']
  y: Float[Array, 'S C']
  frozen: Bool[Array, 'S ...'] | None = None

  def examples(self) -> Examples:
    """The set without its mask."""
    return Examples(self.x, self.y)


def support(x, y, frozen=None) -> Support:
  """A checked `Support` of x (S, ...), y (S, C) and `frozen`, like x or None.

  Raises:
    ValueError: misshapen x, y or `frozen`, or a mask that is not bool.
  """
  checks.inputs('support.x', x)
  checks.targets('support.y', y, rows=x.shape[0])
  if frozen is not None:
    frozen = jnp.asarray(frozen)
    if frozen.shape != x.shape or frozen.dtype != bool:
      raise ValueError(
          f'`frozen` must be bool of shape {x.shape}, '
          f'got {frozen.dtype} {frozen.shape}.')
  return Support(jnp.asarray(x), jnp.asarray(y), frozen)


def noise_like(
    key: Key[Array, ''], x: Float[Array, 'S ...'], scale: float = 0.2
) -> Float[Array, 'S ...']:
  """Images N(0, scale^2) in the shape of x, the start of arXiv:2302.01428.

  Raises:
    ValueError: `scale` is not positive.
  """
  checks.positive('scale', scale)
  return scale * jax.random.normal(key, x.shape, x.dtype)


def corrupt(
    key: Key[Array, ''], start: Support, fraction: float) -> Support:
  r"""rho-corruption (arXiv:2011.00050): freezes a share of pixels to noise.

  In each image round(`fraction` x pixels) entries, drawn without replacement,
  are overwritten by N(0, 1) noise in units of the deviation of `start.x`
  around its mean, and are never learned. So at most 1 - `fraction` of what a
  viewer sees can come from the training set.

  Raises:
    ValueError: `fraction` is outside [0, 1].
  """
  checks.within('fraction', fraction, 0, 1)
  key_where, key_noise = jax.random.split(key)
  size = start.x[0].size
  flat = jax.random.uniform(key_where, (start.x.shape[0], size))
  rank = jnp.argsort(jnp.argsort(flat, axis=1), axis=1)
  frozen = (rank < round(fraction * size)).reshape(start.x.shape)
  noise = (jnp.mean(start.x) + jnp.std(start.x)
           * jax.random.normal(key_noise, start.x.shape, start.x.dtype))
  return start._replace(x=jnp.where(frozen, noise, start.x), frozen=frozen)


def learned(state: Support, gradient: Support, labels: bool) -> Support:
  """`gradient` with zeros where `state` is not to be learned."""
  x = gradient.x
  if state.frozen is not None:
    x = jnp.where(state.frozen, 0, x)
  y = gradient.y if labels else jnp.zeros_like(gradient.y)
  return Support(x, y, None)


def restore(state: Support, moved: Support, labels: bool) -> Support:
  """`moved` with what is not learned put back; weight decay moves that too."""
  x = moved.x
  if state.frozen is not None:
    x = jnp.where(state.frozen, state.x, x)
  return Support(x, moved.y if labels else state.y, state.frozen)


def all_finite(*arrays: Float[Array, '...']) -> Bool[Array, '']:
  """Whether no entry of `arrays` is NaN or infinite."""
  return jnp.stack([jnp.isfinite(a).all() for a in arrays]).all()


def closeness(
    x: Float[Array, 'S ...'], data: Float[Array, 'B ...'], distance: float
) -> Float[Array, '']:
  r"""Penalty for nearness to training data: mean relu(1 - d_min / distance).

  d_min is the root mean square difference of a support image to its nearest
  example in `data`, in the units of x; `distance` > 0. The gradient of each
  image points away from that neighbour, and is 0 on top of it, where there is
  no such direction. Ref: arXiv:2302.01428.
  """
  a, b = x.reshape(x.shape[0], -1), data.reshape(data.shape[0], -1)
  product = jnp.matmul(a, b.T, precision='highest')
  square = jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1)[None, :] - 2 * product
  nearest = b[jax.lax.stop_gradient(jnp.argmin(square, axis=1))]
  mean_square = jnp.mean((a - nearest) ** 2, axis=1)
  root = jnp.sqrt(jnp.maximum(mean_square, jnp.finfo(a.dtype).tiny))
  return jnp.mean(jax.nn.relu(1 - root / distance))
