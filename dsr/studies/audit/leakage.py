"""Does a network trained on a distilled set give back training images?

The command is `experiments.leakage`; its docstring has an example, and what
it writes.
"""
import dataclasses
import functools
import pathlib
import time
from typing import Any, Literal

from dsr import checks
from dsr.data import Splits
from dsr.report import tables, trade_off
from dsr.runs import (
  compiled,
  contents,
  parts,
  pictures,
  progress,
  records,
  screen,
)
from dsr.runs.plan import Job
from dsr.studies.audit import (
  attack_set,
  leak_data,
  leak_jobs,
  leaks,
  own_leak,
)
from dsr.studies.distillation import distill, evaluation
from dsr.studies.distillation.methods import table

REGIMES = {'infinite': '∞', 'linearized': 'lin', 'standard': 'std'}
_PERCENT = {
    'accuracy': 'test accuracy', 'own_recovered_rmse_0.01': 'set < 0.01',
    'own_recovered_rmse_0.05': 'set < 0.05',
    'train_recovered_rmse_0.01': 'T < 0.01',
    'train_recovered_rmse_0.05': 'T < 0.05',
    'given_recovered_rmse_0.05': 'T in the set',
    'others_recovered_rmse_0.05': 'T by other images'}
_COLUMNS = (
    'method', tables.Column('num_images', title='images'), 'regime',
    *(tables.Column(key, title=title, percent=True)
      for key, title in _PERCENT.items()),
    tables.Column('seconds', digits=1))
_NEAREST = (
    'method', 'images', tables.Column('rmse_mean', title='mean RMSE'),
    tables.Column('rmse_median', title='median'),
    tables.Column('rmse_min', title='least'),
    tables.Column('ssim_mean', title='mean SSIM'),
    tables.Column('corr_mean', title='mean correlation'),
    tables.Column('corr_max', title='greatest'),
    tables.Column('nearer', title='nearer than fresh ones', percent=True),
    tables.Column('more_alike', title='by correlation', percent=True))


