"""One quality against another, e.g. accuracy against leakage, names at points.

Names are placed one by one, where they cover the least: other names, points
and error bars, and nothing outside the axes.
"""
from collections.abc import Mapping
import itertools
import math
import os
import pathlib
from typing import Any

import numpy as np

from dsr.report import canvas
from dsr.runs import records

_DISTANCES = 5, 9, 14, 20, 28, 38, 50  # Points from a marker to its name.
_LEADER = 9  # Names further away than this get a thin line to their point.
_ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)  # Best first.
_SWEEPS = 3
_LINE = {'arrowstyle': '-', 'color': canvas.SOFT, 'linewidth': 0.5,
         'shrinkA': 0, 'shrinkB': 3}


def trade_off(
    path: str | os.PathLike, points: Mapping[str, tuple[Any, Any]], *,
    xlabel: str, ylabel: str, title: str = '', percent_x: bool = False,
    percent_y: bool = False, log_x: bool = False, log_y: bool = False,
    chance: float | None = None,
    groups: Mapping[str, str] | None = None) -> pathlib.Path:
  """Draws points with error bars both ways, each with its name beside it.

  Args:
    path: of the PNG or of the SVG; both are written.
    points: name to (x, y), metrics with `value`, `low` and `high`.
    xlabel: under the horizontal axis.
    ylabel: beside the vertical axis.
    title: stands above.
    percent_x: draw 100 x.
    percent_y: draw 100 y.
    log_x: logarithmic horizontal axis.
    log_y: logarithmic vertical axis.
    chance: y of an attack that guesses, drawn as a dashed line.
    groups: name to group, each in a colour of its own and in a legend.

  Returns:
    The path of the PNG.

  Raises:
    ValueError: nothing to draw, no metrics, numbers that are not finite, or
      not positive ones on a logarithmic axis.
  """
  path = canvas.either(path)
  if not points:
    raise ValueError('`points` must not be empty.')
  scales = 100 if percent_x else 1, 100 if percent_y else 1
  ends = {name: _ends(name, point, scales, (log_x, log_y))
          for name, point in points.items()}
  own = {name: (groups or {}).get(name, '') for name in points}
  kinds = list(dict.fromkeys(own.values()))
  figure, axes = canvas.plot(xlabel=xlabel, ylabel=ylabel, title=title,
                             log_x=log_x, log_y=log_y)
  for i, kind in enumerate(kinds):
    rows = np.array([ends[name] for name in points if own[name] == kind])
    (x, x_low, x_high), (y, y_low, y_high) = rows.transpose(1, 2, 0)
    axes.errorbar(
        x, y, xerr=np.maximum([x - x_low, x_high - x], 0),
        yerr=np.maximum([y - y_low, y_high - y], 0), fmt='o', markersize=5,
        color=canvas.COLORS[i % len(canvas.COLORS)], elinewidth=0.7,
        markeredgecolor='white', markeredgewidth=0.5, label=kind)
  if chance is not None:
    axes.axhline(chance * scales[1], color=canvas.SOFT, linewidth=0.8,
                 linestyle=(0, (4, 3)), zorder=1,
                 label='guessing' if any(kinds) else None)
  axes.margins(0.12)
  if any(kinds):
    canvas.legend(figure, axes)
  _name(figure, axes, ends, None if chance is None else chance * scales[1])
  return canvas.save_both(figure, path)


def _ends(name, point, scales, logs):
  """((x, low, high), (y, low, high)) as drawn."""
  ends = []
  for axis, metric, scale, log in zip('xy', point, scales, logs, strict=True):
    where = f'points[{name!r}].{axis}'
    try:
      numbers = [scale * float(getattr(metric, field))
                 for field in records.Metric._fields]
    except (AttributeError, TypeError, ValueError):
      raise ValueError(f'`{where}` must have value, low and high (see '
                       f'`records.metric`), got {metric!r}.') from None
    if not all(map(math.isfinite, numbers)):
      raise ValueError(f'`{where}` must be finite, got {metric}.')
    if log and min(numbers[:1]) <= 0:
      raise ValueError(f'`{where}` must be positive on a logarithmic axis, got '
                       f'{metric}.')
    ends.append(numbers)
  return ends


