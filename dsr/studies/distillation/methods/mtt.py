"""Matching training trajectories, by the flags of `experiments.distill`."""
import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import optax

from dsr import checks, data as data_lib, nets
from dsr.distill import experts as experts_lib, mtt as mtt_lib
from dsr.runs import contents
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.methods import learning
from dsr.studies.distillation.methods.method import (
    Learned,
    Method,
    convnet,
    family,
    optimizer,
    options_of,
)
from dsr.studies.distillation.problem import Problem, refuse_tables
from dsr.types import Examples

_MOMENTUM = 0.5
# Flags that the experts depend on, beside some options.
_OF_EXPERTS = ('dataset', 'transform', 'max_train', 'validation', 'augment',
               'seed')
_EXPERT_OPTIONS = ('network', 'expert_rate', 'expert_batch')


class Options(NamedTuple):
  """Of MTT alone; None is the value for the data set, see `RECIPES`.

  Attributes:
    network: of experts and students; None: of `method.convnet`.
    experts: networks trained on the training set.
    expert_rate: of their SGD.
    expert_batch: training images in a step of theirs.
    experts_dir: folder of their trajectories; '' is `training` in the workdir.
      Runs that share it, such as those of several sizes, train them once.
    side_by_side: experts in training at once; unset: one on CPUs, else as
      many as the memory holds.
    precision: of the trajectories, float16 or float32.
    student_steps: that a student goes on the distilled set.
    target_epochs: of the expert, that these steps should make up for.
    most_start: students start where an expert was after fewer epochs.
    student_rate: of the student's SGD at the start; it is learned.
    rate_rate: learning rate of that rate.
  """

  network: str | None = None
  experts: int | None = None
  expert_rate: float | None = None
  expert_batch: int = 256
  experts_dir: str = ''
  side_by_side: int | None = None
  precision: str = 'float16'
  student_steps: int | None = None
  target_epochs: int | None = None
  most_start: int | None = None
  student_rate: float | None = None
  rate_rate: float | None = None


class Recipe(NamedTuple):
  """What depends on the data set and on the images per class."""

  learning_rate: float
  student_steps: int
  target_epochs: int
  most_start: int
  rate_rate: float
  student_rate: float = 0.01
  expert_rate: float = 0.01
  experts: int = 100


# By family, and whether there is one image a class. CIFAR: the values for
# CIFAR-10 with ZCA, as later work lists them (arXiv:2407.08113, its code).
# MNIST: those of the authors' own example, as none are published. Digits: found
# on the validation split, see BUILD_NOTES.
RECIPES = {
    ('cifar', True): Recipe(100.0, 50, 2, 2, 1e-7),
    ('cifar', False): Recipe(1000.0, 30, 2, 20, 1e-4),
    ('mnist', True): Recipe(1000.0, 20, 3, 20, 1e-5),
    ('mnist', False): Recipe(1000.0, 20, 3, 20, 1e-5),
    ('digits', True): Recipe(8.0, 15, 4, 4, 1e-4, 0.05, 0.1, 8),
    ('digits', False): Recipe(80.0, 15, 4, 4, 1e-4, 0.05, 0.1, 8),
}


def recipe(config: Any) -> Recipe:
  """The values for the data set and size of an `experiments.distill.Config`."""
  return RECIPES[family(config.dataset), config.images_per_class == 1]


def _resolved(config) -> Options:
  own, usual = options_of(MTT, config.options), recipe(config)._asdict()
  usual['network'] = convnet(config.dataset)
  return own._replace(**{
      name: usual[name] for name, value in own._asdict().items()
      if value is None and name in usual})


def _mtt(config, kernel_fn, problem, baseline) -> Learned:
  own = _resolved(config)
  augment = None
  if config.augment != 'none':
    augment = data_lib.siamese.siamese(
        evaluation.siamese(config.augment, config.dataset), shared=False)
  examples = problem.examples(problem.train)
  examples = Examples(examples.x, evaluation.probabilities(examples.y))
  module = nets.build(own.network, examples.y.shape[1])
  found = experts_lib.train_experts(
      jax.random.key(config.seed + 6), module, examples,
      num_experts=own.experts, epochs=own.most_start - 1 + own.target_epochs,
      learning_rate=own.expert_rate, batch_size=own.expert_batch,
      augment=augment, dtype=own.precision, folder=_folder(config, own),
      fingerprint=_fingerprint(config, own), parallel=own.side_by_side)
  solver = mtt_lib.mtt(
      module,
      optimizer(config, lambda rate: optax.sgd(rate, momentum=_MOMENTUM)),
      optax.sgd(own.rate_rate, momentum=_MOMENTUM),
      student_steps=own.student_steps, target_epochs=own.target_epochs,
      most_start=own.most_start, start_rate=own.student_rate,
      batch_size=config.batch_size, augment=augment,
      probabilities=evaluation.probabilities)
  params = jax.numpy.asarray(found.params)
  learned = learning.learn(
      config, kernel_fn, problem, baseline, solver, params, params,
      rate_of=lambda state: state.rate)
  return learned._replace(
      seconds=learned.seconds + found.seconds,
      info={'expert_seconds': found.seconds, 'num_experts': own.experts})


def _folder(config, own) -> pathlib.Path | None:
  if own.experts_dir:
    return pathlib.Path(own.experts_dir).expanduser()
  return pathlib.Path(config.workdir, 'training') if config.workdir else None


def _fingerprint(config, own) -> str:
  """All that the experts depend on, but for their number and epochs."""
  flags = contents.fingerprint(config, ignore=tuple(
      f.name for f in dataclasses.fields(config) if f.name not in _OF_EXPERTS))
  return f'{flags} {[getattr(own, name) for name in _EXPERT_OPTIONS]}'


def _check(config: Any) -> None:
  own = _resolved(config)
  with checks.renamed(name='options network'):
    nets.check_name(own.network)
  checks.one_of('options precision', own.precision, experts_lib.DTYPES)
  for name in ('experts', 'expert_batch', 'student_steps', 'target_epochs',
               'most_start'):
    checks.at_least(f'options {name}', getattr(own, name), 1)
  for name in ('expert_rate', 'student_rate', 'rate_rate'):
    checks.positive(f'options {name}', getattr(own, name))
  if own.side_by_side is not None:
    checks.at_least('options side_by_side', own.side_by_side, 1)
  if config.augment != 'none':
    data_lib.siamese.siamese(evaluation.siamese(config.augment, config.dataset))


def _check_data(config: Any, problem: Problem) -> None:
  evaluation.check_network(
      'options network', _resolved(config).network,
      problem.train.x.shape[1:], problem.train.num_classes)
  if config.augment != 'none':
    refuse_tables('augment', config.augment, problem)


MTT = Method(
    _mtt, 'matching the training trajectories of experts (arXiv:2203.11932)',
    {'batch_size': 0, 'keep': 'last', 'augment': 'dsa'},
    frozenset({'augment', 'max_minutes'}), options=Options, check=_check,
    check_data=_check_data, from_noise=True, uneven=True,
    of_data=lambda config: {'learning_rate': recipe(config).learning_rate})
