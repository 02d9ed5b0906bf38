"""FRePo, by the flags of `experiments.distill`."""
from typing import Any, Literal, NamedTuple

import optax

from dsr import checks, nets
from dsr.distill import frepo as frepo_lib
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.methods import learning
from dsr.studies.distillation.methods.method import (
    Learned,
    Method,
    family,
    optimizer,
    options_of,
)
from dsr.studies.distillation.problem import Problem, refuse_tables

_LAST = 0.1  # Share of the rate that a cosine ends at, as published.


class Options(NamedTuple):
  """Of FRePo alone; None is the value for the data set.

  Attributes:
    pool_network: of the pool, a name of `dsr.nets`: frepo_convnet; of digits
      convnet3.
    pool: networks in it.
    age: steps of training after which a network is replaced.
    online_rate: of Adam, for the networks of the pool.
    optimizer: of images and labels: LAMB; of digits Adam.
    labels: whether labels are learned.
    flip: whether the regression sees mirror images; of RGB images it does.
  """

  pool_network: str | None = None
  pool: int = 10
  age: int = 100
  online_rate: float = 3e-4
  optimizer: str | None = None
  labels: Literal['learned', 'fixed'] = 'learned'
  flip: bool | None = None


_OPTIMIZERS = {'lamb': optax.lamb, 'adam': optax.adam}
_NETWORK = {'digits': 'convnet3', 'mnist': 'frepo_convnet',
            'cifar': 'frepo_convnet'}
_OPTIMIZER = {'digits': 'adam', 'mnist': 'lamb', 'cifar': 'lamb'}
_RATE = {'digits': 1e-2, 'mnist': 3e-4, 'cifar': 3e-4}


def _resolved(config) -> Options:
  """The options, but for `flip`, which the images decide."""
  own, kind = options_of(FREPO, config.options), family(config.dataset)
  return own._replace(
      pool_network=own.pool_network or _NETWORK[kind],
      optimizer=own.optimizer or _OPTIMIZER[kind])


def _frepo(config, kernel_fn, problem, baseline) -> Learned:
  own = _resolved(config)
  flip = own.flip
  if flip is None:
    flip = baseline.x.ndim == 4 and baseline.x.shape[-1] == 3
  solver = frepo_lib.frepo(
      nets.build(own.pool_network, baseline.y.shape[1]),
      optimizer(config, _OPTIMIZERS[own.optimizer], last=_LAST),
      online=optax.adam(own.online_rate), num_networks=own.pool,
      most_steps=own.age, ridge=config.ridge, batch_size=config.batch_size,
      learn_labels=own.labels == 'learned', flip=flip)
  data = learning.targets_of(problem)
  return learning.learn(
      config, kernel_fn, problem, baseline, solver, data, data,
      remedies=('learning_rate', 'ridge'))


def _check(config: Any) -> None:
  own = _resolved(config)
  with checks.renamed(name='options pool_network'):
    nets.check_name(own.pool_network)
  checks.one_of('options optimizer', own.optimizer, _OPTIMIZERS)
  checks.at_least('options pool', own.pool, 1)
  checks.at_least('options age', own.age, 1)
  checks.positive('options online_rate', own.online_rate)


def _check_data(config: Any, problem: Problem) -> None:
  own = _resolved(config)
  evaluation.check_network(
      'options pool_network', own.pool_network, problem.train.x.shape[1:],
      problem.examples(problem.start).y.shape[1])
  if own.flip:
    refuse_tables('options', 'flip=true', problem)


FREPO = Method(
    _frepo, 'regression on features of a pool of networks (arXiv:2206.00719)',
    {'batch_size': 1024, 'keep': 'last'}, frozenset({'ema', 'max_minutes'}),
    options=Options,
    check=_check, check_data=_check_data, from_noise=True,
    of_data=lambda config: {'learning_rate': _RATE[family(config.dataset)]},
    own_network=('frepo_convnet_none', 'frepo'), uneven=True)
