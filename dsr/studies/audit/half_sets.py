"""Sets of some of the random halves that an attack by shadow models needs.

The command is `experiments.half_sets`; its docstring has an example, and what
it writes.
"""
import dataclasses
import pathlib
import time
from typing import Any, Literal

import numpy as np

from dsr import checks
from dsr.runs import contents, records
from dsr.runs.plan import Job
from dsr.studies.audit import shadow_sets
from dsr.studies.distillation.problem import Problem, prepare
from dsr.types import Examples

EACH = 8  # Sets of a job: enough that starting a process is little beside them.
_AT_ONCE = (shadow_sets.ALL, 'random')  # Nothing is distilled.


@dataclasses.dataclass(frozen=True)
class Config:
  """Distils some of many random halves of the training images."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  method: str = 'kip'  # One of those of experiments.lira, but all.
  images_per_class: int = 10  # Size of each set.
  num_shadows: int = 64  # Halves of shadow models.
  num_targets: int = 8  # Further halves, whose models are attacked.
  first: int = 0  # Of the halves, the first to be distilled.
  last: int = 7  # The last one; at most num_shadows + num_targets - 1.
  kernel: str = 'fcn1'  # fcn2, convnet3, convnet3_nopool, myrtle5, ...
  ridge: float = 1e-6  # Relative to tr(K)/n.
  steps: int = 300  # Of kip and rkip.
  learning_rate: float = 0.04  # Of Adam, for kip and rkip.
  init: Literal['real', 'noise'] = 'real'  # What the images start from.
  # Flags of experiments.distill for other methods, with commas between them,
  # e.g. time_limit=5.
  options: str = ''
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  seed: int = 0  # Of all that is drawn.
  workdir: str = 'out/half_sets'  # Where the sets go.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  check(config)
  problem = load(config)
  found = shadow_sets.make(config, problem, config.images_per_class,
                           slice(config.first, config.last + 1))
  metrics = {'seconds': records.metric(found.seconds),
             'cpu_seconds': records.metric(found.cpu_seconds)}
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays=found.examples._asdict(), arrays_name='sets',
      wall_time=time.monotonic() - began)
  return metrics


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.one_of('method', config.method, shadow_sets.known()[1:])
  shadow_sets.check(config, [config.images_per_class])
  checks.at_least('images_per_class', config.images_per_class, 1)
  checks.at_least('steps', config.steps, 1)
  checks.at_least('seed', config.seed, 0)
  checks.positive('ridge', config.ridge)
  checks.positive('learning_rate', config.learning_rate)
  most = config.num_shadows + config.num_targets - 1
  checks.within('first', config.first, 0, most)
  checks.within('last', config.last, config.first, most)


def load(config: Any) -> Problem:
  """The images that are halved; `config` as well of `experiments.lira`."""
  return prepare(
      config.dataset, data_dir=config.data_dir, transform=config.transform,
      images_per_class=1, max_train=config.max_train, validation=0,
      seed=config.seed)


def jobs_of(config: Any) -> list[Job]:
  """All jobs of an `experiments.lira.Config`, `EACH` sets of one size a job.

  Without sets, and of random subsets, there is none.
  """
  if config.method in _AT_ONCE:
    return []
  return [job for size in shadow_sets.sizes(config)
          for job in _of_size(config, size)]


def _of_size(config, size) -> list[Job]:
  shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(Config)
            if hasattr(config, f.name)}
  total, found = config.num_shadows + config.num_targets, []
  for first in range(0, total, EACH):
    last = min(first + EACH, total) - 1
    job = Config(**shared | {
        'images_per_class': size, 'first': first, 'last': last,
        'workdir': str(pathlib.Path(
            config.workdir, f'sets_{size}', f'{first}_to_{last}'))})
    found.append(Job(f'{config.method}, {size} per class, sets {first + 1} to '
                     f'{last + 1}', run, job, kind=f'sets of {size}'))
  return found


def read(config: Any, problem: Problem, size: int | None) -> shadow_sets.Sets:
  """What the jobs of one size have made, as `shadow_sets.make` returns it."""
  if config.method in _AT_ONCE:
    return shadow_sets.make(config, problem, size)
  todo = _of_size(config, size)
  found = [records.read(job.config.workdir) for job in todo]
  arrays = [records.read_arrays(job.config.workdir) for job in todo]
  taken = [sum(record['metrics'][name].value for record in found)
           for name in ('seconds', 'cpu_seconds')]
  examples = Examples(*(np.concatenate([a[name] for a in arrays])
                        for name in Examples._fields))
  return shadow_sets.Sets(examples, shadow_sets.halves(config, problem), *taken)
