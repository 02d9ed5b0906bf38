"""Shadow models against distilled sets: LiRA on kernel ridge regression.

The command is `experiments.lira`; its docstring has an example, and what
it writes.
"""
import dataclasses
import functools
import pathlib
import time
from typing import Any, Literal, NamedTuple

from absl import logging
import jax
import numpy as np
import optax

from dsr import checks, data as data_lib, kernels, krr
from dsr.distill import kip, rkip, shadows as shadows_lib, targets
from dsr.probes import intervals, lira, membership, scores as scores_lib
from dsr.report import tables
from dsr.runs import contents, machine, records, screen
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.problem import Problem, encoded, prepare
from dsr.types import Examples

SQUARED_ERROR = 'negative_squared_error'
ATTACKS = ('online', 'offline', 'threshold')

_COLUMNS = [
    'method', tables.Column('size', title='per class'),
    tables.Column('krr_accuracy', title='test accuracy', percent=True),
    'attack', tables.Column('auc', title='AUC', digits=3),
    *(tables.Column(f'tpr_at_fpr_{short}', title=f'TPR at FPR {share}',
                    percent=True)
      for short, share in (('1e2', '1 %'), ('1e3', '0.1 %'))),
    tables.Column('seconds', digits=1), tables.Column('cpu_seconds', digits=1)]


@dataclasses.dataclass(frozen=True)
class Config:
  """Attacks the membership of training images by shadow models."""

  dataset: str = 'digits'  # A name (digits, mnist, ...), name[3,8] or an .npz.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  method: Literal['kip', 'rkip', 'random', 'all'] = 'kip'  # Of the sets.
  images_per_class: str = '1,10'  # Sizes of the sets; all has none.
  num_shadows: int = 64  # Of random halves; even.
  num_targets: int = 8  # Further halves, whose models are attacked.
  kernel: str = 'fcn1'  # fcn2, convnet3, convnet3_nopool, myrtle5, ...
  ridge: float = 1e-6  # Relative to tr(K)/n.
  steps: int = 300  # Of kip and rkip.
  learning_rate: float = 0.04  # Of Adam.
  init: Literal['real', 'noise'] = 'real'  # What the images start from.
  # What is read off the outputs for each image.
  score: Literal[
      'margin', 'logit_confidence', 'negative_squared_error'] = 'margin'
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  num_resamples: int = 1000  # Of the bootstrap over examples.
  seed: int = 0  # Of all that is drawn.
  workdir: str = 'out/lira'  # Where the results go.


class Models(NamedTuple):
  """Shadows, and after them the targets.

  Attributes:
    outputs: (R + T, N, C) on all training examples.
    member: (R + T, N) which of them each was made of.
    accuracy: (T,) of the targets on the test set.
    seconds: of making all.
    cpu_seconds: the same, of all threads.
  """

  outputs: np.ndarray
  member: np.ndarray
  accuracy: np.ndarray
  seconds: float
  cpu_seconds: float


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  check(config)
  load = machine.load_average()
  problem = prepare(
      config.dataset, data_dir=config.data_dir, transform=config.transform,
      images_per_class=1, max_train=config.max_train, validation=0,
      seed=config.seed)
  metrics, arrays, each, rows = {}, {}, {}, []
  for size in _sizes(config):
    name = config.method if size is None else f'{config.method}_{size}'
    models = _models(config, problem, size)
    logging.info('%s: %d models in %.1f s', name, len(models.member),
                 models.seconds)
    shared = {'krr_accuracy': _over_targets(models.accuracy),
              'seconds': records.metric(models.seconds),
              'cpu_seconds': records.metric(models.cpu_seconds)}
    metrics |= {f'{name}_{key}': value for key, value in shared.items()}
    truth = models.member[config.num_shadows:]
    arrays[f'{name}_member'] = truth
    for attack, score in attack_scores(config, models, problem).items():
      found = _evaluate(config, score, truth)
      means = {key: _over_targets([m[key].value for m in found], found[0][key])
               for key in found[0]}
      metrics |= {f'{name}_{attack}_{key}': m for key, m in means.items()}
      each[f'{name}_{attack}'] = [
          {key: i._asdict() for key, i in m.items()} for m in found]
      fpr, tpr = mean_roc(score, truth)
      arrays |= {f'{name}_{attack}_scores': score, f'{name}_{attack}_fpr': fpr,
                 f'{name}_{attack}_tpr': tpr}
      rows.append(shared | means | {
          'method': config.method, 'size': size, 'attack': attack})
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays=arrays,
      arrays_name='lira', wall_time=time.monotonic() - began,
      extra={'targets': each, 'load_average': load,
             'num_examples': len(problem.train)})
  path = tables.write(pathlib.Path(config.workdir) / 'table.md', rows, _COLUMNS)
  title = (f'{config.dataset}, {config.num_shadows} shadows, '
           f'{config.num_targets} targets [95 % interval]')
  screen.show(tables.render(rows, _COLUMNS, title=title), path, sep='\n')
  return metrics


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.at_least('num_shadows', config.num_shadows, 4)
  if config.num_shadows % 2:  # A pair must not straddle shadows and targets.
    raise ValueError(
        f'`num_shadows` must be even, got {config.num_shadows}.')
  checks.at_least('num_targets', config.num_targets, 1)
  checks.at_least('steps', config.steps, 1)
  checks.at_least('max_train', config.max_train, 0)
  checks.at_least('num_resamples', config.num_resamples, 1)
  checks.at_least('seed', config.seed, 0)
  checks.positive('ridge', config.ridge)
  checks.positive('learning_rate', config.learning_rate)
  for part in config.transform.split('+'):
    checks.one_of('transform', part, data_lib.transforms.known())
  _sizes(config)


