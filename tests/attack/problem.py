"""Small victims on real 8x8 digits, for the tests of attacks."""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsr import data, kernels, nets, numerics, train
from dsr.attack import release
from dsr.types import Examples


class Problem(NamedTuple):
  """Training images, and what an attacker gets."""

  x: np.ndarray  # (N, 8, 8, 1) less their mean, float64.
  y: np.ndarray
  low: float
  high: float


@functools.cache
def digits(num: int, num_classes: int = 2) -> Problem:
  """`num` digits, even against odd, or of all ten classes."""
  train_set = data.load('digits', seed=0).train
  per_class = -(-num // 10)
  rows = data.balanced_rows(jax.random.key(1), train_set.y, per_class, 10)
  rows = rows[:num]
  x = train_set.x[rows].astype(np.float64)
  labels = train_set.y[rows]
  if num_classes == 2:
    y = np.where(labels % 2, 1.0, -1.0)[:, None]
  else:
    y = np.eye(10)[labels] - 0.1
  mean = x.mean()
  return Problem(x - mean, y, -mean, 1 - mean)


def limit(problem: Problem, kernel_fn):
  """(release of a predictor in the NTK limit, its duals, its squared norm)."""
  x = jnp.asarray(problem.x)
  k = kernel_fn(x)
  duals = jnp.linalg.solve(k, jnp.asarray(problem.y))
  query = lambda at: numerics.matmul(
      kernel_fn(at.astype(x.dtype), x), duals)
  released = release.query_only(
      query, num_train=len(x), input_shape=(8, 8, 1),
      num_outputs=problem.y.shape[1], low=problem.low, high=problem.high)
  return released, np.asarray(duals), float(jnp.sum(duals * (k @ duals)))


def network(problem: Problem, module=None, *, linearised=False, num_train=None,
            dtype=np.float64, **recipe):
  """(release of a trained network, the victim)."""
  if module is None:
    module = nets.MLP(problem.y.shape[1], widths=(256, 256))
  examples = Examples(jnp.asarray(problem.x, dtype),
                      jnp.asarray(problem.y, dtype))
  key = jax.random.key(7)
  if linearised:
    theta_0 = module.init(key, examples.x[:1])['params']
    victim = train.solve_linearised(module, theta_0, examples)
  else:
    victim = train.fit_victim(
        key, module, examples, recipe=train.Recipe(**recipe), progress=False,
        tolerance=1e-12, max_steps=3000)
  released = release.parameters(
      module, victim.theta_0, victim.theta_T,
      num_train=num_train or len(problem.x), input_shape=(8, 8, 1),
      num_outputs=problem.y.shape[1], low=problem.low, high=problem.high,
      linearised=linearised)
  return released, victim


@functools.cache
def standard():
  """`network` of ten digits, made once for all tests that look at it."""
  return network(digits(10))


def distances(problem: Problem, candidates) -> np.ndarray:
  """(images, candidates) RMSE."""
  truth = problem.x.reshape(len(problem.x), 1, -1)
  other = np.asarray(candidates).reshape(1, len(candidates), -1)
  return np.sqrt(np.mean((truth - other) ** 2, axis=2))


def errors(problem: Problem, candidates) -> np.ndarray:
  """RMSE of each image's nearest candidate."""
  return distances(problem, candidates).min(axis=1)


fcn2 = functools.cache(lambda: kernels.fcn(2))
