"""Gradient matching, DC and DSA, by the flags of `experiments.distill`."""
import functools
from typing import Any, NamedTuple

import optax

from dsr import checks, data as data_lib, nets
from dsr.distill import dc as dc_lib
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

_MOMENTUM = 0.5


class Options(NamedTuple):
  """Of DC and DSA.

  Attributes:
    network: whose gradients are matched; None: of `method.convnet`.
    outer: steps of the images with one network; 0: published for the size.
    inner: epochs of the network between two of them; 0: published.
    network_rate: of gradient descent on the network.
  """

  network: str | None = None
  outer: int = 0
  inner: int = 0
  network_rate: float = 0.01


def _options(config) -> Options:
  own = options_of(DC, config.options)
  return own._replace(network=own.network or convnet(config.dataset))


def _distil(config, kernel_fn, problem, baseline) -> Learned:
  own = _options(config)
  outer, inner = dc_lib.loops(config.images_per_class)
  solver = dc_lib.dc(
      nets.build(own.network, problem.train.num_classes),
      optimizer(config, functools.partial(optax.sgd, momentum=_MOMENTUM)),
      outer=own.outer or outer, inner=own.inner or inner,
      batch_size=config.batch_size, network_rate=own.network_rate,
      augment=_augment(config, shared=True),
      augment_training=_augment(config, shared=False))
  data = learning.targets_of(problem)
  return learning.learn(
      config, kernel_fn, problem, baseline, solver, data, data,
      remedies=('learning_rate', 'network_rate'))


def _augment(config, *, shared: bool):
  if config.augment == 'none':
    return None
  return data_lib.siamese.siamese(
      evaluation.siamese(config.augment, config.dataset), shared=shared)


def _check(config: Any) -> None:
  own = _options(config)
  checks.at_least('batch_size', config.batch_size, 1)
  checks.at_least('options outer', own.outer, 0)
  checks.at_least('options inner', own.inner, 0)
  checks.positive('options network_rate', own.network_rate)
  with checks.renamed(name='options network'):
    nets.check_name(own.network)
  _augment(config, shared=True)


def _check_data(config: Any, problem: Problem) -> None:
  if config.augment != 'none':
    refuse_tables('augment', config.augment, problem)
  evaluation.check_network(
      'options network', _options(config).network,
      problem.train.x.shape[1:], problem.train.num_classes)


# Of standardised pixels; published but for digits, see BUILD_NOTES.
_RATE = {'digits': 0.03, 'mnist': 0.1, 'cifar': 0.1}
_UNSET = {'batch_size': 256, 'keep': 'last'}
DC = Method(
    _distil, 'gradient matching (arXiv:2006.05929)', _UNSET,
    frozenset({'ema', 'max_minutes'}), options=Options, check=_check,
    check_data=_check_data, from_noise=True,
    of_data=lambda config: {'learning_rate': _RATE[family(config.dataset)]})
DSA = DC._replace(
    help='gradient matching under augmentation (arXiv:2102.08259)',
    unset=_UNSET | {'augment': 'dsa'}, reads=DC.reads | {'augment'})
