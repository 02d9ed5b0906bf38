"""Gradient methods of distillation: start, loop, and what is kept of it."""
from collections.abc import Callable
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from dsr import hosts, loop
from dsr.distill import averaging, support as support_lib, targets
from dsr.runs import contents, options as options_lib
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.methods.method import Learned
from dsr.studies.distillation.problem import Problem
from dsr.types import Examples, KernelFn, Solver, Status

# Of the evaluation, and of other methods; with a constant rate also `steps`.
_NOT_IN_CHECKPOINTS = (
    'workdir', 'networks', 'num_networks', 'network_epochs',
    'network_learning_rate', 'protocol', 'fresh')
_WAYS = {'ridge': 'raise'}  # What helps a diverging run; others: lower.


def start(config: Any, baseline: Examples) -> support_lib.Support:
  """The support that a method starts from: real images or noise.

  Args:
    config: an `experiments.distill.Config`.
    baseline: the random subset.
  """
  key_noise, key_corrupt = jax.random.split(jax.random.key(config.seed + 1))
  x = baseline.x
  if config.init == 'noise':
    x = support_lib.noise_like(key_noise, x)
  first = support_lib.support(x, baseline.y)
  if config.corruption:
    first = support_lib.corrupt(key_corrupt, first, config.corruption)
  return first


def learn(
    config: Any, kernel_fn: KernelFn, problem: Problem, baseline: Examples,
    solver: Solver, data: Any, *init_args: Any,
    remedies: tuple[str, ...] = ('learning_rate',),
    began: float | None = None, first: support_lib.Support | None = None,
    view: Callable[[Examples], Examples] | None = None,
    rate_of: Callable[[Any], Any] | None = None, on: Mesh | None = None
) -> Learned:
  """Runs `solver`, keeping what does best on the validation split.

  Args:
    config: an `experiments.distill.Config`, resolved.
    kernel_fn: of the looks at the validation split.
    problem: what is distilled.
    baseline: the random subset.
    solver: a method; averaged if the config asks for it.
    data: what its steps read.
    *init_args: what its `init` takes besides key and support.
    remedies: flags, and own options, to change if the loss is not finite.
    began: when the method began, of `time.monotonic`; unset: now.
    first: the support to start from; unset: of `start`.
    view: from what is learned to the distilled set, where they differ. The
      images that are learned are then the array `stored` of the result.
    rate_of: state -> the student's learning rate, of a method that learns it;
      that of the kept set is `student_rate` of the result.
    on: the devices of many processes, if `solver` and `data` are for them.

  Raises:
    FloatingPointError: the loss is not finite; says at which step.
  """
  mark = time.monotonic() if began is None else began
  if config.ema:
    solver = averaging.averaged(solver, config.ema)
  if first is None:
    first = start(config, baseline)
  show = view or (lambda learned: learned)
  # Of every look: at which step, and the accuracy; NaN without validation.
  # `seconds` are those of the method, over all sessions, up to the checkpoint.
  kept = {'steps': np.zeros(0, int), 'accuracy': np.zeros(0), 'best': -1.0,
          'seconds': 0.0,
          'x': np.asarray(first.x), 'y': np.asarray(first.y)}
  if rate_of is not None:
    kept['rate'] = np.nan
  held_out = problem.validation
  if len(held_out):
    x_held_out = problem.inputs(held_out)

  def on_chunk(step, state, info):
    nonlocal mark
    del info
    state = hosts.own(state)
    kept['seconds'] += time.monotonic() - mark
    now = np.nan
    if len(held_out):
      now = evaluation.accuracy(
          kernel_fn, show(state.support.examples()), x_held_out,
          held_out.y, config.ridge)
    kept.update(steps=np.append(kept['steps'], step),
                accuracy=np.append(kept['accuracy'], now))
    if config.keep == 'last' or now >= kept['best']:
      kept.update(best=now, x=np.asarray(state.support.x),
                  y=np.asarray(state.support.y))
      if rate_of is not None:
        kept['rate'] = float(rate_of(state))
    mark = time.monotonic()  # The look is not the method's.
    return (config.max_minutes is not None
            and kept['seconds'] >= 60 * config.max_minutes)

  ignore = _NOT_IN_CHECKPOINTS
  if config.schedule == 'constant':
    ignore += ('steps',)
  state = solver.init(jax.random.key(config.seed + 2), first, *init_args)
  if on is not None:
    state = hosts.spread(state, on)
  result = loop.run(
      solver.step, state, data, num_steps=config.steps, chunk=config.eval_every,
      workdir=config.workdir or None, checkpoint_every=10 * config.eval_every,
      fingerprint=contents.fingerprint(config, ignore=ignore),
      extra=kept, on_chunk=on_chunk, description=config.method)
  if result.status == Status.NOT_FINITE:
    raise FloatingPointError(f'The loss of {config.method} is not finite at '
                             f'step {result.broken_at}: '
                             f'{_advice(config, remedies)}.')
  looked = np.isfinite(kept['accuracy'])
  status = result.status  # The end of its time is as good as its last step.
  if status == Status.CONVERGED:
    status = Status.FINISHED
  return Learned(
      show(Examples(jnp.asarray(kept['x']), jnp.asarray(kept['y']))),
      kept['steps'][looked], kept['accuracy'][looked],
      np.asarray(result.infos.loss), status, kept['seconds'],
      arrays={} if view is None else {'stored': kept['x']},
      student_rate=kept.get('rate'))


def _advice(config, remedies) -> str:
  """Which flag, or which of the method's own options, to change, and how."""
  given = dict(options_lib.split(config.options))

  def say(name):
    flag = f'{_WAYS.get(name, "lower")} `{name}`'
    if hasattr(config, name):
      return f'{flag} (got {getattr(config, name)})'
    return f'{flag} of `options` (got {given.get(name, "its default")})'

  return ' or '.join(map(say, remedies))


def targets_of(
    problem: Problem, on: Mesh | None = None) -> targets.Targets:
  """The training set as methods read it that draw batches."""
  examples = problem.examples(problem.train)
  return targets.targets(examples.x, examples.y, problem.train.y, on=on)
