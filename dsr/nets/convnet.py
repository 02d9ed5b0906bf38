r"""ConvNet-D of the dataset-condensation family (arXiv:2006.05929).

D blocks of 3x3 convolution, normalisation, ReLU and 2x2 pooling, then one
dense layer. Nothing is padded but by the convolutions: 28 pixels a side go to
14, 7 and 3, 32 to 16, 8 and 4.
Axes: N examples; H, W height and width; I channels in; C outputs; F features.
"""
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from dsr import checks
from dsr.nets import classifier, layers


class ConvNet(classifier.Classifier):
  """`depth` blocks of `width` channels, each halving the image, then dense.

  Attributes:
    num_outputs: C.
    depth: number of blocks; images need at least 2**depth pixels a side.
    width: channels of every block.
    norm: one of `norms.NORMS`. Convolutions have a bias unless the norm would
      cancel it.
    pool: 'average' or 'max'.
    activation: after each norm, hashable; attacks smooth it.
  """

  depth: int = 3
  width: int = 128
  norm: str = 'instance'
  pool: str = 'average'
  activation: Callable = jax.nn.relu

  def check_attributes(self) -> None:
    super().check_attributes()
    checks.at_least('depth', self.depth, 1)
    checks.one_of('pool', self.pool, layers.POOLS)

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """The last block; images too small to be halved so often are refused."""
    layers.check_images(x, f'a ConvNet of depth {self.depth}', 2**self.depth)
    for i in range(self.depth):
      x = layers.normed_conv(x, self.width, self.norm, i)
      x = layers.pool2x2(self.activation(x), self.pool)
    return x
