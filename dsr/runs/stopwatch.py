"""Seconds of a stage, over all sessions in which it was worked on."""
import json
import os
import pathlib
import time

from dsr.runs import records

_EVERY = 5.0  # Seconds between two looks of a stopwatch at its file.


class Stopwatch:
  """Seconds that a stage took, over all sessions in which it was worked on.

  Kept in `clock.json` of the stage's folder; in memory for None. It starts from
  0 where that folder has no checkpoint to go on from. Once `finish` was called
  it stands still: reading a finished result takes time that is not the stage's.

  Raises:
    ValueError: the file cannot be read.
  """

  def __init__(self, folder: str | os.PathLike | None):
    self._path = None if folder is None else pathlib.Path(folder, 'clock.json')
    self._before = self._saved = 0.0
    self._finished = False
    if self._path is not None and self._path.exists() and any(
        self._path.parent.rglob('checkpoints')):
      try:
        clock = json.loads(self._path.read_text('utf-8'))
        self._before = float(clock['seconds'])
        self._finished = bool(clock.get('finished', False))
      except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f'`workdir` has a clock that cannot be read, {self._path}: start '
            'over by `--fresh`, or delete that file.') from error
    self._began = time.monotonic()

  @property
  def seconds(self) -> float:
    """So far."""
    if self._finished:
      return self._before
    return self._before + time.monotonic() - self._began

  def leave_out(self, seconds: float) -> None:
    """Takes off what something else took."""
    self._began += seconds

  def save(self, *, now: bool = False) -> float:
    """Writes the file, though seldom unless `now`; returns the seconds."""
    seconds = self.seconds
    if self._path is not None and (now or seconds - self._saved > _EVERY):
      self._saved = seconds
      self._path.parent.mkdir(parents=True, exist_ok=True)
      with records.replacing(self._path) as part:
        part.write_text(json.dumps(
            {'seconds': seconds, 'finished': self._finished}), encoding='utf-8')
    return seconds

  def finish(self) -> float:
    """Stops for good; returns the seconds."""
    self._before, self._finished = self.seconds, True
    return self.save(now=True)
