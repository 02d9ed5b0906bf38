"""What all figures share: an empty figure, styled axes, and saving.

Matplotlib is imported inside the functions and used without pyplot, on the Agg
canvas: no window, no global state.
"""
import os
import pathlib

from dsr.report import records

INK = '#222222'
SOFT = '#6e6e6e'
FAINT = '#d9d9d9'
# Okabe & Ito (2008): told apart with any colour vision, and in grey print.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', INK)


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
  """Writes a PNG all at once."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with records.replacing(path) as part:
    figure.savefig(part, format='png')
  return path
