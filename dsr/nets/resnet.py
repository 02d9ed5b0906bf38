r"""A small residual network for images (arXiv:1512.03385, section 4.2).

A 3x3 convolution, three stages of `(depth - 2) / 6` residual blocks with W, 2W
and 4W channels, the mean over the image, one dense layer. A block is

  x <- relu(shortcut(x) + norm(conv(relu(norm(conv(x))))));

the first of the second and third stage halves the image by 2x2 means in front
of both branches, and widens the shortcut by a 1x1 convolution.
Axes: N examples; H, W height and width; I, O channels in and out; C outputs; F
features.
"""
from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import checks
from dsr.nets import classifier, layers, mlp

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
    x = layers.avg_pool2x2(x) if self.halve else x
    shortcut = x
    if x.shape[-1] != self.features:
      shortcut = mlp.Dense(self.features, use_bias=False, name='shortcut')(x)
    x = self.activation(layers.normed_conv(x, self.features, self.norm, '1'))
    return self.activation(
        shortcut + layers.normed_conv(x, self.features, self.norm, '2'))


class ResNet(classifier.Classifier):
  """Residual network of `depth` weight layers in three stages.

  Attributes:
    num_outputs: C.
    depth: 8, 14, 20, ...: two more than a multiple of six.
    width: channels of the first stage; the others have 2 and 4 times as many.
    norm: one of `norms.NORMS`. Convolutions have a bias unless the norm would
      cancel it; shortcuts have none.
    activation: the `relu` above, hashable; attacks smooth it.
  """

  depth: int = 8
  width: int = 16
  norm: str = 'instance'
  activation: Callable = jax.nn.relu

  def check_attributes(self) -> None:
    super().check_attributes()
    checks.at_least('depth', self.depth, 8)
    if self.depth % (2 * _STAGES) != 2:
      raise ValueError('`depth` must be two more than a multiple of six, got '
                       f'{self.depth}.')

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """The mean over the last stage; images need four pixels a side."""
    layers.check_images(x, 'a ResNet', _SMALLEST)
    x = self.activation(layers.normed_conv(x, self.width, self.norm, 'in'))
    for stage in range(_STAGES):
      for i in range((self.depth - 2) // (2 * _STAGES)):
        x = Block(self.width * 2**stage, halve=stage > 0 and i == 0,
                  norm=self.norm, activation=self.activation,
                  name=f'stage_{stage}_block_{i}')(x)
    return jnp.mean(x, (1, 2))
