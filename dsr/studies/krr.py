"""Kernel ridge regression on up to tens of thousands of images.

The command is `experiments.krr`; its docstring has an example, and what
it writes.
"""
import contextlib
import dataclasses
import os
import pathlib
import sys
import time
from typing import Any, Literal

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr import (
    checks,
    data as data_lib,
    hosts,
    kernels,
    krr,
    linalg,
    numerics,
)
from dsr.krr import on_device
from dsr.probes import intervals
from dsr.runs import contents, records
from dsr.studies.distillation.problem import encoded, missing_classes
from dsr.types import Dataset, Examples, KernelFn


@dataclasses.dataclass(frozen=True)
class Config:
  """Fits kernel ridge regression to a training set and tests it."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  num_train: int = 0  # Balanced if the classes allow, else random; 0 means all.
  kernel: str = 'fcn2'  # fcn1, convnet3, convnet3_nopool, myrtle5, ...
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  ridge: float = 1e-4  # Relative to tr(K)/n.
  solver: Literal['cholesky', 'cg'] = 'cholesky'  # cg: for more than memory.
  dtype: Literal['float64', 'float32'] = 'float64'  # Of the Cholesky solve.
  steps: int = 500  # Of cg, at most.
  seed: int = 0  # Of the subset, and of the split of digits.
  workdir: str = 'out/krr'  # Where the record goes.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  _check(config)
  kernel_fn = kernels.by_name(config.kernel)
  seconds = {}
  with _timed('load', seconds):
    with checks.renamed(name='dataset'):
      splits = data_lib.load(
          config.dataset, data_dir=config.data_dir, seed=config.seed)
    if gaps := missing_classes(splits.test.y, splits.test):
      logging.warning('%s has no test images of classes %s.', config.dataset,
                      gaps)
    train, how = _subset(config, splits.train)
    logging.info('training on %d of %d examples: %s', len(train),
                 len(splits.train), how)
    transform = data_lib.transforms.by_name(config.transform, train.x)
    inputs = lambda x: data_lib.map_host(transform.apply, x)
    examples = Examples(inputs(train.x), encoded(train))
    if not hosts.several():  # Else each takes its rows.
      examples = examples._replace(x=jnp.asarray(examples.x))
    x_test = inputs(splits.test.x)
  predict = _fit(config, kernel_fn, examples, seconds)
  with _timed('predict', seconds):
    outputs = krr.predict_in_tiles(predict, x_test)
  right = float(krr.accuracy(outputs, splits.test.y)) * len(splits.test)
  accuracy = intervals.wilson(round(right), len(splits.test))
  metrics = {'krr_accuracy': accuracy}
  records.write(
      pathlib.Path(config.workdir), config=config, contents=contents.of(config),
      metrics=metrics,
      wall_time=time.monotonic() - began,
      extra={'seconds': seconds, 'peak_bytes': _peak_bytes(),
             'subset': how, 'num_train': len(train),
             'num_test': len(splits.test), 'solver_steps': predict.info.steps,
             'worst_residual': float(np.max(predict.info.residual))})
  logging.info('krr_accuracy = %.2f %% [%.2f, %.2f]',
               *(100 * value for value in accuracy))
  return metrics


def _check(config: Config) -> None:
  """What can be seen to be wrong before any data is read."""
  checks.at_least('num_train', config.num_train, 0)
  checks.at_least('steps', config.steps, 1)
  checks.at_least('seed', config.seed, 0)
  checks.positive('ridge', config.ridge)
  if config.solver != 'cg' and hosts.several():
    raise ValueError(f'`solver` must be cg over many processes, got '
                     f'{config.solver}.')
  for part in config.transform.split('+'):
    checks.one_of('transform', part, data_lib.transforms.known())


def _subset(config: Config, train: Dataset) -> tuple[Dataset, str]:
  """`num_train` examples, and in a word how they were chosen."""
  if config.num_train in (0, len(train)):
    return train, 'all'
  if config.num_train > len(train):
    raise ValueError(f'`num_train` must be at most {len(train)}, the size of '
                     f'{config.dataset}, got {config.num_train}.')
  key = jax.random.key(config.seed)
  share, rest = divmod(config.num_train, train.num_classes)
  if not rest and np.bincount(train.y).min() >= share:
    return data_lib.balanced_subset(key, train, share), 'balanced'
  rows = np.asarray(jax.random.permutation(key, len(train)))
  return train.take(np.sort(rows[:config.num_train])), 'random'


def _fit(config: Config, kernel_fn: KernelFn, examples: Examples,
         seconds: dict[str, float]) -> krr.Regressor:
  import threadpoolctl  # A dependency of scikit-learn.

  if config.solver == 'cg' and _dealt(config):
    with _timed('solve', seconds):
      predict = krr.fit_on_hosts(
          kernel_fn, examples, ridge=config.ridge, max_steps=config.steps,
          workdir=config.workdir, progress=True, fingerprint=(
              contents.fingerprint(config, ignore=('workdir', 'steps'))))
      linalg.raise_if_failed(predict.info, ridge=config.ridge)
    return predict
  if config.solver == 'cg':
    with _timed('solve', seconds):
      predict = krr.fit_by_cg(
          kernel_fn, examples, ridge=config.ridge, max_steps=config.steps,
          progress=sys.stderr.isatty())
      linalg.raise_if_failed(predict.info, ridge=config.ridge)
    return predict
  with _timed('gram', seconds):
    gram = kernels.gram(kernel_fn, examples.x, progress=True)
    gram.block_until_ready()
  # BLAS threads spin while they wait. On cores that others use too they are
  # slower than fewer threads: 4.5 s against 0.75 s at N = 4000 on two cores.
  if _device_holds(gram, config.dtype):
    with _timed('solve', seconds):
      predict = krr.fit_on_device(gram, kernel_fn, examples,
                                  ridge=config.ridge, dtype=config.dtype)
      jax.block_until_ready(predict.dual)
    return predict
  threads = max(1, (os.cpu_count() or 1) // 2)
  with _timed('solve', seconds), threadpoolctl.threadpool_limits(threads):
    return krr.fit_gram(gram, kernel_fn, examples, ridge=config.ridge,
                        dtype=config.dtype)


def _dealt(config) -> bool:
  """Whether there are many processes, or a solve of many to go on with."""
  return hosts.several() or (
      pathlib.Path(config.workdir) / 'checkpoints').exists()


def _device_holds(gram, dtype) -> bool:
  """Whether an accelerator can solve the system beside the matrix."""
  if numerics.on_cpu() or len(gram.devices()) > 1:
    return False
  stats = next(iter(gram.devices())).memory_stats() or {}
  needed = on_device.bytes_needed(len(gram), gram.dtype.itemsize, dtype)
  return needed <= stats.get('bytes_limit', 0)


@contextlib.contextmanager
def _timed(stage: str, seconds: dict[str, float]):
  """Adds the wall time of its body to `seconds`."""
  began = time.monotonic()
  yield
  seconds[stage] = time.monotonic() - began
  logging.info('%s: %.1f s', stage, seconds[stage])


def _peak_bytes() -> int | None:
  """Peak resident memory of this process so far; None on Windows."""
  try:
    import resource
  except ImportError:
    return None
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else 1024 * peak
