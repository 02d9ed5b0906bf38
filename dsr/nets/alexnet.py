r"""AlexNet for small images (Krizhevsky et al., 2012), as in arXiv:2006.05929.

5x5 convolutions to 128 and 192 channels, then 3x3 ones to 256, 192 and 192,
each with ReLU; the maximum of 2x2 blocks after the first, second and fifth; one
dense layer; no norm. Three halvings want multiples of 8 pixels: zeros are put
around other images, two on each side of those of 28.
Axes: N examples; H, W height and width; I channels in; C outputs; F features.
"""
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from dsr.nets import classifier, layers

# Kernel size; channels in units of the width; whether a pool follows.
_LAYERS = ((5, 2, True), (5, 3, True), (3, 4, False), (3, 3, False),
           (3, 3, True))
_MULTIPLE = 8


class AlexNet(classifier.Classifier):
  """AlexNet of five convolutions and one dense layer.

  Attributes:
    num_outputs: C.
    width: half the channels of the first layer; the others have 3, 4, 3 and 3
      times `width`.
    activation: after each convolution, hashable; attacks smooth it.
  """

  width: int = 64
  activation: Callable = jax.nn.relu

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """The last layer; images are refused that zeros would more than double."""
    layers.check_images(x, 'AlexNet', _MULTIPLE // 2)
    x = layers.pad_to_multiple(x, _MULTIPLE)
    for i, (size, channels, pooled) in enumerate(_LAYERS):
      x = layers.Conv(channels * self.width, size, name=f'conv_{i}')(x)
      x = self.activation(x)
      x = layers.max_pool2x2(x) if pooled else x
    return x
