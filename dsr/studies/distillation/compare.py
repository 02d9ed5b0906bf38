"""Distilled sets and coresets on one footing: same networks, same evaluation.

The command is `experiments.compare`; its docstring has an example, and what
it writes.
"""
from collections.abc import Callable
import dataclasses
import functools
import pathlib
import time
from typing import Any, Literal

import numpy as np

from dsr import checks
from dsr.report import dots, figures, tables
from dsr.runs import contents, options, parts, pictures, records, screen
from dsr.runs.plan import Job
from dsr.studies.distillation import (
  distill,
  evaluate,
  evaluation,
  grid,
  names,
  published,
  sets,
)
from dsr.studies.distillation.results import by_class

_UNDERFITS = 'does not fit its set'  # Heading of the networks that do not.


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares methods at several sizes."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  # Those listed at the end of --help, with commas between them; all: the whole
  # training set.
  methods: str = 'random,kcenter,herding,mfc,dm,kip,rkip'
  distilled: str = ''  # Sets of your own (.npz, .pt or folders), by commas.
  # Sizes of the sets, with commas between them; 3:1:2 has one a class.
  images_per_class: str = '1,10'
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  # Trained on each set, e.g. convnet3,lenet,resnet18.
  networks: str = 'convnet3,mlp'
  num_networks: int = 5  # Random starts of each.
  # How networks are trained. frepo: Adam on soft labels; condensation: SGD, 300
  # epochs (of mnist 1000, of moved images); dsa: SGD, 1000 epochs of augmented
  # images; idc: that, in batches of 64, with CutMix for photographs.
  protocol: Literal['frepo', 'condensation', 'dsa', 'idc'] = 'condensation'
  network_epochs: int | None = None  # Unset: the protocol's.
  full_epochs: int = 30  # Passes of networks over all images, with all.
  network_learning_rate: float | None = None  # Unset: the protocol's.
  # Flags of experiments.distill for every method or for one, with commas
  # between them, e.g. steps=300,dm.batch_size=64,mfc.time_limit=5.
  options: str = ''
  seed: int = 0  # Of all that is drawn.
  fresh: bool = False  # Whether to repeat the runs that are finished.
  workdir: str = 'out/compare'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all methods and networks."""
    return distill.Config.describe()


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record.

  Raises:
    Incomplete: some runs have failed; the tables name them.
  """
  began = time.monotonic()
  todo = jobs_of(config)
  made = parts.make(todo, fresh=config.fresh)
  rows = [_row(job.config, record) for job in todo
          if (record := made.record(job.config)) is not None]
  folder = pathlib.Path(config.workdir)
  metrics = {f'{row["name"]}_{name}': metric
             for row in rows for name, metric in row['metrics'].items()}
  records.write(folder, config=config, contents=contents.of(config),
                metrics=metrics,
                wall_time=time.monotonic() - began,
                extra={'missing': made.missing, 'runs': {
                    row['folder']: row['command'] for row in rows}})
  columns = _columns(config, rows)
  paths = [tables.write(folder / f'table.{ending}', rows, columns,
                        note=made.note) for ending in ('md', 'csv')]
  paths += pictures.draw(folder, _drawings(config, rows))
  screen.show(tables.render(rows, columns, title=(
      f'{config.dataset}, {config.protocol}: test accuracy [95 % interval, of '
      'networks over starts and test images]')))
  if any(row['underfits'] for row in rows):
    screen.show(f'{_UNDERFITS}: after training a network was right about less '
                f'than {100 * evaluation.FITS:.0f} % of its own set, so its '
                'test accuracy says little of the set. A higher '
                '`network_learning_rate`, more `network_epochs` or another '
                '`protocol` may help.')
  elsewhere = [line for job in todo if isinstance(job.config, distill.Config)
               for line in published.under_other_conditions(job.config)]
  if elsewhere:
    screen.show('\n'.join(['Published under other conditions:', *elsewhere]))
  screen.show(*filter(None, [made.note]), *(f'  {path}' for path in paths))
  made.end()
  return metrics


def jobs_of(config: Config) -> list[Job]:
  """All runs, each held against the data; raises a ValueError as `check`."""
  found = []
  for job in check(config):
    if isinstance(job, distill.Config):
      distill.prepared(job)
      found.append(Job(f'{job.method}, {job.images_per_class} per class',
                       distill.run, job))
    else:
      with checks.renamed(set='distilled'):
        evaluate.prepared(job)
      found.append(Job(_title(job), evaluate.run, job,
                       reads=(job.set,) if job.set else ()))
  return found


def check(config: Config) -> list[distill.Config | evaluate.Config]:
  """All runs: smaller sets first, then those of one's own, then all images.

  Raises:
    ValueError: something is wrong with a flag, before any data is read.
  """
  own_sets = names.folders(evaluation.names(config.distilled))
  chosen = []
  if config.methods or not own_sets:
    chosen = grid.chosen_methods(config.methods, more=[sets.ALL])
  made = [method for method in chosen if method != sets.ALL]
  sizes = grid.chosen_sizes_by_class(config.images_per_class)
  if not evaluation.names(config.networks):
    raise ValueError('`networks` must name one or more, got none.')
  checks.at_least('full_epochs', config.full_epochs, 1)
  own = grid.method_options(config, made)
  found = [grid.distillation(config, method, size, own)
           for size in sizes for method in made]
  taken = {pathlib.Path(job.workdir).name for job in found}
  for path, name in own_sets.items():
    if name in taken:
      raise ValueError(f'`distilled` must have a name of its own, got {path!r} '
                       f'beside the set {name}.')
    found.append(_evaluation(config, own[''], name, path))
  if sets.ALL in chosen:
    found.append(dataclasses.replace(
        _evaluation(config, own[''], sets.ALL, ''),
        network_epochs=config.full_epochs))
  return found


