"""Runs that are part of a larger one: finished ones are kept, not repeated."""
from collections.abc import Callable, Iterable
import os
import pathlib
import shutil
from typing import Any

from absl import logging

from dsr import hosts, loop
from dsr.runs import contents, lock, records
from dsr.types import Status

_SAVED = ('checkpoints', 'training', 'attack')  # Where runs can go on from.
_FILES = ('record.json', 'selection.npz', 'distilled.npz', 'clock.json',
          'images.png', 'curve.png', 'validation.png')


def kept(job: Any) -> dict[str, Any] | None:
  """The record of a finished run of `job`, if its folder has one.

  Args:
    job: a dataclass of flags with `workdir`; a field `fresh` does not count.
      What its flags name must have the contents that it had then.
  """
  record = recorded(job)
  if record is None or not is_complete(record) or differences(record, job):
    return None
  return record


def current(job: Any, after: Iterable[str | os.PathLike] = ()) -> dict[
    str, Any] | None:
  """As `kept`, unless a part of `after` is newer than the record."""
  return None if _is_older(pathlib.Path(job.workdir), after) else kept(job)


def finished(job: Any, run: Callable, *, fresh: bool = False,
             after: Iterable[str | os.PathLike] = ()) -> dict[str, Any]:
  """The record of `job`: the one in its folder, or that of a run made now.

  A run of other flags or data that is there, or was stopped or failed there, is
  forgotten: what has that name is this job.

  Args:
    job: a dataclass of flags with `workdir`.
    run: called with `job`; writes a record to that folder.
    fresh: whether to repeat a run that is finished.
    after: what the run reads, files or the workdirs of other runs: where one is
      newer than the record of `job`, the run is repeated.

  Raises:
    KeyboardInterrupt: the run was interrupted.
    BlockingIOError: another process works in the folder.
  """
  folder = pathlib.Path(job.workdir)
  with lock.held(folder):
    fresh = fresh or _is_older(folder, after)
    record = None if fresh else kept(job)
    if record is not None:
      logging.info('%s: finished before, kept', folder.name)
      return record
    record = None if fresh else recorded(job)
    if fresh or (record is not None and differences(record, job)):
      forget(folder)  # Checkpoints of other settings would be refused.
    logging.info('%s: started', folder.name)
    try:
      run(job)
    except loop.OtherRun as error:  # Of a run that left checkpoints alone.
      logging.warning('%s: starts over: %s', folder.name, error)
      forget(folder)
      run(job)
    record = records.read(folder)
  if not is_complete(record):
    raise KeyboardInterrupt
  logging.info('%s: finished in %.1f s', folder.name, record['wall_time'])
  return record


def forget(folder: str | os.PathLike) -> None:
  """Removes what a run in `folder` would go on from, and its results."""
  folder = pathlib.Path(folder)
  for name in _SAVED:
    shutil.rmtree(folder / name, ignore_errors=True)
  for name in _FILES:
    (folder / name).unlink(missing_ok=True)


def claim(config: Any, *, only: tuple[str, ...] | None = None) -> None:
  """Prepares the workdir of a command that goes on where it was stopped.

  Args:
    config: a dataclass of flags with `workdir` and `fresh`.
    only: flags that must be those of the run that is there; unset: all.

  Raises:
    ValueError: the folder has the record of a run with other flags, or on other
      data, or one that cannot be read, and `fresh` is not set.
  """
  if config.fresh:
    if hosts.is_first():
      forget(config.workdir)
    hosts.any_of(False)  # The others wait for that.
    return
  record = recorded(config)
  if record is None:
    return
  if differ := differences(record, config, only=only):
    raise ValueError(
        f'`workdir` has a run with other flags or data, in {config.workdir}: '
        f'{"; ".join(differ)}. Choose another, or start over by `--fresh`.')


def recorded(job: Any) -> dict[str, Any] | None:
  """The record in the folder of `job`, of whatever run; None without one."""
  folder = pathlib.Path(job.workdir)
  return records.read(folder) if (folder / 'record.json').exists() else None


def is_complete(record: dict[str, Any]) -> bool:
  """Whether the run was not stopped on its way, and lacks none of its jobs."""
  return (record['extra'].get('status') != Status.INTERRUPTED.name
          and not record['extra'].get('missing'))


def differences(record: dict[str, Any], job: Any, *,
                only: tuple[str, ...] | None = None) -> list[str]:
  """In words, what tells the run of `record` from one of `job`.

  Args:
    record: of `records.read`.
    job: a dataclass of flags.
    only: flags that count; unset: all but `fresh`.
  """
  old, new = record['config'], contents.fields_of(job)
  counts = old.keys() | new.keys() if only is None else set(only)
  told = [f'`{name}` was {old.get(name)!r}, is {new.get(name)!r}'
          for name in sorted(counts - {'fresh'})
          if old.get(name) != new.get(name)]
  if not told:  # Only then are the same names known to stand for the same.
    told = [f'the contents of `{name}` have changed'
            for name in contents.differences(
                record.get('contents', {}), contents.of(job))]
  return told


def _is_older(folder, others) -> bool:
  """Whether the record in `folder` is older than what it was made of."""
  dates = []
  for path in (folder, *map(pathlib.Path, others)):
    path = path if path.is_file() else path / 'record.json'
    dates.append(path.stat().st_mtime_ns if path.exists() else 0)
  return dates[0] < max(dates)
