"""Does adversarial training on small sets make networks robust?

The command is `experiments.adversarial`; its docstring has an example, and what
it writes.
"""
import dataclasses
import functools
import pathlib
import time
from typing import Any

from dsr import checks
from dsr.report import dots, tables
from dsr.runs import contents, parts, pictures, records, screen
from dsr.runs.plan import Job
from dsr.studies.audit import subjects
from dsr.studies.distillation import distill, evaluation, grid
from dsr.studies.hardening import covering, hardened

ALL = 'all'
TRAININGS = ('standard', 'pgd', 'trades', 'wide')
_SHOWN = {'clean': 'clean', 'linf': 'PGD linf', 'strong': 'APGD',
          'l2': 'PGD l2'}
# Flags of `experiments.distill` that mean something else here.
_PLAIN = {'networks': '', 'num_networks': 5, 'norm': 'l2'}


@dataclasses.dataclass(frozen=True)
class Config(hardened.HardeningConfig):
  """Adversarial training on sets of several methods."""

  # Those listed at the end of --help, with commas between them; all: the whole
  # training set.
  methods: str = 'mfc,dm,kcenter,random,all'
  # Sizes of the sets, with commas between them.
  images_per_class: str = '10,50'
  # Of the networks: standard, pgd, trades, wide.
  trainings: str = 'standard,pgd'
  full_steps: int | None = None  # Updates on all images; unset: train_steps.
  weigh: bool = True  # Whether losses have the weights of mfc.
  widest: float = 0.3  # Largest radius of wide.
  # Flags of experiments.distill for all methods or for one, with commas between
  # them, e.g. steps=300,dm.batch_size=64,mfc.time_limit=5.
  options: str = ''
  fresh: bool = False  # Whether to repeat the runs that are finished.
  workdir: str = 'out/adversarial'  # Where the results go.

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
  rows, sets = [], {}
  planned = _planned(config)
  made = parts.make(_jobs(planned), fresh=config.fresh)
  for own, todo in planned:
    learned, label = {}, {'method': ALL, 'per_class': ALL}
    if own is not None:
      learned = made.record(own)
      if learned is None:
        continue
      sets[own.workdir] = learned['command']
      label = {'method': own.method, 'per_class': str(own.images_per_class)}
    for training, job in todo:
      if (record := made.record(job)) is not None:
        rows.append(record | label | {
            'training': training, 'folder': job.workdir,
            'gap': learned.get('extra', {}).get('gap')})
  if not rows:
    made.end()
  folder = pathlib.Path(config.workdir)
  metrics = {f'{pathlib.Path(row["folder"]).name}_{name}': metric
             for row in rows for name, metric in row['metrics'].items()}
  records.write(
      folder, config=config, contents=contents.of(config), metrics=metrics,
      wall_time=time.monotonic() - began,
      extra={'sets': sets, 'missing': made.missing,
             'runs': {row['folder']: row['command'] for row in rows}})
  paths = _tables(folder, rows, made.note)
  paths += pictures.draw(folder, {
      f'accuracy_{training}.png': functools.partial(
          _draw, config, rows, training)
      for training in dict.fromkeys(row['training'] for row in rows)})
  screen.show(tables.render(rows, _columns(), title=(
      f'{config.dataset}, {config.network}: test accuracy [95 % interval over '
      'networks and images]')))
  if bounds := _bounds(rows):
    screen.show(tables.render(bounds, _BOUND, title=(
        '\nAdversarial loss on training images (left) and the side of the '
        'cover (right) [95 % interval over networks]')))
  screen.show(*filter(None, [made.note]), *(f'  {path}' for path in paths))
  made.end()
  return metrics


def jobs_of(config: Config) -> list[Job]:
  """The sets and the trainings on them; raises a ValueError as `check`."""
  return _jobs(_planned(config))


def _jobs(planned) -> list[Job]:
  found = []
  for own, todo in planned:
    name, reads = ALL, ()
    if own is not None:
      name, reads = f'{own.method}_{own.images_per_class}', (own.workdir,)
      found.append(Job(f'set: {name}', distill.run, own))
    # A training without a record goes on from its checkpoint.
    found += [Job(f'{training}: {name}', hardened.run, job, reads, training,
                  resumes=True) for training, job in todo]
  return found


def _planned(config) -> list[Any]:
  """As `check`, all of it held against the data before anything is made."""
  planned = check(config)
  for own, _ in planned:
    if own is not None:
      distill.prepared(own)
  hardened.check_data(config, subjects.load_problem(config))
  return planned


