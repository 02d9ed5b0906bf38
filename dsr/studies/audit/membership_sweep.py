"""What membership leakage depends on: size, start and number of classes.

The command is `experiments.membership_sweep`; its docstring has an example, and
what it writes.
"""
import dataclasses
import pathlib
import time
from typing import Any, Literal

import numpy as np

from dsr import checks
from dsr.probes import intervals
from dsr.report import tables
from dsr.runs import contents, parts, records, screen
from dsr.runs.plan import Job
from dsr.studies.audit import half_sets, lira, shadow_sets
from dsr.studies.distillation import evaluation, grid
from dsr.studies.distillation.methods import table

_COLUMNS = [tables.Column('classes'), tables.Column('init', title='start'),
            *lira.COLUMNS]
_KEYS = ('method', 'model', 'attack', 'classes', 'init', 'size')
_ABOUT = ('size', 'init', 'classes')
_DIFFERENCES = [
    tables.Column('about', title='difference'), 'method',
    tables.Column('where', title='at'), 'model', 'attack',
    tables.Column('difference', title='AUC, first less second', digits=3)]


@dataclasses.dataclass(frozen=True)
class Config:
  """Attacks sets of several sizes, starts and numbers of classes."""

  dataset: str = 'digits'  # A name (digits, mnist, ...) or an .npz.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  # Of the sets, with commas between them: all, for models of all images, and
  # those listed at the end of --help.
  methods: str = 'all,random,kcenter,herding,kmedoids,mfc,kip,rkip'
  images_per_class: str = '1,10'  # Sizes of the sets; all has none.
  inits: str = 'real,noise'  # What kip, rkip and dm start from.
  # The first so many classes of the dataset, with commas between the numbers;
  # '' for all of them.
  num_classes: str = ''
  model: str = 'krr,mlp'  # Trained on the sets: krr, or networks, with commas.
  num_shadows: int = 64  # Of random halves; even.
  num_targets: int = 8  # Further halves, whose models are attacked.
  kernel: str = 'fcn1'  # fcn2, convnet3, convnet3_nopool, myrtle5, ...
  ridge: float = 1e-6  # Relative to tr(K)/n.
  steps: int = 300  # Of kip and rkip.
  learning_rate: float = 0.04  # Of Adam, for kip and rkip.
  # How networks are trained. frepo: Adam on soft labels; condensation: SGD, 300
  # epochs; dsa: SGD, 1000 epochs of augmented images; idc: that, by 64 at once.
  protocol: Literal['frepo', 'condensation', 'dsa', 'idc'] = 'condensation'
  # Passes over each set; unset: the protocol's, or 30 with all.
  network_epochs: int | None = None
  network_learning_rate: float | None = None  # Unset: the protocol's.
  network_batch_size: int | None = None  # Images a step; unset: the protocol's.
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples of each number of classes; 0: all.
  num_resamples: int = 200  # Of the bootstrap over examples, with one target.
  seed: int = 0  # Of all that is drawn.
  fresh: bool = False  # Whether to repeat the runs that are finished.
  workdir: str = 'out/membership_sweep'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all methods and networks."""
    return lira.Config.describe()


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record.

  Metrics are those of `experiments.lira` behind `<classes>_<start>_`, and
  `<size, init or classes>_<classes>_<start>_...`, the differences of AUC.

  Raises:
    Incomplete: some runs have failed; the tables name them.
  """
  began = time.monotonic()
  rows, metrics = [], {}
  made = parts.make(jobs_of(config), fresh=config.fresh)
  for classes, job in check(config):
    record = made.record(job)
    if record is None:
      continue
    for row in record['extra']['rows']:
      head = f'{classes}_{job.init}_{row["name"]}'
      own = {name: record['metrics'][f'{row["name"]}_{name}']
             for name in ('auc', 'tpr_at_fpr_1e2', 'tpr_at_fpr_1e3')}
      metrics |= {f'{head}_{name}': value for name, value in own.items()}
      label = row['name'].removesuffix(f'_{row["attack"]}')
      size = '' if row['size'] is None else f'_{row["size"]}'
      rows.append(row | own | {
          'classes': classes, 'init': job.init, 'command': record['command'],
          'accuracy': record['metrics'][
              f'{row["method"]}{size}_{row["model"]}_accuracy'],
          'seconds': record['metrics'][f'{label}_seconds'],
          'cpu_seconds': record['metrics'][f'{label}_cpu_seconds'],
          'each': [one['auc']['value'] for one in record['extra'][
              'targets'][row['name']]]})
  found = differences(rows)
  metrics |= {row['metric']: row['difference'] for row in found}
  folder = pathlib.Path(config.workdir)
  records.write(folder, config=config, contents=contents.of(config),
                metrics=metrics, wall_time=time.monotonic() - began,
                extra={'missing': made.missing, 'differences': [
                    {k: v for k, v in row.items() if k != 'difference'}
                    for row in found]})
  paths = [tables.write(folder / f'table.{ending}', rows, _COLUMNS,
                        note=made.note) for ending in ('md', 'csv')]
  shown = tables.render(rows, _COLUMNS, title=f'{config.dataset}: membership')
  if found:
    paths.append(tables.write(folder / 'differences.md', found, _DIFFERENCES))
    shown += '\n' + tables.render(found, _DIFFERENCES, title='Differences')
  screen.show(shown, *filter(None, [made.note]), *paths)
  made.end()
  return metrics


