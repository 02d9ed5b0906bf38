"""Victims with all the truth about them, and what is released of each."""
from collections.abc import Callable
import functools
import os
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsr import krr, linalg, nets, numerics, train
from dsr.attack import compression, release
from dsr.attack.release import Released
from dsr.kernels import distance, empirical
from dsr.runs import records, stopwatch as stopwatch_lib
from dsr.studies.distillation import evaluation
from dsr.studies.reconstruction import attacks, limits, shares, victims
from dsr.train.victim_step import forward_of
from dsr.types import KernelFn, Status

_ROUNDING = 1e-12  # Of float64, relative; keeps a Gram matrix definite.


class Case(NamedTuple):
  """A victim, with all the truth about it, and its release.

  Attributes:
    task: its data.
    released: what the attacker gets.
    kernel_fn: the architecture at infinite width; None where parameters of a
      finite network are released.
    kernel: (N, N) of the training images, float64: the one of training, or
      that of theta_T for a standard network; None for a pre-trained one, whose
      Jacobian of one image has 10 times 3.4 million entries.
    duals: (N, C) true ones, float64; None where they are not defined, or the
      kernel is not known.
    norm_squared: of the fit in the kernel's Hilbert space; 0 for networks.
    distances: `kernel`, `frobenius` (from theta_0 to theta_T) and, for ReLU
      MLPs, `limit` (from theta_0 to the mean over initialisations); none of
      them without a kernel.
    unexplained: by `shares.unexplained`; empty for infinite networks, and
      without a kernel.
    seconds: that the victim took.
    predict: transformed images (M, ...) -> outputs (M, C), on the host.
    ended: why training did.
  """

  task: victims.Task
  released: Released
  kernel_fn: KernelFn | None
  kernel: np.ndarray | None
  duals: np.ndarray | None
  norm_squared: float
  distances: dict[str, float]
  unexplained: dict[str, float]
  seconds: float
  predict: Callable
  ended: Status = Status.CONVERGED


def make_case(
    config: attacks.AttackConfig, workdir: str | os.PathLike | None, *,
    task: victims.Task | None = None) -> Case:
  """Trains or loads the victim, and releases of it what the threat allows.

  Args:
    config: by `attacks.resolve`, after `attacks.check`.
    workdir: training is saved in its folder `training`; None: in memory.
    task: `config.num_train` examples, other than those of the flags.

  Raises:
    ValueError: the data do not fit the flags.
    FloatingPointError: training failed.
    KeyboardInterrupt: training was stopped; it goes on from its checkpoint.
  """
  own = attacks.victim_config(config)
  if task is None:
    task = victims.prepare_victim_task(own)
  public = {
      'num_train': config.num_told or config.num_train,
      'input_shape': task.examples.x.shape[1:],
      'num_outputs': task.examples.y.shape[1], 'low': task.low,
      'high': task.high}
  if config.regime == 'infinite':
    return _infinite(config, task, public)
  folder = None if workdir is None else pathlib.Path(workdir) / 'training'
  return _finite(config, own, task, public, folder)


def _infinite(config, task, public) -> Case:
  began = time.monotonic()
  kernel_fn = evaluation.kernel_named(config.kernel, b_std=config.kernel_b_std)
  predict, kernel = _interpolate(
      kernel_fn, task.examples, ridge=config.kernel_ridge)
  linalg.raise_if_failed(predict.info, ridge=config.kernel_ridge)
  released = release.query_only(  # A pytree: no program has its arrays in it.
      jax.tree_util.Partial(_query, predict), **public)
  seconds = time.monotonic() - began
  kernel = np.asarray(kernel, np.float64)
  duals = np.asarray(predict.dual, np.float64)
  norm_squared = float(np.sum(duals * (kernel @ duals)))
  return Case(task, released, kernel_fn, kernel, duals, norm_squared,
              {'kernel': 0.0, 'frobenius': 0.0, 'limit': 0.0}, {}, seconds,
              functools.partial(krr.predict_in_tiles, predict))


@functools.partial(jax.jit, static_argnums=0)
def _interpolate(kernel_fn, examples, ridge):
  """(predictor, K(X, X)), in one program."""
  return krr.fit(kernel_fn, examples, ridge=ridge), kernel_fn(examples.x)


def _query(predict, x):
  """f_T - f_0, as f_0 = 0."""
  return predict(x.astype(predict.support.dtype))


def _finite(config, own, task, public, folder) -> Case:
  if config.victim:
    victim = victims.load_victim(config.victim)
    seconds = records.read(config.victim)['wall_time']
  else:
    watch = stopwatch_lib.Stopwatch(folder)
    victim = victims.train_victim(own, task, workdir=folder)
    seconds = watch.save(now=True)
  if victim.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  kernel_fn, final = None, config.threat == 'final'
  if config.threat in attacks.VALUES:
    kernel_fn = limits.kernel_fn(own)
    released = release.query_only(
        released_values(victim, change=config.threat == 'query'),
        dtype=config.dtype, **public)
  else:
    released = release.parameters(
        victim.module, None if final else victim.theta_0, victim.theta_T,
        linearised=victim.linearised and not final, **public)
  if config.noise:
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    released = release.with_noise(key, released, config.noise)
  if config.prune:
    released = compression.pruned(released, config.prune)
  if config.release_dtype != 'float32':
    released = compression.rounded(released, config.release_dtype)
  kernel, distances, duals, left = None, {}, None, {}
  if config.architecture != victims.PRETRAINED:
    kernel, distances = _kernels(victim, task.examples.x)
    left = shares.unexplained(victim, task.examples.x)
    if victim.duals is not None:
      duals = np.asarray(victim.duals, float)
  return Case(task, released, kernel_fn, kernel, duals, 0.0, distances, left,
              seconds, functools.partial(train.outputs, victim), victim.status)


def released_values(victim: train.Victim, *, change: bool) -> Callable:
  """x -> f_T(x) - f_0(x), or f_T(x), as a pytree of the parameters."""
  @numerics.exact
  def values(theta_0, theta_T, x):
    after = forward_of(victim.module, victim.linearised, theta_0)(theta_T, x)
    if not change:
      return after
    return after - victim.module.apply({'params': theta_0}, x)

  return jax.tree_util.Partial(values, victim.theta_0, victim.theta_T)


def _kernels(victim, x):
  """The kernel that the duals belong to, and the distances of a `Case`."""
  x = jnp.asarray(x, jnp.float64)
  apply_fn = lambda theta, x: victim.module.apply({'params': theta}, x)

  def at(theta):
    theta = jax.tree.map(lambda a: a.astype(x.dtype), theta)
    return np.asarray(empirical.ntk(apply_fn, theta)(x))

  start = at(victim.theta_0)
  end = start if victim.linearised else at(victim.theta_T)
  found = {'kernel': distance.cosine_distance(start, end),
           'frobenius': distance.relative_frobenius(start, end)}
  if isinstance(victim.module, nets.MLP):
    limit = limits.expected_ntk(victim.module, x)
    found['limit'] = distance.cosine_distance(start, limit)
  return end + _ROUNDING * np.mean(np.diag(end)) * np.eye(len(end)), found
