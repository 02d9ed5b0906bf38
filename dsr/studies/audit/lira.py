"""Shadow models against distilled sets: LiRA and RMIA.

The command is `experiments.lira`; its docstring has an example, and what
it writes.
"""
import dataclasses
import functools
import pathlib
import time
from typing import Any, Literal

from absl import logging
import jax
import numpy as np

from dsr import checks, data as data_lib, nets
from dsr.probes import intervals, lira, membership, rmia, scores as scores_lib
from dsr.report import tables
from dsr.runs import contents, machine, parts, records, screen
from dsr.runs.plan import Job
from dsr.studies.audit import half_sets, shadow_models, shadow_sets
from dsr.studies.audit.shadow_models import Models
from dsr.studies.audit.subjects import KRR
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.methods import table
from dsr.studies.distillation.problem import Problem, encoded

SQUARED_ERROR = 'negative_squared_error'
ATTACKS = ('online', 'offline', 'rmia', 'rmia_offline', 'threshold')
_FULL_EPOCHS = 30  # Of networks that see all images of their half.

COLUMNS = [
    'method', tables.Column('size', title='per class'), 'model',
    tables.Column('accuracy', title='test accuracy', percent=True),
    'attack', tables.Column('auc', title='AUC', digits=3),
    *(tables.Column(f'tpr_at_fpr_{short}', title=f'TPR at FPR {share}',
                    percent=True)
      for short, share in (('1e2', '1 %'), ('1e3', '0.1 %'))),
    tables.Column('seconds', digits=1), tables.Column('cpu_seconds', digits=1)]


