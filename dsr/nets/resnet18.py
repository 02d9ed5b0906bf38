r"""ResNet-18 AP: arXiv:1512.03385 for small images, as in arXiv:2006.05929.

A 3x3 convolution, four stages of two residual blocks with 64, 128, 256 and 512
channels, one dense layer on all pixels of the last. A block is

  h = relu(norm(conv(x)))
  x <- relu(shortcut(x) + norm(conv(pool(h))))

where the first block of the last three stages halves the image by 2x2 means
('AP', average pooling, where the original takes every other pixel) and its
shortcut is norm(pool(conv1x1(x))); elsewhere neither does anything. Images of
28 pixels a side are not padded: 28, 14, 7, 3.
Axes: N examples; H, W height and width; I, O channels in and out; C outputs; F
features.
"""
from collections.abc import Callable

from flax import linen as nn
import jax
from jaxtyping import Array, Float

from dsr.nets import classifier, layers, mlp, norms

_STAGES = 4
_BLOCKS = 2


class Block(nn.Module):
  """The residual block of the module's text."""

  features: int
  halve: bool
  norm: str
  activation: Callable

  @nn.compact
  def __call__(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N h w O']:
    shortcut = x
    h = self.activation(layers.normed_conv(x, self.features, self.norm, '1'))
    if self.halve:
      h = layers.avg_pool2x2(h)
      # The mean goes first: it commutes with a 1x1 convolution.
      shortcut = mlp.Dense(self.features, use_bias=False, name='shortcut')(
          layers.avg_pool2x2(x))
      shortcut = norms.Norm(self.norm, name='norm_shortcut')(shortcut)
    h = layers.normed_conv(h, self.features, self.norm, '2')
    return self.activation(shortcut + h)


class ResNet18(classifier.Classifier):
  """ResNet-18 with average pooling.

  Attributes:
    num_outputs: C.
    width: channels of the first stage, doubled in each of the others.
    norm: one of `norms.NORMS`. Convolutions have a bias unless the norm would
      cancel it; shortcuts have none.
    activation: the `relu` above, hashable; attacks smooth it.
  """

  width: int = 64
  norm: str = 'instance'
  activation: Callable = jax.nn.relu

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """The last stage; images need 8 pixels a side, or 16 under `instance`."""
    smallest = 2**(_STAGES - 1) * (2 if self.norm == 'instance' else 1)
    layers.check_images(
        x, f'ResNet-18 with norm {self.norm!r}', smallest)
    x = self.activation(layers.normed_conv(x, self.width, self.norm, 'in'))
    for stage in range(_STAGES):
      for i in range(_BLOCKS):
        x = Block(self.width * 2**stage, halve=stage > 0 and i == 0,
                  norm=self.norm, activation=self.activation,
                  name=f'stage_{stage}_block_{i}')(x)
    return x
