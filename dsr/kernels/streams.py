"""What a stack of layers takes and gives, found out before anything is traced.

A stream is what flows between two layers; `FanOut` makes a tuple of them.
"""
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dsr.kernels.layers import Layer


class _Stream(NamedTuple):
  """One stream: has it space; is it Gaussian; has its branch weights.

  And is its width known, which a layer in the standard parameterisation needs.
  """

  space: bool
  gaussian: bool
  weights: bool
  sized: bool


def check(layers: Sequence[Layer]) -> int:
  """Spatial axes of the inputs that the stack takes: 2, 1, or 0 for vectors.

  Raises:
    ValueError: the layers do not fit together; the message names the layer.
  """
  if not layers:
    raise ValueError('`layers` must hold at least one layer, got none.')
  every = list(_flat(layers))
  space = _takes_space(layers)
  ndims = {layer.ndim for layer in every} - {None}
  if len(ndims) > 1:
    raise ValueError('Layers for images and for sequences do not fit together: '
                     'all windows need the same number of sides, and '
                     '`LayerNorm` needs the channels among its axes.')
  end = _walk(layers, _Stream(space, False, False, True))
  if isinstance(end, tuple) and not isinstance(end, _Stream):
    raise ValueError('The last layer leaves branches: add `FanInSum()`.')
  if end.space:
    raise ValueError('The last layer leaves space: add `Flatten()`.')
  return (*ndims, 2)[0] if space else 0


def has_weights(layers: Sequence[Layer]) -> bool:
  """Whether any of the layers has, also within branches."""
  return any(layer.weights for layer in _flat(layers))


def _flat(layers) -> Iterator[Layer]:
  for layer in layers:
    if not isinstance(layer, Layer):
      raise ValueError(f'`layers` must be `Layer` values, got {layer!r}.')
    yield layer
    for branch in layer.branches:
      yield from _flat(branch)


def _takes_space(layers) -> bool:
  """Whether the first layer that minds takes images."""
  for layer in layers:
    if layer.flattens and layer.spatial is None:
      return False  # Vectors, or images to be flattened at once.
    if layer.spatial is not None:
      return layer.spatial
    for branch in layer.branches:
      if any(inner.spatial is not None or inner.flattens
             for inner in _flat(branch)):
        return _takes_space(branch)
  return False


def _walk(layers, stream):
  for layer in layers:
    many = not isinstance(stream, _Stream)
    if many != (bool(layer.branches) or layer.fans < 0):
      raise ValueError(
          f'`{layer.name}` needs one stream, but there are branches: join them '
          'by `FanInSum()`.' if many else
          f'`{layer.name}` needs branches: add `FanOut()` before.')
    if layer.fans > 0:
      stream = (stream._replace(weights=False),) * layer.fans
    elif layer.branches:
      if len(layer.branches) != len(stream):
        raise ValueError(f'`{layer.name}` has {len(layer.branches)} branches, '
                         f'but there are {len(stream)}.')
      stream = tuple(map(_walk, layer.branches, stream))
    elif layer.fans < 0:
      stream = _join(layer, stream)
    else:
      stream = _step(layer, stream)
  return stream


def _join(layer, streams):
  if not all(isinstance(s, _Stream) for s in streams):
    raise ValueError(f'`{layer.name}` needs branches that are joined inside.')
  if len({s.space for s in streams}) > 1:
    raise ValueError(f'`{layer.name}` needs branches that all have space, or '
                     'none: add `Flatten()` to the others.')
  if sum(not s.weights for s in streams) > 1:
    raise ValueError(f'`{layer.name}` needs independent branches: at most one '
                     'may be without weights.')
  if layer.fans == -1 and not all(s.gaussian for s in streams):
    raise ValueError(f'`{layer.name}` needs Gaussian branches: the last of '
                     'their layers must be linear, with weights before.')
  return _Stream(streams[0].space, layer.name == 'FanInSum', True,
                 all(s.sized for s in streams))


def _step(layer, stream):
  if layer.spatial and not stream.space:
    raise ValueError(f'`{layer.name}` needs images, but space was flattened.')
  if layer.spatial is False and stream.space:
    raise ValueError(f'`{layer.name}` needs vectors: add `Flatten()` before.')
  if layer.centred and not stream.gaussian:
    raise ValueError(
        f'`{layer.name}` needs Gaussian inputs, whose mean over channels is 0: '
        'the layers before it must end in `Dense` or `Conv`.')
  if layer.standard and not stream.sized:
    raise ValueError(f'`{layer.name}` needs the width of the layer with '
                     'weights before it: give that one `width`.')
  return _Stream(
      stream.space and not layer.flattens,
      layer.weights or (stream.gaussian and not layer.nonlinear),
      stream.weights or layer.weights,
      layer.width is not None if layer.weights else stream.sized)
