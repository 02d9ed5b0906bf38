"""Flags of commands that have many jobs: what they are, and who makes them."""
import argparse
from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from absl import flags as absl_flags

from dsr import checks
from dsr.runs import (
    parts,
    plan as plan_lib,
    plan_table,
    screen,
    store as store_lib,
)
from dsr.runs.engines import local, schedule, stored

HELP = """
Jobs, for every command that has many:
  --plan             Shows them, without running any: name, state, time by
                     earlier records, what each reads and writes, its command.
  --plan=json        The same as JSON.
  --workers=K        Makes K of them at once (default: 1).
  --engine=local     By processes of this machine, each with its share of the
                     cores (the default); ray: as tasks of a Ray cluster,
                     RAY_ADDRESS or this machine; slurm: as arrays of Slurm
                     jobs, all at once without --workers.
  --needs=cores=4,memory=16,gpus=1,minutes=90
                     Of each job (memory in GiB), for the engine.
  --store=URL        Where workers share no disk: what jobs read and write is
                     copied through file://..., s3://... or gs://... (packages
                     s3fs, gcsfs); paths must be relative."""
_PLANS = ('text', 'json')
_ENGINES = ('local', 'ray', 'slurm')


@dataclasses.dataclass(frozen=True)
class Flags:
  """Unset: the study makes its jobs itself, one after the other."""

  plan: str = ''
  engine: str = ''
  workers: str = ''
  needs: str = ''
  store: str = ''


def parse(argv: Sequence[str]) -> tuple[Flags, list[str]]:
  """The flags of this module, and the words that are left.

  Raises:
    absl.flags.Error: one without a value.
  """
  parser = argparse.ArgumentParser(
      add_help=False, allow_abbrev=False, exit_on_error=False)
  parser.add_argument('--plan', nargs='?', const='text', default='')
  for name in ('engine', 'workers', 'needs', 'store'):
    parser.add_argument(f'--{name}', default='')
  try:
    found, left = parser.parse_known_args(argv[1:])
  except argparse.ArgumentError as error:
    raise absl_flags.Error(str(error)) from error
  return Flags(**vars(found)), [argv[0], *left]


def check(how: Flags) -> Flags:
  """`how` with an engine wherever one is needed.

  Raises:
    ValueError: a value that a flag cannot have.
  """
  if how.plan:
    checks.one_of('plan', how.plan, _PLANS)
  if how.engine:
    checks.one_of('engine', how.engine, _ENGINES)
  plan_lib.parse_needs(how.needs)
  if how.workers and not (how.workers.isdigit() and int(how.workers)):
    raise ValueError('`workers` must be an integer of at least 1, got '
                     f'{how.workers!r}.')
  alone = (how.engine in ('', 'local') and int(how.workers or 1) == 1
           and not how.store)
  return dataclasses.replace(
      how, engine='' if alone else how.engine or 'local')


def show(how: Flags, config: Any, jobs: Callable) -> None:
  """Shows the plan of `config`; runs nothing and writes nothing."""
  shown = plan_table.as_json if how.plan == 'json' else plan_table.text
  screen.show(shown(_plan(how, config, jobs)))


def run(how: Flags, config: Any, jobs: Callable, study: Callable) -> Any:
  """Has an engine make the jobs of `config`; then the study tells of them.

  It is called with `config` without `fresh`: every job that could be made has a
  record now, and is kept.

  Args:
    how: of `check`, with an engine.
    config: of the study.
    jobs: config -> its jobs.
    study: config -> what is returned.

  Raises:
    Incomplete: some jobs have failed; of the rest the study has told.
  """
  plan = _plan(how, config, jobs)
  engine = _engine(how, config, plan)
  if plan.store:
    engine = stored.Stored(engine, plan)
    if not plan.fresh:
      stored.bring(plan)
  made = parts.Made(plan, schedule.make(plan, engine))
  if getattr(config, 'fresh', False):
    config = dataclasses.replace(config, fresh=False)
  with parts.failed_before(made):
    try:
      found = study(config)
    finally:
      if plan.store:
        store_lib.Store(plan.store).put(config.workdir)
  made.end()
  return found


def _plan(how, config, jobs) -> plan_lib.Plan:
  return plan_lib.make(jobs(config), needs=plan_lib.parse_needs(how.needs),
                       fresh=getattr(config, 'fresh', False),
                       store=how.store)


def _engine(how, config, plan) -> schedule.Engine:
  workers = int(how.workers or 0)
  if how.engine == 'ray':
    from dsr.runs.engines import ray

    return ray.Ray(plan, workers)
  if how.engine == 'slurm':
    from dsr.runs.engines import slurm

    return slurm.Slurm(plan, workers, folder=config.workdir)
  return local.Local(plan, workers or 1)
