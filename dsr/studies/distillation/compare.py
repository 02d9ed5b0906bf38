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

from dsr.report import dots, figures, tables
from dsr.runs import contents, jobs, pictures, records, screen
from dsr.runs.plan import Job
from dsr.studies.distillation import distill, evaluation, grid, published
from dsr.studies.distillation.results import by_class


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares methods at several sizes."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  # Those listed at the end of --help, with commas between them.
  methods: str = 'random,kcenter,herding,mfc,dm,kip,rkip'
  images_per_class: str = '1,10'  # Sizes of the sets, with commas between them.
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  # Trained on each set, e.g. convnet3,lenet,resnet18.
  networks: str = 'convnet3,mlp'
  num_networks: int = 5  # Random starts of each.
  # How networks are trained. frepo: Adam on soft labels; condensation: SGD, 300
  # epochs; dsa: SGD, 1000 epochs of augmented images; idc: that, in batches of
  # 64, with CutMix where images are photographs.
  protocol: Literal['frepo', 'condensation', 'dsa', 'idc'] = 'condensation'
  network_epochs: int | None = None  # Unset: the protocol's.
  network_learning_rate: float | None = None  # Unset: the protocol's.
  # Flags of experiments.distill for all methods or for one, with commas between
  # them, e.g. steps=300,dm.batch_size=64,mfc.time_limit=5.
  options: str = ''
  seed: int = 0  # Of all that is drawn.
  fresh: bool = False  # Whether to repeat the runs that are finished.
  workdir: str = 'out/compare'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all methods and networks."""
    return distill.Config.describe()


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  todo = [job.config for job in jobs_of(config)]
  rows = []
  for job in todo:
    record = jobs.finished(job, distill.run, fresh=config.fresh)
    rows.append(record | {'method': job.method, 'folder': job.workdir,
                          'images_per_class': job.images_per_class}
                | _published(job))
  folder = pathlib.Path(config.workdir)
  metrics = {f'{row["method"]}_{row["images_per_class"]}_{name}': metric
             for row in rows for name, metric in row['metrics'].items()}
  records.write(folder, config=config, contents=contents.of(config),
                metrics=metrics,
                wall_time=time.monotonic() - began,
                extra={'runs': {row['folder']: row['command'] for row in rows}})
  columns = _columns(config, rows)
  paths = [tables.write(folder / f'table.{ending}', rows, columns)
           for ending in ('md', 'csv')]
  paths += pictures.draw(folder, _drawings(config, rows))
  title = f'{config.dataset}, {config.protocol}: test accuracy [95 % interval]'
  screen.show(tables.render(rows, columns, title=title))
  elsewhere = [line for job in todo
               for line in published.under_other_conditions(job)]
  if elsewhere:
    screen.show('\n'.join(['Published under other conditions:', *elsewhere]))
  screen.show('\n'.join(f'  {path}' for path in paths))
  return metrics


def jobs_of(config: Config) -> list[Job]:
  """All runs, each held against the data; raises a ValueError as `check`."""
  todo = check(config)
  for job in todo:
    distill.prepared(job)
  return [Job(f'{job.method}, {job.images_per_class} per class', distill.run,
              job) for job in todo]


def check(config: Config) -> list[distill.Config]:
  """All runs, smaller sets first.

  Raises:
    ValueError: something is wrong with a flag, before any data is read.
  """
  chosen = grid.chosen_methods(config.methods)
  sizes = grid.chosen_sizes(config.images_per_class)
  if not evaluation.names(config.networks):
    raise ValueError('`networks` must name one or more, got none.')
  own = grid.method_options(config, chosen)
  return [grid.distillation(config, method, size, own)
          for size in sizes for method in chosen]


def _published(job) -> dict[str, float]:
  """`published_<network>`, also of `krr`, under the conditions of the run."""
  shares = {name: published.accuracy(job, name)
            for name in (published.KRR, *evaluation.names(job.networks))}
  return {f'published_{name}': share for name, share in shares.items()
          if share is not None}


def _columns(config, rows) -> list[tables.Column]:
  accuracies = []
  for name in (published.KRR, *evaluation.names(config.networks)):
    title = 'KRR' if name == published.KRR else name
    accuracies.append(tables.Column(
        f'{name}_accuracy', title=title, percent=True))
    if any(f'published_{name}' in row for row in rows):
      accuracies.append(tables.Column(
          f'published_{name}', title=f'{title}, published', percent=True))
  return [tables.Column('method'),
          tables.Column('images_per_class', title='per class'), *accuracies,
          tables.Column('method_seconds', title='seconds', digits=1)]


def _drawings(config, rows) -> dict[str, Callable]:
  """File -> function of the path that draws it."""
  names = evaluation.names(config.networks)
  sizes = list(dict.fromkeys(row['images_per_class'] for row in rows))
  todo = {f'accuracy_{network}.png': functools.partial(
      _accuracies, config, rows, network) for network in names}
  first = [row['metrics'][f'{names[0]}_accuracy'].value for row in rows]
  todo['time.png'] = lambda path: figures.scatter(
      path, [max(row['metrics']['method_seconds'].value, 0.1) for row in rows],
      100 * np.asarray(first), log_x=True, xlabel='seconds of the method',
      ylabel=f'test accuracy of {names[0]} (%)', join=False,
      groups=[row['method'] for row in rows],
      title=f'{config.dataset}, {" and ".join(map(str, sizes))} per class')
  for size in sizes:
    grids, classes = {}, []
    for row in rows:
      if row['images_per_class'] == size:
        arrays = records.read_arrays(row['folder'])
        if arrays['images'].ndim == 4:  # Tables have no pictures.
          grids[row['method']], classes = by_class(
              arrays['images'], arrays['labels'], most=max(1, min(size, 5)))
    if len({len(grid) for grid in grids.values()}) == 1:
      todo[f'images_{size}.png'] = functools.partial(
          figures.side_by_side, grids=grids, row_labels=classes,
          title=f'{config.dataset}, {size} per class')
  return todo


def _accuracies(config, rows, network, path) -> pathlib.Path:
  """Intervals and published numbers of one network, by method and size."""
  series, told = {}, {}
  for row in rows:
    setting, method = f'{row["images_per_class"]} per class', row['method']
    series.setdefault(setting, {})[method] = row['metrics'][
        f'{network}_accuracy']
    if f'published_{network}' in row:
      told.setdefault(setting, {})[method] = row[f'published_{network}']
  return dots.intervals(
      path, series, published=told,
      title=f'{config.dataset}, {network}, {config.protocol}')
