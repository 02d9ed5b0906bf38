r"""The peer of image kernels on accelerators: joint maps of whole batches.

neural-tangents, the library whose kernels this project is held against, does
not import on today's JAX, and needs a machine where it does. This is the way
it computes a pooled convolutional NTK, written anew: covariances of all pairs
of a batch as arrays (N, M, H, H, W, W), the positions of both inputs side by
side, layer after layer, for x with x, x' with x' and x with x'. A convolution
is one of XLA's with a diagonal filter for each axis, a ReLU goes through the
arc-tangent. Refs: arXiv:1912.02803 (the library); arXiv:1904.11955.
"""
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

_HE, _BIAS = math.sqrt(2), 0.1
# Convolutions before each pool, and how the network ends.
ARCHITECTURES = {
    'convnet3': ((1, 1, 1), 'flatten'),
    'myrtle5': ((2, 1, 1), 'global'),
    'myrtle10': ((3, 3, 3), 'global'),
}


def kernel(name: str, x1: Float[Array, 'N H W C'], x2: Float[Array, 'M H W C']
           ) -> Float[Array, 'N M']:
  """The NTK of `kernels.by_name(name)`; memory N M (H W)^2 a map.

  Raises:
    KeyError: `name` is not in `ARCHITECTURES`.
  """
  blocks, end = ARCHITECTURES[name]
  dot = functools.partial(jnp.einsum, precision='highest')
  covs = [dot('nabc,mdec->nmadbe', x1, x2) / x1.shape[-1]] + [
      dot('nabc,ndec->nadbe', x, x)[:, None] / x1.shape[-1] for x in (x1, x2)]
  ntk = None
  for i, count in enumerate(blocks):
    for _ in range(count):
      covs = [_conv(c) for c in covs]
      ntk = covs[0] if ntk is None else covs[0] + _conv(ntk, bias=0)
      covs, ntk = _relu(covs, ntk)
    if end == 'flatten' or i < len(blocks) - 1:
      covs, ntk = [_pool(c) for c in covs], _pool(ntk)
  nngp = covs[0]
  if end == 'flatten':
    nngp, ntk = (jnp.mean(_equal(a), axis=(2, 3)) for a in (nngp, ntk))
  else:
    nngp, ntk = (jnp.mean(a, axis=(2, 3, 4, 5)) for a in (nngp, ntk))
  return _HE**2 * nngp + _BIAS**2 + _HE**2 * ntk


def _equal(cov):
  """Equal positions: (N, M, H, W)."""
  return jnp.diagonal(jnp.diagonal(cov, axis1=4, axis2=5), axis1=2, axis2=3
                      ).swapaxes(2, 3)


def _conv(cov, bias=_BIAS):
  shape = cov.shape
  filters = jnp.eye(3, dtype=cov.dtype)[None, None] / 3

  def along(a):
    """Convolves the last two axes."""
    flat = a.reshape(-1, 1, *a.shape[-2:])
    return jax.lax.conv(flat, filters, (1, 1), 'SAME',
                        precision='highest').reshape(a.shape)

  cov = along(cov)
  cov = along(cov.transpose(0, 1, 4, 5, 2, 3)).transpose(0, 1, 4, 5, 2, 3)
  return _HE**2 * cov.reshape(shape) + bias**2


def _relu(covs, ntk):
  """All three covariances and the NTK after a ReLU."""
  q1, q2 = _equal(covs[1])[:, 0], _equal(covs[2])[:, 0]  # (N, H, W)

  def outer(a, b):
    return a[:, None, :, None, :, None] * b[None, :, None, :, None, :]

  own = lambda q: q[:, None, :, None, :, None] * q[:, None, None, :, None, :]
  squares = outer(q1, q2), own(q1), own(q2)

  def one(cov, square):
    root = jnp.sqrt(jnp.maximum(square - cov**2, 1e-30))
    angle = math.pi - jnp.arctan2(root, cov)
    return (root + angle * cov) / (2 * math.pi), angle / (2 * math.pi)

  (cov, slope), (cov1, _), (cov2, _) = map(one, covs, squares)
  return [cov, cov1, cov2], ntk * slope


def _pool(cov):
  window = (1, 1, 2, 2, 2, 2)
  return jax.lax.reduce_window(
      cov, np.zeros((), cov.dtype), jax.lax.add, window, window, 'VALID') / 16
