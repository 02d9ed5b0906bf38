"""Distilled sets that others have released, as files of ours.

Code of the field saves images (S, C, H, W), often standardised, and labels (S,)
in two files of PyTorch, or of NumPy. `convert` makes of them an `.npz` that
`python -m experiments.audit --distilled=...` reads.
"""
from collections.abc import Sequence
import os
import pathlib
from typing import Any

import numpy as np

from dsr import checks
from dsr.data import files

_FAR = 5.0  # From the middle of [0, 1]; beyond it these are no pixels.


def convert(
    images: str | os.PathLike, labels: str | os.PathLike,
    out: str | os.PathLike, *, mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None) -> pathlib.Path:
  """Writes `images` (S, H, W, C) in pixels and `labels` (S,) to `out`.

  Args:
    images: a `.pt` or `.npy` file with (S, C, H, W) or (S, H, W, C).
    labels: a `.pt` or `.npy` file with (S,) integers, or (S, K) soft labels,
      which are kept as `soft_labels` beside their largest.
    out: an `.npz`.
    mean: (C,) of the standardisation that the images have; pixels are
      x * std + mean. Unset: the images are pixels.
    std: (C,).

  Returns:
    `out`.

  Raises:
    ValueError: a file that cannot be read, holds something else, or numbers far
      from pixels: then `mean` and `std` are missing.
    ImportError: a `.pt` file, and PyTorch is not installed.
  """
  x = read('images', images)
  if x.ndim != 4:
    raise ValueError('`images` must have shape (S, C, H, W) or (S, H, W, C), '
                     f'got {x.shape}.')
  if x.shape[1] in (1, 3) and x.shape[-1] not in (1, 3):
    x = np.moveaxis(x, 1, -1)
  x = x / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
  if (mean is None) != (std is None):
    raise ValueError('`mean` and `std` go together, got one of them.')
  if mean is not None:
    mean, std = (np.asarray(a, np.float32) for a in (mean, std))
    for name, value in (('mean', mean), ('std', std)):
      if value.shape != x.shape[-1:]:
        raise ValueError(f'`{name}` must have a number for each of '
                         f'{x.shape[-1]} channels, got shape {value.shape}.')
    x = x * std + mean
  checks.images('images', x)
  checks.finite('images', x)
  if np.abs(x - 0.5).max() > _FAR:
    raise ValueError('`images` must be near [0, 1], got values from '
                     f'{x.min():.4g} to {x.max():.4g}: give `mean` and `std`.')
  y, more = read('labels', labels), {}
  if y.ndim == 2:
    more, y = {'soft_labels': y.astype(np.float32)}, y.argmax(1)
  checks.class_indices('labels', y)
  checks.same_rows(images=x, labels=y)
  out = pathlib.Path(out)
  part = out.with_name(f'.{out.name}.{os.getpid()}.part')
  try:
    with open(part, 'wb') as file:
      np.savez_compressed(file, images=x, labels=y.astype(np.int32), **more)
    os.replace(part, out)
  finally:
    part.unlink(missing_ok=True)
  return out


def read(name: str, path: str | os.PathLike) -> np.ndarray:
  """The one array in a `.npy` or `.pt` file; nothing of it is executed.

  Raises:
    ValueError: no such file, or one that holds something else.
    ImportError: a `.pt` file, and PyTorch is not installed.
  """
  path = pathlib.Path(path)
  if path.suffix == '.npy':
    return files.read_npy(name, path)
  if path.suffix not in ('.pt', '.pth'):
    raise ValueError(f'`{name}` must be a .pt or .npy file, got {path}.')
  try:
    import torch
  except ImportError as error:
    raise ImportError(f'To read {path} install PyTorch: pip install torch.'
                      ) from error
  try:  # Tensors and plain containers alone: no code from the file.
    found = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # Of pickle, of ZIP, of the disk, of PyTorch.
    raise ValueError(
        f'`{name}` must be a file of tensors and plain containers, {path} is '
        f'not ({type(error).__name__}).') from error
  return _only(name, path, found)


def _only(name: str, path: pathlib.Path, found: Any) -> np.ndarray:
  """The tensor in `found`, or in a list or dict of one."""
  while isinstance(found, (list, tuple, dict)) and len(found) == 1:
    found = next(iter(found.values() if isinstance(found, dict) else found))
  if not hasattr(found, 'detach'):
    raise ValueError(f'`{name}` must hold one tensor, {path} has '
                     f'{type(found).__name__}.')
  return found.detach().cpu().numpy()