@dataclasses.dataclass(frozen=True)
class Config:
  """Attacks networks that were trained on sets made of one training set."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  num_train: int = 50  # Of T, the same number of each class.
  images_per_class: int = 1  # Of the sets.
  # How the sets are made, with commas between them: those listed at the end of
  # --help, all (the training set T itself) or kip_corrupted.
  methods: str = 'all,random,kip,kip_corrupted,rkip,mfc'
  # Sets of your own, that networks are trained on besides, with commas between
  # their paths; see `distilled` of experiments.audit.
  own: str = ''
  # Of the victims: infinite, linearized, standard.
  regimes: str = 'infinite,linearized'
  kernel: str = 'fcn2'  # Of the distillation and of victims of infinite width.
  width: int = 2048  # Of the others, which are MLPs.
  init: Literal['real', 'noise'] = 'real'  # What learned sets start from.
  corruption: float = 0.9  # Share of pixels that kip_corrupted does not learn.
  distill_steps: int = 1000  # Of each distillation.
  distill_learning_rate: float | None = None  # Unset: the method's own.
  attack_steps: int | None = None  # Of attacks at infinite width; unset: 2000.
  seed: int = 0  # Of T, the sets and the networks.
  attack_seed: int = 0  # Of the attacks' starts.
  fresh: bool = False  # Whether to repeat the runs that are finished.
  workdir: str = 'out/leakage'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all methods."""
    return table.describe()


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record.

  Raises:
    Incomplete: some jobs have failed; the tables name them.
  """
  began = time.monotonic()
  check(config)
  splits = prepared(config)
  attacks, brought = _attacks(config, splits)
  todo = leak_jobs.jobs(attacks)
  with compiled.once():
    made = parts.make(todo, fresh=config.fresh, told=progress.Progress(
        'leakage', [(job.kind, job.name) for job in todo], leak_jobs.SECONDS))
  every = _rows(attacks, made)
  if not every:
    made.end()
  rows, mine = ([row for row in every if row['own'] == own]
                for own in (False, True))
  folder = pathlib.Path(config.workdir)
  metrics = {f'{row["label"]}_{row["regime"]}_{name}': metric
             for row in every for name, metric in row['metrics'].items()}
  told = leaks.sentence(rows, len(splits.train)) if rows else ''
  records.write(
      folder, config=config, contents=contents.of(config), metrics=metrics,
      wall_time=time.monotonic() - began,
      seeds={'seed': config.seed, 'attack_seed': config.attack_seed},
      extra={'missing': made.missing, 'sentence': told,
             'own': own_leak.sentence(mine),
             'untested': own_leak.untested(config, brought), 'runs': {
          name: command for row in every
          for name, command in row['commands'].items()}})
  near, paths = leaks.nearest_rows(rows) if rows else [], []
  for name, found, columns in (
      ('table', every, _COLUMNS), ('nearest', near, _NEAREST)):
    paths += [tables.write(folder / f'{name}.{ending}', found, columns,
                           note=made.note) for ending in ('md', 'csv')]
  title = f'{config.dataset}, {len(splits.train)} training images'
  paths += pictures.draw(folder, {
      'leakage.png': functools.partial(_draw, rows, title)})
  screen.show(tables.render(
      every, _COLUMNS, title=f'{title} [95 % interval]'))
  screen.show(tables.render(
      near, _NEAREST, title='\nTo the nearest training image'))
  screen.show('', told, own_leak.sentence(mine), made.note,
              *(f'  {path}' for path in paths))
  made.end()
  return metrics


def _draw(rows, title, path) -> pathlib.Path:
  """Accuracy against what came back of T, a point for each attack."""
  path.unlink(missing_ok=True)  # An earlier one shows other numbers.
  names = [f'{row["method"]} {REGIMES[row["regime"]]}' for row in rows]
  points = [(row['metrics'][f'train_recovered_rmse_{leaks.LEVEL}'],
             row['metrics']['accuracy']) for row in rows]
  return trade_off.trade_off(
      path, dict(zip(names, points)),
      xlabel=f'training images that came back, RMSE < {leaks.LEVEL} (%)',
      ylabel='test accuracy (%)', percent_x=True, percent_y=True, title=title,
      groups=dict(zip(names, (row['regime'] for row in rows))))


def jobs_of(config: Config) -> list[Job]:
  """Images, sets and attacks; raises a ValueError as `check`."""
  check(config)
  return leak_jobs.jobs(_attacks(config, prepared(config))[0])


def _attacks(config, splits):
  """(the attacks, one's own sets as `own_leak.load` has them)."""
  brought = own_leak.load(config)
  return leak_jobs.attacks(
      config, splits.train, [one[:2] for one in brought]), brought


def _rows(attacks, made) -> list[dict[str, Any]]:
  """The record of each attack that was made, with its set's commands."""
  rows = []
  for attack in attacks:
    if (record := made.record(attack.job)) is None:
      continue
    behind = [job for job in (attack.images, attack.made) if job is not None]
    rows.append(record | {
        'method': attack.title, 'label': attack.label,
        'own': bool(attack.images.set), 'regime': attack.job.regime,
        'num_images': attack.job.num_train,
        'num_compared': made.record(attack.images)['metrics'][
            'num_images'].value,
        'commands': {job.workdir: made.record(job)['command']
                     for job in (*behind, attack.job)}})
  return rows


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  chosen = evaluation.names(config.methods)
  regimes = evaluation.names(config.regimes)
  for name, values, known in (
      ('methods', chosen, ('all', 'kip_corrupted', *table.METHODS)),
      ('regimes', regimes, REGIMES)):
    if not values or len(set(values)) < len(values):
      raise ValueError(f'`{name}` must name one or more, each once, got '
                       f'{getattr(config, name)!r}.')
    for value in values:
      checks.one_of(name, value, known)
  checks.at_least('num_train', config.num_train, 2)
  checks.at_least('images_per_class', config.images_per_class, 1)
  checks.within('corruption', config.corruption, 0, 1)
  if config.attack_steps is not None:
    checks.at_least('attack_steps', config.attack_steps, 1)
  for method in chosen:
    if method != 'all':
      with checks.renamed(steps='distill_steps',
                          learning_rate='distill_learning_rate'):
        distill.check(leak_jobs.distill_job(config, method, 'T.npz'))
    for regime in regimes:
      attack_set.check(leak_jobs.attack_job(
          config, method, regime, 'T.npz', ''))


def prepared(config: Config) -> Splits:
  """T and the test set; raises a ValueError for what does not fit."""
  splits = leak_data.training_images(config)
  train = splits.train
  chosen, regimes = map(
      evaluation.names, (config.methods, config.regimes))
  if chosen != ['all'] and leak_jobs.size(config, '', train) > len(train):
    raise ValueError(
        '`images_per_class` must be at most '
        f'{len(train) // train.num_classes}, as many as T has of each class, '
        f'got {config.images_per_class}.')
  # What the first layer's change can tell apart.
  limit = min(train.x[0].size + 1, config.width)
  most = max(leak_jobs.size(config, method, train) for method in chosen)
  if most >= limit and regimes != ['infinite']:
    name = 'num_train' if 'all' in chosen else 'images_per_class'
    raise ValueError(
        f'`{name}` must make fewer than {limit} images for networks of width '
        f'{config.width} and images of {train.x[0].size} numbers, got {most}; '
        'or choose `regimes=infinite`.')
  return splits
