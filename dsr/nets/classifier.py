"""What all networks of images have in common: features, then one readout."""
from flax import linen as nn
from jaxtyping import Array, Float

from dsr import checks
from dsr.nets import layers, norms


class Classifier(nn.Module):
  """C outputs of a dense layer on what `see` makes of images.

  A subclass adds its attributes, checks them in `check_attributes`, and writes
  `see`. Parameters are those of `see`, and `readout`.

  Attributes:
    num_outputs: C.
  """

  num_outputs: int

  def __post_init__(self):
    checks.at_least('num_outputs', self.num_outputs, 1)
    if hasattr(self, 'norm'):
      checks.one_of('norm', self.norm, norms.NORMS)
    self.check_attributes()
    super().__post_init__()

  def check_attributes(self) -> None:
    """Raises a ValueError for an attribute that is out of its range."""
    if hasattr(self, 'width'):
      checks.at_least('width', self.width, 1)

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """What enters the readout, flattened to (N, F) or not.

    Raises:
      ValueError: `x` is not (N, H, W, C), or too small for the network.
    """
    raise NotImplementedError

  @nn.compact
  def __call__(
      self, x: Float[Array, 'N H W I'], *, features: bool = False
  ) -> Float[Array, 'N C']:
    """Outputs before any softmax, or what enters the readout.

    Args:
      x: images.
      features: True returns what `see` gives, flattened to (N, F); such a call
        needs, and under `init` makes, no parameters of the readout.

    Raises:
      ValueError: see `see`.
    """
    return layers.readout(self.see(x), self.num_outputs, features)
