"""Distilled sets that others have released, and their kinds of files.

Code of the field saves images (S, C, H, W), often standardised, and labels (S,)
in one or two files of PyTorch, or of NumPy, or as pictures. `read_set` reads
them as they are, and `convert` makes an `.npz` of what was standardised.
"""
from collections.abc import Sequence
import os
import pathlib
from typing import Any

import numpy as np

from dsr import checks
from dsr.data import files, folders, torch_file

TORCH = ('.pt', '.pth')
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
  """
  x = read('images', images)
  if x.ndim != 4:
    raise ValueError('`images` must have shape (S, C, H, W) or (S, H, W, C), '
                     f'got {x.shape}.')
  x = _last(x)
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
  """
  path = pathlib.Path(path)
  if path.suffix == '.npy':
    return files.read_npy(name, path)
  if path.suffix not in TORCH:
    raise ValueError(f'`{name}` must be a .pt or .npy file, got {path}.')
  found = _only(torch_file.read(name, path))
  if not isinstance(found, np.ndarray):
    raise ValueError(f'`{name}` must hold one tensor, {path} has '
                     f'{type(found).__name__}.')
  return found


def is_set(path: str | os.PathLike) -> bool:
  """Whether `read_set` takes `path`: by its suffix, or its pictures."""
  return pathlib.Path(path).suffix in ('.npz', *TORCH) or bool(
      folders.classes_of(folders.parse(path)[0]))


def files_of(path: str | os.PathLike) -> list[pathlib.Path]:
  """The files that a set consists of."""
  if folders.is_folder(path):
    folder, _ = folders.parse(path)
    return [f for c in folders.classes_of(folder)
            for f in folders.files_of(folder / c)]
  path = pathlib.Path(os.path.expanduser(path))
  labels = _labels_of(path)
  return [path] if labels is None or not labels.exists() else [path, labels]


def read_set(name: str, path: str | os.PathLike) -> tuple[
    dict[str, np.ndarray], tuple[str, ...]]:
  """A set as arrays, `images` and `labels` among them, and notes on it.

  Args:
    name: of the argument or flag that gave the path, for messages.
    path: of an `.npz`, whose arrays these are; of a `.pt` with images and
      labels, or with images alone, of which the labels are in the file whose
      name has `label` in the place of `image`; or of a folder of pictures by
      class, perhaps with a size (`dsr.data.folders`).

  Raises:
    ValueError: no such file, or one that holds something else.
  """
  if folders.is_folder(path):
    folder, size = folders.parse(path)
    found = folders.read(name, folder, size=size)
    return {'images': found.x, 'labels': np.array(found.classes)[found.y]}, (
        found.notes)
  path = pathlib.Path(os.path.expanduser(path))
  if path.suffix not in TORCH:
    return files.read_npz(name, path), ()
  found, notes = _pair(torch_file.read(name, path))
  if isinstance(found, np.ndarray):
    labels = _labels_of(path)
    if labels is None:
      raise ValueError(f'`{name}` must have labels beside images, {path} has '
                       'one tensor: have both in one file, or call them '
                       'images.pt and labels.pt.')
    found = found, read(name, labels)
  if not (isinstance(found, tuple) and len(found) == 2 and all(
      isinstance(a, np.ndarray) for a in found)):
    raise ValueError(f'`{name}` must hold images and labels as two tensors, '
                     f'{path} has {type(found).__name__}.')
  return {'images': _last(found[0]), 'labels': found[1]}, notes


def _labels_of(path: pathlib.Path) -> pathlib.Path | None:
  other = path.name.replace('image', 'label')
  return None if path.suffix not in TORCH or other == path.name else (
      path.with_name(other))


def _pair(found: Any) -> tuple[Any, tuple[str, ...]]:
  """(images, labels), or the images alone, in what codes of the field save."""
  notes = ()
  if isinstance(found, dict) and {'images', 'labels'} <= found.keys():
    return (found['images'], found['labels']), notes
  if isinstance(found, dict) and 'data' in found:  # Of DC, DSA and DM.
    found = found['data']
    if isinstance(found, (list, tuple)) and len(found) > 1 and not isinstance(
        found[0], np.ndarray):
      notes, found = (f'the first of {len(found)} sets in the file',), found[0]
  found = _only(found)
  return tuple(found) if isinstance(found, list) else found, notes


def _only(found: Any) -> Any:
  """What is in `found`, a list, tuple or dictionary of one, or itself."""
  while isinstance(found, (list, tuple, dict)) and len(found) == 1:
    found = next(iter(found.values() if isinstance(found, dict) else found))
  return found


def _last(x: np.ndarray) -> np.ndarray:
  """Images with their channels last."""
  if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[-1] not in (1, 3):
    return np.moveaxis(x, 1, -1)
  return x
