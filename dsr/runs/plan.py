"""The jobs of a study as a graph: what each reads, writes and needs.

A job is a run of a study of its own, with a folder and a record. It waits for
the jobs that make what it reads. Engines (`dsr.runs.engines`) make a plan's
jobs; `dsr.runs.plan_table` shows them. Nothing here runs anything.
"""
from collections.abc import Callable, Iterable
import dataclasses
import functools
import heapq
import os
from typing import Any

from dsr import checks
from dsr.runs import options


@dataclasses.dataclass(frozen=True)
class Needs:
  """What one job needs of a machine; None: not known, the engine's default."""

  cores: int = 1  # CPU cores.
  memory: float | None = None  # GiB.
  gpus: int = 0  # Whole accelerators.
  minutes: int | None = None  # After which Slurm ends it.


@dataclasses.dataclass(frozen=True)
class Job:
  """One run: `run(config)` writes a record to `config.workdir`.

  Attributes:
    name: in tables.
    run: a function at the top level of a module: other processes import it.
    config: a dataclass of flags with `workdir`.
    reads: files and workdirs; where one is newer than the record of this job,
      the job is made again.
    kind: jobs of one kind take about as long; '' is a kind of its own.
    resumes: whether a job without a record goes on from its checkpoints, even
      if what it reads is newer: its run sees itself whether they fit.
  """

  name: str
  run: Callable[[Any], Any]
  config: Any
  reads: tuple[str, ...] = ()
  kind: str = ''
  resumes: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
  """Jobs, each after those that it waits for; made by `make`.

  Attributes:
    jobs: in an order in which they can be made one after the other.
    after: of each job, the positions in `jobs` of those it waits for.
    outside: of each job, what it reads that no job of the plan writes.
    needs: of each job.
    fresh: whether to repeat the jobs that are finished.
    store: URL of the object store in which workers without a common disk meet;
      '' where they have one.
  """

  jobs: tuple[Job, ...]
  after: tuple[tuple[int, ...], ...]
  outside: tuple[tuple[str, ...], ...]
  needs: Needs = Needs()
  fresh: bool = False
  store: str = ''

  @functools.cached_property
  def followers(self) -> list[list[int]]:
    """Of each job, the positions of those that wait for it."""
    found = [[] for _ in self.jobs]
    for i, before in enumerate(self.after):
      for j in before:
        found[j].append(i)
    return found

  @functools.cached_property
  def _writers(self) -> dict[str, int]:
    return {_path(job.config.workdir): i for i, job in enumerate(self.jobs)}

  def writer(self, path: str | os.PathLike) -> int | None:
    """The position of the job that writes `path`, if one does."""
    return _writer(path, self._writers)


def make(jobs: Iterable[Job], *, needs: Needs | None = None,
         fresh: bool = False, store: str = '') -> Plan:
  """The graph of `jobs`, in topological order: the given one where possible.

  A job waits for another one that it reads from: a path is written by the job
  whose workdir is nearest to it, the path itself or a folder above it. Takes
  O((N + E) log N) for N jobs with E reads.

  Args:
    jobs: of a study.
    needs: of each of them; unset: one core.
    fresh: whether to repeat those that are finished.
    store: of `Plan`.

  Raises:
    ValueError: two jobs with one workdir, or jobs that wait for each other.
  """
  given, writers = list(jobs), {}
  for i, job in enumerate(given):
    folder = _path(job.config.workdir)
    if folder in writers:
      raise ValueError(
          '`jobs` must have a workdir each, got '
          f'{given[writers[folder]].name!r} and {job.name!r} in '
          f'{job.config.workdir}.')
    writers[folder] = i
  found = [{path: _writer(path, writers) for path in job.reads}
           for job in given]
  before = [{w for w in reads.values() if w is not None} for reads in found]
  order = _sorted(given, before)
  place = {old: new for new, old in enumerate(order)}
  return Plan(
      tuple(given[i] for i in order),
      tuple(tuple(sorted(place[j] for j in before[i])) for i in order),
      tuple(tuple(path for path, w in found[i].items() if w is None)
            for i in order),
      needs or Needs(), fresh, store)


def parse_needs(flag: str) -> Needs:
  """Of a flag such as 'cores=4,memory=16,gpus=1,minutes=90'.

  Raises:
    ValueError: an unknown name, or a value out of its range; names `needs`.
  """
  kinds, found = options.kinds(Needs), {}
  for name, text in options.split(flag):
    checks.one_of('needs', name, tuple(kinds))
    with checks.renamed(options='needs'):
      found[name] = options.parse(name, text, kinds[name])
  needs = Needs(**found)
  checks.at_least('needs cores', needs.cores, 1)
  checks.at_least('needs gpus', needs.gpus, 0)
  if needs.memory is not None:
    checks.positive('needs memory', needs.memory)
  if needs.minutes is not None:
    checks.at_least('needs minutes', needs.minutes, 1)
  return needs


def _path(path: str | os.PathLike) -> str:
  return os.path.abspath(os.path.expanduser(path))


def _writer(path, writers) -> int | None:
  """Which job writes `path`: that of the nearest folder."""
  path = _path(path)
  while path not in writers:
    path, below = os.path.dirname(path), path
    if path == below:
      return None
  return writers[path]


def _sorted(jobs, before) -> list[int]:
  """Positions, each behind all of its `before`: of those ready, the first."""
  waits, followers = [len(b) for b in before], [[] for _ in jobs]
  for i, b in enumerate(before):
    for j in b:
      followers[j].append(i)
  ready, order = [i for i, n in enumerate(waits) if not n], []
  while ready:
    i = heapq.heappop(ready)
    order.append(i)
    for k in followers[i]:
      waits[k] -= 1
      if not waits[k]:
        heapq.heappush(ready, k)
  if len(order) < len(jobs):
    names = [jobs[i].name for i, n in enumerate(waits) if n]
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    raise ValueError('`jobs` must not wait for each other in a circle, got '
                     f'{", ".join(map(repr, names[:3]))}{more}.')
  return order
