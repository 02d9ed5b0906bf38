r"""Normalisation of images between convolution and nonlinearity.

  norm(x) = (x - mean) / sqrt(var + 1e-5) scale + bias

with moments over the axes below; the variance is that of the centred values,
so that a bright, flat channel does not cancel.

  instance  H W, of each image and channel                  (arXiv:1607.08022)
  group     H W and C / 4 channels: four groups an image    (arXiv:1803.08494)
  layer     H W C; here scale and bias are (H, W, C)        (arXiv:1607.06450)
  batch     N H W, of each channel                          (arXiv:1502.03167)
  none      x as it is

All but 'batch' treat each image alone. Batch normalisation is a function here,
without the running moments that training usually drags along: the moments are
those of the batch at hand unless the variables hold a collection
'batch_stats', which then gives them. `train.fit_networks` fills it with the
moments of the training set, once, at the end ("precise BN", arXiv:2105.07576).
To compute that collection, apply a network with `mutable=['batch_stats']`.

Axes: N examples; H, W height and width; C channels.
"""
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NORMS = ('instance', 'group', 'batch', 'layer', 'none')
BATCH_STATS = 'batch_stats'  # The collection's name, as everywhere in Flax.

_GROUPS = 4
_AXES = {'instance': (1, 2), 'group': (1, 2, 4), 'layer': (1, 2, 3),
         'batch': (0, 1, 2)}


def cancels_bias(norm: str) -> bool:
  """Whether a constant added to each channel before `norm` has no effect."""
  return norm in ('instance', 'batch')


class Norm(nn.Module):
  """One normalisation layer.

  Attributes:
    kind: one of `NORMS`; 'none' has no parameters.
    epsilon: added to the variance.
  """

  kind: str
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, 'N H W C']) -> Float[Array, 'N H W C']:
    """Raises ValueError if 'group' does not divide the channels."""
    if self.kind == 'none':
      return x
    shape = x.shape[1:] if self.kind == 'layer' else x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape, x.dtype)
    bias = self.param('bias', nn.initializers.zeros, shape, x.dtype)
    expand = lambda a: jnp.expand_dims(a, range(x.ndim - a.ndim))
    return self.standardised(x) * expand(scale) + expand(bias)

  def standardised(self, x: Float[Array, 'N H W C']) -> Float[Array, 'N H W C']:
    """Before scale and bias."""
    if self.kind == 'batch' and self.has_variable(BATCH_STATS, 'mean'):
      mean = self.get_variable(BATCH_STATS, 'mean').reshape(1, 1, 1, -1)
      var = self.get_variable(BATCH_STATS, 'var').reshape(1, 1, 1, -1)
      return (x - mean) * jax.lax.rsqrt(var + self.epsilon)
    shape = x.shape
    if self.kind == 'group':
      if shape[-1] % _GROUPS:
        raise ValueError(f"`norm` 'group' needs a multiple of {_GROUPS} "
                         f'channels, got {shape[-1]}.')
      x = x.reshape(*shape[:-1], _GROUPS, -1)
    mean = jnp.mean(x, _AXES[self.kind], keepdims=True)
    x = x - mean
    var = jnp.mean(x**2, _AXES[self.kind], keepdims=True)
    if self.kind == 'batch' and not self.is_initializing():
      if self.is_mutable_collection(BATCH_STATS):
        self.put_variable(BATCH_STATS, 'mean', mean.reshape(-1))
        self.put_variable(BATCH_STATS, 'var', var.reshape(-1))
    return (x * jax.lax.rsqrt(var + self.epsilon)).reshape(shape)
