r"""Residual networks without batch norm, ready made: `resnet`, `wide_resnet`.

Pre-activation blocks, x + Conv(Relu(Conv(Relu(x)))), in three groups of which
the second and the third begin with strides of 2; where the shape changes the
shortcut is a 1 x 1 convolution with these strides. A stem of Conv 3 x 3 comes
before and a global average pool with a readout behind. A width factor has no
meaning in the infinite width, so that it names the network and no more.
Refs: arXiv:1603.05027; arXiv:1605.07146, wide ones; arXiv:1912.02803, example.
"""
import math

from dsr import checks, types
from dsr.kernels import network
from dsr.kernels.combinators import FanInSum, FanOut, parallel
from dsr.kernels.convolutions import Conv, GlobalAvgPool
from dsr.kernels.layers import Dense, Identity, Layer
from dsr.kernels.nonlinearities import Relu

_HE = math.sqrt(2)
_GROUPS = 3


def resnet(depth: int = 8, *, W_std: float = _HE, b_std: float = 0.0,
           get: str | tuple[str, str] = 'ntk') -> types.KernelFn:
  """The CIFAR residual network of 6 n + 2 layers: 8, 14, 20, 32, ...

  Takes (N, H, W, C) images. Global pooling makes a pair cost (H W)^2.

  Raises:
    ValueError: `depth` is not 6 n + 2, or bad scales.
  """
  return _network('resnet', depth, 2, W_std, b_std, get, False)


def wide_resnet(depth: int = 10, width_factor: int = 1, *,
                W_std: float = _HE, b_std: float = 0.0,
                get: str | tuple[str, str] = 'ntk') -> types.KernelFn:
  """WRN-depth-width_factor of 6 n + 4 layers: 10, 16, 22, 28, ...

  Its first group widens as well, so it has a convolution in its shortcut.

  Raises:
    ValueError: `depth` is not 6 n + 4, `width_factor` no positive integer, or
      bad scales.
  """
  checks.at_least('width_factor', width_factor, 1)
  kernel = _network('wrn', depth, 4, W_std, b_std, get, True)
  return kernel._replace(name=f'wrn{depth}_{width_factor}')


def _network(name, depth, rest, W_std, b_std, get, widens):
  checks.at_least('depth', depth, 6 + rest)
  if (depth - rest) % 6:
    raise ValueError(f'`depth` must be 6 n + {rest}, got {depth}.')
  scales = {'W_std': W_std, 'b_std': b_std}
  layers = [Conv(3, **scales)]
  for group in range(_GROUPS):
    for i in range((depth - rest) // 6):
      strides = 2 if group and not i else 1
      changes = not i and (group > 0 or widens)
      layers += _block(strides, changes, scales)
  return network.serial(
      *layers, Relu(), GlobalAvgPool(), Dense(**scales), get=get,
      name=f'{name}{depth}')


def _block(strides: int, changes: bool, scales) -> list[Layer]:
  main = [Relu(), Conv(3, strides=strides, **scales), Relu(),
          Conv(3, **scales)]
  shortcut = Conv(1, strides=strides, **scales) if changes else Identity()
  return [FanOut(2), parallel(main, shortcut), FanInSum()]
