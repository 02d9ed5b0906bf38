r"""A small residual network for images (arXiv:1512.03385, section 4.2).

A 3x3 convolution, three stages of `(depth - 2) / 6` residual blocks with W, 2W
and 4W channels, the mean over the image, one dense layer. A block is

  x <- relu(shortcut(x) + norm(conv(relu(norm(conv(x))))));

the first of the second and third stage halves the image by 2x2 means in front
of both branches, and widens the shortcut by a 1x1 convolution. Convolutions
and norms are those of `convnet`, so nothing is kept between examples.
Axes: N examples; H, W height and width; I, O channels in and out; C outputs.
"""
from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import checks
from dsr.nets import convnet, mlp

_STAGES = 3
_SMALLEST = 2**(_STAGES - 1)


class Block(nn.Module):
  """relu(shortcut + branch), as in the module's text."""

  features: int
  halve: bool
  norm: str
  activation: Callable

  @nn.compact
  def __call__(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N h w O']:
    x = convnet.avg_pool2x2(x) if self.halve else x
    shortcut = x
    if x.shape[-1] != self.features:
      shortcut = mlp.Dense(self.features, use_bias=False, name='shortcut')(x)
    x = self.activation(_conv(self.features, self.norm, '1')(x))
    return self.activation(shortcut + _conv(self.features, self.norm, '2')(x))


def _conv(features, norm, suffix):
  """Convolution and norm, in the enclosing module's scope."""
  normed = norm == 'instance'
  conv = convnet.Conv(features, use_bias=not normed, name=f'conv_{suffix}')
  if not normed:
    return conv
  scale = convnet.InstanceNorm(name=f'norm_{suffix}')
  return lambda x: scale(conv(x))


class ResNet(nn.Module):
  """Residual network of `depth` weight layers in three stages.

  Attributes:
    num_outputs: C.
    depth: 8, 14, 20, ...: two more than a multiple of six.
    width: channels of the first stage; the others have 2 and 4 times as many.
    norm: 'instance' or 'none'. Convolutions have a bias only without norm.
    activation: the `relu` above, hashable; attacks smooth it.
  """

  num_outputs: int
  depth: int = 8
  width: int = 16
  norm: str = 'instance'
  activation: Callable = jax.nn.relu

  def __post_init__(self):
    checks.at_least('num_outputs', self.num_outputs, 1)
    checks.at_least('depth', self.depth, 8)
    if self.depth % (2 * _STAGES) != 2:
      raise ValueError('`depth` must be two more than a multiple of six, got '
                       f'{self.depth}.')
    checks.at_least('width', self.width, 1)
    checks.one_of('norm', self.norm, convnet.NORMS)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N C']:
    """Outputs before any softmax.

    Raises:
      ValueError: `x` is not (N, H, W, C), or too small to be halved twice.
    """
    checks.images('x', x)
    if min(x.shape[1:3]) < _SMALLEST:
      raise ValueError(
          f'`x` has images of {x.shape[1]} x {x.shape[2]} pixels, a ResNet '
          f'needs at least {_SMALLEST} a side.')
    x = self.activation(_conv(self.width, self.norm, 'in')(x))
    for stage in range(_STAGES):
      for i in range((self.depth - 2) // (2 * _STAGES)):
        x = Block(self.width * 2**stage, halve=stage > 0 and i == 0,
                  norm=self.norm, activation=self.activation,
                  name=f'stage_{stage}_block_{i}')(x)
    return mlp.Dense(self.num_outputs, name='readout')(jnp.mean(x, (1, 2)))
