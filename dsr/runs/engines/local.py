"""Workers of this machine: processes that share its cores and accelerators.

A worker is a process for as many jobs as there are, so that what they have in
common is imported and compiled once in each. It has cores of its own (its
affinity, where the system has one, and the variables by which XLA, OpenMP and
BLAS choose their threads), and with jobs that need accelerators some of those.
All take memory of an accelerator as they need it, not most of it beforehand.
"""
from collections.abc import Iterator, Sequence
import contextlib
from multiprocessing import Pipe, connection
import os
import pathlib
import signal
import subprocess
import sys

from absl import logging

from dsr.runs.engines import task
from dsr.runs.plan import Plan

# How many threads: of XLA on CPUs, of OpenMP (scikit-learn), of BLAS (NumPy).
_THREADS = ('NPROC', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS',
            'MKL_NUM_THREADS')
_GPUS = pathlib.Path('/proc/driver/nvidia/gpus')
_MODULE = 'dsr.runs.engines.worker'
_PATIENCE = 10.0  # Seconds in which a worker without a job ends.


class Local:
  """`workers` processes; each has one job at a time.

  Args:
    plan: whose jobs they make.
    workers: at most so many; no more are started than there is work for.

  Raises:
    ValueError: `workers` below 1, or too many for what a job needs.
  """

  def __init__(self, plan: Plan, workers: int):
    self._tasks, self._workers = task.tasks(plan), [None] * workers
    self._shares = shares(workers, plan.needs.cores)
    self._gpus = plan.needs.gpus
    self._jobs: dict[int, int] = {}  # Worker -> the job that it makes.

  def __enter__(self) -> 'Local':
    return self

  def room(self) -> int:
    """How many more jobs it takes now."""
    return len(self._workers) - len(self._jobs)

  def start(self, positions: Sequence[int]) -> None:
    """Begins with these jobs of the plan, at most `room()` of them."""
    free = [k for k in range(len(self._workers)) if k not in self._jobs]
    free.sort(key=lambda k: self._workers[k] is None)  # Those that are there.
    for k, i in zip(free, positions):
      if self._workers[k] is None:
        self._workers[k] = _Worker(
            self._shares[k], environment(k, self._shares, self._gpus))
      self._jobs[k] = i
      self._workers[k].pipe.send(self._tasks(i))

  def wait(self) -> list[tuple[int, str]]:
    """(position, error or '') of jobs that have ended, once one has."""
    pipes = {self._workers[k].pipe: k for k in self._jobs}
    found = []
    for pipe in connection.wait(list(pipes)):
      k = pipes[pipe]
      try:
        error = pipe.recv()
      except (EOFError, ConnectionResetError):  # It was killed, or crashed.
        status = self._workers[k].end()
        error = (f'its worker ended by {signal.Signals(-status).name}'
                 if status < 0 else f'its worker ended with status {status}')
        task.fail(self._tasks(self._jobs[k]).job.config, error)
        self._workers[k] = None
      found.append((self._jobs.pop(k), error))
    return found

  def __exit__(self, *exc) -> None:
    there = [worker for worker in self._workers if worker is not None]
    busy = [self._workers[k] for k in self._jobs]
    try:
      for worker in busy:  # Of a session of its own: Ctrl-C did not reach it.
        worker.process.send_signal(signal.SIGINT)
      if busy:
        logging.warning('Stopping %d running jobs; again to stop at once.',
                        len(busy))
        for worker in busy:
          worker.process.wait()
      for worker in there:
        worker.end()
    finally:
      for worker in there:
        worker.process.kill()
        worker.process.wait()


class _Worker:
  """A process, and the pipe to it."""

  def __init__(self, cores: list[int], variables: dict[str, str]):
    self.pipe, theirs = Pipe()
    with theirs, _on(cores):
      self.process = subprocess.Popen(
          [sys.executable, '-m', _MODULE, str(theirs.fileno())],
          pass_fds=[theirs.fileno()], env=variables, start_new_session=True,
          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

  def end(self) -> int:
    """Lets it end by itself; returns its exit status."""
    self.pipe.close()
    try:
      return self.process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
      self.process.kill()
      return self.process.wait()


def shares(workers: int, cores: int = 1) -> list[list[int]]:
  """The cores of each worker: disjoint ones where there are enough.

  Args:
    workers: how many.
    cores: that each must have.

  Raises:
    ValueError: `workers` below 1, or above what the cores are enough for.
  """
  there = (sorted(os.sched_getaffinity(0))
           if hasattr(os, 'sched_getaffinity') else
           list(range(os.cpu_count() or 1)))
  if workers < 1 or (cores > 1 and workers * cores > len(there)):
    most = f' and at most {len(there) // cores}' if cores > 1 else ''
    raise ValueError(f'`workers` must be at least 1{most}, with {len(there)} '
                     f'cores here and {cores} a job, got {workers}.')
  each = max(1, len(there) // workers)
  return [[there[(k * each + j) % len(there)] for j in range(each)]
          for k in range(workers)]


def environment(k: int, cores: list[list[int]], gpus: int) -> dict[str, str]:
  """Of worker `k`; variables that the user has set stay.

  Args:
    k: from 0 on.
    cores: of all workers.
    gpus: accelerators that a job needs; 0: all workers see all of them.
  """
  threads = dict.fromkeys(_THREADS, str(len(cores[k])))
  path = os.pathsep.join(p or os.getcwd() for p in sys.path)
  found = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', **threads, **os.environ,
           'TQDM_DISABLE': '1', 'PYTHONPATH': path}
  visible = os.environ.get('CUDA_VISIBLE_DEVICES', ','.join(
      map(str, range(len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0))))
  if gpus and (names := visible.split(',')) != ['']:
    found['CUDA_VISIBLE_DEVICES'] = ','.join(
        names[(k * gpus + j) % len(names)] for j in range(gpus))
  return found


@contextlib.contextmanager
def _on(cores: list[int]) -> Iterator[None]:
  """Processes that are started in here have these cores alone."""
  if not hasattr(os, 'sched_setaffinity'):
    yield
    return
  before = os.sched_getaffinity(0)  # Of this thread: children inherit it.
  os.sched_setaffinity(0, cores)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)
