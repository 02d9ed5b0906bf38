"""Makes the jobs of a plan by an engine: what is ready, until all is done.

Records are the only truth: a job whose record is current is not started, and
of what an engine says of a job only the error counts.
"""
from collections.abc import Iterator, Sequence
import contextlib
import heapq
import signal
import sys
import threading
import time
from typing import Protocol

from absl import logging

from dsr.runs import jobs
from dsr.runs.engines import task
from dsr.runs.plan import Plan


class Engine(contextlib.AbstractContextManager, Protocol):
  """Makes jobs of one plan; when it is left, it stops those that run."""

  def room(self) -> int:
    """How many more jobs it takes now."""

  def start(self, positions: Sequence[int]) -> None:
    """Begins with these jobs of the plan, at most `room()` of them."""

  def wait(self) -> list[tuple[int, str]]:
    """(position, error or '') of jobs that have ended, once one has."""


def make(plan: Plan, engine: Engine) -> dict[int, str]:
  """Makes what is missing of `plan`; returns position -> error.

  A job that fails stops only those that wait for it; their error names it.

  Args:
    plan: of a study.
    engine: of that plan; it is entered, and left at the end.

  Raises:
    KeyboardInterrupt: Ctrl-C; running jobs were stopped, and go on when they
      are made again. SIGTERM is a SystemExit with status 143.
  """
  state = _State(plan)
  with engine, _terminable():  # Ray has a handler of its own.
    while state.ended < len(plan.jobs):
      if batch := state.take(engine):
        engine.start(batch)
      if state.begun:
        for i, error in engine.wait():
          state.end(i, error)
  return state.errors


class _State:
  """What is ready, what runs and what has failed."""

  def __init__(self, plan: Plan):
    self._plan = plan
    self._waits = [len(before) for before in plan.after]
    self._ready = [i for i, number in enumerate(self._waits) if not number]
    self.begun: dict[int, float] = {}  # Running jobs, and since when.
    self.errors: dict[int, str] = {}
    self.ended = 0

  def take(self, engine: Engine) -> list[int]:
    """Jobs to start now, the first ones of the plan; keeps the finished."""
    batch, room = [], engine.room()
    while self._ready and len(batch) < room:
      i = heapq.heappop(self._ready)
      if not self._plan.fresh and is_current(self._plan.jobs[i]):
        self.end(i, '')
      else:
        batch.append(i)
        self.begun[i] = time.monotonic()
    return batch

  def end(self, i: int, error: str) -> None:
    """Notes how a job has ended, and what that means for those behind it."""
    stack = [(i, error)]
    while stack:
      i, error = stack.pop()
      self.ended += 1
      if error:
        self.errors[i] = error
      self._tell(i, error)
      for k in self._plan.followers[i]:
        if error:
          self.errors[k] = waits_in_vain(self._plan, k, self.errors)
        self._waits[k] -= 1
        if not self._waits[k] and k in self.errors:
          stack.append((k, self.errors[k]))
        elif not self._waits[k]:
          heapq.heappush(self._ready, k)

  def _tell(self, i, error) -> None:
    began, how = self.begun.pop(i, None), error
    if not error:
      how = ('finished before, kept' if began is None else
             f'finished in {time.monotonic() - began:.1f} s')
    logging.log(logging.ERROR if error else logging.INFO, '%d of %d: %s: %s',
                self.ended, len(self._plan.jobs), self._plan.jobs[i].name, how)


def waits_in_vain(plan: Plan, i: int, errors: dict[int, str]) -> str:
  """Which failed job stops job `i` of `plan`; '' if none does."""
  lost = [plan.jobs[j].name for j in plan.after[i] if j in errors]
  return f'needs {lost[0]!r}, which failed' if lost else ''


def is_current(job) -> bool:
  """Whether the record of `job` is finished, and newer than what it reads."""
  try:
    return jobs.current(job.config, task.reads(job)) is not None
  except ValueError:  # A record that cannot be read: the job itself says so.
    return False


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
  """SIGTERM ends the process by way of its `finally` clauses."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = signal.signal(
      signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
