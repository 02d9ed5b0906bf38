"""Reconstruction against kernel distance, over widths and training images."""
from collections.abc import Callable
import dataclasses
import itertools
import pathlib
import time
from typing import Any

import numpy as np

from dsr import checks
from dsr.report import figures, tables
from dsr.runs import contents, parts, pictures, records, screen
from dsr.runs.plan import Job
from dsr.studies.reconstruction import attacks, recipes, scoring
from dsr.types import Status

COLUMNS = (
    tables.Column('num_train', title='N'),
    tables.Column('width'),
    tables.Column('kernel_distance'),
    tables.Column('limit_distance'),
    *scoring.COLUMNS[1:],
    tables.Column('mean_rmse', title='mean RMSE'),
    tables.Column('seconds', digits=1),
    tables.Column('victim_seconds', digits=1))


def check(config: Any) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  if config.regime == 'infinite' or config.victim or config.compare:
    raise ValueError('`sweep` needs finite networks that it trains itself and '
                     'attacks once: set `regime`, unset `victim` and '
                     '`compare`.')
  if config.width is not None:
    raise ValueError(f'`width` must be unset with `sweep`, which has `widths`; '
                     f'got {config.width}.')
  for cell in cells(config):
    attacks.check(attacks.resolve(cell))


def cells(config: Any) -> list[Any]:
  """The config of each cell: the number of images, then the width, grows."""
  defaults = {f.name: f.default for f in dataclasses.fields(config)}
  own = {name: defaults[name] for name in ('sweep', 'widths', 'nums', 'fresh')}
  folder = pathlib.Path(config.workdir)
  return [
      recipes.fair(dataclasses.replace(
          config, num_train=num, width=width,
          workdir=str(folder / f'n{num}_width{width}'), **own))
      for num, width in itertools.product(
          _numbers('nums', config.nums), _numbers('widths', config.widths))]


def _numbers(name, flag) -> list[int]:
  parts = [part.strip() for part in flag.split(',') if part.strip()]
  if not parts or not all(part.isdigit() and int(part) for part in parts):
    raise ValueError(f'`{name}` must be positive integers with commas between '
                     f'them, got {flag!r}.')
  return sorted(set(map(int, parts)))


def run(config: Any, run_cell: Callable) -> dict[str, Any]:
  """Runs the cells that are not finished, then draws all of them.

  Writes `sweep.png`, `table.md` and `record.json`.

  Args:
    config: an `experiments.reconstruct.Config` with `sweep`.
    run_cell: called with the config of a cell; writes its record.

  Raises:
    KeyboardInterrupt: a cell was interrupted; the same flags go on.
    Incomplete: some cells have failed; the table names them.
  """
  checks.at_least('seed', config.seed, 0)
  began = time.monotonic()
  todo = jobs_of(config, run_cell)
  made = parts.make(todo, fresh=config.fresh)
  found = [{'num_train': job.config.num_train, 'width': job.config.width}
           | record for job in todo
           if (record := made.record(job.config)) is not None]
  folder = pathlib.Path(config.workdir)
  standard = config.regime == 'standard'
  axis = 'kernel_distance' if standard else 'limit_distance'
  label = ('kernel distance, before to after training' if standard else
           'kernel distance, at the start to infinite width')
  value = lambda row, name: (
      row['metrics'][name].value if name in row['metrics'] else np.inf)
  metrics = {f'n{row["num_train"]}_width{row["width"]}_{name}': metric
             for row in found for name, metric in row['metrics'].items()}
  records.write(
      folder, config=config, contents=contents.of(config), metrics=metrics,
      wall_time=time.monotonic() - began,
      seeds={'seed': config.seed, 'attack_seed': config.attack_seed},
      extra={'status': Status.FINISHED, 'missing': made.missing})
  paths, todo = [tables.write(
      folder / 'table.md', found, COLUMNS, note=made.note)], {}
  if all(axis in row['metrics'] for row in found):  # MLPs only have a limit.
    todo['sweep.png'] = lambda path: figures.scatter(
        path, [value(row, axis) for row in found],
        [value(row, 'mean_rmse') for row in found], xlabel=label,
        ylabel='mean RMSE', log_x=True, log_y=True, join=True,
        groups=[f'N = {row["num_train"]}' for row in found],
        title=f'{config.dataset}, {config.regime}')
  paths += pictures.draw(folder, todo)
  screen.show(tables.render(
      found, COLUMNS, title=f'{config.dataset}, {config.regime}'))
  screen.show(*filter(None, [made.note]), *(f'  {path}' for path in paths))
  made.end()
  return metrics


def jobs_of(config: Any, run_cell: Callable) -> list[Job]:
  """The cells; `config` and `run_cell` are those of `run`."""
  return [Job(f'N = {cell.num_train}, width {cell.width}', run_cell, cell)
          for cell in map(attacks.resolve, cells(config))]
