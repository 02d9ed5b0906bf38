"""Does a network trained on a distilled set give back training images?

The command is `experiments.leakage`; its docstring has an example, and what
it writes.
"""
import dataclasses
import functools
import pathlib
import time
from typing import Any, Literal

import numpy as np

from dsr import checks
from dsr.data import Splits
from dsr.report import tables, trade_off
from dsr.runs import (
    compiled,
    contents,
    jobs,
    pictures,
    progress,
    records,
    screen,
)
from dsr.studies.audit import attack_set, leaks, own_leak
from dsr.studies.distillation import distill, evaluation, names
from dsr.studies.distillation.methods import table
from dsr.studies.reconstruction import attacks, victims

REGIMES = {'infinite': '∞', 'linearized': 'lin', 'standard': 'std'}
_FILE = 'train_{num}_{digest}.npz'  # T, and the test set.
# Of each part, with the embedded digits on two cores: see `dsr.runs.progress`.
_SECONDS = {'set of random': 1, 'set of mfc': 2, 'set of kip': 8,
            'set of rkip': 8, 'infinite': 12, 'linearized': 4, 'standard': 6}
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
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  check(config)
  splits = prepared(config)
  brought = own_leak.load(config)
  path = _write(config, splits)
  with compiled.once():
    parts = _progress(config)
    rows = _rows(config, splits.train, str(path), parts)
    mine = _own_rows(config, own_leak.write(config, brought), parts)
  folder = pathlib.Path(config.workdir)
  metrics = {f'{row.get("label", row["method"])}_{row["regime"]}_{name}': metric
             for row in rows + mine for name, metric in row['metrics'].items()}
  told = leaks.sentence(rows, len(splits.train))
  records.write(
      folder, config=config, contents=contents.of(config), metrics=metrics,
      wall_time=time.monotonic() - began,
      seeds={'seed': config.seed, 'attack_seed': config.attack_seed},
      extra={'sentence': told, 'own': own_leak.sentence(mine),
             'untested': own_leak.untested(config, brought), 'runs': {
          name: command for row in rows + mine
          for name, command in row['commands'].items()}})
  near, paths = leaks.nearest_rows(rows), []
  for name, found, columns in (
      ('table', rows + mine, _COLUMNS), ('nearest', near, _NEAREST)):
    paths += [tables.write(folder / f'{name}.{ending}', found, columns)
              for ending in ('md', 'csv')]
  title = f'{config.dataset}, {len(splits.train)} training images'
  paths += pictures.draw(folder, {
      'leakage.png': functools.partial(_draw, rows, title)})
  screen.show(tables.render(
      rows + mine, _COLUMNS, title=f'{title} [95 % interval]'))
  screen.show(tables.render(
      near, _NEAREST, title='\nTo the nearest training image'))
  screen.show('\n'.join(['', told, own_leak.sentence(mine), '']))
  screen.show('\n'.join(f'  {path}' for path in paths))
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


def seconds(config: Config) -> float:
  """That it takes on some machine, for `dsr.runs.progress`."""
  return _progress(config).seconds_left()


def _progress(config) -> progress.Progress:
  regimes, parts = evaluation.names(config.regimes), []
  for method in evaluation.names(config.methods):
    if method != 'all':
      parts.append((f'set of {method.removesuffix("_corrupted")}',
                    f'the set of {method}'))
    parts += [(regime, f'{method}, {regime}') for regime in regimes]
  for path in evaluation.names(config.own):
    parts += [(regime, f'{names.title(path)}, {regime}') for regime in regimes]
  return progress.Progress('leakage', parts, _SECONDS)


def _rows(config, train, path, parts) -> list[dict[str, Any]]:
  """The record of each attack, set by set; makes what is missing."""
  rows = []
  for method in evaluation.names(config.methods):
    images, commands = '', {}
    if method != 'all':
      job = distill_job(config, method, path)
      with parts.part():
        record = jobs.finished(
            job, parts.runs(distill.run), fresh=config.fresh)
      images = str(pathlib.Path(job.workdir, 'distilled.npz'))
      commands = {job.workdir: record['command']}
    for regime in evaluation.names(config.regimes):
      job = dataclasses.replace(
          attack_job(config, method, regime, path, images),
          num_train=_size(config, method, train),
          digest=attack_set.set_digest(images, train))
      with parts.part():
        record = jobs.finished(
            job, parts.runs(attack_set.run), fresh=config.fresh)
      rows.append(record | {
          'method': method, 'regime': regime, 'num_images': job.num_train,
          'commands': commands | {job.workdir: record['command']}})
  return rows


