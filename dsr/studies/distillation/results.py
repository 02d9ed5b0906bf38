"""What a distillation leaves in its workdir: arrays, a record, pictures."""
import pathlib
from typing import Any

import numpy as np

from dsr import data as data_lib
from dsr.data import distilled
from dsr.report import figures
from dsr.runs import contents, pictures, records
from dsr.studies.distillation import published
from dsr.studies.distillation.methods.method import Learned
from dsr.studies.distillation.problem import Problem
from dsr.types import Status


def write(config: Any, problem: Problem, learned: Learned,
          metrics: dict[str, Any], *, wall_time: float,
          status: Status | None = None) -> None:
  """Writes `distilled.npz`, then `record.json`.

  Args:
    config: an `experiments.distill.Config`.
    problem: what was distilled.
    learned: the result, in transformed space; its pixels are written too.
    metrics: of the record.
    wall_time: seconds of the whole run.
    status: of the record, instead of the method's: INTERRUPTED while something
      is still to be measured.
  """
  claimed = {f'{name}_accuracy': share
             for name, share in published.claimed(config).items()
             if f'{name}_accuracy' in metrics}
  rate = {} if learned.student_rate is None else {
      'student_rate': learned.student_rate}
  names = {'classes': np.array(problem.train.classes)} if (
      problem.train.classes) else {}
  # What `rows` count in, to a reader of the file alone.
  of = {'num_train': len(problem.train)} if 'rows' in learned.arrays else {}
  records.write(
      config.workdir, config=config, metrics=metrics, wall_time=wall_time,
      claimed=claimed, contents=contents.of(config),
      arrays={'images': pixels_of(problem, learned),
              'inputs': learned.examples.x, 'targets': learned.examples.y,
              'labels': labels_of(problem, learned), **rate, **names,
              **learned.arrays, **of,
              **distilled.to_arrays(problem.transform)},
      extra={**learned.info, **rate,
             'status': learned.status if status is None else status,
             'steps_done': len(learned.loss),
             'validation_steps': learned.steps,
             'validation_accuracy': learned.accuracy,
             'num_train': len(problem.train), 'num_test': len(problem.test)})


def draw(config: Any, problem: Problem, learned: Learned) -> list[pathlib.Path]:
  """Up to three pictures: images, loss, looks at the validation split.

  `images.png`, where the data are images; of what was learned `curve.png`, the
  loss, and of several looks `validation.png`.

  Args:
    config: an `experiments.distill.Config` whose record was written.
    problem: what was distilled.
    learned: the result.
  """
  title, todo = f'{config.method}, {config.dataset}', {}
  pixels = pixels_of(problem, learned)
  if pixels.ndim == 4:
    grid, names = by_class(pixels, labels_of(problem, learned))
    rows = [problem.train.called(c) for c in names]
    todo['images.png'] = lambda path: figures.image_grid(
        path, grid, row_labels=rows, title=title)
  if learned.loss.size:
    series = {'training batch': (np.arange(len(learned.loss)), learned.loss)}
    todo['curve.png'] = lambda path: figures.loss_curve(
        path, series, log=True, title=title)
  if len(learned.steps) > 1:
    todo['validation.png'] = lambda path: figures.loss_curve(
        path, {config.method: (learned.steps, 100 * learned.accuracy)},
        ylabel=f'validation accuracy of {config.kernel} (%)', title=title)
  return pictures.draw(config.workdir, todo)


def pixels_of(problem: Problem, learned: Learned) -> np.ndarray:
  """The set before the transform, (S, H, W, C) or (S, D)."""
  return data_lib.map_host(
      problem.transform.invert, np.asarray(learned.examples.x))


def labels_of(problem: Problem, learned: Learned) -> np.ndarray:
  """(S,) classes."""
  return problem.start.y if learned.labels is None else learned.labels


def by_class(pixels: np.ndarray, labels: np.ndarray, most: int = 10
             ) -> tuple[np.ndarray, list[int]]:
  """A grid of at most `most` images a class, and the classes: one a row.

  Args:
    pixels: (S, H, W, C).
    labels: (S,), in any order; where a class has fewer, white squares follow.
    most: images a row.
  """
  classes, counts = np.unique(labels, return_counts=True)
  width = min(most, counts.max())
  grid = np.ones((len(classes), width, *pixels.shape[1:]), pixels.dtype)
  for row, c in zip(grid, classes):
    own = pixels[labels == c][:width]
    row[:len(own)] = own
  return grid, classes.tolist()
