"""What a distillation leaves in its workdir: arrays, pictures, a record."""
import pathlib
from typing import Any, NamedTuple

import numpy as np

from dsr import data as data_lib
from dsr.report import figures
from dsr.runs import records
from dsr.studies.distillation.problem import Problem
from dsr.types import Examples, Status

# Test accuracy of the best KIP-FC row of arXiv:2107.13034, by images per class.
CLAIMED = {
    'mnist': {1: 0.855, 10: 0.972, 50: 0.984},
    'cifar10': {1: 0.405, 10: 0.531, 50: 0.586},
}


class Learned(NamedTuple):
  """What a method hands back."""

  examples: Examples
  steps: np.ndarray  # At which the validation accuracy was taken.
  accuracy: np.ndarray
  loss: np.ndarray  # Of every step.
  status: Status
  labels: np.ndarray | None = None  # Classes, where not those of the start.
  info: dict[str, Any] = {}  # More for the record; never changed.
  arrays: dict[str, Any] = {}  # More for `distilled.npz`; never changed.


def write(config: Any, problem: Problem, learned: Learned,
          metrics: dict[str, Any], *, wall_time: float) -> None:
  """Writes `distilled.npz`, `record.json` and up to three pictures.

  `images.png`; of what was learned `curve.png`, the loss, and of looks at the
  validation split `validation.png`.

  Args:
    config: an `experiments.distill.Config`.
    problem: what was distilled.
    learned: the result, in transformed space; its pixels are written too.
    metrics: of the record.
    wall_time: seconds of the whole run.
  """
  folder = pathlib.Path(config.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  pixels = data_lib.map_host(
      problem.transform.invert, np.asarray(learned.examples.x))
  labels = problem.start.y if learned.labels is None else learned.labels
  grid, names = by_class(pixels, labels)
  figures.image_grid(folder / 'images.png', grid, row_labels=names,
                     title=f'{config.method}, {config.dataset}')
  if learned.loss.size:
    series = {'training batch': (np.arange(len(learned.loss)), learned.loss)}
    figures.loss_curve(folder / 'curve.png', series, log=True,
                       title=f'{config.method}, {config.dataset}')
  if len(learned.steps) > 1:
    figures.loss_curve(
        folder / 'validation.png',
        {config.method: (learned.steps, 100 * learned.accuracy)},
        ylabel=f'validation accuracy of {config.kernel} (%)',
        title=f'{config.method}, {config.dataset}')
  claimed = {}
  if config.method == 'kip' and config.kernel.startswith('fcn'):
    value = CLAIMED.get(config.dataset, {}).get(config.images_per_class)
    claimed = {'krr_accuracy': value} if value else {}
  records.write(
      folder, config=config, metrics=metrics, wall_time=wall_time,
      claimed=claimed,
      arrays={'images': pixels, 'inputs': learned.examples.x,
              'targets': learned.examples.y, 'labels': labels,
              **learned.arrays},
      extra={**learned.info, 'status': learned.status,
             'steps_done': len(learned.loss),
             'validation_steps': learned.steps,
             'validation_accuracy': learned.accuracy,
             'num_train': len(problem.train), 'num_test': len(problem.test)})


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
