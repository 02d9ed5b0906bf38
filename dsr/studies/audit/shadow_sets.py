"""Sets that shadow attacks need: one method, run on many random halves.

KIP and RKIP run as compiled programs that all shadows share
(`distill.shadows`). Any other line of the table of methods is called once for
each half, as `experiments.distill` would be on these images alone; what it
compiles for itself, it compiles for each.
"""
from collections.abc import Callable
import functools
import time
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np
import optax

from dsr import checks, data as data_lib, krr
from dsr.distill import kip, rkip, shadows as shadows_lib, targets
from dsr.runs import options
from dsr.studies.distillation import distill, evaluation, grid
from dsr.studies.distillation.methods import table
from dsr.studies.distillation.problem import Problem
from dsr.types import Examples

ALL = 'all'  # No method: models see all images of their half.
_COMPILED = ('kip', 'rkip')
# Flags of `experiments.distill` that `options` cannot set.
_OWN = ('dataset', 'data_dir', 'method', 'images_per_class', 'kernel',
        'transform', 'max_train', 'init', 'ridge', 'validation', 'keep',
        'networks', 'num_networks', 'network_epochs', 'protocol',
        'network_learning_rate', 'options', 'seed', 'fresh', 'workdir')


class Sets(NamedTuple):
  """R sets, those of shadows before those of targets.

  Attributes:
    examples: x (R, S, ...), y (R, S, C) encoded targets; None of `ALL`.
    member: (R, N) of which training images each was made.
    seconds: of making them.
    cpu_seconds: the same, of all threads.
  """

  examples: Examples | None
  member: np.ndarray
  seconds: float
  cpu_seconds: float


def known() -> tuple[str, ...]:
  """Methods that shadows can repeat: all there are, and none."""
  return (ALL, *table.names())


def sizes(config: Any) -> list[int | None]:
  """Images a class of an `experiments.lira.Config`; [None] of `ALL`."""
  if config.method == ALL:
    return [None]
  return grid.chosen_sizes(config.images_per_class)


def check(config: Any, sizes: list[int | None]) -> None:
  """Raises a ValueError for flags that the method does not take.

  Args:
    config: an `experiments.lira.Config`.
    sizes: images a class; [None] of `ALL`.
  """
  checks.one_of('method', config.method, known())
  if config.options and config.method in (ALL, *_COMPILED):
    raise ValueError(f'`options` must be empty with {config.method}, which has '
                     f'flags of its own here; got {config.options!r}.')
  noise = config.method != ALL and table.METHODS[config.method].from_noise
  if config.init == 'noise' and not noise:
    raise ValueError(f'`init` must be real with {config.method}, which does '
                     'not start from noise.')
  if config.method not in (ALL, *_COMPILED):
    for size in sizes:
      table.check(_job(config, size, 0))


def make(config: Any, problem: Problem, size: int | None,
         only: slice = slice(None)) -> Sets:
  """The sets of one size, by the flags of `experiments.lira`.

  Args:
    config: an `experiments.lira.Config`.
    problem: whose training images are halved.
    size: images a class; None of `ALL`.
    only: which of the sets: those that they would be among all.

  Raises:
    ValueError: a half has too few images, or sets have different sizes.
    FloatingPointError: a loss is not finite.
  """
  key_halves, key_sets = jax.random.split(jax.random.key(config.seed + 1))
  num = config.num_shadows + config.num_targets
  if size is None:
    member = krr.random_halves(key_halves, len(problem.train), num)
    return Sets(None, np.asarray(member)[only], 0.0, 0.0)
  began, cpu = time.monotonic(), time.process_time()
  member = halves(config, problem)
  find = {'random': _random, **dict.fromkeys(_COMPILED, _compiled)}.get(
      config.method, _by_table)
  examples = find(config, key_sets, problem, member, size, only)
  return Sets(examples, member[only], time.monotonic() - began,
              time.process_time() - cpu)


def halves(config: Any, problem: Problem) -> np.ndarray:
  """(R, N) the training images that each set is made of."""
  key_halves, _ = jax.random.split(jax.random.key(config.seed + 1))
  return shadows_lib.stratified_halves(
      key_halves, problem.train.y, config.num_shadows + config.num_targets)


