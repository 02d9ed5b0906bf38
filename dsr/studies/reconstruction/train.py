"""Trains the network that `experiments.reconstruct` attacks.

The command is `experiments.train`; its docstring has an example, and what
it writes.
"""
import dataclasses
import pathlib
import time
from typing import Any

from absl import logging
import numpy as np

from dsr.probes import intervals
from dsr.report import figures
from dsr.runs import contents, jobs, pictures, records
from dsr.studies.reconstruction import victim_arrays, victims


@dataclasses.dataclass(frozen=True)
class Config(victims.VictimConfig):
  """Trains a network on a few images and keeps all there is to know of it."""

  fresh: bool = False  # Whether to start over, whatever the workdir has.
  workdir: str = 'out/train'  # Where the results go.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  victims.check(config)
  jobs.claim(config, only=('dataset', 'num_train', 'seed'))
  task = victims.prepare_victim_task(config)
  folder = pathlib.Path(config.workdir)
  began = time.monotonic()
  victim = victims.train_victim(config, task, workdir=folder / 'training')
  seconds = time.monotonic() - began
  loss = 'mse' if config.loss == 'mse' else 'cross_entropy'
  metrics = {
      f'final_{loss}': records.metric(float(victim.curve[-1])),
      'steps': records.metric(len(victim.curve) - 1),
      'seconds': records.metric(seconds)}
  for name in ('train', 'test'):
    dataset = getattr(task, name)
    right = victims.num_correct(victim, task, dataset)
    metrics[f'{name}_accuracy'] = intervals.wilson(right, len(dataset))
  records.write(
      folder, config=config, contents=contents.of(config),
      metrics=metrics, wall_time=seconds,
      arrays=victim_arrays.to_arrays(victim, task), arrays_name='victim',
      extra={'status': victim.status, 'learning_rate': victim.learning_rate,
             'checkpoint_steps': [c.step for c in victim.checkpoints]})
  pictures.draw(folder, {'curve.png': lambda path: figures.loss_curve(
      path, {'training': (np.arange(len(victim.curve)), victim.curve)},
      log=True, ylabel=loss.replace('_', ' '),
      title=f'{config.architecture}, {config.regime}, {config.dataset}')})
  for name, value in metrics.items():
    logging.info('%s = %.4g [%.4g, %.4g]', name, value.value, value.low,
                 value.high)
  return metrics
