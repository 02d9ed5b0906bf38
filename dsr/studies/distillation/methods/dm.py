"""Distribution matching, by the flags of `experiments.distill`."""
from typing import Any

import optax

from dsr import checks, data as data_lib, nets
from dsr.distill import dm as dm_lib
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.methods import learning
from dsr.studies.distillation.methods.method import Learned, Method, optimizer
from dsr.studies.distillation.problem import Problem, refuse_tables

_MOMENTUM = 0.5


def _dm(config, kernel_fn, problem, baseline) -> Learned:
  augment = None
  if config.augment != 'none':
    augment = data_lib.siamese.siamese(
        evaluation.siamese(config.augment, config.dataset))
  module = nets.build(config.dm_network, baseline.y.shape[1])
  solver = dm_lib.dm(
      module,
      optimizer(config, lambda rate: optax.sgd(rate, momentum=_MOMENTUM)),
      batch_size=config.batch_size, augment=augment)
  data = learning.targets_of(problem)
  return learning.learn(
      config, kernel_fn, problem, baseline, solver, data, data)


def _check(config: Any) -> None:
  checks.at_least('batch_size', config.batch_size, 1)
  with checks.renamed(name='dm_network'):
    nets.check_name(config.dm_network)
  if config.augment != 'none':
    data_lib.siamese.siamese(
        evaluation.siamese(config.augment, config.dataset))


def _check_data(config: Any, problem: Problem) -> None:
  if config.augment != 'none':
    refuse_tables('augment', config.augment, problem)


DM = Method(
    _dm, 'distribution matching (arXiv:2110.04181)',
    {'steps': 1000, 'learning_rate': 1.0, 'batch_size': 256, 'keep': 'last',
     'augment': 'dsa'},
    frozenset({'augment', 'ema', 'dm_network', 'max_minutes'}), check=_check,
    check_data=_check_data, from_noise=True,
    networks=lambda config: ('dm_network',))
