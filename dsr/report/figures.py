"""Figures: grids of images and loss curves, as PNG.

The only module that draws. Matplotlib is imported inside the functions and
used without pyplot, on the Agg canvas: no window, no global state. Images are
(R, K, H, W, C): R rows (classes), K images a row, C = 1 (grey) or 3 (RGB).
"""
from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from dsr.report import records

_DPI = 100
_SIDE = 64  # Pixels to which the side of an image is enlarged, room allowing.
_LARGEST = 1600  # Pixels that all images together may then take, either way.
_GAP = 4  # Pixels between images.
_INK = '#222222'
_FAINT = '#d9d9d9'
# Okabe & Ito (2008): told apart with any colour vision, and in grey print.
_COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9',
           _INK)


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


def loss_curve(
    path: str | os.PathLike, series: Mapping[str, tuple], *,
    xlabel: str = 'step', ylabel: str = 'loss', title: str = '',
    log: bool = False) -> pathlib.Path:
  """Draws thin lines, with a legend if there are several.

  Args:
    path: of the PNG.
    series: name to (steps (N,), values (N,)); values that are not finite leave
      gaps.
    xlabel: under the horizontal axis.
    ylabel: beside the vertical axis.
    title: stands above.
    log: logarithmic vertical axis; values at or below zero leave gaps.

  Returns:
    `path`.

  Raises:
    ValueError: nothing to draw, or steps and values of different lengths.
  """
  if not series:
    raise ValueError('`series` must not be empty.')
  lines = {}
  for name, (steps, values) in series.items():
    steps, values = np.asarray(steps), np.asarray(values, dtype=float)
    if steps.ndim != 1 or steps.shape != values.shape:
      raise ValueError(f'`series[{name!r}]` must be two vectors of one length, '
                       f'got shapes {steps.shape} and {values.shape}.')
    good = np.isfinite(values) & ((values > 0) | (not log))
    if not good.any():
      raise ValueError(f'`series[{name!r}]` must have a value that is finite'
                       f'{" and positive" if log else ""}, got none.')
    lines[name] = steps, np.where(good, values, np.nan)
  figure = _figure(6.4, 4.0, dpi=200)
  figure.set_layout_engine('constrained')
  axes = figure.subplots()
  for i, (name, (steps, values)) in enumerate(lines.items()):
    axes.plot(steps, values, label=name, color=_COLORS[i % len(_COLORS)],
              linewidth=1.2, marker='o' if len(steps) == 1 else None)
  axes.set_yscale('log' if log else 'linear')
  axes.set_xlabel(xlabel, color=_INK)
  axes.set_ylabel(ylabel, color=_INK)
  axes.set_title(title, loc='left', fontsize=11, color=_INK)
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(_FAINT)
  axes.tick_params(which='both', color=_FAINT, labelcolor=_INK, labelsize=9)
  axes.grid(axis='y', color=_FAINT, linewidth=0.5)
  axes.set_axisbelow(True)
  axes.margins(x=0.01)
  if len(lines) > 1:
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
  return _save(figure, path)


def _draw_grids(path, grids, row_labels, title, rescale):
  """Composes all images on one canvas at a whole-number scale, then letters."""
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
  canvas = np.concatenate(blocks, axis=1)[:, :-5 * _GAP]
  labels = [str(label) for label in row_labels or ()]
  left = 16 + (8 + 7 * max(map(len, labels)) if labels else 0)
  headings = any(grids)
  top = 16 + 24 * bool(title) + 20 * headings
  full_width = max(left + canvas.shape[1] + 16, 32 + 8 * len(title))
  full_height = top + canvas.shape[0] + 16
  figure = _figure(full_width / _DPI, full_height / _DPI, _DPI)
  # figimage places array pixels on figure pixels, without any resampling.
  figure.figimage(canvas, xo=left, yo=16, origin='upper')
  write = lambda x, y, text, **kwargs: figure.text(
      x / full_width, 1 - y / full_height, text, color=_INK, **kwargs)
  if title:
    write(16, 14, title, fontsize=11, va='top', ha='left')
  for name, start in zip(grids, starts, strict=True):
    write(left + start, top - 6, name, fontsize=9, va='bottom', ha='left')
  for i, label in enumerate(labels):
    middle = top + i * (height * scale + _GAP) + height * scale / 2
    write(left - 8, middle, label, fontsize=9, va='center', ha='right')
  return _save(figure, path)


def _pixels(name, images, rescale):
  images = np.asarray(images, dtype=float)
  if images.ndim != 5 or images.shape[-1] not in (1, 3) or not images.size:
    raise ValueError(f'`{name}` must have shape (R, K, H, W, C) with C = 1 or '
                     f'3, got {images.shape}.')
  if not np.isfinite(images).all():
    raise ValueError(f'`{name}` must be finite, got NaN or infinity.')
  if rescale:
    low = images.min(axis=(2, 3, 4), keepdims=True)
    span = images.max(axis=(2, 3, 4), keepdims=True) - low
    images = (images - low) / np.where(span == 0, 1, span)
  return np.clip(images, 0, 1)


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
  canvas = images.transpose(0, 2, 1, 3, 4).reshape(
      rows * height, across * width, 3)
  return canvas[:-_GAP, :-_GAP]


def _figure(width: float, height: float, dpi: int):
  """An empty white figure of that many inches."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), dpi=dpi)
  FigureCanvasAgg(figure)
  return figure


def _save(figure, path) -> pathlib.Path:
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with records.replacing(path) as part:
    figure.savefig(part, format='png')
  return path
