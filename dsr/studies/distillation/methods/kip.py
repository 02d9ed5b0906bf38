"""KIP, by the flags of `experiments.distill`."""
from typing import Any

import jax.numpy as jnp
import optax

from dsr import data as data_lib, hosts
from dsr.distill import kip as kip_lib
from dsr.studies.distillation.methods import learning
from dsr.studies.distillation.methods.method import Learned, Method, optimizer
from dsr.studies.distillation.problem import Problem, refuse_tables


def _kip(config, kernel_fn, problem, baseline) -> Learned:
  black = problem.transform.apply(jnp.zeros_like(baseline.x[:1]))[0]
  on = hosts.mesh() if hosts.several() else None
  solver = kip_lib.kip(
      kernel_fn, optimizer(config, optax.adam), ridge=config.ridge,
      batch_size=config.batch_size, learn_labels=config.learn_labels,
      loss=config.loss, min_distance=config.min_distance,
      augment=data_lib.augment.by_name(config.augment, fill=black), on=on)
  return learning.learn(
      config, kernel_fn, problem, baseline, solver,
      learning.targets_of(problem, on), remedies=('learning_rate', 'ridge'),
      on=on)


def _check(config: Any) -> None:
  data_lib.augment.by_name(config.augment)


def _check_data(config: Any, problem: Problem) -> None:
  if config.augment != 'none':
    refuse_tables('augment', config.augment, problem)


KIP = Method(
    _kip, 'kernel inducing points (arXiv:2011.00050)',
    reads=frozenset({'loss', 'augment', 'min_distance', 'ema', 'max_minutes'}),
    check=_check, check_data=_check_data, from_noise=True, uneven=True)
