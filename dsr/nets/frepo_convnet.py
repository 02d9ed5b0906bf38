r"""The ConvNet of FRePo (arXiv:2206.00719), whose channels double.

`depth` blocks of 3x3 convolution with bias, ReLU and 2x2 average pooling, then
one dense layer. Block i has `width` 2^i channels; the norm stands in front of
the convolutions, from the second block on. Images of one channel get two rows
and columns of zeros on each side, so that MNIST goes 32, 16, 8, 4.

The paper's pool of networks has batch normalisation, and the networks that
are trained on its sets have none.
Axes: N examples; H, W height and width; I channels in.
"""
from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import checks
from dsr.nets import classifier, layers, norms

_PAD = 2  # Of images of one channel, on each side.


class FRePoConvNet(classifier.Classifier):
  """`depth` blocks of `width`, 2 `width`, ... channels, then dense.

  Attributes:
    num_outputs: C.
    depth: number of blocks; images need at least 2**depth pixels a side.
    width: channels of the first block.
    norm: one of `norms.NORMS`.
  """

  depth: int = 3
  width: int = 128
  norm: str = 'batch'

  def check_attributes(self) -> None:
    super().check_attributes()
    checks.at_least('depth', self.depth, 1)

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """The last block; images too small to be halved so often are refused."""
    layers.check_images(x, f'a ConvNet of depth {self.depth}', 2**self.depth)
    if x.shape[-1] == 1:
      x = jnp.pad(x, ((0, 0), (_PAD, _PAD), (_PAD, _PAD), (0, 0)))
    for i in range(self.depth):
      if i:
        x = norms.Norm(self.norm, name=f'norm_{i}')(x)
      x = layers.Conv(self.width * 2**i, name=f'conv_{i}')(x)
      x = layers.pool2x2(nn.relu(x), 'average')
    return x
