"""One job, in the process that an engine has for it.

Whatever engine calls it, a job is a call of `jobs.finished` in the folder from
which the plan was made: the record is the same but for time, host and date.
"""
from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
import tempfile
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
    store: URL of the object store that has what the job reads, and gets what
      it writes; then it runs in an empty folder, not in `folder`.
    inputs: paths in the store that it reads.
  """

  job: plan_lib.Job
  fresh: bool
  folder: str
  x64: bool
  patience: float = 0.0
  store: str = ''
  inputs: tuple[str, ...] = ()


def tasks(plan: plan_lib.Plan, *, patience: float = 0.0) -> Callable[
    [int], Task]:
  """Position of a job in `plan` -> its task, from this process."""
  import jax

  here, x64 = os.getcwd(), bool(jax.config.jax_enable_x64)
  return lambda i: Task(plan.jobs[i], plan.fresh, here, x64, patience,
                        plan.store, inputs(plan, i) if plan.store else ())


def inputs(plan: plan_lib.Plan, i: int) -> tuple[str, ...]:
  """Paths that job `i` reads, and its own workdir, to be copied by a store.

  Those are workdirs of other jobs, and files that its flags name by relative
  paths.
  """
  from dsr.runs import contents

  config = plan.jobs[i].config
  named = [path for path in (*plan.outside[i], *contents.paths(config))
           if not os.path.isabs(path) and plan.writer(path) is None]
  behind = [plan.jobs[j].config.workdir for j in plan.after[i]]
  return tuple(dict.fromkeys([*behind, *named, config.workdir]))


def do(task: Task) -> str:
  """Makes a job; returns '' or, if it failed, the error in one line.

  Raises:
    KeyboardInterrupt: the job was stopped; it goes on when it is made again.
  """
  from absl import logging
  import jax

  from dsr.runs import compiled, screen

  logging.set_verbosity(logging.WARNING)  # The engine tells what is made.
  jax.config.update('jax_enable_x64', task.x64)
  compiled.keep()
  deadline = time.monotonic() + task.patience
  with _place(task):
    while True:
      try:
        with screen.quiet():
          return attempt(task.job, task.job.run, fresh=task.fresh)
      except BlockingIOError as error:  # Somebody else's: no file there.
        if time.monotonic() > deadline:
          return in_a_line(error)
        time.sleep(_AGAIN)


@contextlib.contextmanager
def _place(task: Task) -> Iterator[None]:
  """The folder in which a job runs; with a store an empty one, filled by it.

  Checkpoints of a job that was stopped go to the store as well.
  """
  if not task.store:
    os.chdir(task.folder)
    yield
    return
  from dsr.runs import store as store_lib

  store, before = store_lib.Store(task.store), os.getcwd()
  with tempfile.TemporaryDirectory(prefix='dsr_job_') as folder:
    os.chdir(folder)
    try:
      for path in task.inputs:
        store.get(path)
      yield
    finally:
      store.put(task.job.config.workdir)
      os.chdir(before)


def attempt(job: plan_lib.Job, run: Callable, *, fresh: bool) -> str:
  """Makes a job in this process; returns '' or its error in one line.

  The error stays in its folder until it is made.

  Args:
    job: of a plan.
    run: its function, or one around it.
    fresh: whether to repeat it if it is finished.

  Raises:
    BlockingIOError: another process works in its folder.
    KeyboardInterrupt: it was stopped.
  """
  from dsr.runs import jobs

  try:
    jobs.finished(job.config, run, fresh=fresh, after=reads(job))
  except BlockingIOError:
    raise
  except Exception as error:  # Whatever it is, other jobs go on.
    fail(job.config, in_a_line(error), traceback.format_exc())
    return in_a_line(error)
  unfail(job.config)
  return ''


def reads(job: plan_lib.Job) -> tuple[str, ...]:
  """What makes `job` anew where it is newer than its record."""
  record = pathlib.Path(job.config.workdir, 'record.json')
  return () if job.resumes and not record.exists() else job.reads


def fail(config: Any, error: str, more: str = '') -> None:
  """Leaves an error in the workdir of `config`, for tables of the plan."""
  folder = pathlib.Path(config.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / _FAILED).write_text(f'{error}\n\n{more}'.rstrip() + '\n', 'utf-8')


def unfail(config: Any) -> None:
  """Takes away what `fail` left."""
  pathlib.Path(config.workdir, _FAILED).unlink(missing_ok=True)


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
