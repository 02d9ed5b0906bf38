r"""Ready kernels: `fcn`, `convnet`, `myrtle`, and their names for flags.

He scaling (W_std = sqrt 2) keeps the variance of a ReLU network constant in
depth. The readout is Dense(W_std, b_std), so k(x, x) keeps its scale too.
"""
import math
import re

from dsr import checks, types
from dsr.kernels import convolutions, layers, network, nonlinearities

_HE = math.sqrt(2)
_NONLINEARITIES = {'relu': nonlinearities.Relu, 'erf': nonlinearities.Erf}
# Conv blocks between the pools, after the first (arXiv:2003.02237).
_MYRTLE = {5: (1, 1, 1), 7: (1, 2, 2), 10: (2, 3, 3)}


def fcn(depth: int = 1, *, W_std: float = _HE, b_std: float = 0.1,
        nonlinearity: str = 'relu', get: str = 'ntk') -> types.KernelFn:
  """Fully connected: `depth` hidden layers and a linear readout.

  The defaults with depth 1 are the FC1 kernel of KIP (arXiv:2011.00050).
  Takes (N, D) vectors, or (N, H, W, C) images which it flattens.

  Raises:
    ValueError: `depth < 1`, bad scales, or an unknown name.
  """
  checks.at_least('depth', depth, 1)
  checks.one_of('nonlinearity', nonlinearity, _NONLINEARITIES)
  dense = layers.Dense(W_std=W_std, b_std=b_std)
  hidden = [dense, _NONLINEARITIES[nonlinearity]()]
  return network.serial(
      layers.Flatten(), *hidden * depth, dense, get=get, name=f'fcn{depth}')


def convnet(depth: int = 3, *, pooling: bool = True, W_std: float = _HE,
            b_std: float = 0.1, padding: str = 'SAME', get: str = 'ntk',
            fused: bool = False) -> types.KernelFn:
  """Blocks of Conv 3x3, ReLU and (if `pooling`) AvgPool 2, then a readout.

  With pooling this is the ConvNet of the distillation benchmarks without its
  normalisation; images must be at least 2^depth pixels wide. `fused` runs its
  stages as one program each, see `network.serial`.

  Raises:
    ValueError: `depth < 1`, bad scales, or an unknown name.
  """
  checks.at_least('depth', depth, 1)
  block = [convolutions.Conv(
      3, W_std=W_std, b_std=b_std, padding=padding), nonlinearities.Relu()]
  block += [convolutions.AvgPool(2)] if pooling else []
  return network.serial(
      *block * depth, layers.Flatten(),
      layers.Dense(W_std=W_std, b_std=b_std), get=get,
      name=f'convnet{depth}' + ('' if pooling else '_nopool'), fused=fused)


def myrtle(depth: int = 5, *, W_std: float = _HE, b_std: float = 0.1,
           padding: str = 'SAME', get: str = 'ntk',
           fused: bool = False) -> types.KernelFn:
  """Myrtle network of 5, 7 or 10 layers with global pooling (2003.02237).

  `fused` runs its stages as one program each, see `network.serial`.

  Raises:
    ValueError: another `depth`, bad scales, or an unknown name.
  """
  checks.one_of('depth', depth, _MYRTLE)
  block = [convolutions.Conv(
      3, W_std=W_std, b_std=b_std, padding=padding), nonlinearities.Relu()]
  first, second, third = _MYRTLE[depth]
  return network.serial(
      *block, *block * first, convolutions.AvgPool(2), *block * second,
      convolutions.AvgPool(2), *block * third, convolutions.GlobalAvgPool(),
      layers.Dense(W_std=W_std, b_std=b_std), get=get, name=f'myrtle{depth}',
      fused=fused)


def by_name(name: str, *, get: str = 'ntk', **scales) -> types.KernelFn:
  """A kernel by its flag: 'fcn2', 'convnet3', 'convnet3_nopool', 'myrtle5'.

  '_fused' after the depth of a network with pools, as in 'convnet3_fused', runs
  its stages as one program each, see `network.serial`.

  Args:
    name: a family and its depth.
    get: 'ntk' or 'nngp'.
    **scales: `W_std`, `b_std` and the family's other options.

  Raises:
    ValueError: the name is not of that form.
  """
  match = re.fullmatch(
      r'(fcn|convnet|myrtle)(\d+)(_nopool|_fused)?', name)
  takes = {'fcn': (None,), 'myrtle': (None, '_fused')}
  if match is None or match[3] not in takes.get(
      match[1], (None, '_nopool', '_fused')):
    raise ValueError(
        '`kernel` must be a family and a depth (fcn2, convnet3, '
        f'convnet3_nopool, myrtle5), got {name!r}.')
  family = {'fcn': fcn, 'convnet': convnet, 'myrtle': myrtle}[match[1]]
  if match[3] == '_nopool':
    scales = {'pooling': False, **scales}
  if match[3] == '_fused':
    scales = {'fused': True, **scales}
  return family(int(match[2]), get=get, **scales)