def _name(figure, axes, ends, chance):
  """Writes each name beside its point, and leads to it from far away."""
  canvas.as_text(figure)
  figure.draw_without_rendering()  # Now the axes have their final place.
  unit = figure.dpi / 72  # Pixels in a point.
  bars = np.array(list(ends.values()))  # (N, 2, 3)
  # On a logarithmic axis a bar may end at 0, which has no place.
  least = np.array([axes.get_xlim()[0], axes.get_ylim()[0]])
  bars = np.maximum(bars, least[None, :, None])
  at, low, high = (axes.transData.transform(bars[:, :, k]) for k in range(3))
  obstacles = _obstacles(at, low, high, 1.5 * unit)
  inside = axes.get_window_extent().extents
  if chance is not None:
    height = axes.transData.transform((bars[0, 0, 0], chance))[1]
    line = [inside[0], height - unit, inside[2], height + unit]
    obstacles = np.concatenate([obstacles, [line]])
  texts = [axes.annotate(
      name, (x, y), (0, 0), textcoords='offset points', fontsize=8,
      parse_math=False, color=canvas.INK,
      bbox={'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.7,
            'pad': 0.5})
           for name, (x, y) in zip(ends, bars[:, :, 0])]
  extents = [text.get_window_extent() for text in texts]
  sizes = np.array([(extent.width, extent.height) for extent in extents])
  places = _places(at, sizes / unit, obstacles, inside, unit)
  for text, xy, point, (box, distance) in zip(
      texts, bars[:, :, 0], at, places, strict=True):
    text.set_position(tuple((box[:2] - point) / unit))
    text.set_in_layout(False)
    if distance > _LEADER:
      end = (np.clip(point, box[:2], box[2:]) - point) / unit
      axes.annotate('', xy, tuple(end), textcoords='offset points',
                    arrowprops=_LINE).set_in_layout(False)


def _obstacles(at, low, high, thin):
  """Boxes of the markers and of both error bars, (3 N, 4)."""
  horizontal = np.stack(
      [low[:, 0], at[:, 1] - thin, high[:, 0], at[:, 1] + thin], axis=1)
  vertical = np.stack(
      [at[:, 0] - thin, low[:, 1], at[:, 0] + thin, high[:, 1]], axis=1)
  markers = np.concatenate([at - 3 * thin, at + 3 * thin], axis=1)
  return np.concatenate([horizontal, vertical, markers])


def _places(at, sizes, obstacles, inside, unit):
  """(box, distance) of each name: the crowded first, then all once more."""
  gaps = np.linalg.norm(at[:, None] - at[None], axis=-1)
  np.fill_diagonal(gaps, np.inf)
  order = np.argsort(gaps.min(axis=1), kind='stable')
  chosen = {}
  for i in [*order] * _SWEEPS:
    others = [box for j, (box, _) in chosen.items() if j != i]
    chosen[i] = _best(at[i], sizes[i], unit, obstacles,
                      np.reshape(others, (-1, 4)), inside)
  return [chosen[i] for i in range(len(at))]


def _best(at, size, unit, obstacles, names, inside):
  """The box at `at` that covers and crosses least, its distance in points."""
  least, best = np.inf, None
  area = np.prod(size)  # Of the name; costs are in its square points.
  for distance, angle in itertools.product(_DISTANCES, _ANGLES):
    along = np.array([math.cos(math.radians(angle)),
                      math.sin(math.radians(angle))])
    middle = at + unit * along * (distance + size / 2)
    half = unit * size / 2
    box = np.concatenate([middle - half, middle + half])
    outside = area - _shared(box, inside[None]).sum() / unit ** 2
    cost = (3 * _shared(box, obstacles).sum() / unit ** 2 + 10 * outside
            + 5 * _shared(box, names).sum() / unit ** 2
            + 0.5 * distance + 0.01 * _ANGLES.index(angle))
    if distance > _LEADER and len(names):
      end = np.clip(at, box[:2], box[2:])
      path = at + np.linspace(0, 1, 20)[:, None] * (end - at)
      crossed = ((path[:, None] > names[:, :2])
                 & (path[:, None] < names[:, 2:])).all(-1).any()
      cost += 100 * crossed
    if cost < least:
      least, best = cost, (box, distance)
  return best


def _shared(box, others):
  """Areas that `box` shares with each of (N, 4) boxes."""
  sides = (np.minimum(box[2:], others[:, 2:])
           - np.maximum(box[:2], others[:, :2]))
  return np.maximum(sides, 0).prod(axis=1)
