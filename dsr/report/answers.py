"""Figures of an audit: ROC curves, accuracy under attack, accuracy by class.

Each writes a PNG and an SVG beside it. Nothing is computed here but places.
"""
from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from dsr import checks
from dsr.report import canvas

_PLACES = 400  # On the logarithmic axis, where a ROC curve is drawn.
_CELL = 0.62, 0.42  # Inches of a cell of the table.
_WRAP = 28  # Characters on a line of a row's name.


def roc(
    path: str | os.PathLike, curves: Mapping[str, Sequence[Any]], *,
    xlabel: str = 'false positive rate', ylabel: str = 'true positive rate',
    title: str = '', floor: float | None = None) -> pathlib.Path:
  """Draws ROC curves on two logarithmic axes, and the diagonal of guessing.

  The names stand in the order of the curves at the left edge, where an attack
  that is sure of a few members shows. Between the points of a curve the rates
  are linear, as if thresholds were drawn by lot.

  Args:
    path: of the PNG or of the SVG; both are written.
    curves: name to (fpr (G,), tpr (G,)), rates that never fall, from (0, 0) to
      (1, 1); a `membership.Roc` will do.
    xlabel: under the horizontal axis.
    ylabel: beside the vertical axis.
    title: stands above.
    floor: where both axes begin; default: the smallest rate above 0, i.e.
      1/n of the non-members, or 1e-4 if that is larger.

  Returns:
    The path of the PNG. arXiv:2112.03570 says why the axes are logarithmic.

  Raises:
    ValueError: nothing to draw, or no such rates.
  """
  path = canvas.either(path)
  if not curves:
    raise ValueError('`curves` must not be empty.')
  curves = {name: _rates(f'curves[{name!r}]', curve)
            for name, curve in curves.items()}
  if floor is None:
    above = min(fpr[fpr > 0].min() for fpr, _ in curves.values())
    floor = float(np.clip(above, 1e-4, 0.1))
  if not 0 < floor < 1:
    raise ValueError(f'`floor` must be between 0 and 1, got {floor}.')
  places = np.geomspace(floor, 1, _PLACES)
  lines = {name: np.interp(places, *curve) for name, curve in curves.items()}
  figure, axes = canvas.plot(
      xlabel=xlabel, ylabel=ylabel, title=title, log_x=True, log_y=True)
  axes.plot([floor, 1], [floor, 1], color=canvas.SOFT, linewidth=0.8,
            linestyle=(0, (4, 3)), label='guessing')
  for i, (name, tpr) in enumerate(lines.items()):
    axes.plot(places, np.maximum(tpr, floor / 10), label=name, linewidth=1.4,
              **canvas.style(i))
  axes.set_xlim(floor, 1)
  axes.set_ylim(floor, 1.1)
  left = sorted(lines, key=lambda name: -lines[name][0])
  canvas.legend(figure, axes, [*left, 'guessing'])
  return canvas.save_both(figure, path)


def against_epsilon(
    path: str | os.PathLike, series: Mapping[str, Sequence[Any]], *,
    xlabel: str = 'epsilon', ylabel: str = 'accuracy under attack (%)',
    title: str = '') -> pathlib.Path:
  """Draws accuracies against the strength of an attack, intervals as bands.

  Args:
    path: of the PNG or of the SVG; both are written.
    series: name to (epsilons (E,), values (E,), lows (E,), highs (E,)), the
      last three shares, drawn in percent.
    xlabel: the strength and its unit.
    ylabel: beside the vertical axis.
    title: stands above.

  Returns:
    The path of the PNG.

  Raises:
    ValueError: nothing to draw, different lengths, or no finite numbers.
  """
  path = canvas.either(path)
  lines = _vectors(series, ('epsilons', 'values', 'lows', 'highs'))
  figure, axes = canvas.plot(xlabel=xlabel, ylabel=ylabel, title=title)
  for i, (name, columns) in enumerate(lines.items()):
    epsilons, value, low, high = columns[:, np.argsort(columns[0])]
    look = canvas.style(i)
    axes.fill_between(epsilons, 100 * low, 100 * high, color=look['color'],
                      alpha=0.12, linewidth=0)
    axes.plot(epsilons, 100 * value, label=name, linewidth=1.4, marker='o',
              markersize=3.5, **look)
  axes.set_ylim(0, 101)
  axes.margins(x=0.02)
  canvas.legend(figure, axes)
  return canvas.save_both(figure, path)


