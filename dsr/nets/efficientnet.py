r"""EfficientNet-Lite0 (arXiv:1905.11946, without squeeze-and-excitation).

A 3x3 convolution of stride 2, sixteen inverted residual blocks, a 1x1
convolution to 1280 channels, the mean over the image, one dense layer. With
relu6(z) = relu(z) - relu(z - 6), a block is

  h = relu6(norm(conv1x1(x)))      six times the channels; not in block 0
  h = relu6(norm(depthwise(h)))    3x3 or 5x5, stride 1 or 2
  x <- norm(conv1x1(h)) + x        the sum where shapes allow it.

No convolution has a bias. Zeros around images are TensorFlow's 'SAME': where
their number is odd, right and below get one more. Images of 32 pixels a side
become 16, 8, 4, 2 and 1.

A depthwise convolution is a sum of shifted images times numbers, one for each
entry of its kernel, since XLA:CPU runs grouped convolutions and their gradients
many times slower. Entries that see nothing but zeros are left out: on an image
of one pixel a 5x5 kernel has one entry that counts.
Axes: N examples; H, W height and width; I, O channels in and out; C outputs; F
features.
"""
from collections.abc import Callable, Iterator

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import checks, numerics
from dsr.nets import classifier, layers, mlp, norms
from dsr.nets.fixed_norm import FixedNorm, Moments

# Blocks, side of the depthwise kernel, stride of the first, expansion, O.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40),
           (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))
_STEM, _HEAD = 32, 1280  # Channels.
_EPSILON = 1e-3  # Of the norms.
_CAP = 6.0  # Of relu6.
_HALVINGS = 5
NUM_BLOCKS = sum(stage[0] for stage in _STAGES)


class Strided(nn.Module):
  """Convolution without bias, of any stride, by patches times a matrix."""

  features: int
  size: int
  stride: int

  @nn.compact
  def __call__(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N h w O']:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param(
        'kernel', nn.initializers.lecun_normal(), shape, x.dtype)
    seen = list(_taps(x, self.size, self.stride))
    patches = jnp.concatenate([part for _, _, part in seen], axis=-1)
    flat = jnp.concatenate([kernel[i, j] for i, j, _ in seen])
    return numerics.matmul(patches, flat)


class Depthwise(nn.Module):
  """Each channel with a kernel of its own; the kernel is (size, size, I)."""

  size: int
  stride: int

  @nn.compact
  def __call__(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N h w I']:
    shape = (self.size, self.size, x.shape[-1])
    kernel = self.param('kernel', nn.initializers.normal(1 / self.size), shape,
                        x.dtype)
    return sum(part * kernel[i, j].reshape(1, 1, 1, -1)
               for i, j, part in _taps(x, self.size, self.stride))


class Block(nn.Module):
  """The inverted residual block of the module's text.

  Attributes:
    features: O.
    size: of the depthwise kernel.
    stride: likewise.
    expansion: channels within the block, in units of I; 1 leaves the first
      convolution out.
    norm: see `EfficientNetLite0`.
    moments: likewise.
    activation: likewise.
  """

  features: int
  size: int
  stride: int
  expansion: int
  norm: str
  moments: Moments | None
  activation: Callable

  @nn.compact
  def __call__(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N h w O']:
    norm = lambda h, place: _norm(
        h, self.norm, self.moments, f'norm_{place}', f'{self.name}_{place}')
    channels, h = x.shape[-1], x
    if self.expansion != 1:
      h = mlp.Dense(
          self.expansion * channels, use_bias=False, name='expand')(h)
      h = _relu6(self.activation, norm(h, 'expand'))
    h = Depthwise(self.size, self.stride, name='depthwise')(h)
    h = _relu6(self.activation, norm(h, 'depthwise'))
    h = mlp.Dense(self.features, use_bias=False, name='project')(h)
    h = norm(h, 'project')
    return h + x if self.stride == 1 and channels == self.features else h


class EfficientNetLite0(classifier.Classifier):
  """EfficientNet-Lite0, 3.4 million parameters in front of the readout.

  Attributes:
    num_outputs: C.
    norm: one of `norms.NORMS`; 'batch' is the original.
    moments: fixed moments of its batch norms, as of a network that was trained
      elsewhere (`pretrained`); None takes those of the batch. What is trained
      is the same: kernels, scales and biases of the norms, the readout.
    input_scale: factor on the input.
    activation: the `relu` above, hashable; attacks smooth it, and so `relu6`.
  """

  norm: str = 'batch'
  moments: Moments | None = None
  input_scale: float = 1.0
  activation: Callable = jax.nn.relu

  def check_attributes(self) -> None:
    super().check_attributes()
    checks.positive('input_scale', self.input_scale)
    if self.moments is not None and self.norm != 'batch':
      raise ValueError("`norm` must be 'batch' with `moments`, got "
                       f'{self.norm!r}.')

  def see(self, x: Float[Array, 'N H W I']) -> Float[Array, 'N ...']:
    """The mean over the head; `instance` needs more than 32 pixels a side."""
    layers.check_images(x, f'EfficientNet-Lite0 with norm {self.norm!r}',
                        2**_HALVINGS + 1 if self.norm == 'instance' else 1)
    x = Strided(_STEM, 3, 2, name='stem')(self.input_scale * x)
    x = _norm(x, self.norm, self.moments, 'norm_stem', 'stem')
    x, count = _relu6(self.activation, x), 0
    for num, size, stride, expansion, features in _STAGES:
      for i in range(num):
        x = Block(features, size, 1 if i else stride, expansion, self.norm,
                  self.moments, self.activation, name=f'block_{count}')(x)
        count += 1
    x = mlp.Dense(_HEAD, use_bias=False, name='head')(x)
    x = _norm(x, self.norm, self.moments, 'norm_head', 'head')
    return jnp.mean(_relu6(self.activation, x), (1, 2))


def _relu6(relu, z):
  return relu(z) - relu(z - _CAP)


def _norm(x, kind, moments, name, place):
  """The norm `name` of the module that calls this, with moments of `place`."""
  if moments is None:
    return norms.Norm(kind, _EPSILON, name=name)(x)
  return FixedNorm(moments, place, _EPSILON, name=name)(x)


def _taps(x, size: int, stride: int) -> Iterator[tuple]:
  """(i, j, the pixels (N, h, w, I) that entry (i, j) of a kernel meets)."""
  (top, rows), (left, columns) = (
      _same(side, size, stride) for side in x.shape[1:3])
  height, width = stride * (rows - 1), stride * (columns - 1)
  padded = jnp.pad(x, ((0, 0), (top, max(0, height + size - top - x.shape[1])),
                       (left, max(0, width + size - left - x.shape[2])),
                       (0, 0)))
  for i in _seeing(x.shape[1], size, stride):
    for j in _seeing(x.shape[2], size, stride):
      yield i, j, padded[:, i:i + height + 1:stride, j:j + width + 1:stride]


def _seeing(side, size, stride):
  """The places within a kernel that meet a pixel and not zeros alone."""
  front, count = _same(side, size, stride)
  return [i for i in range(size) if any(
      0 <= stride * place + i - front < side for place in range(count))]


def _same(side, size, stride):
  """(zeros in front, pixels of the result) of 'SAME' along a side."""
  count = -(-side // stride)
  return max(0, (count - 1) * stride + size - side) // 2, count
