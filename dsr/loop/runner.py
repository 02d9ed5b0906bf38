"""The runner for every iterative method: scans on the device, host between.

A `Solver.step` maps (state, data) to (state, info), where `info` is a
NamedTuple with at least the fields `loss` and `finite`. `run` makes many steps
a dispatch and, between dispatches, shows progress, validates, saves and stops.

Chunks end at multiples of `chunk` counted from step 0, so a run that was
stopped and resumed executes the same programs on the same bits as one that
was not: with equal `chunk`, device and versions the results are identical.
"""
from collections.abc import Callable
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks, hosts
from dsr.loop.checkpoints import Checkpoints
from dsr.types import Status

_SILENT = 3.0  # Seconds of compilation that pass without a word.


class RunResult(NamedTuple):
  """What `run` hands back.

  Attributes:
    state: after `steps_done` steps.
    infos: the solver's Info as NumPy arrays with `steps_done` rows, counting
      the steps made before a resume.
    status: why the run ended.
    steps_done: steps behind `state`, counted from the very first.
    broken_at: the first step whose loss was not finite, if there was one.
  """

  state: Any
  infos: Any
  status: Status
  steps_done: int
  broken_at: int | None = None


# The state is not donated: callers keep initial states as baselines, and `run`
# falls back on the previous one when a loss is not finite. Distilled sets and
# small networks are small against the kernels of one step.
@functools.partial(jax.jit, static_argnames=('step_fn', 'num_steps'))
def run_chunk(step_fn: Callable, state: Any, data: Any, *, num_steps: int):
  """Scans `num_steps` steps on the device: (state, Info stacked on axis 0)."""
  body = lambda carry, _: step_fn(carry, data)
  return jax.lax.scan(body, state, None, length=num_steps)


