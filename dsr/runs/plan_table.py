"""A plan as a text table and as JSON: what is finished, missing or failed."""
import json
import statistics
from typing import Any, NamedTuple

from dsr.runs import jobs, progress, records
from dsr.runs.engines import schedule, task
from dsr.runs.plan import Plan

FORMAT = 1  # Of the JSON.
_MOST = 3  # Names of what a job reads, in text.
_COLUMNS = ('job', 'state', 'seconds', 'cores', 'memory (GiB)', 'GPUs',
            'reads', 'writes', 'command')


class Row(NamedTuple):
  """What is known of a job before anything is run.

  Attributes:
    state: 'finished', 'failed' (its last run ended with an error), 'stale'
      (its record is of other flags or data, or older than what it reads) or
      'missing'.
    seconds: that it will take: 0 if it is finished; what its own record says
      that it took, or the median of finished jobs of its kind; None: unknown.
    error: of a failed one, in a line.
  """

  state: str
  seconds: float | None
  error: str = ''


def rows(plan: Plan) -> list[Row]:
  """One for each job, from the records in their workdirs alone."""
  took, states, seen = [], [], {}
  for i, job in enumerate(plan.jobs):
    record = _record(job)
    seconds = None if record is None else record['wall_time']
    took.append(seconds)
    state, error = 'missing', task.failure(job.config)
    if any(states[j] != 'finished' for j in plan.after[i]):
      state = 'missing' if record is None else 'stale'
    elif record is not None:
      state = 'finished' if schedule.is_current(job) else 'stale'
    if plan.fresh and state == 'finished':
      state = 'stale'
    states.append('failed' if error and state != 'finished' else state)
    if job.kind and seconds is not None:
      seen.setdefault(job.kind, []).append(seconds)
  kinds = {kind: statistics.median(found) for kind, found in seen.items()}
  return [
      Row(state, 0.0 if state == 'finished' else
          kinds.get(job.kind) if seconds is None else seconds,
          task.failure(job.config) if state == 'failed' else '')
      for job, state, seconds in zip(plan.jobs, states, took)]


def text(plan: Plan) -> str:
  """Aligned columns, a line for each job, and what is left in a last line."""
  known, needs = rows(plan), plan.needs
  lines = [_COLUMNS]
  for i, (job, row) in enumerate(zip(plan.jobs, known)):
    state = f'failed: {row.error}' if row.error else row.state
    lines.append((
        job.name, state, _seconds(row.seconds), str(needs.cores),
        '?' if needs.memory is None else f'{needs.memory:g}', str(needs.gpus),
        _read(plan, i), job.config.workdir,
        records.command(job.config)))
  wide = [max(map(len, column)) for column in zip(*lines)]
  shown = ['  '.join(cell.ljust(w) for cell, w in zip(line, wide)).rstrip()
           for line in lines]
  return '\n'.join([*shown, _summary(known)])


def as_json(plan: Plan) -> str:
  """As `text`, with the configs, and null for what is not known.

  {"format", "needs", "jobs": [{"name", "state", "error", "seconds", "command",
  "config", "reads", "writes", "after"}]}: `after` has the positions of the
  jobs that one waits for, `reads` paths.
  """
  found = []
  for i, (job, row) in enumerate(zip(plan.jobs, rows(plan))):
    found.append({
        'name': job.name, 'state': row.state, 'error': row.error,
        'seconds': row.seconds, 'command': records.command(job.config),
        'config': vars(job.config), 'reads': job.reads,
        'writes': job.config.workdir, 'after': plan.after[i]})
  return json.dumps({'format': FORMAT, 'needs': vars(plan.needs),
                     'jobs': found}, indent=1)


def failures(plan: Plan, errors: dict[int, str]) -> str:
  """A line for each job that was not made, those that failed first.

  Args:
    plan: of `schedule.make`.
    errors: that it returned.
  """
  failed, waiting = [], []
  for i, error in sorted(errors.items()):
    line = f'{plan.jobs[i].name}: {error}'
    if errors.keys().isdisjoint(plan.after[i]):
      failed.append(f'{line} ({plan.jobs[i].config.workdir})')
    else:
      waiting.append(line)
  return '\n'.join(failed + waiting)


def _record(job) -> dict[str, Any] | None:
  try:
    return jobs.recorded(job.config)
  except ValueError:  # It cannot be read: made again, or refused, by its run.
    return None


def _read(plan, i) -> str:
  """Names of jobs, and the paths that no job of the plan writes."""
  names = [plan.jobs[j].name for j in plan.after[i]] + list(plan.outside[i])
  more = f', {len(names) - _MOST} more' if len(names) > _MOST else ''
  return ', '.join(names[:_MOST]) + more or '-'


def _seconds(seconds: float | None) -> str:
  return 'unknown' if seconds is None else f'{seconds:.1f}'


def _summary(known: list[Row]) -> str:
  todo = [row for row in known if row.state != 'finished']
  unknown = sum(row.seconds is None for row in todo)
  told = f'{len(known)} jobs, {len(todo)} to be made'
  if len(todo) > unknown:
    seconds = sum(row.seconds or 0 for row in todo)
    told += (f': by earlier records {progress.in_words(seconds)}, one after '
             f'the other, for {len(todo) - unknown} of them')
  return told + f'; how long {unknown} take is unknown.' * bool(unknown)
