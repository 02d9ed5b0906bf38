"""Slurm, by submitit: the jobs that are ready become an array of Slurm jobs.

The workdir must be on a disk that all machines share. A job that is preempted,
or runs out of time, is queued again and goes on from its checkpoints; one that
is lost is submitted anew. Partition and account: SBATCH_PARTITION and
SBATCH_ACCOUNT of the environment, as `sbatch` reads them.
"""
from collections.abc import Sequence
import os
import pathlib
import time

from dsr.runs.engines import task
from dsr.runs.plan import Plan

_TRIES = 3  # More, of a job whose process was lost.
_PATIENCE = 180.0  # Seconds: the lock of a lost machine ends after 120.
_LOOK = 5.0  # Seconds between two looks at the queue, at first less.


class Slurm:
  """Has Slurm make the jobs of a plan.

  Args:
    plan: whose `needs` are asked for each job.
    workers: jobs at once; 0: as many as Slurm starts.
    folder: submitit's files go to its folder `slurm`.
    cluster: 'slurm', or 'local' for submitit's processes of this machine.

  Raises:
    ImportError: submitit is not installed.
    ValueError: there is no Slurm here.
  """

  def __init__(self, plan: Plan, workers: int = 0, *, folder: str | os.PathLike,
               cluster: str = 'slurm'):
    try:
      import submitit
    except ImportError as error:
      raise ImportError("`engine` slurm needs the package submitit: pip "
                        "install -e '.[slurm]'") from error
    self._plan, self._most = plan, workers or len(plan.jobs)
    self._tasks = task.tasks(plan, patience=_PATIENCE)
    self._jobs, self._tries = {}, {}  # Position -> submitit's job; times.
    self._pause = 0.05
    needs = plan.needs
    try:
      self._executor = submitit.AutoExecutor(
          pathlib.Path(folder, 'slurm'), cluster=cluster)
    except RuntimeError as error:
      raise ValueError(f'`engine` slurm needs Slurm: {error}') from error
    asked = {'mem_gb': needs.memory, 'timeout_min': needs.minutes,
             'gpus_per_node': needs.gpus or None,
             'slurm_array_parallelism': workers or None}
    self._executor.update_parameters(
        name='dsr', cpus_per_task=needs.cores,
        **{name: value for name, value in asked.items() if value is not None})

  def __enter__(self) -> 'Slurm':
    return self

  def room(self) -> int:
    """How many more jobs it takes now."""
    return self._most - len(self._jobs)

  def start(self, positions: Sequence[int]) -> None:
    """Begins with these jobs of the plan, at most `room()` of them."""
    with self._executor.batch():  # One array.
      for i in positions:
        self._jobs[i] = self._executor.submit(_Requeued(), self._tasks(i))
        self._tries[i] = self._tries.get(i, 0) + 1
    self._pause = 0.05

  def wait(self) -> list[tuple[int, str]]:
    """(position, error or '') of jobs that have ended, once one has."""
    found = []
    while not found:
      for i in [i for i, job in self._jobs.items() if job.done()]:
        job = self._jobs.pop(i)
        lost = job.exception()
        if lost is None:
          found.append((i, job.result()))
        elif self._tries[i] <= _TRIES:
          self.start([i])
        else:
          error = f'lost {_TRIES + 1} times: {task.in_a_line(lost)}'
          task.fail(self._plan.jobs[i].config, error, str(lost))
          found.append((i, error))
      if not found:
        time.sleep(self._pause)
        self._pause = min(_LOOK, 1.5 * self._pause)
    return found

  def __exit__(self, *exc) -> None:
    for job in self._jobs.values():
      job.cancel()


class _Requeued:
  """`task.do`; submitit calls `checkpoint` when its time or place is gone."""

  def __call__(self, given: task.Task) -> str:
    return task.do(given)

  def checkpoint(self, given: task.Task):
    import submitit

    return submitit.helpers.DelayedSubmission(self, given)
