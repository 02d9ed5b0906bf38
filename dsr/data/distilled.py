"""Distilled sets as files: what `experiments.distill` writes, read again."""
import os
from typing import NamedTuple

import numpy as np

from dsr.data import files, transforms

_PREFIX = 'transform_'


class Distilled(NamedTuple):
  """A distilled set, S images or rows of a table.

  Attributes:
    pixels: (S, H, W, C) or (S, D), before the transform.
    labels: (S,) classes.
    inputs: (S, ...), what models are trained on.
    targets: (S, C) encoded labels, learned ones perhaps.
    transform: from pixels to inputs; None in a file that was written without.
  """

  pixels: np.ndarray
  labels: np.ndarray
  inputs: np.ndarray
  targets: np.ndarray
  transform: transforms.Transform | None


def load_distilled(path: str | os.PathLike) -> Distilled:
  """The set that `experiments.distill` left in `path`, its `distilled.npz`.

  Raises:
    ValueError: the file cannot be read, or lacks an array.
  """
  arrays = files.read_npz('path', path)
  needed = ('images', 'labels', 'inputs', 'targets')
  if missing := [name for name in needed if name not in arrays]:
    raise ValueError('`path` must be a file that experiments.distill wrote, '
                     f'{path} lacks {", ".join(missing)}.')
  transform = None
  if f'{_PREFIX}name' in arrays:
    transform = from_arrays(arrays)
  return Distilled(*(arrays[name] for name in needed), transform)


def to_arrays(transform: transforms.Transform) -> dict[str, np.ndarray]:
  """A transform as numbers for an `.npz`, by names that begin `transform_`.

  The matrices of ZCA are stored in float32, the precision of the data.
  """
  names = '+'.join(name for name, _ in transform.parts)
  arrays = {f'{_PREFIX}name': np.frombuffer(names.encode(), np.uint8)}
  for i, (_, numbers) in enumerate(transform.parts):
    for key, value in numbers.items():
      large = value.dtype == np.float64 and value.ndim == 2 and len(value) > 1
      arrays[f'{_PREFIX}{i}_{key}'] = (
          value.astype(np.float32) if large else np.asarray(value))
  return arrays


def from_arrays(arrays: dict[str, np.ndarray]) -> transforms.Transform:
  """The transform of `to_arrays`; of float32 data, equal to the last bit.

  Raises:
    ValueError: numbers are missing, or of a transform that is not known.
  """
  try:
    names = arrays[f'{_PREFIX}name'].tobytes().decode().split('+')
    steps = []
    for i, name in enumerate(names):
      start = f'{_PREFIX}{i}_'
      own = {key.removeprefix(start): value for key, value in arrays.items()
             if key.startswith(start)}
      if name == 'zca':
        own['shape'] = tuple(int(n) for n in own['shape'])
        steps.append(transforms.whitening(**own))
      elif name == 'none':
        steps.append(transforms.identity())
      else:
        steps.append(transforms.affine(own['mean'], own['scale'], name))
  except (KeyError, TypeError, UnicodeDecodeError) as error:
    raise ValueError('`path` must have the numbers of its transform, which '
                     f'cannot be read: {error}.') from error
  return steps[0] if len(steps) == 1 else transforms.chain(*steps)
