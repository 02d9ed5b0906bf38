"""Flags of commands that have many jobs: what they are, and who makes them."""
import argparse
from collections.abc import Callable, Sequence
import dataclasses
import sys
from typing import Any

from absl import flags as absl_flags

from dsr import checks
from dsr.runs import plan as plan_lib, plan_table, screen
from dsr.runs.engines import local, schedule

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
                     Of each job (memory in GiB), for the engine."""
_PLANS = ('text', 'json')
_ENGINES = ('local', 'ray', 'slurm')


@dataclasses.dataclass(frozen=True)
class Flags:
  """Unset: the study makes its jobs itself, one after the other."""

  plan: str = ''
  engine: str = ''
  workers: str = ''
  needs: str = ''


def parse(argv: Sequence[str]) -> tuple[Flags, list[str]]:
  """The flags of this module, and the words that are left.

  Raises:
    absl.flags.Error: one without a value.
  """
  parser = argparse.ArgumentParser(
      add_help=False, allow_abbrev=False, exit_on_error=False)
  parser.add_argument('--plan', nargs='?', const='text', default='')
  for name in ('engine', 'workers', 'needs'):
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
  alone = how.engine in ('', 'local') and int(how.workers or 1) == 1
  return dataclasses.replace(
      how, engine='' if alone else how.engine or 'local')


def show(how: Flags, config: Any, jobs: Callable) -> None:
  """Shows the plan of `config`; runs nothing and writes nothing."""
  shown = plan_table.as_json if how.plan == 'json' else plan_table.text
  screen.show(shown(_plan(how, config, jobs)))


def make(how: Flags, config: Any, jobs: Callable) -> Any:
  """Makes the jobs of `config` by an engine; returns what the study then runs.

  Which is `config` without `fresh`: every job has a record now, and is kept.
  A command whose jobs have failed ends here, with status 1 and a line for each.

  Args:
    how: of `check`, with an engine.
    config: of the study.
    jobs: config -> its jobs.
  """
  plan = _plan(how, config, jobs)
  errors = schedule.make(plan, _engine(how, config, plan))
  if errors:
    sys.exit(f'{plan_table.failures(plan, errors)}\nerror: {len(errors)} of '
             f'{len(plan.jobs)} jobs are missing; the same command makes them')
  if getattr(config, 'fresh', False):
    config = dataclasses.replace(config, fresh=False)
  return config


def _plan(how, config, jobs) -> plan_lib.Plan:
  return plan_lib.make(jobs(config), needs=plan_lib.parse_needs(how.needs),
                       fresh=getattr(config, 'fresh', False))


def _engine(how, config, plan) -> schedule.Engine:
  workers = int(how.workers or 0)
  if how.engine == 'ray':
    from dsr.runs.engines import ray

    return ray.Ray(plan, workers)
  if how.engine == 'slurm':
    from dsr.runs.engines import slurm

    return slurm.Slurm(plan, workers, folder=config.workdir)
  return local.Local(plan, workers)