@dataclasses.dataclass(frozen=True)
class Config:
  """Attacks the membership of training images by shadow models."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  # Of the sets: all, for models of all images, or one of those listed at the
  # end of --help.
  method: str = 'kip'
  images_per_class: str = '1,10'  # Sizes of the sets; all has none.
  model: str = KRR  # Trained on the sets: krr, or networks, with commas.
  num_shadows: int = 64  # Of random halves; even.
  num_targets: int = 8  # Further halves, whose models are attacked.
  kernel: str = 'fcn1'  # fcn2, convnet3, convnet3_nopool, myrtle5, ...
  ridge: float = 1e-6  # Relative to tr(K)/n.
  steps: int = 300  # Of kip and rkip.
  learning_rate: float = 0.04  # Of Adam, for kip and rkip.
  init: Literal['real', 'noise'] = 'real'  # What the images start from.
  # Flags of experiments.distill for other methods, with commas between them,
  # e.g. time_limit=5.
  options: str = ''
  # How networks are trained. frepo: Adam on soft labels; condensation: SGD, 300
  # epochs; dsa: SGD, 1000 epochs of augmented images; idc: that, by 64 at once.
  protocol: Literal['frepo', 'condensation', 'dsa', 'idc'] = 'condensation'
  # Passes over each set; unset: the protocol's, or 30 with all.
  network_epochs: int | None = None
  network_learning_rate: float | None = None  # Unset: the protocol's.
  network_batch_size: int | None = None  # Images a step; unset: the protocol's.
  # What is read off the outputs for each image; auto: margin of krr,
  # logit_confidence of networks.
  score: Literal['auto', 'margin', 'logit_confidence',
                 'negative_squared_error'] = 'auto'
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  num_resamples: int = 1000  # Of the bootstrap over examples.
  seed: int = 0  # Of all that is drawn.
  workdir: str = 'out/lira'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all methods and networks."""
    return f'{table.describe()}\n{nets.describe()}'


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record.

  Raises:
    Incomplete: some sets could not be made.
  """
  began = time.monotonic()
  check(config)
  load = machine.load_average()
  problem = half_sets.load(config)
  _check_data(config, problem)
  if todo := half_sets.jobs_of(config):
    parts.make(todo).end()
  metrics, arrays, each, rows = {}, {}, {}, []
  for size in shadow_sets.sizes(config):
    sets = half_sets.read(config, problem, size)
    for model in evaluation.names(config.model):
      models = shadow_models.make(config, problem, sets, model, epochs(config))
      name = config.method if size is None else f'{config.method}_{size}'
      label = name if model == KRR else f'{name}_{model}'
      logging.info('%s: %d models of %s in %.1f s', name, len(models.member),
                   model, models.seconds)
      shared = {'accuracy': _over_targets(models.accuracy),
                'seconds': records.metric(models.seconds),
                'cpu_seconds': records.metric(models.cpu_seconds)}
      metrics |= {f'{label}_{key}': value for key, value in shared.items()
                  if key != 'accuracy'}
      metrics[f'{name}_{model}_accuracy'] = shared['accuracy']
      found = _attacked(config, models, problem, model)
      arrays[f'{label}_member'] = models.member[config.num_shadows:]
      for attack, (means, one_by_one, own) in found.items():
        metrics |= {f'{label}_{attack}_{key}': m for key, m in means.items()}
        each[f'{label}_{attack}'] = one_by_one
        arrays |= {f'{label}_{attack}_{key}': a for key, a in own.items()}
        rows.append(shared | means | {
            'method': config.method, 'size': size, 'model': model,
            'attack': attack, 'name': f'{label}_{attack}'})
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays=arrays,
      arrays_name='lira', wall_time=time.monotonic() - began,
      extra={'targets': each, 'load_average': load,
             'num_examples': len(problem.train),
             'rows': [{key: row[key] for key in (
                 'method', 'size', 'model', 'attack', 'name')}
                      for row in rows]})
  path = tables.write(pathlib.Path(config.workdir) / 'table.md', rows, COLUMNS)
  title = (f'{config.dataset}, {config.num_shadows} shadows, '
           f'{config.num_targets} targets [95 % interval]')
  screen.show(tables.render(rows, COLUMNS, title=title), path, sep='\n')
  return metrics


def jobs_of(config: Config) -> list[Job]:
  """Those that make the sets, some of one size each.

  Raises:
    ValueError: as `check`, or nothing is distilled: that is one job.
  """
  check(config)
  found = half_sets.jobs_of(config)
  if not found:
    raise ValueError('`method` must distil sets to make several jobs, got '
                     f'{config.method!r}.')
  return found


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
  shadow_sets.check(config, shadow_sets.sizes(config))
  models = evaluation.names(config.model)
  if not models or len(set(models)) < len(models):
    raise ValueError('`model` must name krr or networks, each once, got '
                     f'{config.model!r}.')
  resolved = dataclasses.replace(config, network_epochs=epochs(config))
  for model in models:
    shadow_models.check(resolved, model)
    if model != KRR and config.score == SQUARED_ERROR:
      raise ValueError(f'`score` must be of logits with {model}, whose outputs '
                       f'are no regression; got {config.score}.')


def epochs(config: Config) -> int:
  """Passes of each network over its set."""
  if config.network_epochs is None and config.method == shadow_sets.ALL:
    return _FULL_EPOCHS
  return evaluation.protocol(config).epochs


def _check_data(config, problem) -> None:
  shape = problem.train.x.shape[1:]
  evaluation.check_kernel(
      evaluation.kernel_named(config.kernel), config.kernel, shape)
  for model in evaluation.names(config.model):
    if model != KRR:
      evaluation.check_network(
          'model', model, shape, problem.train.num_classes)


def _attacked(config, models, problem, model) -> dict[str, tuple]:
  """Attack -> (means over targets, metrics of each, arrays)."""
  truth, found = models.member[config.num_shadows:], {}
  for attack, score in attack_scores(config, models, problem, model).items():
    each = _evaluate(config, score, truth)
    means = {key: _over_targets([m[key].value for m in each], each[0][key])
             for key in each[0]}
    fpr, tpr = mean_roc(score, truth)
    found[attack] = (
        means, [{key: i._asdict() for key, i in m.items()} for m in each],
        {'scores': score, 'fpr': fpr, 'tpr': tpr})
  return found


def attack_scores(
    config: Config, models: Models, problem: Problem, model: str = KRR
) -> dict[str, np.ndarray]:
  """(T, N) of each of `ATTACKS` on the targets, larger for likelier members.

  Args:
    config: its `score`, `num_shadows` and `seed`.
    models: shadows, then targets.
    problem: whose training set they were made of parts of.
    model: 'krr', or a network.
  """
  num, kind = config.num_shadows, config.score
  if kind == 'auto':
    kind = 'margin' if model == KRR else 'logit_confidence'
  if kind == SQUARED_ERROR:
    score = scores_lib.negative_squared_error(
        models.outputs, np.asarray(encoded(problem.train)))
  else:
    score = scores_lib.SCORES[kind](models.outputs, problem.train.y)
  outside = shadow_models.population(problem, config.seed)
  log_p, others = _log_probabilities(config, models, problem, outside, model)
  a = rmia.offline_scale(log_p[:num], models.member[:num])
  likelihood = functools.partial(
      lira.lira, score[:num], models.member[:num], score[num:])
  ratio = functools.partial(
      rmia.rmia, log_p[:num], models.member[:num], log_p[num:], others[:num],
      others[num:], a=a)
  return {'online': likelihood(), 'offline': likelihood(online=False),
          'rmia': ratio(), 'rmia_offline': ratio(online=False),
          'threshold': score[num:]}


def _log_probabilities(config, models, problem, outside, model):
  """log p of the true class for RMIA: (R + T, N), and (R + T, Z)."""
  if model != KRR:
    return (scores_lib.negative_loss(models.outputs, problem.train.y),
            scores_lib.negative_loss(models.population, outside.y))
  errors = [-scores_lib.negative_squared_error(out, np.asarray(encoded(data)))
            for out, data in ((models.outputs, problem.train),
                              (models.population, outside))]
  num = config.num_shadows
  variance = float(np.mean(errors[0][:num][~models.member[:num]]))
  return tuple(rmia.gaussian_log_p(error, variance) for error in errors)


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
