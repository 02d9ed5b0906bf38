"""The training images that reconstructed ones are held against, as files.

The command is `experiments.leak_data`; its docstring has an example, and what
it writes.
"""
import dataclasses
import pathlib
import time
from typing import Any

import jax
import numpy as np

from dsr import checks
from dsr.data import Splits, files
from dsr.probes import copies as copies_lib
from dsr.runs import contents, records
from dsr.studies.audit import subjects
from dsr.studies.reconstruction import victims

TRAIN, SET = 'train.npz', 'set.npz'  # In the workdir.
_NEAREST = 10  # Training images held against each image of a set.
_OTHERS = 1000  # Further ones, at random.


@dataclasses.dataclass(frozen=True)
class Config:
  """Writes the training images of a reconstruction, and the test set."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  num_train: int = 50  # Of T, the same number of each class; 0 with a set.
  set: str = ''  # A set of your own, whose nearest training images are taken.
  seed: int = 0  # Of the choice.
  workdir: str = 'out/leak_data'  # Where the images go.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  if not config.set:
    splits = training_images(config)
  else:
    if config.num_train:
      raise ValueError('`num_train` must be 0 with `set`, got '
                       f'{config.num_train}.')
    shown, problem = load_set(config)
    splits = _near(config, shown, problem)
    files.write_npz(pathlib.Path(config.workdir, SET), {
        'images': shown.pixels, 'labels': shown.labels,
        'targets': np.asarray(shown.examples.y)})
  metrics = {'num_images': records.metric(len(splits.train))}
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays_name=TRAIN.removesuffix('.npz'), arrays={
          'x_train': splits.train.x, 'y_train': splits.train.y,
          'x_test': splits.test.x, 'y_test': splits.test.y},
      wall_time=time.monotonic() - began)
  return metrics


def training_images(config: Any) -> Splits:
  """T and the test set; `config` as well of `experiments.leakage`.

  Raises:
    ValueError: `num_train` does not fit the dataset.
  """
  task = victims.prepare_victim_task(victims.VictimConfig(
      dataset=config.dataset, data_dir=config.data_dir,
      num_train=config.num_train, seed=config.seed))
  return Splits(task.train, task.test)


def load_set(config: Any) -> tuple[subjects.Shown, Any]:
  """The set in the file `config.set`, and the problem that it is of.

  Raises:
    ValueError: as `subjects.from_file`; names `own`.
  """
  problem = subjects.load_problem(subjects.SubjectConfig(
      dataset=config.dataset, data_dir=config.data_dir, seed=config.seed,
      transform='mean', validation=0.0))
  with checks.renamed(set='own'):
    return subjects.from_file(config.set, problem), problem


def _near(config, shown, problem) -> Splits:
  """The training images nearest to the set, and others at random."""
  train = problem.train
  near, _ = copies_lib.neighbours(
      np.clip(shown.pixels, 0, 1), train.x, _NEAREST)
  others = np.asarray(jax.random.permutation(
      jax.random.fold_in(jax.random.key(config.seed), 14), len(train)))
  rows = np.union1d(near.reshape(-1), others[:_OTHERS])
  return Splits(train.take(rows), problem.test)
