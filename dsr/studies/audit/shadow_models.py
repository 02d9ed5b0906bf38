"""Shadow and target models: kernel regression, or networks, on many sets."""
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks, kernels, krr, nets, train
from dsr.data import augment
from dsr.distill import shadows as shadows_lib
from dsr.studies.audit import models as models_lib
from dsr.studies.audit.shadow_sets import Sets
from dsr.studies.audit.subjects import KRR
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.problem import Problem
from dsr.types import Dataset, Examples

_POPULATION = 2000  # Test images that RMIA holds an example against, at most.


class Models(NamedTuple):
  """Shadows, and after them the targets.

  Attributes:
    outputs: (R + T, N, C) on all training images.
    population: (R + T, Z, C) on images that none of them has seen.
    member: (R + T, N) which images each was made of.
    accuracy: (T,) of the targets on the test set.
    seconds: of making all, sets and models.
    cpu_seconds: the same, of all threads.
  """

  outputs: np.ndarray
  population: np.ndarray
  member: np.ndarray
  accuracy: np.ndarray
  seconds: float
  cpu_seconds: float


def population(problem: Problem, seed: int) -> Dataset:
  """Images that are in no half: of the test set, at most 2000."""
  num = min(_POPULATION, len(problem.test))
  rows = jax.random.choice(
      jax.random.key(seed + 8), len(problem.test), (num,), replace=False)
  return problem.test.take(np.sort(np.asarray(rows)))


def check(config: Any, model: str) -> None:
  """Raises a ValueError for what is wrong with a model and its flags."""
  if model != KRR:
    with checks.renamed(name='model'):
      nets.check_name(model)
  checks.at_least('network_epochs', config.network_epochs, 1)
  if config.network_learning_rate is not None:
    checks.positive('network_learning_rate', config.network_learning_rate)
  if config.network_batch_size is not None:
    checks.at_least('network_batch_size', config.network_batch_size, 1)


def make(config: Any, problem: Problem, sets: Sets, model: str,
         epochs: int) -> Models:
  """One model on each set.

  Args:
    config: an `experiments.lira.Config`.
    problem: whose training images the sets are made of.
    sets: of `shadow_sets.make`.
    model: 'krr', or a network.
    epochs: of each network.

  Raises:
    FloatingPointError: a fit, or a loss, is not finite.
  """
  began, cpu = time.monotonic(), time.process_time()
  outside = problem.inputs(population(problem, config.seed))
  if model != KRR:
    found = _networks(config, problem, sets, outside, model, epochs)
  elif sets.examples is None:
    found = _halves(config, problem, sets, outside)
  else:
    found = _regressions(config, problem, sets, outside)
  return Models(*found[:2], sets.member, found[2],
                sets.seconds + time.monotonic() - began,
                sets.cpu_seconds + time.process_time() - cpu)


def _halves(config, problem, sets, outside):
  """Kernel regression on all images of each half, from one Gram matrix."""
  kernel_fn = evaluation.kernel_named(config.kernel)
  x, y = problem.examples(problem.train)
  key_halves, _ = jax.random.split(jax.random.key(config.seed + 1))
  found = krr.shadows(
      key_halves, kernels.gram(kernel_fn, x), y, ridge=config.ridge,
      num_shadows=len(sets.member),
      others=jnp.asarray(models_lib.cross(kernel_fn, outside, x)))
  if not found.converged.all():
    raise FloatingPointError(
        f'A fit did not converge: raise `ridge` (got {config.ridge}).')
  attacked = [Examples(x[rows], y[rows]) for rows in map(
      np.flatnonzero, sets.member[config.num_shadows:])]
  return (np.asarray(found.outputs), np.asarray(found.others),
          _accuracies(config, problem, attacked))


def _regressions(config, problem, sets, outside):
  kernel_fn = evaluation.kernel_named(config.kernel)
  outputs = [shadows_lib.shadow_outputs(
      kernel_fn, sets.examples, x, ridge=config.ridge)
             for x in (problem.inputs(problem.train), outside)]
  attacked = [Examples(*map(jnp.asarray, one))
              for one in zip(*sets.examples)][config.num_shadows:]
  return *outputs, _accuracies(config, problem, attacked)


def _accuracies(config, problem, attacked):
  kernel_fn = evaluation.kernel_named(config.kernel)
  x_test = problem.inputs(problem.test)
  return np.array([evaluation.accuracy(
      kernel_fn, one, x_test, problem.test.y, config.ridge)
                   for one in attacked])


def _networks(config, problem, sets, outside, name, epochs):
  """A network on each set, all of them trained side by side."""
  recipe = evaluation.protocol(config)._replace(epochs=epochs)
  data, member = _rows_of(problem, sets)
  if recipe.loss == 'cross_entropy':
    data = data._replace(y=evaluation.probabilities(data.y))
  module = nets.build(name, data.y.shape[1])
  size = int(member[0].sum())
  steps = recipe.epochs * math.ceil(size / recipe.batch_size)
  trained = train.fit_shadows(
      jax.random.key(config.seed + 3), module, data, member,
      optimizer=train.make_optimizer(recipe, num_steps=steps), num_steps=steps,
      batch_size=recipe.batch_size, loss=recipe.loss,
      augment=augment.by_name(recipe.augment), init_scale=recipe.init_scale)
  last = lambda a: a[config.num_shadows:]
  attacked = trained._replace(
      params=jax.tree.map(last, trained.params),
      batch_stats=jax.tree.map(last, trained.batch_stats))
  right = train.accuracy(
      attacked, problem.inputs(problem.test), problem.test.y)
  inputs = problem.inputs(problem.train)
  return *(train.predict(trained, x) for x in (inputs, outside)), right


def _rows_of(problem, sets) -> tuple[Examples, np.ndarray]:
  """Examples of all sets, and (R, M) which of them are whose."""
  if sets.examples is None:
    return problem.examples(problem.train), sets.member
  num, size = sets.examples.y.shape[:2]
  data = Examples(*(jnp.asarray(a.reshape(-1, *a.shape[2:]))
                    for a in sets.examples))
  return data, np.repeat(np.eye(num, dtype=bool), size, axis=1)
