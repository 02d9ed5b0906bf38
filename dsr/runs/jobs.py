"""Runs that are part of a larger one: finished ones are kept, not repeated."""
from collections.abc import Callable, Iterable
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

from absl import logging

from dsr.runs import records
from dsr.types import Status

_SAVED = ('checkpoints', 'training', 'attack')  # Where runs can go on from.


def kept(job: Any) -> dict[str, Any] | None:
  """The record of a finished run of `job`, if its folder has one.

  Args:
    job: a dataclass of flags with `workdir`; a field `fresh` does not count.
  """
  record = _record(job)
  if record is None or not is_complete(record) or not _same(record, job):
    return None
  return record


def finished(job: Any, run: Callable, *, fresh: bool = False,
             after: Iterable[str | os.PathLike] = ()) -> dict[str, Any]:
  """The record of `job`: the one in its folder, or that of a run made now.

  Args:
    job: a dataclass of flags with `workdir`.
    run: called with `job`; writes a record to that folder.
    fresh: whether to repeat a run that is finished.
    after: what the run reads, files or the workdirs of other runs: where one is
      newer than the record of `job`, the run is repeated.

  Raises:
    KeyboardInterrupt: the run was interrupted.
  """
  folder, record = pathlib.Path(job.workdir), kept(job)
  fresh = fresh or _is_older(folder, after)
  if record is not None and not fresh:
    logging.info('%s: finished before, kept', folder.name)
    return record
  record = _record(job)
  if fresh or (record is not None and not _same(record, job)):
    forget(folder)  # Checkpoints of other settings would be refused.
  logging.info('%s: started', folder.name)
  run(job)
  record = records.read(folder)
  if not is_complete(record):
    raise KeyboardInterrupt
  logging.info('%s: finished in %.1f s', folder.name, record['wall_time'])
  return record


def forget(folder: str | os.PathLike) -> None:
  """Removes what a run in `folder` would go on from, and its record."""
  folder = pathlib.Path(folder)
  for name in _SAVED:
    shutil.rmtree(folder / name, ignore_errors=True)
  (folder / 'record.json').unlink(missing_ok=True)


def is_complete(record: dict[str, Any]) -> bool:
  """Whether the run was not stopped on its way."""
  return record['extra'].get('status') != Status.INTERRUPTED.name


def _is_older(folder, others) -> bool:
  """Whether the record in `folder` is older than what it was made of."""
  dates = []
  for path in (folder, *map(pathlib.Path, others)):
    path = path if path.is_file() else path / 'record.json'
    dates.append(path.stat().st_mtime_ns if path.exists() else 0)
  return dates[0] < max(dates)


def _record(job) -> dict[str, Any] | None:
  folder = pathlib.Path(job.workdir)
  return records.read(folder) if (folder / 'record.json').exists() else None


def _same(record, job) -> bool:
  # As JSON has it: tuples are lists.
  fields = json.loads(json.dumps(dataclasses.asdict(job)))
  old = dict(record['config'])
  return {**fields, 'fresh': None} == {**old, 'fresh': None}
