"""Curves and scatter plots; `dsr.report.figures` offers them beside the grids.

What cannot be drawn is never dropped in silence: lines show gaps, and the title
of a scatter plot counts the points that are missing.
"""
from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from dsr import checks
from dsr.report import canvas

_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
_LONGEST = 12  # Letters beside a point.


def loss_curve(
    path: str | os.PathLike, series: Mapping[str, tuple], *,
    xlabel: str = 'step', ylabel: str = 'loss', title: str = '',
    log: bool = False, log_x: bool = False) -> pathlib.Path:
  """Draws thin lines, with a legend if there are several.

  Args:
    path: of the PNG.
    series: name to (steps (N,), values (N,)); values that are not finite leave
      gaps.
    xlabel: under the horizontal axis.
    ylabel: beside the vertical axis.
    title: stands above.
    log: logarithmic vertical axis; values at or below zero leave gaps.
    log_x: logarithmic horizontal axis, likewise.

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
    good &= (steps > 0) | (not log_x)
    if not good.any():
      raise ValueError(
          f'`series[{name!r}]` must have a positive step, got none.')
    lines[name] = steps, np.where(good, values, np.nan)
  figure, axes = canvas.plot(
      xlabel=xlabel, ylabel=ylabel, title=title, log_x=log_x, log_y=log)
  for i, (name, (steps, values)) in enumerate(lines.items()):
    axes.plot(steps, values, label=name, color=_color(i), linewidth=1.2,
              marker='o' if len(steps) == 1 else None)
  axes.margins(x=0.01)
  if len(lines) > 1:
    axes.legend(frameon=False, fontsize=9, labelcolor=canvas.INK)
  return canvas.save(figure, path)


def reconstruction_curve(
    path: str | os.PathLike, series: Mapping[str, Any], *,
    thresholds: Sequence[float] = (),
    published: Mapping[str, tuple] | None = None, ylabel: str = 'RMSE',
    title: str = '', floor: float = 1e-6) -> pathlib.Path:
  """Draws the error of the i-th best image against i, on a logarithmic axis.

  Args:
    path: of the PNG.
    series: name to errors (N,) in any order; infinite ones, of images that
      have no reconstruction, end the line early.
    thresholds: drawn as dotted lines, in the unit of the errors.
    published: name to (indices (K,), errors (K,)), drawn as open points.
    ylabel: the error.
    title: stands above.
    floor: smaller errors are drawn as this one.

  Returns:
    `path`.

  Raises:
    ValueError: nothing to draw, NaN, negative errors, or published indices and
      errors of different lengths.
  """
  if not series:
    raise ValueError('`series` must not be empty.')
  checks.positive('floor', floor)
  for threshold in thresholds:
    checks.positive('thresholds', threshold)
  lines = {name: np.sort(_errors(f'series[{name!r}]', errors))
           for name, errors in series.items()}
  figure, axes = canvas.plot(xlabel='image, best first', ylabel=ylabel,
                             title=title, log_y=True)
  for i, (name, errors) in enumerate(lines.items()):
    axes.plot(np.maximum(errors, floor), label=name, color=_color(i),
              linewidth=1.6, marker='o' if len(errors) == 1 else None)
  for i, (name, (index, errors)) in enumerate((published or {}).items()):
    errors = _errors(f'published[{name!r}]', errors)
    if np.shape(index) != errors.shape:
      raise ValueError(f'`published[{name!r}]` must be two vectors of one '
                       f'length, got {np.shape(index)} and {errors.shape}.')
    axes.plot(index, np.maximum(errors, floor), label=name, color=canvas.INK,
              marker=_MARKERS[i % len(_MARKERS)], markersize=4.5,
              markerfacecolor='white', linewidth=0.8, linestyle='--')
  for threshold in thresholds:
    axes.axhline(threshold, color=canvas.SOFT, linewidth=0.8, linestyle=':')
    axes.annotate(f'{threshold:g}', (1, threshold), (3, 0), fontsize=8,
                  xycoords=('axes fraction', 'data'), color=canvas.SOFT,
                  textcoords='offset points', va='center')
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.margins(x=0.01)
  if len(lines) + len(published or {}) > 1:
    axes.legend(frameon=False, fontsize=9, labelcolor=canvas.INK)
  return canvas.save(figure, path)


def scatter(
    path: str | os.PathLike, x, y, *, xlabel: str = '', ylabel: str = '',
    title: str = '', log_x: bool = False, log_y: bool = False,
    groups: Sequence[Any] | None = None, labels: Sequence[Any] | None = None,
    join: bool = False) -> pathlib.Path:
  """Draws points, each group in a colour and a marker of its own.

  Args:
    path: of the PNG.
    x: (N,) numbers.
    y: (N,) numbers.
    xlabel: under the horizontal axis.
    ylabel: beside the vertical axis.
    title: stands above, e.g. with a correlation. It also counts the points that
      are infinite, or not positive on a logarithmic axis.
    log_x: logarithmic horizontal axis.
    log_y: logarithmic vertical axis.
    groups: (N,) labels; several get a legend, in order of appearance.
    labels: (N,) short texts beside the points; none if they are all the same.
    join: link the points of a group by a thin line, in the order given.

  Returns:
    `path`.

  Raises:
    ValueError: vectors of different lengths, or no point that can be drawn.
  """
  x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
  if x.ndim != 1 or x.shape != y.shape:
    raise ValueError(f'`x` and `y` must be two vectors of one length, got '
                     f'shapes {x.shape} and {y.shape}.')
  groups = [''] * len(x) if groups is None else [str(g) for g in groups]
  if len(groups) != len(x):
    raise ValueError(
        f'`groups` must be {len(x)} labels, got {len(groups)}.')
  good = np.isfinite(x) & np.isfinite(y)
  good &= ((x > 0) | (not log_x)) & ((y > 0) | (not log_y))
  if not good.any():
    raise ValueError('`x` and `y` must have a point that can be drawn, got '
                     'none.')
  if not good.all():
    title = f'{title} ({np.sum(~good)} of {len(x)} not drawn)'.strip()
  figure, axes = canvas.plot(
      xlabel=xlabel, ylabel=ylabel, title=title, log_x=log_x, log_y=log_y)
  names = list(dict.fromkeys(groups))
  for i, name in enumerate(names):
    rows = good & np.array([g == name for g in groups])
    axes.plot(x[rows], y[rows], label=name, color=_color(i), markersize=5,
              linestyle='-' if join else '', linewidth=0.8,
              marker=_marker(i), markeredgecolor='white', markeredgewidth=0.5)
  if labels is not None and len(set(labels)) > 1:
    for i in np.flatnonzero(good):
      axes.annotate(str(labels[i])[:_LONGEST], (x[i], y[i]), (4, 3),
                    textcoords='offset points', fontsize=7, color=canvas.SOFT)
  axes.margins(0.04)
  if len(names) > 1:
    figure.legend(loc='outside right upper', frameon=False, fontsize=9,
                  labelcolor=canvas.INK)
  return canvas.save(figure, path)


def _errors(name, errors):
  errors = np.asarray(errors, dtype=float)
  if errors.ndim != 1 or not np.isfinite(errors).any():
    raise ValueError(f'`{name}` must be a vector with a finite value, got '
                     f'shape {errors.shape}.')
  if not (errors >= 0).all():
    raise ValueError(f'`{name}` must have no NaN and nothing below 0.')
  return errors


def _color(i: int) -> str:
  return canvas.COLORS[i % len(canvas.COLORS)]


def _marker(i: int) -> str:
  """Goes on to the next one when the colours begin again."""
  return _MARKERS[(i + i // len(canvas.COLORS)) % len(_MARKERS)]
