"""Figures: grids of images, pairs, curves, scatter plots and those of an audit.

Arrays come in and a file comes out; `dsr.report` is the only room that draws.
Images in a grid are (R, K, H, W, C): R rows (classes), K images a row. One
channel is grey and three are RGB; of more the first three are drawn, of two the
first, and the title says so. Each pixel is a crisp square, never resampled.
"""
from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from dsr import checks
from dsr.report import canvas
from dsr.report.answers import against_epsilon, by_group, roc
from dsr.report.curves import loss_curve, reconstruction_curve, scatter
from dsr.report.trade_off import trade_off

__all__ = ['against_epsilon', 'by_group', 'image_grid', 'loss_curve',
           'neighbours', 'pairs', 'reconstruction_curve', 'roc', 'scatter',
           'side_by_side', 'trade_off']

_DPI = 100
_SIDE = 64  # Pixels to which the side of an image is enlarged, room allowing.
_LARGEST = 1600  # Pixels that all images together may then take, either way.
_GAP = 4  # Pixels between images.
_CAPTION = 40  # Pixels that the error under a pair may need.


def image_grid(
    path: str | os.PathLike, images, row_labels: Sequence[Any] | None = None, *,
    title: str = '', rescale: bool = False) -> pathlib.Path:
  """Draws images in rows by class, each pixel a crisp square.

  Args:
    path: of the PNG.
    images: (R, K, H, W, C) pixels; values outside [0, 1] are clipped.
    row_labels: R names, such as classes.
    title: stands above.
    rescale: stretch each image to [0, 1] by its own extremes, to show what
      clipping hides. Brightness then means nothing between images.

  Returns:
    `path`.

  Raises:
    ValueError: a wrong shape, NaN, or not R labels.
  """
  return _draw_grids(path, {'': images}, row_labels, title, rescale)


def side_by_side(
    path: str | os.PathLike, grids: Mapping[str, Any],
    row_labels: Sequence[Any] | None = None, *,
    title: str = '', rescale: bool = False) -> pathlib.Path:
  """Image grids of the same rows beside each other, each under its name.

  Args:
    path: of the PNG.
    grids: name to (R, K, H, W, C) pixels; K may differ.
    row_labels: as in `image_grid`.
    title: as in `image_grid`.
    rescale: as in `image_grid`.

  Returns:
    `path`.

  Raises:
    ValueError: as in `image_grid`, or grids of different R, H, W or C.
  """
  return _draw_grids(path, grids, row_labels, title, rescale)


