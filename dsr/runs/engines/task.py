"""One job, in the process that an engine has for it.

Whatever engine calls it, a job is a call of `jobs.finished` in the folder from
which the plan was made: the record is the same but for time, host and date.
"""
from collections.abc import Callable
import os
import pathlib
import time
import traceback
from typing import Any, NamedTuple

from dsr.runs import plan as plan_lib

_FAILED = 'failed.txt'  # In the workdir of a job: the error, its traceback.
_AGAIN = 2.0  # Seconds between two tries for a folder that is locked.


class Task(NamedTuple):
  """A job on its way to a process.

  Attributes:
    job: of a plan.
    fresh: whether to repeat it if it is finished.
    folder: the current one of the process that made the plan.
    x64: whether jax uses 64 bits.
    patience: seconds to wait for a folder that somebody else has: the lock of
      a lost host is another one's after two minutes.
  """

  job: plan_lib.Job
  fresh: bool
  folder: str
  x64: bool
  patience: float = 0.0


def tasks(plan: plan_lib.Plan, *, patience: float = 0.0) -> Callable[
    [int], Task]:
  """Position of a job in `plan` -> its task, from this process."""
  import jax

  here, x64 = os.getcwd(), bool(jax.config.jax_enable_x64)
  return lambda i: Task(plan.jobs[i], plan.fresh, here, x64, patience)


def do(task: Task) -> str:
  """Makes a job; returns '' or, if it failed, the error in one line.

  Raises:
    KeyboardInterrupt: the job was stopped; it goes on when it is made again.
  """
  from absl import logging
  import jax

  from dsr.runs import compiled, jobs, screen

  os.chdir(task.folder)
  logging.set_verbosity(logging.WARNING)  # The engine tells what is made.
  jax.config.update('jax_enable_x64', task.x64)
  compiled.keep()
  config, deadline = task.job.config, time.monotonic() + task.patience
  path = pathlib.Path(config.workdir, _FAILED)
  while True:
    try:
      with screen.quiet():
        jobs.finished(config, task.job.run, fresh=task.fresh,
                      after=reads(task.job))
      path.unlink(missing_ok=True)
      return ''
    except BlockingIOError as error:  # Somebody else's folder: no file there.
      if time.monotonic() > deadline:
        return in_a_line(error)
      time.sleep(_AGAIN)
    except Exception as error:  # Whatever it is, other jobs go on.
      fail(config, in_a_line(error), traceback.format_exc())
      return in_a_line(error)


def reads(job: plan_lib.Job) -> tuple[str, ...]:
  """What makes `job` anew where it is newer than its record."""
  record = pathlib.Path(job.config.workdir, 'record.json')
  return () if job.resumes and not record.exists() else job.reads


def fail(config: Any, error: str, more: str = '') -> None:
  """Leaves an error in the workdir of `config`, for tables of the plan."""
  folder = pathlib.Path(config.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / _FAILED).write_text(f'{error}\n\n{more}'.rstrip() + '\n', 'utf-8')


def failure(config: Any) -> str:
  """The error that an engine left in the workdir of `config`; '' for none."""
  try:
    text = pathlib.Path(config.workdir, _FAILED).read_text('utf-8')
  except (OSError, UnicodeDecodeError):
    return ''
  return text.partition('\n')[0]


def in_a_line(error: BaseException) -> str:
  """'ValueError: ...', its first line alone."""
  return f'{type(error).__name__}: {error}'.partition('\n')[0].strip()
