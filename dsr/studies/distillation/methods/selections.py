"""Distilled sets of real images: the selections behind `experiments.distill`.

Distances are those of pixels in [0, 1], or of the features of a network that
was trained on the whole training set. What was selected is kept in the
workdir as `selection.npz`, so that a run stopped after it goes on from there.
"""
import dataclasses
import functools
import json
import math
import pathlib
import time
from typing import Any

from absl import logging
import jax
import numpy as np
import optax

from dsr import checks, nets, train
from dsr.distill import (
  cover,
  el2n as el2n_lib,
  herding as herding_lib,
  kcenter as kcenter_lib,
  kmedoids as kmedoids_lib,
)
from dsr.runs import contents, records
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.methods.method import Learned, Method, unlearned
from dsr.studies.distillation.problem import Problem, class_sizes
from dsr.types import Examples, KernelFn

_BATCH = 256  # Of networks that score.
_ADAM = optax.adam(1e-3)  # One object: compiled once for several selections.
_OWN = ('dataset', 'method', 'images_per_class', 'transform', 'max_train',
        'validation', 'features', 'norm', 'cover', 'budget', 'eta',
        'time_limit', 'score_network', 'score_epochs', 'score_networks',
        'el2n_keep', 'seed')


def check(config: Any) -> None:
  """Raises a ValueError for a flag of selections that is out of range."""
  checks.at_least('score_epochs', config.score_epochs, 1)
  checks.at_least('score_networks', config.score_networks, 1)
  checks.positive('time_limit', config.time_limit)
  with checks.renamed(name='score_network'):
    nets.check_name(config.score_network)
  if config.budget == 'total' and isinstance(config.images_per_class, str):
    raise ValueError('`images_per_class` must be one number with budget=total, '
                     f'got {config.images_per_class}.')
  if config.eta is not None:
    checks.non_negative('eta', config.eta)
    if config.budget != 'per_class':
      raise ValueError('`budget` must be per_class with `eta`, which decides '
                       f'how many images there are; got {config.budget}.')


def random(config: Any, kernel_fn: KernelFn, problem: Problem,
           baseline: Examples) -> Learned:
  """The random subset that other methods start from."""
  del config, kernel_fn, problem
  return unlearned(baseline, time.monotonic())


def _selection(find):
  """A method from `find`: (config, problem) -> (rows, info, arrays)."""

  @functools.wraps(find)
  def method(config, kernel_fn, problem, baseline):
    del kernel_fn, baseline
    kept = _kept(config)
    if kept is None:
      began = time.monotonic()
      found = find(config, problem)
      kept = *found, time.monotonic() - began
      _keep(config, *kept)
    rows, info, arrays, seconds = kept
    chosen = problem.train.take(rows)
    return unlearned(
        problem.examples(chosen), seconds=seconds, labels=chosen.y, info=info,
        arrays={'rows': rows} | arrays)

  return method


@_selection
def herding(config, problem):
  """Means of the chosen track those of the classes."""
  x = _features(config, problem)
  rows = herding_lib.herding(
      x, problem.train.y, class_sizes(config.images_per_class))
  return rows, {}, {}


@_selection
def kcenter(config, problem):
  """Farthest first."""
  rows = kcenter_lib.kcenter(
      _features(config, problem), problem.train.y,
      class_sizes(config.images_per_class), norm=config.norm)
  return rows, {}, {}


@_selection
def kmedoids(config, problem):
  """Least sum of distances."""
  rows = kmedoids_lib.kmedoids(
      jax.random.key(config.seed + 4), _features(config, problem),
      problem.train.y, class_sizes(config.images_per_class), norm=config.norm)
  return rows, {}, {}


@_selection
def el2n(config, problem):
  """By how wrong networks are about an image early in training."""
  trained = _trained(config, problem, config.score_networks)
  outputs = train.predict(trained, problem.inputs(problem.train))
  scores = el2n_lib.el2n(outputs, problem.train.y)
  choose = {'hardest': el2n_lib.hardest, 'easiest': el2n_lib.easiest,
            'balanced': el2n_lib.balanced}
  rows = choose[config.el2n_keep](
      scores, problem.train.y, class_sizes(config.images_per_class))
  return rows, {}, {'scores': scores[rows]}


