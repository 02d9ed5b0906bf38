"""Distillation by reconstruction: what an attack makes of a trained network.

RKIP-finite of arXiv:2302.01428: a finite MLP is trained on all images, and the
attack has fewer candidates than there were images. They stand for all of them,
with the outputs K a of the network's change as labels.
"""
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsr import data as data_lib, nets, train
from dsr.attack import finite, release
from dsr.runs import contents, stopwatch
from dsr.studies.distillation.methods.method import Learned, Method
from dsr.studies.distillation.problem import Problem
from dsr.types import Examples, KernelFn, Status

_MOST = 5000  # Training images: beyond these the fit takes very long.
_DEPTH = 2
_TOLERANCE = 1e-4  # Mean squared error of the network at its end.
_VICTIM = ('dataset', 'transform', 'max_train', 'validation',
           'images_per_class', 'network_width', 'seed')
_UNUSED = ('init', 'learn_labels', 'corruption', 'schedule')


def check(config: Any) -> None:
  """Raises a ValueError for options of a distillation that have no effect.

  Args:
    config: an `experiments.distill.Config`.
  """
  nets.MLP(1, (config.network_width,))
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if field.name in _UNUSED and value != field.default:
      raise ValueError(f'`{field.name}` must be {field.default!r} with '
                       f'rkip_finite, got {value!r}.')
  if 'zca' in config.transform.split('+'):
    raise ValueError('`transform` must keep pixels in a range with '
                     f'rkip_finite, got {config.transform}.')


def _check_data(config, problem) -> None:
  size = len(problem.train)
  if size > _MOST:
    raise ValueError(f'`max_train` must be at most {_MOST} with '
                     f'{config.method}, which fits a network to all; got '
                     f'{size} training examples.')


def distil(config: Any, kernel_fn: KernelFn, problem: Problem,
           baseline: Examples) -> Learned:
  """Trains the network and attacks it.

  Args:
    config: an `experiments.distill.Config`.
    kernel_fn: not read.
    problem: the data.
    baseline: not read.

  Raises:
    FloatingPointError: training or attack failed.
    KeyboardInterrupt: training was stopped; the same flags go on.
  """
  del kernel_fn, baseline
  size = len(problem.train)
  watch = stopwatch.Stopwatch(config.workdir or None)
  folder = pathlib.Path(config.workdir) if config.workdir else None
  examples = problem.examples(problem.train)
  num_outputs = examples.y.shape[1]
  module = nets.MLP(num_outputs, (config.network_width,) * _DEPTH)
  key_victim, key_attack = jax.random.split(jax.random.key(config.seed + 2))
  victim = train.fit_victim(
      key_victim, module, examples, tolerance=_TOLERANCE,
      workdir=folder and folder / 'training',
      fingerprint=contents.fingerprint(config, ignore=tuple(
          f.name for f in dataclasses.fields(config)
          if f.name not in _VICTIM)))
  watch.save(now=True)
  if victim.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  pixel = np.zeros((1, *problem.train.x.shape[1:]), np.float32)
  low, high = (np.asarray(problem.transform.apply(jnp.asarray(p)))[0]
               for p in (pixel, pixel + 1))
  released = release.parameters(
      module, victim.theta_0, victim.theta_T, num_train=size,
      input_shape=examples.x.shape[1:], num_outputs=num_outputs, low=low,
      high=high)
  found = finite.reconstruct(
      key_attack, released, finite.Config(
          ratio=len(problem.start) / size, steps=config.steps,
          learning_rate=config.learning_rate),
      workdir=folder and folder / 'attack')
  labels = np.asarray(found.info['labels'], np.float32)
  classes = np.asarray(data_lib.decode(jnp.asarray(labels)))
  order = np.argsort(classes, kind='stable')
  none = np.zeros(0)
  return Learned(
      Examples(jnp.asarray(found.candidates[order], examples.x.dtype),
               jnp.asarray(labels[order])),
      none, none, found.curve, found.status,
      watch.save(now=True) if found.status == Status.INTERRUPTED else
      watch.finish(), classes[order])


RKIP_FINITE = Method(
    distil, 'an attack with fewer candidates than images (arXiv:2302.01428)',
    {'keep': 'last', 'validation': 0.0},
    reads=frozenset({'network_width'}), check=check, check_data=_check_data,
    uneven=True)
