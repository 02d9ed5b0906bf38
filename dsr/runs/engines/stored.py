"""An engine whose workers share no disk: what jobs read and write is copied.

Each job has an empty folder of its own to run in (`task.do`). What it reads is
brought there from the store, and its workdir is taken there at the end; this
process brings that into its own. A path that is absolute is copied by nobody:
it must mean the same on every machine, as names of datasets must.
"""
from collections.abc import Sequence

from dsr.runs import store as store_lib
from dsr.runs.engines import schedule, task
from dsr.runs.plan import Plan


class Stored:
  """`engine`, with files copied before and behind each job.

  Args:
    engine: of `plan`.
    plan: with a `store`.

  Raises:
    ValueError: a workdir that is not below the current folder.
  """

  def __init__(self, engine: schedule.Engine, plan: Plan):
    self._engine, self._plan = engine, plan
    self._store, self._there = store_lib.Store(plan.store), set()
    for job in plan.jobs:
      store_lib.key(job.config.workdir)

  def __enter__(self) -> 'Stored':
    self._engine.__enter__()
    return self

  def room(self) -> int:
    """How many more jobs it takes now."""
    return self._engine.room()

  def start(self, positions: Sequence[int]) -> None:
    """Begins with these jobs of the plan, at most `room()` of them."""
    for i in positions:
      own = self._plan.jobs[i].config.workdir  # The store's has checkpoints.
      for path in task.inputs(self._plan, i):
        if path != own and path not in self._there:
          self._store.put(path)
          self._there.add(path)
    self._engine.start(positions)

  def wait(self) -> list[tuple[int, str]]:
    """(position, error or '') of jobs that have ended, once one has."""
    found = self._engine.wait()
    for i, error in found:
      config = self._plan.jobs[i].config
      if error:
        task.fail(config, error)
      else:
        self._store.get(config.workdir)
        task.unfail(config)
        self._there.add(config.workdir)
    return found

  def __exit__(self, *exc) -> None:
    self._engine.__exit__(*exc)


def bring(plan: Plan) -> None:
  """What the store has of the jobs of `plan`, from earlier calls anywhere."""
  store = store_lib.Store(plan.store)
  for job in plan.jobs:
    store.get(job.config.workdir)