@_selection
def mfc(config, problem):
  """Minimal finite covering, with its certificate."""
  sizes = {'per_class': class_sizes(config.images_per_class)}
  if config.eta is not None:
    sizes = {'eta': config.eta}
  elif config.budget == 'total':
    sizes = {'total': config.images_per_class * problem.train.num_classes}
  x = problem.train.x.reshape(len(problem.train), -1)
  found = cover.cover(
      x, problem.train.y, norm=config.norm, method=config.cover,
      time_limit=config.time_limit, **sizes)
  cover.verify(x, problem.train.y, found, norm=config.norm)
  info = {'eta': found.eta, 'gap': float(found.gap.max()),
          'norm': config.norm, 'exact': found.status.count('exact')}
  logging.info('eta = %.6g, gap %.3g, %d of %d classes exact', found.eta,
               info['gap'], info['exact'], len(found.classes))
  return found.rows, info, {
      'weights': found.weights, 'class_eta': found.class_eta,
      'class_size': found.class_size, 'class_lower': found.lower}


def _features(config, problem) -> np.ndarray:
  """(T, D): pixels, or what a trained network makes of them."""
  if config.features == 'pixels':
    return problem.train.x.reshape(len(problem.train), -1)
  trained = _trained(config, problem, 1)
  return train.predict(
      trained, problem.inputs(problem.train), features=True)[0]


def _trained(config, problem, num_networks) -> train.Trained:
  examples = problem.examples(problem.train)
  y = evaluation.probabilities(examples.y)
  steps = config.score_epochs * math.ceil(len(y) / _BATCH)
  logging.info('%s: %d networks, %d steps', config.score_network,
               num_networks, steps)
  return train.fit_networks(
      jax.random.key(config.seed + 5),
      nets.build(config.score_network, y.shape[1]), Examples(examples.x, y),
      optimizer=_ADAM, num_steps=steps, batch_size=_BATCH,
      num_networks=num_networks, loss='cross_entropy')


def _path(config) -> pathlib.Path:
  return pathlib.Path(config.workdir) / 'selection.npz'


def _fingerprint(config) -> str:
  return contents.fingerprint(config, ignore=tuple(
      f.name for f in dataclasses.fields(config)
      if f.name not in _OWN))


def _keep(config, rows, info, arrays, seconds) -> None:
  if not config.workdir:  # In memory.
    return
  path = _path(config)
  path.parent.mkdir(parents=True, exist_ok=True)
  with records.replacing(path) as part, open(part, 'wb') as file:
    np.savez(file, fingerprint=_fingerprint(config), info=json.dumps(info),
             rows=rows, seconds=seconds, **arrays)


def _kept(config) -> tuple[np.ndarray, dict, dict, float] | None:
  """What `_keep` wrote for the same flags, if it did."""
  if not (config.workdir and _path(config).exists()):
    return None
  arrays = records.read_arrays(_path(config))
  if str(arrays.pop('fingerprint')) != _fingerprint(config):
    return None
  logging.info('%s: selected before, kept', config.method)
  info = json.loads(str(arrays.pop('info')))
  return arrays.pop('rows'), info, arrays, float(arrays.pop('seconds'))


def _by_features(config) -> tuple[str, ...]:
  return ('score_network',) if config.features == 'network' else ()


_UNSET = {'keep': 'last', 'validation': 0.0}
_SCORED = frozenset({'features', 'score_network', 'score_epochs'})
# The images that learned sets start from, so of the same part of the data.
RANDOM = Method(random, 'a random subset of the training set',
                {'keep': 'last'}, uneven=True)
HERDING = Method(
    herding, 'images whose mean follows that of their class (arXiv:1611.07725)',
    _UNSET, _SCORED, networks=_by_features, uneven=True)
KCENTER = Method(
    kcenter, 'greedy k-center: the farthest image next (arXiv:1708.00489)',
    _UNSET, _SCORED | {'norm'}, networks=_by_features, uneven=True)
KMEDOIDS = Method(
    kmedoids, 'images with the least sum of distances to their class', _UNSET,
    _SCORED | {'norm'}, networks=_by_features)
EL2N = Method(
    el2n, 'by the error of networks early in training (arXiv:2107.07075)',
    _UNSET,
    frozenset({'score_network', 'score_epochs', 'score_networks',
               'el2n_keep'}),
    networks=lambda config: ('score_network',), uneven=True)
MFC = Method(
    mfc, 'minimal finite covering, with a certificate (arXiv:2402.05675)',
    _UNSET, frozenset({'norm', 'cover', 'budget', 'eta', 'time_limit'}),
    uneven=True)
