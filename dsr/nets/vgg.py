r"""VGG-11 for small images (arXiv:1409.1556), as in arXiv:2006.05929.

Eight 3x3 convolutions, each with norm and ReLU, in five stages of 64, 128,
256 + 256, 512 + 512 and 512 + 512 channels; every stage ends with the maximum
of 2x2 blocks; one dense layer. Five halvings want multiples of 32 pixels: zeros
are put around other images, two on each side of those of 28.
Axes: N examples; H, W height and width; I channels in; C outputs; F features.
"""
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from dsr.nets import classifier, layers

_STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))  # In units of the width.
_MULTIPLE = 2**len(_STAGES)


class VGG11(classifier.Classifier):
  """VGG-11 with one dense layer.

  Attributes:
    num_outputs: C.
    width: channels of the first stage; the others have 2, 4, 8, 8 times more.
    norm: one of `norms.NORMS`. Convolutions have a bias unless the norm would
      cancel it.
    activation: after each norm, hashable; attacks smooth it.
  """

  width: int = 64
  norm: str = 'instance'
  activation: Callable = jax.nn.relu

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """The last stage; images are refused that zeros would more than double."""
    layers.check_images(x, 'VGG-11', _MULTIPLE // 2)
    x = layers.pad_to_multiple(x, _MULTIPLE)
    for stage, sizes in enumerate(_STAGES):
      for i, size in enumerate(sizes):
        x = layers.normed_conv(
            x, size * self.width, self.norm, f'{stage}_{i}')
        x = self.activation(x)
      x = layers.max_pool2x2(x)
    return x
