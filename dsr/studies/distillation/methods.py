"""The methods of `experiments.distill`: from flags to a distilled set.

Each is a function (config, kernel_fn, problem, baseline) -> Learned; `METHODS`
has what it reads of the flags and what it puts for those left unset. Selection
of real images is in `experiments.selections`.
"""
from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
import optax

from dsr import checks, data as data_lib, nets
from dsr.distill import dm, kip, label_solve, rkip, targets
from dsr.studies.distillation import (
  evaluation,
  learning,
  rkip_finite,
  selections,
)
from dsr.studies.distillation.problem import Problem
from dsr.studies.distillation.results import Learned
from dsr.types import Examples, KernelFn, Status

_Config = TypeVar('_Config')
_DM_MOMENTUM = 0.5


class Method(NamedTuple):
  """A way to a distilled set.

  Attributes:
    run: (config, kernel_fn, problem, baseline) -> Learned.
    unset: values of the flags that are None or 'auto' by default.
    reads: flags that only some methods read; others must be left alone.
  """

  run: Callable
  unset: dict[str, Any]
  reads: frozenset[str] = frozenset()


def _label_solve(config: Any, kernel_fn: KernelFn, problem: Problem,
                 baseline: Examples) -> Learned:
  y = label_solve.label_solve(
      kernel_fn, baseline.x, problem.examples(problem.train),
      ridge=config.ridge, progress=True)
  none = np.zeros(0)
  return Learned(
      Examples(baseline.x, y), none, none, none, Status.FINISHED)


def _kip(config, kernel_fn, problem, baseline) -> Learned:
  solver = kip.kip(
      kernel_fn, _optimizer(config, optax.adam), ridge=config.ridge,
      batch_size=config.batch_size, learn_labels=config.learn_labels,
      loss=config.loss, min_distance=config.min_distance,
      augment=data_lib.augment.by_name(
          config.augment, fill=_background(problem, baseline)))
  return learning.learn(config, kernel_fn, problem, baseline, solver,
                        _targets(problem))


def _rkip(config, kernel_fn, problem, baseline) -> Learned:
  if len(problem.train) > 25_000:
    raise ValueError(
        '`max_train` must be at most 25000 with rkip, whose K_tt takes 8 T^2 '
        f'bytes; got {len(problem.train)} training examples.')
  data = rkip.interpolant(kernel_fn, problem.examples(problem.train),
                          ridge=config.ridge, progress=True)
  solver = rkip.rkip(kernel_fn, _optimizer(config, optax.adam),
                     ridge=config.ridge, learn_labels=config.learn_labels)
  return learning.learn(config, kernel_fn, problem, baseline, solver, data)


def _dm(config, kernel_fn, problem, baseline) -> Learned:
  augment = None
  if config.augment != 'none':
    augment = data_lib.siamese.siamese(
        evaluation.siamese(config.augment, config.dataset))
  optimizer = _optimizer(
      config, lambda rate: optax.sgd(rate, momentum=_DM_MOMENTUM))
  module = nets.build(config.dm_network, baseline.y.shape[1])
  solver = dm.dm(module, optimizer, batch_size=config.batch_size,
                 augment=augment)
  data = _targets(problem)
  return learning.learn(
      config, kernel_fn, problem, baseline, solver, data, data)


def _rkip_finite(config, kernel_fn, problem, baseline) -> Learned:
  del kernel_fn, baseline
  return rkip_finite.distil(config, problem)


_KERNEL = {'steps': 1000, 'learning_rate': 0.04, 'batch_size': 5000,
           'keep': 'best', 'augment': 'none'}
_NONE = _KERNEL | {'keep': 'last'}  # Of what does not read them.
_COVER = frozenset({'norm', 'cover', 'budget', 'eta', 'time_limit'})
_SCORED = frozenset({'features', 'score_network', 'score_epochs'})
METHODS = {
    'kip': Method(_kip, _KERNEL, frozenset(
        {'loss', 'augment', 'min_distance', 'ema'})),
    'rkip': Method(_rkip, _KERNEL, frozenset({'ema'})),
    'rkip_finite': Method(_rkip_finite, _KERNEL, frozenset(
        {'network_width'})),
    'label_solve': Method(_label_solve, _NONE),
    'dm': Method(_dm, {'steps': 1000, 'learning_rate': 1.0, 'batch_size': 256,
                       'keep': 'last', 'augment': 'dsa'},
                 frozenset({'augment', 'ema', 'dm_network'})),
    'random': Method(selections.random, _NONE),
    'herding': Method(selections.herding, _NONE, _SCORED),
    'kcenter': Method(selections.kcenter, _NONE, _SCORED | {'norm'}),
    'kmedoids': Method(selections.kmedoids, _NONE, _SCORED | {'norm'}),
    'el2n': Method(selections.el2n, _NONE, frozenset(
        {'score_network', 'score_epochs', 'score_networks', 'el2n_keep'})),
    'mfc': Method(selections.mfc, _NONE, _COVER),
}
NAMES = tuple(METHODS)
_OPTIONAL = frozenset().union(*(m.reads for m in METHODS.values()))


def resolve(config: _Config) -> _Config:
  """`config` with the method's own values for what is unset.

  Raises:
    ValueError: an unknown method.
  """
  checks.one_of('method', config.method, METHODS)
  own = METHODS[config.method].unset
  unset = {name for name in own if getattr(config, name) in (None, 'auto')}
  return dataclasses.replace(config, **{name: own[name] for name in unset})


def check(config: Any) -> None:
  """Raises a ValueError for a flag out of range or one without effect.

  Args:
    config: an `experiments.distill.Config`, resolved.
  """
  method = METHODS[config.method]
  for field in dataclasses.fields(config):
    name, value = field.name, getattr(config, field.name)
    default = method.unset.get(name, field.default)
    if name in _OPTIONAL - method.reads and value != default:
      raise ValueError(f'`{name}` must be {default} with {config.method}, '
                       f'which has no use for it; got {value}.')
  if config.keep == 'best' and not config.validation:
    raise ValueError('`keep=best` needs `validation` above 0, got 0.')
  checks.within('ema', config.ema, 0, 1)
  if config.method == 'dm':
    checks.at_least('batch_size', config.batch_size, 1)
    nets.check_name(config.dm_network)
    if config.augment != 'none':
      data_lib.siamese.siamese(
          evaluation.siamese(config.augment, config.dataset))
  elif config.method == 'rkip_finite':
    rkip_finite.check(config)
  else:
    data_lib.augment.by_name(config.augment)
  selections.check(config)


def _targets(problem) -> targets.Targets:
  examples = problem.examples(problem.train)
  return targets.targets(examples.x, examples.y, problem.train.y)


def _background(problem, baseline):
  """What black is after the transform, the background of augmentations."""
  return problem.transform.apply(jnp.zeros_like(baseline.x[:1]))[0]


def _optimizer(config, make: Callable) -> optax.GradientTransformation:
  rate = config.learning_rate
  if config.schedule == 'cosine':
    rate = optax.cosine_decay_schedule(rate, config.steps, alpha=0.02)
  return make(rate)