def _random(config, key, problem, member, size, only) -> Examples:
  """The random images that KIP and RKIP would start from."""
  x, y, labels = _arrays(problem)
  starts = []
  for key_one, own in zip(jax.random.split(key, len(member))[only],
                          member[only]):
    start, _ = shadows_lib.shadow_start(
        jax.random.split(key_one)[0], x[own], y[own], labels[own],
        images_per_class=size)
    starts.append(start.examples())
  return _stacked(starts)


def _compiled(config, key, problem, member, size, only) -> Examples:
  solver, data_fn = _solver(
      config.method, config.kernel, config.learning_rate, config.ridge)
  found = shadows_lib.distill_shadows(
      key, solver, *_arrays(problem), member, images_per_class=size,
      num_steps=config.steps, init=config.init, data_fn=data_fn, only=only)
  return Examples(found.x, found.y)


@functools.lru_cache(maxsize=8)  # The same object compiles nothing anew.
def _solver(method, kernel, learning_rate, ridge):
  kernel_fn = evaluation.kernel_named(kernel)
  optimizer = optax.adam(learning_rate)
  if method == 'kip':
    return (kip.kip(kernel_fn, optimizer, ridge=ridge, batch_size=0),
            targets.targets)
  return (rkip.rkip(kernel_fn, optimizer, ridge=ridge),
          lambda x, y, _: rkip.interpolant(
              kernel_fn, Examples(x, y), ridge=ridge))


def _by_table(config, key, problem, member, size, only) -> Examples:
  """Whatever method: its own function on each half."""
  run: Callable = table.METHODS[config.method].run
  kernel_fn = evaluation.kernel_named(config.kernel)
  found = []
  for r, own in list(enumerate(member))[only]:
    key_start, key_seed = jax.random.split(jax.random.fold_in(key, r))
    part = problem.train.take(np.flatnonzero(own))
    rows = data_lib.balanced_rows(key_start, part.y, size, part.num_classes)
    half = problem._replace(
        train=part, validation=part.take(np.arange(0)),
        start=part.take(rows), start_rows=rows)
    seed = int(jax.random.randint(key_seed, (), 0, 2**31 - 1))
    learned = run(_job(config, size, seed), kernel_fn, half,
                  half.examples(half.start))
    found.append(Examples(*map(np.asarray, learned.examples)))
    if 10 * (r + 1) // len(member) > 10 * r // len(member):
      logging.info('%s, %d per class: set %d of %d', config.method, size,
                   r + 1, len(member))
  return _stacked(found)


def _job(config, size, seed) -> distill.Config:
  """One run of the method, in memory."""
  kinds, more = options.kinds(distill.Config), {}
  own = table.METHODS[config.method].options
  for name, text in options.split(config.options):
    if name in getattr(own, '_fields', ()):
      more['options'] = f'{more.get("options", "")},{name}={text}'.lstrip(',')
    elif name in kinds and name not in _OWN:
      more[name] = options.parse(name, text, kinds[name])
    else:
      raise ValueError('`options` must be flag=value with flags of '
                       f'experiments.distill that are no flags here, got '
                       f'{name!r}.')
  job = distill.Config(**more | {
      'dataset': config.dataset, 'data_dir': config.data_dir,
      'method': config.method, 'images_per_class': size,
      'kernel': config.kernel, 'transform': config.transform,
      'ridge': config.ridge, 'validation': 0.0, 'keep': 'last', 'networks': '',
      'init': config.init, 'seed': seed, 'workdir': ''})
  return table.resolve(job)


def _arrays(problem):
  """(x, y, labels) of the training set, on the host."""
  x, y = problem.examples(problem.train)
  return np.asarray(x), np.asarray(y), np.asarray(problem.train.y)


def _stacked(found: list[Examples]) -> Examples:
  sizes = {len(one.y) for one in found}
  if len(sizes) > 1:
    raise ValueError(
        '`method` must give sets of one size on all halves, to train shadows '
        f'side by side; got {min(sizes)} to {max(sizes)} images.')
  return Examples(*map(np.stack, zip(*found)))