def run(
    step_fn: Callable, state: Any, data: Any, *,
    num_steps: int,
    chunk: int = 100,
    workdir: str | os.PathLike | None = None,
    checkpoint_every: int = 1000,
    fingerprint: str = '',
    extra: dict[str, Any] | None = None,
    progress: bool = True,
    on_chunk: Callable[[int, Any, Any], bool | None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    description: str = '',
) -> RunResult:
  """Makes steps until `num_steps` are done, or until there is reason to stop.

  Ctrl-C and SIGTERM let the running chunk finish, save it and return
  INTERRUPTED; a second signal raises KeyboardInterrupt at once. Where `state`
  or `data` lie on devices of other processes as well, all of them run this
  together, and a signal to one stops all.

  Args:
    step_fn: (state, data) -> (state, info), pure. Compiled once per function
      object and chunk length.
    state: pytree of arrays, typed keys included. Never donated.
    data: pytree of arrays, handed to each step unchanged.
    num_steps: steps in all, those before a resume included.
    chunk: steps a dispatch. Validation, saving and Ctrl-C wait for its end.
    workdir: where checkpoints live; None saves nothing. If it holds one
      already the run goes on from there and `state` gives only the structure.
    checkpoint_every: steps between two checkpoints, rounded up to chunks. The
      end of a run is always saved.
    fingerprint: names the run, e.g. by `config_fingerprint`; a checkpoint of
      another one is refused.
    extra: the caller's own arrays and numbers, such as the best state so far.
      Saved along and, on resume, updated in place.
    progress: show a bar on stderr if that is a terminal; otherwise ten lines
      are logged.
    on_chunk: called as (steps done, state, the chunk's info as NumPy arrays)
      after each finite chunk; True ends the run as CONVERGED.
    should_stop: asked after each chunk; True ends the run as INTERRUPTED, e.g.
      when a time budget is spent.
    description: stands before the bar.

  Returns:
    The result. With status NOT_FINITE, its state is the last one from which a
    finite loss was seen.

  Raises:
    ValueError: bad numbers, or a checkpoint that does not belong to this run.
    KeyboardInterrupt: on the second signal.
  """
  checks.at_least('num_steps', num_steps, 1)
  checks.at_least('chunk', chunk, 1)
  checks.at_least('checkpoint_every', checkpoint_every, 1)
  extra = {} if extra is None else extra
  step, infos, status, broken_at = 0, [], None, None
  together = hosts.is_global((state, data))
  agree = hosts.any_of if together else bool
  with contextlib.ExitStack() as stack:
    store = None
    if workdir is not None:
      store = stack.enter_context(Checkpoints(workdir, fingerprint))
      store.check(extra=extra)
      if (step := store.newest or 0) > num_steps:
        raise ValueError(
            f'`num_steps` must be at least {step}, where the checkpoint in '
            f'{store.folder} is, got {num_steps}.')
      if store.newest is not None:
        one_step = functools.partial(run_chunk, step_fn, num_steps=1)
        avals, info_avals = jax.eval_shape(one_step, state, data)
        step, state, old_infos, old_extra, converged = store.restore(
            avals, jax.tree.map(jnp.asarray, state), info_avals, extra)
        infos, status = [old_infos], Status.CONVERGED if converged else None
        extra.update(old_extra)
    signals = stack.enter_context(_StopSignals())
    bar = stack.enter_context(_Progress(step, num_steps, description, progress))
    sound, last_saved, resumed = (step, state), step, step
    while status is None and step < num_steps:
      length = min(chunk - step % chunk, num_steps - step)
      with _announced(description, first=step == resumed):
        new_state, info = run_chunk(step_fn, state, data, num_steps=length)
      info = _fetch(info)
      infos.append(info)
      finite = np.reshape(info.finite, (length, -1)).all(axis=1)
      if finite[0]:
        sound = step, state
      if not finite.all():
        broken_at = step + int(np.argmin(finite))
        logging.error('%s: the loss is not finite at step %d.',
                      description or 'run', broken_at)
        step, state = sound
        status = Status.NOT_FINITE
        break
      step, state = step + length, new_state
      bar.update(step, float(np.mean(info.loss[-1])))
      if on_chunk is not None and on_chunk(step, state, info):
        status = Status.CONVERGED
      elif agree(signals.seen or (should_stop is not None and should_stop())):
        status = Status.INTERRUPTED
      if store and step // checkpoint_every > last_saved // checkpoint_every:
        store.save(step, state, _stacked(infos, step), extra,
                   status == Status.CONVERGED)
        last_saved = step
    infos = _stacked(infos, step)
    if store is not None:
      store.save(step, state, infos, extra, status == Status.CONVERGED)
  if status is None:
    # Of many processes, a signal that only some have seen comes too late here.
    status = (Status.INTERRUPTED if signals.seen and not together else
              Status.FINISHED)
  return RunResult(state, infos, status, step, broken_at)


@contextlib.contextmanager
def _announced(description, *, first: bool):
  """Tells that a program is being compiled, if that takes long."""
  if not first:
    yield
    return
  timer = threading.Timer(_SILENT, logging.info, (
      '%s: compiling the program of a step, once; no step is made meanwhile',
      description or 'run'))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _stacked(infos: list, step: int):
  """One Info over the first `step` steps; chunks beyond them are cut off."""
  if len(infos) == 1 and len(infos[0].loss) == step:
    return infos[0]
  return jax.tree.map(lambda *rows: np.concatenate(rows)[:step], *infos)


def _fetch(info):
  """`info` on the host. Waits in short sleeps, which a signal can break."""
  start = time.monotonic()
  last = jax.tree.leaves(info)[-1]
  while not last.is_ready():
    time.sleep(min(0.05, 1e-4 + 0.02 * (time.monotonic() - start)))
  return jax.device_get(info)


_last_signal: list[int] = []  # That stopped a run of this process, if one did.


def stopped_by() -> int | None:
  """The signal that stopped a run of this process, for its exit status."""
  return _last_signal[0] if _last_signal else None


class _StopSignals:
  """Notes the first SIGINT or SIGTERM; the second is a KeyboardInterrupt."""

  def __init__(self):
    self.seen = False
    self._old = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # As under nohup.
          self._old[number] = signal.signal(number, self._handle)
    return self

  def _handle(self, number, frame):
    del frame
    if self.seen:
      raise KeyboardInterrupt
    self.seen = True
    _last_signal[:] = [number]
    logging.warning('%s: stopping after this chunk; again to stop at once.',
                    signal.Signals(number).name)

  def __exit__(self, *exc):
    for number, old in self._old.items():
      signal.signal(number, signal.SIG_DFL if old is None else old)


class _Progress:
  """A tqdm bar on a terminal; elsewhere a log line each tenth of the way."""

  def __init__(self, step: int, total: int, description: str, wanted: bool):
    self._step, self._total = step, total
    self._name = description or 'run'
    self._bar = None
    if wanted and sys.stderr.isatty():
      import tqdm

      self._bar = tqdm.tqdm(initial=step, total=total, desc=description or None,
                            file=sys.stderr, unit='step', dynamic_ncols=True)

  def __enter__(self):
    return self

  def update(self, step: int, loss: float) -> None:
    if self._bar is not None:
      self._bar.set_postfix_str(f'loss={loss:.4g}', refresh=False)
      self._bar.update(step - self._step)
    elif 10 * step // self._total > 10 * self._step // self._total:
      logging.info('%s: step %d of %d, loss %.4g',
                   self._name, step, self._total, loss)
    self._step = step

  def __exit__(self, *exc):
    if self._bar is not None:
      self._bar.close()