def by_group(
    path: str | os.PathLike, series: Mapping[str, Sequence[Any]], *,
    xlabel: str = 'class', label: str = 'accuracy (%), darker is lower',
    title: str = '') -> pathlib.Path:
  """Draws a table: a row for each set, a column for each group.

  A cell tells the share and its interval, in percent; the lower, the darker.

  Args:
    path: of the PNG or of the SVG; both are written.
    series: name to (groups (G,), values (G,), lows (G,), highs (G,)); groups
      that a set lacks stay empty.
    xlabel: what the groups are.
    label: of the colours.
    title: stands above.

  Returns:
    The path of the PNG.

  Raises:
    ValueError: nothing to draw, different lengths, or no finite numbers.
  """
  import textwrap

  path = canvas.either(path)
  own = {name: [str(group) for group in entry[0]]
         for name, entry in series.items()}
  shares = _vectors({name: entry[1:] for name, entry in series.items()},
                    ('values', 'lows', 'highs'))
  groups = list(dict.fromkeys(g for names in own.values() for g in names))
  table = np.full((3, len(own), len(groups)), np.nan)
  for i, (name, columns) in enumerate(shares.items()):
    if len(set(own[name])) != columns.shape[1]:
      raise ValueError(
          f'`series[{name!r}]` must name {columns.shape[1]} different groups, '
          f'got {own[name]}.')
    table[:, i, [groups.index(group) for group in own[name]]] = 100 * columns
  names = [textwrap.fill(name, _WRAP) for name in own]
  figure, axes = canvas.plot(xlabel=xlabel, ylabel='', title=title)
  longest = max(len(line) for name in names for line in name.split('\n'))
  figure.set_size_inches(
      max(4.0, 1.4 + 0.075 * longest + _CELL[0] * len(groups)),
      1.1 + _CELL[1] * len(names))
  _fill(figure, axes, table, label)
  axes.set_xticks(np.arange(len(groups)) + 0.5, groups)
  axes.set_yticks(np.arange(len(names)) + 0.5, names)
  axes.invert_yaxis()
  axes.grid(visible=False)
  axes.spines[:].set_visible(False)
  axes.tick_params(length=0)
  return canvas.save_both(figure, path)


def _fill(figure, axes, table, label):
  """Colours the cells of (values, lows, highs) and letters them."""
  from matplotlib import colors

  shade = colors.LinearSegmentedColormap.from_list(
      'shade', ['#1b4f72', '#7fb0d3', '#cfe1ef', '#f6fafd'])
  low, high = np.nanmin(table[0]), np.nanmax(table[0])
  mesh = axes.pcolormesh(
      np.ma.masked_invalid(table[0]), cmap=shade, edgecolors='white',
      linewidth=1.5, vmin=low, vmax=high if high > low else low + 1)
  for (i, j), value in np.ndenumerate(table[0]):
    if np.isnan(value):
      continue
    color = 'white' if _luminance(mesh.to_rgba(value)) < 0.18 else 'black'
    axes.text(j + 0.5, i + 0.36, f'{value:.1f}', fontsize=8.5, ha='center',
              va='center', color=color)
    axes.text(j + 0.5, i + 0.74, f'{table[1, i, j]:.0f}–{table[2, i, j]:.0f}',
              fontsize=6, ha='center', va='center', color=color)
  bar = figure.colorbar(mesh, ax=axes, aspect=30, pad=0.02, fraction=0.04)
  bar.set_label(label, fontsize=8.5, color=canvas.INK)
  bar.outline.set_visible(False)
  bar.ax.tick_params(labelsize=8, color=canvas.FAINT, labelcolor=canvas.INK)


def _luminance(color) -> float:
  """Of sRGB; white and black letters are equally legible on 0.18 (WCAG 2)."""
  rgb = np.asarray(color[:3])
  linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
  return float(linear @ [0.2126, 0.7152, 0.0722])


def _rates(name, curve):
  """(fpr, tpr) of a curve."""
  fpr, tpr = (np.asarray(rates, dtype=float) for rates in curve[:2])
  if fpr.ndim != 1 or fpr.shape != tpr.shape or not len(fpr):
    raise ValueError(f'`{name}` must be two vectors of one length, got shapes '
                     f'{fpr.shape} and {tpr.shape}.')
  for rates in (fpr, tpr):
    if not (rates[0] == 0 and rates[-1] == 1 and (np.diff(rates) >= 0).all()):
      raise ValueError(
          f'`{name}` must have rates that rise from 0 to 1, got {rates}.')
  return fpr, tpr


def _vectors(series, parts) -> dict[str, np.ndarray]:
  """Each entry as one finite array, a row for each part."""
  if not series:
    raise ValueError('`series` must not be empty.')
  lines = {}
  for name, entry in series.items():
    columns = [np.asarray(column, dtype=float) for column in entry]
    shapes = [column.shape for column in columns]
    if len(columns) != len(parts) or len(set(shapes)) > 1 or (
        columns[0].ndim != 1 or not columns[0].size):
      raise ValueError(f'`series[{name!r}]` must be {", ".join(parts)}: '
                       f'vectors of one length, got shapes {shapes}.')
    lines[name] = np.stack(columns)
    checks.finite(f'series[{name!r}]', lines[name])
  return lines