def jobs_of(config: Config) -> list[Job]:
  """All runs, behind their sets; raises a ValueError as `check`."""
  found = []
  for classes, job in check(config):
    name = f'{job.method} from {job.init}, {classes} classes'
    sets = half_sets.jobs_of(job)
    found += [dataclasses.replace(one, name=f'{name}: {one.name}')
              for one in sets]
    found.append(Job(name, lira.run, job,
                     tuple(one.config.workdir for one in sets)))
  return found


def check(config: Config) -> list[tuple[str, lira.Config]]:
  """All runs, with the number of classes of each in words.

  Raises:
    ValueError: something is wrong with a flag, before any data is read.
  """
  chosen = grid.chosen_methods(config.methods, more=(shadow_sets.ALL,))
  inits = evaluation.names(config.inits)
  for init in inits:
    checks.one_of('inits', init, ('real', 'noise'))
  if 'real' not in inits:
    raise ValueError(f'`inits` must have real, got {config.inits!r}.')
  checks.at_least('num_targets', config.num_targets, 2)  # For intervals.
  fields = {f.name for f in dataclasses.fields(lira.Config)}
  shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)
            if f.name in fields}
  found = []
  for classes, dataset in _datasets(config).items():
    for method in chosen:
      noise = (method != shadow_sets.ALL and table.METHODS[method].from_noise)
      for init in inits if noise else ['real']:
        name = f'{method}{"_noise" * (init == "noise")}'
        job = lira.Config(**shared | {
            'dataset': dataset, 'method': method, 'init': init,
            'workdir': str(pathlib.Path(config.workdir, classes, name))})
        lira.check(job)
        found.append((classes, job))
  return found


def _datasets(config) -> dict[str, str]:
  """Number of classes, or 'all' -> name of the dataset."""
  numbers = evaluation.names(config.num_classes)
  if not numbers:
    return {'all': config.dataset}
  if not all(n.isdigit() and int(n) > 1 for n in numbers):
    raise ValueError('`num_classes` must be numbers of at least 2 with commas '
                     f'between them, got {config.num_classes!r}.')
  if '[' in config.dataset:
    raise ValueError('`dataset` must name no classes with `num_classes`, got '
                     f'{config.dataset!r}.')
  return {n: f'{config.dataset}[0:{n}]'
          for n in map(str, sorted(set(map(int, numbers))))}


def differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Largest less smallest size, real less noise, most less fewest classes.

  Sizes and starts have the same halves, so their differences are paired by
  target (Student's interval); numbers of classes are other images (Welch's).

  Args:
    rows: with classes, init, method, size, model, attack, and each: the AUC of
      every target.
  """
  of = {tuple(row[k] for k in _KEYS): row for row in rows}
  least = min((row['size'] for row in rows if row['size']), default=None)
  fewest = min((row['classes'] for row in rows), key=_number)
  found = []
  for row in rows:
    n, size, init = row['classes'], row['size'], row['init']
    own = f'{n} classes, {init} start'
    per = '' if size is None else f', {size} per class'
    for about, there, where, instead in (
        ('size', size not in (None, least),
         f'{own}, {size} against {least} per class', {'size': least}),
        ('init', init == 'real', f'{n} classes{per}', {'init': 'noise'}),
        ('classes', n != fewest,
         f'{n} against {fewest} classes, {init} start{per}',
         {'classes': fewest})):
      other = of.get(tuple((row | instead)[k] for k in _KEYS))
      if there and other is not None:
        found.append({k: row[k] for k in ('method', 'model', 'attack')} | {
            'about': about, 'where': where,
            'metric': f'{about}_{n}_{init}_{row["name"]}',
            'difference': _difference(
                row['each'], other['each'], about != 'classes')})
  return sorted(found, key=lambda row: _ABOUT.index(row['about']))


def _number(classes: str) -> int:
  return int(classes) if classes.isdigit() else 0


def _difference(first, second, paired) -> intervals.Interval:
  """Mean of the first less that of the second."""
  if paired:
    return intervals.mean_t(np.subtract(first, second))
  parts = [(float(np.var(side, ddof=1)) / len(side), len(side) - 1)
           for side in (first, second)]
  return intervals.satterthwaite(
      float(np.mean(first) - np.mean(second)), parts)
