"""What all figures share: an empty figure, styled axes, and saving.

Matplotlib is imported inside the functions and used without pyplot, on the Agg
canvas: no window, no global state.
"""
from collections.abc import Sequence
import os
import pathlib
import re
import textwrap

from dsr.runs import records

INK = '#222222'
SOFT = '#6e6e6e'
FAINT = '#d9d9d9'
# Okabe & Ito (2008): told apart with any colour vision, and in grey print.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', INK)
_DASHES = ('-', '--', ':')
# Letters that can be searched; ids that do not change from run to run.
_SVG = {'svg.fonttype': 'none', 'svg.hashsalt': 'dsr'}


def figure(width: float, height: float, dpi: int):
  """An empty white figure of that many inches."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  empty = Figure(figsize=(width, height), dpi=dpi)
  FigureCanvasAgg(empty)
  return empty


def plot(*, xlabel: str, ylabel: str, title: str,
         log_x: bool = False, log_y: bool = False):
  """A figure with one pair of quiet axes: (figure, axes)."""
  paper = figure(6.4, 4.0, dpi=200)
  paper.set_layout_engine('constrained')
  axes = paper.subplots()
  axes.set_xscale('log' if log_x else 'linear')
  axes.set_yscale('log' if log_y else 'linear')
  axes.set_xlabel(xlabel, color=INK)
  axes.set_ylabel(ylabel, color=INK)
  axes.set_title(title, loc='left', fontsize=11, color=INK)
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(FAINT)
  axes.tick_params(which='both', color=FAINT, labelcolor=INK, labelsize=9)
  axes.grid(axis='y', color=FAINT, linewidth=0.5)
  axes.set_axisbelow(True)
  return paper, axes


def save(figure, path: str | os.PathLike) -> pathlib.Path:
  """Writes an SVG if `path` ends in .svg, else a PNG; all at once.

  The same figure gives the same bytes. Text in an SVG stays text.
  """
  import matplotlib

  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  as_text(figure)
  with records.replacing(path) as part:
    if path.suffix == '.svg':
      with matplotlib.rc_context(_SVG):
        figure.savefig(part, format='svg', metadata={'Date': None})
    else:
      figure.savefig(part, format='png')
  return path


def as_text(figure) -> None:
  """Nothing that was given is read as a formula: `$x^{` is four letters.

  Formulas that Matplotlib itself writes, at the ticks of logarithmic axes,
  stay.
  """
  from matplotlib import text, ticker

  at_ticks = set()
  for axes in figure.axes:
    for axis in (axes.xaxis, axes.yaxis):
      fixed = isinstance(axis.get_major_formatter(), ticker.FixedFormatter)
      if fixed:  # Labels are made anew from it as the figure is drawn.
        axis.get_major_formatter().seq = [
            re.sub(r'(?<!\\)\$', r'\$', str(label))
            for label in axis.get_major_formatter().seq]
      # These make all ticks; the lists behind them are filled later.
      for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
        at_ticks |= {tick.label1, tick.label2}
  for found in figure.findobj(text.Text):
    if found not in at_ticks:
      found.set_parse_math(False)


def save_both(figure, path: str | os.PathLike) -> pathlib.Path:
  """Writes a PNG and, beside it, an SVG of the same name.

  Args:
    figure: of curves; one that places pixels has no SVG.
    path: of either.

  Returns:
    The path of the PNG.

  Raises:
    ValueError: `path` ends in something else.
  """
  path = either(path)
  save(figure, path.with_suffix('.svg'))
  return save(figure, path.with_suffix('.png'))


def either(path: str | os.PathLike) -> pathlib.Path:
  """`path`, which must end in .png or .svg."""
  path = pathlib.Path(path)
  if path.suffix not in ('.png', '.svg'):
    raise ValueError(f'`path` must end in .png or .svg, got {str(path)!r}.')
  return path


def style(i: int) -> dict[str, str]:
  """Colour and dashes of the i-th line; dashes change where colours repeat."""
  dashes = _DASHES[i // len(COLORS) % len(_DASHES)]
  return {'color': COLORS[i % len(COLORS)], 'linestyle': dashes}


def legend(figure, axes, names: Sequence[str] | None = None) -> None:
  """A legend right of the axes, long names on several lines.

  The title moves above both, and is broken where the page ends.

  Args:
    figure: that holds `axes`.
    axes: whose labelled artists are listed.
    names: their order; default: as drawn.
  """
  if title := axes.get_title(loc='left'):
    axes.set_title('', loc='left')
    figure.suptitle(textwrap.fill(title, 78), x=0.01, ha='left', fontsize=11,
                    color=INK)
  handles, labels = axes.get_legend_handles_labels()
  order = range(len(labels)) if names is None else map(labels.index, names)
  handles, labels = zip(*((handles[i], labels[i]) for i in order), strict=True)
  axes.legend(
      handles, [textwrap.fill(label, 26) for label in labels],
      loc='upper left', bbox_to_anchor=(1.02, 1), borderaxespad=0,
      frameon=False, fontsize=8.5, labelcolor=INK, handlelength=1.8,
      labelspacing=0.6)