def pairs(
    path: str | os.PathLike, originals, reconstructions, errors, *,
    per_row: int = 20, title: str = '', max_pairs: int = 200,
    names: tuple[str, str] = ('original', 'rebuilt')) -> pathlib.Path:
  """Draws each image above its reconstruction and error, best pairs first.

  Args:
    path: of the PNG.
    originals: (N, H, W, C) pixels; values outside [0, 1] are clipped.
    reconstructions: (N, H, W, C), in the same order.
    errors: (N,) numbers to sort by; where one is infinite, there is no
      reconstruction and a grey square stands for it.
    per_row: pairs side by side, as far as they fit.
    title: stands above. It says so if not all pairs are drawn.
    max_pairs: of more than these, as many are drawn, evenly spaced by rank from
      the best to the worst.
    names: what the upper and the lower images are called.

  Returns:
    `path`.

  Raises:
    ValueError: wrong or different shapes, NaN, `per_row` or `max_pairs` below
      1.
  """
  checks.at_least('per_row', per_row, 1)
  checks.at_least('max_pairs', max_pairs, 1)
  title = _noted(title, np.shape(originals))
  images = _check_pairs(originals, reconstructions, errors)
  errors = np.asarray(errors, dtype=float)
  total = len(errors)
  order = np.argsort(errors, kind='stable')
  if total > max_pairs:
    order = order[np.linspace(0, total - 1, max_pairs).round().astype(int)]
    title = (f'{title} ({max_pairs} of {total}, evenly spaced by '
             'rank)').strip()
  images, errors = images[:, order], errors[order]
  absent = tuple(int(canvas.FAINT[i:i + 2], 16) / 255 for i in (1, 3, 5))
  count, height, width, _ = images.shape[1:]
  images = np.broadcast_to(images, (2, count, height, width, 3)).copy()
  images[1, np.isinf(errors)] = absent

  across = min(per_row, count, max(1, _LARGEST // width))
  scale = max(1, min(_SIDE // max(height, width), _LARGEST // (across * width)))
  images = images.repeat(scale, axis=2).repeat(scale, axis=3)
  height, width = height * scale, width * scale
  # A pair is 2 pixels apart, pairs 8 and rows of pairs 30 with their captions:
  # what belongs together stands together.
  step_x = max(width + 2 * _GAP, _CAPTION)
  step_y = 2 * height + 2 + 30
  rows = -(-count // across)
  left = max(72, 12 + 7 * max(map(len, names)))
  top = 20 + 24 * bool(title)
  full_width = max(left + across * step_x + 8, 32 + 8 * len(title))
  full_height = top + rows * step_y
  page = np.ones((full_height, full_width, 3))
  figure = canvas.figure(full_width / _DPI, full_height / _DPI, _DPI)
  write = _writer(figure, full_width, full_height)
  for k, error in enumerate(errors):
    x, y = left + k % across * step_x, top + k // across * step_y
    for image, down in zip(images[:, k], (0, height + 2)):
      page[y + down:y + down + height, x:x + width] = image
    write(x + width / 2, y + 2 * height + 6, _short(error), fontsize=7.5,
          va='top', ha='center')
  for y in range(top, full_height, step_y):
    for name, down in zip(names, (0, height + 2), strict=True):
      write(left - 8, y + down + height / 2, name, fontsize=8.5, va='center',
            ha='right')
  if title:
    write(16, 14, title, fontsize=11, va='top', ha='left')
  figure.figimage(page, origin='upper', zorder=-1)
  return canvas.save(figure, path)


def neighbours(
    path: str | os.PathLike, images, nearest, distances, *,
    per_row: int = 20, title: str = '',
    max_pairs: int = 100) -> pathlib.Path:
  """Draws each distilled image above its nearest training image.

  Args:
    path: of the PNG; pixels have no SVG.
    images: (N, H, W, C) distilled pixels; values outside [0, 1] are clipped.
    nearest: (N, H, W, C), the training image nearest to each.
    distances: (N,) between them, to sort by.
    per_row: as in `pairs`.
    title: stands above, e.g. with the distance's unit.
    max_pairs: as in `pairs`.

  Returns:
    `path`.

  Raises:
    ValueError: as in `pairs`.
  """
  return pairs(path, images, nearest, distances, per_row=per_row, title=title,
               max_pairs=max_pairs, names=('distilled', 'nearest'))


def _draw_grids(path, grids, row_labels, title, rescale):
  """Composes all images on one canvas at a whole-number scale, then letters."""
  if grids:
    title = _noted(title, np.shape(next(iter(grids.values()))))
  grids = {name: _pixels(f'images {name}'.strip(), grid, rescale)
           for name, grid in grids.items()}
  _check_grids(grids, row_labels)
  rows, _, height, width, _ = next(iter(grids.values())).shape
  across = sum(grid.shape[1] for grid in grids.values())
  fits = min(_SIDE // max(height, width), _LARGEST // (across * width),
             _LARGEST // (rows * height))
  scale = max(1, fits)
  blocks, starts, x = [], [], 0
  for name, grid in grids.items():
    block = _compose(grid, scale)
    spare = max(5 * _GAP, 8 * len(name) + _GAP - block.shape[1])
    blocks.append(np.pad(
        block, [(0, 0), (0, spare), (0, 0)], constant_values=1))
    starts.append(x)
    x += blocks[-1].shape[1]
  page = np.concatenate(blocks, axis=1)[:, :-5 * _GAP]
  labels = [str(label) for label in row_labels or ()]
  left = 16 + (8 + 7 * max(map(len, labels)) if labels else 0)
  headings = any(grids)
  top = 16 + 24 * bool(title) + 20 * headings
  full_width = max(left + page.shape[1] + 16, 32 + 8 * len(title))
  full_height = top + page.shape[0] + 16
  figure = canvas.figure(full_width / _DPI, full_height / _DPI, _DPI)
  # figimage places array pixels on figure pixels, without any resampling.
  figure.figimage(page, xo=left, yo=16, origin='upper')
  write = _writer(figure, full_width, full_height)
  if title:
    write(16, 14, title, fontsize=11, va='top', ha='left')
  for name, start in zip(grids, starts, strict=True):
    write(left + start, top - 6, name, fontsize=9, va='bottom', ha='left')
  for i, label in enumerate(labels):
    middle = top + i * (height * scale + _GAP) + height * scale / 2
    write(left - 8, middle, label, fontsize=9, va='center', ha='right')
  return canvas.save(figure, path)


def _pixels(name, images, rescale):
  images = np.asarray(images, dtype=float)
  if images.ndim != 5 or not images.size:
    raise ValueError(f'`{name}` must have shape (R, K, H, W, C), got '
                     f'{images.shape}.')
  images = images[..., :3 if images.shape[-1] >= 3 else 1]
  if not np.isfinite(images).all():
    raise ValueError(f'`{name}` must be finite, got NaN or infinity.')
  if rescale:
    low = images.min(axis=(2, 3, 4), keepdims=True)
    span = images.max(axis=(2, 3, 4), keepdims=True) - low
    images = (images - low) / np.where(span == 0, 1, span)
  return np.clip(images, 0, 1)


def _noted(title: str, shape: tuple[int, ...]) -> str:
  """`title`, and which of the channels are drawn if not all are."""
  channels = shape[-1] if shape else 0
  if channels in (0, 1, 3):
    return title
  drawn = 'the first channel' if channels == 2 else 'channels 1 to 3'
  return f'{title} ({drawn} of {channels})'.strip()


def _check_grids(grids, row_labels):
  if not grids:
    raise ValueError('`grids` must not be empty.')
  shapes = {name: grid.shape[:1] + grid.shape[2:]
            for name, grid in grids.items()}
  if len(set(shapes.values())) > 1:
    raise ValueError(f'`grids` must agree in (R, H, W, C), got {shapes}.')
  rows = next(iter(shapes.values()))[0]
  if row_labels is not None and len(row_labels) != rows:
    raise ValueError(
        f'`row_labels` must be {rows} names, got {len(row_labels)}.')


def _compose(images, scale):
  """(R, K, H, W, C) to one RGB array, white between the enlarged images."""
  images = np.broadcast_to(images, (*images.shape[:-1], 3))
  images = images.repeat(scale, axis=2).repeat(scale, axis=3)
  edges = [(0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0)]
  images = np.pad(images, edges, constant_values=1)
  rows, across, height, width, _ = images.shape
  page = images.transpose(0, 2, 1, 3, 4).reshape(
      rows * height, across * width, 3)
  return page[:-_GAP, :-_GAP]


def _check_pairs(originals, reconstructions, errors):
  """Both sets as (2, N, H, W, C)."""
  shapes = [np.shape(a) for a in (originals, reconstructions)]
  if len(shapes[0]) != 4 or shapes[0] != shapes[1]:
    raise ValueError('`originals` and `reconstructions` must have one shape '
                     f'(N, H, W, C), got {shapes[0]} and {shapes[1]}.')
  if np.shape(errors) != shapes[0][:1]:
    raise ValueError(f'`errors` must have shape {shapes[0][:1]}, got '
                     f'{np.shape(errors)}.')
  if np.isnan(errors).any():
    raise ValueError('`errors` must not be NaN.')
  both = {'originals': originals, 'reconstructions': reconstructions}
  return np.concatenate([_pixels(name, np.asarray(images)[None], False)
                         for name, images in both.items()])


def _short(error: float) -> str:
  """A number in five characters or so."""
  if np.isinf(error):
    return 'none'
  if error == 0:
    return '0'
  if abs(error) >= 0.0995:
    return f'{error:.2f}' if abs(error) < 10 else f'{error:.3g}'
  if abs(error) >= 0.001:
    return f'{error:.3f}'
  mantissa, exponent = f'{error:.0e}'.split('e')
  return f'{mantissa}e{int(exponent)}'


def _writer(figure, width: int, height: int):
  """Text at pixels (x, y) from the top left corner."""
  def write(x, y, text, **kwargs):
    figure.text(x / width, 1 - y / height, text, color=canvas.INK, **kwargs)
  return write
