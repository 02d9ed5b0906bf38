"""What the benchmark times of membership: fits without an example, shadows.

As in `experiments.rivals`, each builder makes the inputs of a case, here one
kernel matrix that all sides share, and the calls on it. The rows of a case are
the examples N; its columns are how many refits are timed, or the shadows.
Kernels are float32, solves float64 as in all binaries.
"""
import functools
import time
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dsr import data as data_lib, kernels, krr, linalg, numerics
from dsr.runs import records
from experiments.benchmark import measure
from experiments.benchmark.kernels import Case
from experiments.benchmark.measure import Call

_CLASSES = 10
RIDGE = 1e-4


def leave_one_out_row(
    case: Case, seed: int, *, repeats: int, seconds: float) -> dict[str, Any]:
  """Seconds for all N, their ratio, and the largest difference of outputs.

  `case.cols` refits are made and timed; N take N / `case.cols` times as long.
  """
  with jax.enable_x64(True):
    calls = leave_one_out_calls(case, seed)
    values, spent = measure.race(calls, repeats=repeats, seconds=seconds)
    ours, refits = (np.asarray(values[side]) for side in ('ours', 'refits'))
  all_refits = spent['refits'] * case.rows / case.cols
  return {
      'case': case.name, 'goal': case.goal,
      'ours_s': float(np.median(spent['ours'])),
      'refits_s': float(np.median(all_refits)),
      'refits_per_ours': measure.quartiles(all_refits / spent['ours']),
      'difference': float(np.abs(ours[left_out(case)] - refits).max())}


def shadow_row(case: Case, seed: int) -> dict[str, Any]:
  """Wall and CPU seconds of all shadows, after a call that compiles."""
  with jax.enable_x64(True):
    call = shadow_calls(case, seed)['ours']
    jax.block_until_ready(call())
    began, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
  return {'case': case.name, 'goal': case.goal, 'ours_s': seconds,
          'ours_cpu_s': cpu,
          'seconds_a_shadow': records.metric(seconds / case.cols)}


def leave_one_out_calls(case: Case, seed: int) -> dict[str, Call]:
  """All N outputs without the example at hand, beside `case.cols` refits.

  'ours' gives (N, C), from one factorisation; 'refits' the rows `left_out` of
  it, by as many factorisations of N - 1 examples. A refit is given the kernel
  matrix too and keeps the absolute ridge of the whole set, as 'ours' does.
  """
  gram, y = _problem(case, seed)
  rows = jnp.asarray(left_out(case))
  return {'ours': functools.partial(_all_without, gram, y),
          'refits': functools.partial(_refits, gram, y, rows)}


def left_out(case: Case) -> np.ndarray:
  """The examples whose refits are made, evenly spaced."""
  return np.linspace(0, case.rows - 1, case.cols).astype(int)


def shadow_calls(case: Case, seed: int) -> dict[str, Call]:
  """Fits of `case.cols` random halves, evaluated on all N examples."""
  gram, y = _problem(case, seed)
  return {'ours': functools.partial(
      krr.shadows, jax.random.key(seed), gram, y, num_shadows=case.cols,
      ridge=RIDGE)}


def _problem(case, seed):
  """Kernel matrix and targets of noisy copies of one centre a class."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, _CLASSES, case.rows)
  x = rng.normal(size=(_CLASSES, *case.shape))[labels]
  x = (x + rng.normal(size=x.shape)).astype('f4')
  gram = kernels.by_name(case.kernel).symmetric(jnp.asarray(x))
  return jax.block_until_ready((gram, data_lib.encode(labels, _CLASSES)))


@jax.jit
def _all_without(gram, y):
  return krr.in_out(gram, y, ridge=RIDGE).outside


@jax.jit
def _refits(gram, y, rows):
  num = gram.shape[0]
  mean = jnp.mean(jnp.diagonal(gram))

  def refit(row):
    keep = jnp.arange(num - 1) + (jnp.arange(num - 1) >= row)
    k = gram[keep][:, keep]
    factor = linalg.factorise(
        k, ridge=RIDGE * mean / jnp.mean(jnp.diagonal(k)))
    dual = linalg.solve(factor, y[keep])
    return numerics.matmul(gram[row, keep].astype(dual.dtype), dual)

  return lax.map(refit, rows)
