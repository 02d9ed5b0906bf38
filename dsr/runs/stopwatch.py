"""Seconds of a stage, over all sessions in which it was worked on."""
import json
import os
import pathlib
import time

from dsr.runs import records

_EVERY = 5.0  # Seconds between two looks of a stopwatch at its file.


class Stopwatch:
  """Seconds that a stage took, over all sessions in which it was worked on.

  Kept in `clock.json` of the stage's folder. It starts from 0 where that folder
  has no checkpoint to go on from.
  """

  def __init__(self, folder: str | os.PathLike):
    folder = pathlib.Path(folder)
    self._path = folder / 'clock.json'
    self._before = self._saved = 0.0
    if self._path.exists() and any(folder.rglob('checkpoints')):
      self._before = json.loads(self._path.read_text('utf-8'))['seconds']
    self._began = time.monotonic()

  @property
  def seconds(self) -> float:
    """So far."""
    return self._before + time.monotonic() - self._began

  def leave_out(self, seconds: float) -> None:
    """Takes off what something else took."""
    self._began += seconds

  def save(self, *, now: bool = False) -> float:
    """Writes the file, though seldom unless `now`; returns the seconds."""
    seconds = self.seconds
    if now or seconds - self._saved > _EVERY:
      self._saved = seconds
      self._path.parent.mkdir(parents=True, exist_ok=True)
      with records.replacing(self._path) as part:
        part.write_text(json.dumps({'seconds': seconds}), encoding='utf-8')
    return seconds