def _sizes(config) -> list[int | None]:
  """Images a class; [None] for all."""
  if config.method == 'all':
    return [None]
  sizes = evaluation.names(config.images_per_class)
  if not sizes or not all(size.isdigit() and int(size) for size in sizes):
    raise ValueError('`images_per_class` must be positive integers with commas '
                     f'between them, got {config.images_per_class!r}.')
  return sorted(set(map(int, sizes)))


def _models(config: Config, problem: Problem, size: int | None) -> Models:
  kernel_fn, labels = evaluation.kernel_named(config.kernel), problem.train.y
  key_halves, key_sets = jax.random.split(jax.random.key(config.seed + 1))
  num = config.num_shadows + config.num_targets
  x, y = problem.examples(problem.train)
  x_test = problem.inputs(problem.test)
  began, cpu = time.monotonic(), time.process_time()
  if size is None:
    found = krr.shadows(key_halves, kernels.gram(kernel_fn, x), y,
                        num_shadows=num, ridge=config.ridge)
    if not found.converged.all():
      raise FloatingPointError(
          f'A fit did not converge: raise `ridge` (got {config.ridge}).')
    outputs, member = np.asarray(found.outputs), np.asarray(found.member)
    supports = [Examples(x[rows], y[rows])
                for rows in map(np.flatnonzero, member[config.num_shadows:])]
  else:
    member = shadows_lib.stratified_halves(key_halves, labels, num)
    sets = _sets(config, key_sets, kernel_fn, (x, y, labels), member, size)
    outputs = shadows_lib.shadow_outputs(
        kernel_fn, sets, x, ridge=config.ridge)
    supports = [Examples(*map(jax.numpy.asarray, one))
                for one in zip(*sets)][config.num_shadows:]
  seconds, cpu = time.monotonic() - began, time.process_time() - cpu
  accuracy = [evaluation.accuracy(
      kernel_fn, support, x_test, problem.test.y, config.ridge)
              for support in supports]
  return Models(outputs, member, np.array(accuracy), seconds, cpu)


def _sets(config, key, kernel_fn, data, member, size) -> Examples:
  """x (R, S, ...), y (R, S, C) of all sets."""
  x, y, labels = (np.asarray(a) for a in data)
  if config.method == 'random':
    starts = []
    for key_one, own in zip(jax.random.split(key, len(member)), member):
      start, _ = shadows_lib.shadow_start(
          jax.random.split(key_one)[0], x[own], y[own], labels[own],
          images_per_class=size)
      starts.append(start.examples())
    return Examples(*map(np.stack, zip(*starts)))
  optimizer = optax.adam(config.learning_rate)
  solver, data_fn = {
      'kip': (kip.kip(kernel_fn, optimizer, ridge=config.ridge, batch_size=0),
              targets.targets),
      'rkip': (rkip.rkip(kernel_fn, optimizer, ridge=config.ridge),
               lambda x, y, _: rkip.interpolant(
                   kernel_fn, Examples(x, y), ridge=config.ridge)),
  }[config.method]
  found = shadows_lib.distill_shadows(
      key, solver, x, y, labels, member, images_per_class=size,
      num_steps=config.steps, init=config.init, data_fn=data_fn)
  return Examples(found.x, found.y)


def attack_scores(config: Config, models: Models,
                  problem: Problem) -> dict[str, np.ndarray]:
  """(T, N) of each of `ATTACKS` on the targets, larger for likelier members.

  Args:
    config: its `score` and `num_shadows`.
    models: shadows, then targets.
    problem: whose training set they were made of parts of.
  """
  if config.score == SQUARED_ERROR:
    score = scores_lib.negative_squared_error(
        models.outputs, np.asarray(encoded(problem.train)))
  else:
    score = scores_lib.SCORES[config.score](models.outputs, problem.train.y)
  num = config.num_shadows
  attack = functools.partial(
      lira.lira, score[:num], models.member[:num], score[num:])
  return {'online': attack(), 'offline': attack(online=False),
          'threshold': score[num:]}


def mean_roc(score: np.ndarray, member: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray]:
  """The mean over targets of their TPR, at each FPR that they all have.

  Args:
    score: (T, N).
    member: (T, N), with equally many members in each row.
  """
  num = int((~member[0]).sum())
  fpr = np.arange(num + 1) / num
  curves = []
  for row, truth in zip(score, member):
    curve = membership.roc(row, truth)
    at = np.searchsorted(curve.fpr, fpr + 0.5 / num) - 1  # The last of equals.
    curves.append(curve.tpr[at])
  return fpr, np.mean(curves, axis=0)


def _evaluate(config, score, member) -> list[dict[str, intervals.Interval]]:
  """The metrics of each target."""
  keys = jax.random.split(jax.random.key(config.seed + 2), len(score))
  return [membership.evaluate(
      key, row, truth, num_resamples=config.num_resamples)._asdict()
          for key, row, truth in zip(keys, score, member)]


def _over_targets(values, alone: intervals.Interval | None = None):
  """Mean of shares with Student's interval, or what is known of one alone."""
  if len(values) == 1:
    return alone or records.metric(float(values[0]))
  mean, low, high = intervals.mean_t(values)
  return intervals.Interval(mean, max(low, 0.0), min(high, 1.0))