def _evaluation(config, shared, name, path) -> evaluate.Config:
  """The run on a set that is there, with the flags that all runs have."""
  fields = options.kinds(evaluate.Config)
  given = {field: getattr(config, field) for field in fields
           if hasattr(config, field)} | shared
  job = evaluate.Config(**{k: v for k, v in given.items() if k in fields} | {
      'set': path, 'workdir': str(pathlib.Path(config.workdir, name))})
  evaluate.check(job)
  return job


def _title(job: evaluate.Config) -> str:
  return names.title(job.set) if job.set else sets.ALL


def _row(job, record) -> dict[str, Any]:
  """A row of the table.

  Besides the record: `name`, of its metrics; `setting`, of its size in
  pictures; `underfits`, the networks that do not fit the set;
  `published_<network>`, also of `krr` and `own_network`.
  """
  own = record | {'folder': job.workdir, 'underfits': ', '.join(
      name.removesuffix('_train_accuracy').replace('_hard', ' (hard)')
      for name, metric in record['metrics'].items()
      if name.endswith('_train_accuracy') and metric.value < evaluation.FITS)}
  if isinstance(job, distill.Config):
    size = job.images_per_class
    return own | {'method': job.method, 'images_per_class': size,
                  'name': f'{job.method}_{size}',
                  'setting': f'{size} per class'} | {
        f'published_{name}': share
        for name, share in published.claimed(job).items()}
  counts = record['extra']['images_per_class']
  ends = dict.fromkeys((min(counts), max(counts)))
  size = counts[0] if len(ends) == 1 else ' to '.join(map(str, ends))
  return own | {'method': _title(job), 'images_per_class': size,
                'name': pathlib.Path(job.workdir).name,
                'setting': 'sets from elsewhere' if job.set else 'all images'}


def _columns(config, rows) -> list[tables.Column]:
  """Columns that no row fills are left out."""
  found = [tables.Column('method'),
           tables.Column('images_per_class', title='per class')]
  for name in (published.KRR, *evaluation.names(config.networks),
               'own_network'):
    title = {published.KRR: 'KRR', 'own_network': 'own network'}.get(name, name)
    found += [
        tables.Column(f'{name}_accuracy', title=title, percent=True),
        tables.Column(f'{name}_hard_accuracy', title=f'{title}, hard labels',
                      percent=True),
        tables.Column(f'published_{name}', title=f'{title}, published',
                      percent=True),
        tables.Column(f'{name}_train_accuracy', title=f'{title}, own set',
                      percent=True)]
  found += [tables.Column('underfits', title=_UNDERFITS),
            tables.Column('method_seconds', title='seconds', digits=1)]
  return [column for column in found if any(
      tables.find(row, column.key) not in (None, '') for row in rows)]


def _drawings(config, rows) -> dict[str, Callable]:
  """File -> function of the path that draws it."""
  networks = evaluation.names(config.networks)
  todo = {f'accuracy_{network}.png': functools.partial(
      _accuracies, config, rows, network) for network in networks}
  made = [row for row in rows if 'method_seconds' in row['metrics']]
  sizes = list(dict.fromkeys(row['images_per_class'] for row in made))
  first = [row['metrics'][f'{networks[0]}_accuracy'].value for row in made]
  if made:
    todo['time.png'] = lambda path: figures.scatter(
        path,
        [max(row['metrics']['method_seconds'].value, 0.1) for row in made],
        100 * np.asarray(first), log_x=True, xlabel='seconds of the method',
        ylabel=f'test accuracy of {networks[0]} (%)', join=False,
        groups=[row['method'] for row in made],
        labels=[row['images_per_class'] for row in made],
        title=f'{config.dataset}, {" and ".join(map(str, sizes))} per class')
  for size in sizes:
    grids, classes = {}, []
    for row in made:
      if row['images_per_class'] == size:
        arrays = records.read_arrays(row['folder'])
        if arrays['images'].ndim == 4:  # Tables have no pictures.
          grids[row['method']], classes = by_class(
              arrays['images'], arrays['labels'], most=5)
    if len({len(grid) for grid in grids.values()}) == 1:
      todo[f'images_{size}.png'.replace(':', '-')] = functools.partial(
          figures.side_by_side, grids=grids, row_labels=classes,
          title=f'{config.dataset}, {size} per class')
  return todo


def _accuracies(config, rows, network, path) -> pathlib.Path:
  """Intervals and published numbers of one network, by method and size."""
  series, told = {}, {}
  for row in rows:
    setting, method = row['setting'], row['method']
    series.setdefault(setting, {})[method] = row['metrics'][
        f'{network}_accuracy']
    if f'published_{network}' in row:
      told.setdefault(setting, {})[method] = row[f'published_{network}']
  return dots.intervals(
      path, series, published=told,
      title=f'{config.dataset}, {network}, {config.protocol}')
