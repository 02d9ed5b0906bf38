"""Ray: a task for each job, on this machine or on the cluster of RAY_ADDRESS.

The workdir must be on a disk that all machines of the cluster share, and `dsr`
installed on each. A job whose process or machine is lost is done again; one
that was preempted by SIGTERM, and saved its state, goes on from there.
"""
from collections.abc import Sequence
import os
import sys

from dsr.runs.engines import task
from dsr.runs.plan import Plan

_TRIES = 3  # More, of a job whose process was lost.
_PATIENCE = 180.0  # Seconds: the lock of a lost machine ends after 120.
_STOP = 60.0  # Seconds in which a job that is stopped saves its state.


class Ray:
  """Has Ray make the jobs of a plan.

  Args:
    plan: whose `needs` are the resources of each task.
    workers: jobs at once; 0: as many as the cluster has room for.

  Raises:
    ImportError: ray is not installed.
    ConnectionError: no cluster answers at RAY_ADDRESS.
  """

  def __init__(self, plan: Plan, workers: int = 0):
    try:
      import ray
    except ImportError as error:
      raise ImportError("`engine` ray needs the package ray: pip install -e "
                        "'.[ray]'") from error
    self._ray, self._plan, self._most = ray, plan, workers or len(plan.jobs)
    self._tasks = task.tasks(plan, patience=_PATIENCE)
    self._jobs = {}  # Reference -> position.
    self._tries = {}  # Position -> times that it was lost.
    self._began = not ray.is_initialized()

  def __enter__(self) -> 'Ray':
    needs, ray = self._plan.needs, self._ray
    if self._began:
      path = os.pathsep.join(p or os.getcwd() for p in sys.path)
      ray.init(include_dashboard=False, log_to_driver=False, runtime_env={
          'env_vars': {'PYTHONPATH': path, 'NPROC': str(needs.cores),
                       'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}})
    memory = {} if needs.memory is None else {
        'memory': int(needs.memory * 2**30)}
    self._do = ray.remote(
        num_cpus=needs.cores, num_gpus=needs.gpus, max_retries=_TRIES,
        **memory)(task.do)
    return self

  def room(self) -> int:
    """How many more jobs it takes now."""
    return self._most - len(self._jobs)

  def start(self, positions: Sequence[int]) -> None:
    """Begins with these jobs of the plan, at most `room()` of them."""
    for i in positions:
      do = self._do.options(name=self._plan.jobs[i].name)
      self._jobs[do.remote(self._tasks(i))] = i

  def wait(self) -> list[tuple[int, str]]:
    """(position, error or '') of jobs that have ended, once one has."""
    ended, _ = self._ray.wait(list(self._jobs), num_returns=1)
    found = []
    for reference in ended:
      i = self._jobs.pop(reference)
      try:
        error = self._ray.get(reference)
      except self._ray.exceptions.RayError as lost:  # As often as it may.
        self._tries[i] = self._tries.get(i, 0) + 1
        # By a signal that it saw; Ray itself repeats those that saw none.
        stopped = isinstance(lost, self._ray.exceptions.TaskCancelledError)
        if stopped and self._tries[i] <= _TRIES:
          self.start([i])
          continue
        error = task.in_a_line(lost)
        task.fail(self._plan.jobs[i].config, error, str(lost))
      found.append((i, error))
    return found

  def __exit__(self, *exc) -> None:
    for reference in self._jobs:  # A KeyboardInterrupt in each.
      self._ray.cancel(reference, force=False)
    if self._jobs:
      self._ray.wait(list(self._jobs), num_returns=len(self._jobs),
                     timeout=_STOP)
    if self._began:
      self._ray.shutdown()