def check(config: Config) -> list[
    tuple[distill.Config | None, list[tuple[str, hardened.Config]]]]:
  """The sets, smaller ones first, each with its trainings by name.

  Raises:
    ValueError: something is wrong with a flag, before any data is read.
  """
  hardened.check(config)
  chosen = grid.chosen_methods(config.methods, more=[ALL])
  sizes = grid.chosen_sizes(config.images_per_class)
  trainings = list(dict.fromkeys(evaluation.names(config.trainings)))
  for training in trainings:
    checks.one_of('trainings', training, TRAININGS)
  if not trainings:
    raise ValueError('`trainings` must name one or more, got none.')
  checks.positive('widest', config.widest)
  if 'wide' in trainings:
    if chosen == [ALL] or 'mfc' not in chosen:
      raise ValueError('`methods` must name mfc with training wide, got '
                       f'{config.methods}.')
  made = [method for method in chosen if method != ALL]
  if config.full_steps is not None:
    checks.at_least('full_steps', config.full_steps, 1)
  own = grid.method_options(config, made)
  sets = [grid.distillation(config, method, size, own, **_PLAIN)
          for size in sizes for method in made]
  for one in sets:
    for name in ('transform', 'max_train', 'validation', 'seed'):
      if getattr(one, name) != getattr(config, name):
        raise ValueError(
            f'`options` must leave {name} alone, which is the same for all '
            f'sets: {getattr(config, name)}; got {getattr(one, name)}.')
  return [(one, _trainings(config, one, trainings))
          for one in [*sets, *[None] * (ALL in chosen)]]


def _trainings(config, own, trainings) -> list[tuple[str, hardened.Config]]:
  """The runs on one set; on all training images for None."""
  shared = {field.name: getattr(config, field.name)
            for field in dataclasses.fields(hardened.HardeningConfig)}
  covers = own is not None and own.method == 'mfc'
  if own is None and config.full_steps is not None:
    shared['train_steps'] = config.full_steps
  folder = pathlib.Path(config.workdir, ALL) if own is None else (
      pathlib.Path(own.workdir))
  todo = []
  for training in trainings:
    if training == 'wide' and not covers:
      continue
    job = hardened.Config(
        **shared, set='' if own is None else own.workdir,
        training='pgd' if training == 'wide' else training,
        weighted=covers and config.weigh,
        widest=config.widest if training == 'wide' else 0.0,
        workdir=f'{folder}_{training}')
    hardened.check(job)
    todo.append((training, job))
  return todo


def _columns() -> list[tables.Column]:
  return [
      'method', tables.Column('per_class'), 'training',
      *(tables.Column(f'{name}_accuracy', title=title, percent=True)
        for name, title in _SHOWN.items()),
      tables.Column('train_seconds', title='seconds', digits=0)]


_BOUND = (
    'method', 'per_class', 'training', 'norm',
    tables.Column('eta', digits=3), tables.Column('gap', digits=3),
    tables.Column('left', digits=3), tables.Column('right', digits=2),
    tables.Column('right_by_attack', digits=2),
    tables.Column('relative_slack', title='slack / right', digits=4))


def _bounds(rows) -> list[dict[str, Any]]:
  """One row for each training and norm that has a bound."""
  found = []
  for row in rows:
    for norm in covering.NORMS:
      prefix = f'bound_{norm}_'
      own = {name.removeprefix(prefix): value
             for name, value in row['metrics'].items()
             if name.startswith(prefix)}
      if own:
        gap = row['gap'] if norm == 'l2' else None
        found.append({name: row[name] for name in (
            'method', 'per_class', 'training')} | own | {
                'norm': norm, 'gap': gap})
  return found


def _tables(folder, rows, note) -> list[pathlib.Path]:
  paths = []
  for ending in ('md', 'csv'):
    paths.append(tables.write(
        folder / f'table.{ending}', rows, _columns(), note=note))
    if bounds := _bounds(rows):
      paths.append(tables.write(folder / f'bound.{ending}', bounds, _BOUND))
  return paths


def _draw(config, rows, training, path) -> pathlib.Path:
  """Accuracies under each attack of the networks of one training."""
  series = {title: {} for title in _SHOWN.values()}
  for row in rows:
    if row['training'] == training:
      name = (row['method'] if row['method'] == ALL else
              f'{row["method"]} {row["per_class"]}')
      for attack, title in _SHOWN.items():
        series[title][name] = row['metrics'][f'{attack}_accuracy']
  return dots.intervals(
      path, series,
      title=f'{config.dataset}, {config.network}, {training} training')
