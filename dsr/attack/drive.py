"""Runs an attack's solver: seeds side by side, progress, stops, resume."""
from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key
import numpy as np

from dsr import checks, loop
from dsr.types import Solver, Status


class Driven(NamedTuple):
  """The best of all seeds.

  Attributes:
    state: of the seed with the lowest last loss.
    curve: (steps,) its losses.
    losses: (R,) the last loss of every seed.
    status: why the run ended.
  """

  state: Any
  curve: np.ndarray
  losses: np.ndarray
  status: Status


@functools.lru_cache(maxsize=32)  # One step function, hence one compilation.
def _step_all(step: Callable, parallel: int) -> Callable:
  """`step` of all seeds, `parallel` of them in one vmap.

  Under vmap both sides of a branch are computed, restarts and the repair of
  close pairs too. On CPUs, and for one seed, that costs more than it gains.
  """
  return lambda states, data: jax.lax.map(
      lambda s: step(s, data), states,
      batch_size=None if parallel == 1 else parallel)


def drive(
    key: Key[Array, ''], solver: Solver, data: Any, *, steps: int, name: str,
    num_seeds: int = 1, chunk: int = 50, tolerance: float | None = None,
    workdir=None, fingerprint: str = '', progress: bool = True,
    on_chunk: Callable | None = None) -> Driven:
  """`steps` steps of `num_seeds` starts side by side.

  Args:
    key: seed r starts from the r-th key split off it.
    solver: `init(key, data)` and `step(state, data)`; its state has a field
      `x`, the candidates.
    data: handed to both.
    steps: of each seed.
    name: of the attack, for messages.
    num_seeds: R.
    chunk: steps between two calls of `on_chunk`.
    tolerance: ends the run once the lowest loss is below it.
    workdir: where checkpoints live; None saves none.
    fingerprint: names the run, see `loop.run`.
    progress: see `loop.run`.
    on_chunk: (step, candidates (M, ...)) of the best seed; True ends the run.

  Raises:
    ValueError: a number out of range.
    FloatingPointError: the loss is not finite.
  """
  checks.at_least('steps', steps, 1)
  checks.at_least('num_seeds', num_seeds, 1)
  init = jax.jit(jax.vmap(solver.init, in_axes=(0, None)))
  states = init(jax.random.split(key, num_seeds), data)

  def look(step, states, info):
    best = int(np.argmin(info.loss[-1]))
    done = tolerance is not None and info.loss[-1][best] < tolerance
    if on_chunk is not None:
      done = bool(on_chunk(step, np.asarray(states.x[best]))) or done
    return done

  parallel = 1 if num_seeds == 1 else loop.pick_parallel(
      None, num_seeds, solver.step, loop.one_of(states), data)
  result = loop.run(
      _step_all(solver.step, parallel), states, data, num_steps=steps,
      chunk=chunk, workdir=workdir, fingerprint=fingerprint, progress=progress,
      on_chunk=look, description=name)
  if result.status == Status.NOT_FINITE:
    raise FloatingPointError(
        f'The loss of {name} is not finite after step {result.steps_done}: '
        'lower `learning_rate` or raise `jitter`.')
  losses = np.asarray(result.infos.loss)
  best = int(np.argmin(losses[-1]))
  return Driven(jax.tree.map(lambda a: a[best], result.state),
                losses[:, best], losses[-1], result.status)
