"""Pictures come last, and none that fails takes finished work with it."""
from collections.abc import Callable, Mapping
import os
import pathlib
from typing import Any

from absl import logging

from dsr.runs import records


def draw(
    folder: str | os.PathLike, todo: Mapping[str, Callable[[pathlib.Path], Any]]
) -> list[pathlib.Path]:
  """Draws each picture of `todo`; what fails is a warning and an entry.

  Args:
    folder: with a `record.json`, in which `extra['failed_pictures']` names what
      failed, and why.
    todo: name of the file -> function that is called with its path.

  Returns:
    The paths of those that were drawn.
  """
  folder, drawn, failed = pathlib.Path(folder), [], {}
  for name, make in todo.items():
    try:
      make(folder / name)
      drawn.append(folder / name)
    except Exception as error:  # whatever it is, go on.
      failed[name] = f'{type(error).__name__}: {error}'
      logging.warning('%s was not drawn: %s', folder / name, failed[name])
  if failed:
    records.amend(folder, {'failed_pictures': failed})
  return drawn
