"""The jobs of a study, made in this process: one that fails stops no other.

A study makes its jobs by `make`, tells of those that are there, and then calls
`Made.end`, which raises `Incomplete` if some are missing: the command ends with
status 1 and a line for each. Jobs that an engine could not make are not tried
again by the study that is run behind it, see `failed_before`.
"""
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import contextvars
import os
import types
from typing import Any, NamedTuple

from absl import logging

from dsr.runs import jobs, plan as plan_lib, plan_table
from dsr.runs.engines import schedule, task
from dsr.runs.progress import Progress

# Workdir -> the error of its job.
_BEFORE: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar(
    'failed_before', default=types.MappingProxyType({}))


class Incomplete(Exception):
  """Jobs are missing; of all others the study has told."""


class Made(NamedTuple):
  """What has become of the jobs of a plan.

  Attributes:
    plan: of the study.
    errors: position in the plan -> why that job is missing.
  """

  plan: plan_lib.Plan
  errors: dict[int, str]

  def record(self, config: Any) -> dict[str, Any] | None:
    """Of the job of `config`; None if it is missing."""
    lost = {self.plan.jobs[i].config.workdir for i in self.errors}
    return None if config.workdir in lost else jobs.recorded(config)

  @property
  def missing(self) -> dict[str, str]:
    """Name of each job that is missing -> why; for `extra` of a record."""
    return {self.plan.jobs[i].name: error
            for i, error in sorted(self.errors.items())}

  @property
  def note(self) -> str:
    """The same as a sentence for tables and pages; '' if all is there."""
    if not self.errors:
      return ''
    told = '; '.join(f'{name} ({error})' for name, error in
                     self.missing.items())
    return (f'Missing, as {len(self.errors)} of {len(self.plan.jobs)} jobs '
            f'have failed or wait for one that has: {told}.')

  def end(self) -> None:
    """Raises `Incomplete`, with a line for each, unless all is there."""
    if self.errors:
      raise Incomplete(
          f'{plan_table.failures(self.plan, self.errors)}\nerror: '
          f'{len(self.errors)} of {len(self.plan.jobs)} jobs are missing; the '
          'same command makes them')


def make(todo: Sequence[plan_lib.Job], *, fresh: bool = False,
         told: Progress | None = None) -> Made:
  """Makes the jobs that are not finished, one after the other.

  A job that fails leaves its error in its folder, as an engine would; those
  that wait for it are not tried.

  Args:
    todo: of a study; made in the order of `plan.make`.
    fresh: whether to repeat those that are finished.
    told: has a part for each of them, in that order.

  Raises:
    ValueError: as `plan.make`.
    KeyboardInterrupt: a job was interrupted.
    Incomplete: every job is missing.
  """
  plan = plan_lib.make(todo, fresh=fresh)
  made, before = Made(plan, {}), _BEFORE.get()
  for i, job in enumerate(plan.jobs):
    with contextlib.nullcontext() if told is None else told.part():
      error = before.get(_path(job.config)) or schedule.waits_in_vain(
          plan, i, made.errors)
      if not error:
        run = job.run if told is None else told.runs(job.run)
        error = _attempt(job, run, fresh)
    if error:
      made.errors[i] = error
  if made.errors and len(made.errors) == len(plan.jobs):
    made.end()
  return made


def _attempt(job, run, fresh) -> str:
  try:
    error = task.attempt(job, run, fresh=fresh)
  except BlockingIOError as refused:  # Somebody else's folder: no file there.
    error = task.in_a_line(refused)
  if error:
    logging.error('%s: %s', job.name, error)
  return error


@contextlib.contextmanager
def failed_before(made: Made) -> Iterator[None]:
  """In here `make` does not try again what is missing of `made`."""
  token = _BEFORE.set({_path(made.plan.jobs[i].config): error
                       for i, error in made.errors.items()})
  try:
    yield
  finally:
    _BEFORE.reset(token)


def _path(config) -> str:
  return os.path.abspath(config.workdir)