def _own_rows(config, sets, parts) -> list[dict[str, Any]]:
  """The record of each attack on a set of one's own that can be made."""
  rows = []
  for own in sets:
    out = own_leak.too_large(config, own.num_images, own.splits.train.x[0])
    for regime in evaluation.names(config.regimes):
      job = dataclasses.replace(
          attack_job(config, own.name, regime, own.dataset, own.images),
          num_train=own.num_images, digest=own.digest)
      with parts.part():
        if regime in out:
          continue
        record = jobs.finished(
            job, parts.runs(attack_set.run), fresh=config.fresh)
      rows.append(record | {
          'method': own.title, 'label': own.name.replace('/', '_'),
          'regime': regime,
          'num_images': job.num_train, 'num_compared': len(own.splits.train),
          'commands': {job.workdir: record['command']}})
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
        distill.check(distill_job(config, method, 'T.npz'))
    for regime in regimes:
      attack_set.check(attack_job(config, method, regime, 'T.npz', ''))


def distill_job(config: Config, method: str, dataset: str) -> distill.Config:
  """How the set of `method` is made of the images in the file `dataset`."""
  corrupted = method == 'kip_corrupted'
  return distill.resolve(distill.Config(
      dataset=dataset, method='kip' if corrupted else method,
      corruption=config.corruption if corrupted else 0.0, init=config.init,
      images_per_class=config.images_per_class, kernel=config.kernel,
      transform='mean', validation=0.0, keep='last', networks='',
      steps=config.distill_steps, learning_rate=config.distill_learning_rate,
      seed=config.seed, workdir=str(pathlib.Path(config.workdir, method))))


def attack_job(config: Config, method: str, regime: str, dataset: str,
               images: str) -> attack_set.Config:
  """The victim of a set and the attack on it; `num_train` is that of T."""
  own = ({'kernel': config.kernel, 'steps': config.attack_steps}
         if regime == 'infinite' else {'width': config.width})
  return attacks.resolve(attack_set.Config(
      dataset=dataset, num_train=config.num_train, regime=regime,
      images=images, seed=config.seed, attack_seed=config.attack_seed,
      workdir=str(pathlib.Path(config.workdir, method, regime)), **own))


def _size(config, method, train) -> int:
  return (config.num_train if method == 'all' else
          config.images_per_class * train.num_classes)


def prepared(config: Config) -> Splits:
  """T and the test set; raises a ValueError for what does not fit."""
  task = victims.prepare_victim_task(victims.VictimConfig(
      dataset=config.dataset, data_dir=config.data_dir,
      num_train=config.num_train, seed=config.seed))
  train = task.train
  chosen, regimes = map(
      evaluation.names, (config.methods, config.regimes))
  if chosen != ['all'] and _size(config, '', train) > len(train):
    raise ValueError(
        '`images_per_class` must be at most '
        f'{len(train) // train.num_classes}, as many as T has of each class, '
        f'got {config.images_per_class}.')
  # What the first layer's change can tell apart.
  limit = min(train.x[0].size + 1, config.width)
  most = max(_size(config, method, train) for method in chosen)
  if most >= limit and regimes != ['infinite']:
    name = 'num_train' if 'all' in chosen else 'images_per_class'
    raise ValueError(
        f'`{name}` must make fewer than {limit} images for networks of width '
        f'{config.width} and images of {train.x[0].size} numbers, got {most}; '
        'or choose `regimes=infinite`.')
  return Splits(train, task.test)


def _write(config, splits) -> pathlib.Path:
  """T and the test set as a dataset, in a file named by its contents."""
  arrays = {'x_train': splits.train.x, 'y_train': splits.train.y,
            'x_test': splits.test.x, 'y_test': splits.test.y}
  path = pathlib.Path(config.workdir, _FILE.format(
      num=len(splits.train), digest=attack_set.digest(*arrays.values())))
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    with records.replacing(path) as part, open(part, 'wb') as file:
      np.savez_compressed(file, **arrays)
  return path
