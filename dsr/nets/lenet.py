r"""LeNet with ReLU (LeCun et al., Proc. IEEE 86, 1998), as in arXiv:2006.05929.

5x5 convolution to 6 channels, ReLU, 2x2 maximum; the same to 16 channels; two
dense layers of 120 and 84 units with ReLU; the readout. The convolutions see
no zeros around, but for the first on images below 32 pixels a side: those of
28 and those of 32 pixels both end as 5 x 5 x 16.
Axes: N examples; H, W height and width; I channels in; C outputs; F features.
"""
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from dsr import checks
from dsr.nets import classifier, layers, mlp

_PADDED_BELOW = 32
_SMALLEST = 12  # -> 6 -> 2 -> 1


class LeNet(classifier.Classifier):
  """LeNet-5 of two convolutions and three dense layers.

  Attributes:
    num_outputs: C.
    channels: of the two convolutions.
    widths: of the two hidden dense layers.
    activation: after each layer but the last, hashable; attacks smooth it.
  """

  channels: tuple[int, int] = (6, 16)
  widths: tuple[int, int] = (120, 84)
  activation: Callable = jax.nn.relu

  def check_attributes(self) -> None:
    super().check_attributes()
    # Lists would make the module unhashable.
    object.__setattr__(self, 'channels', tuple(self.channels))
    object.__setattr__(self, 'widths', tuple(self.widths))
    for name, sizes in (('channels', self.channels), ('widths', self.widths)):
      for size in sizes:
        checks.at_least(name, size, 1)

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """The last hidden layer; images need 12 pixels a side."""
    layers.check_images(x, 'LeNet', _SMALLEST)
    padding = (2 if min(x.shape[1:3]) < _PADDED_BELOW else 0, 0)
    for i in range(2):
      x = layers.Conv(self.channels[i], size=5, padding=padding[i],
                      name=f'conv_{i}')(x)
      x = layers.max_pool2x2(self.activation(x))
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate(self.widths):
      x = self.activation(mlp.Dense(width, name=f'hidden_{i}')(x))
    return x
