"""Jobs that cost nothing, for processes that import them by name."""
import dataclasses
import os
import pathlib
import signal
import time
from typing import Any, NamedTuple

import jax.numpy as jnp

from dsr import loop
from dsr.runs import contents, plan, records
from dsr.types import Status


@dataclasses.dataclass(frozen=True)
class Config:
  """As a study has it."""

  workdir: str
  seed: int = 0
  set: str = ''
  error: str = ''  # Raised, unless it names a file that is there.
  fresh: bool = False


def run(config: Config) -> None:
  """Writes what it was given, and counts how often; or fails."""
  folder = pathlib.Path(config.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  calls = folder / 'calls.txt'
  calls.write_text(f'{calls.read_text() if calls.exists() else ""}.')
  if config.error and not pathlib.Path(config.error).exists():
    raise ValueError(f'`error` must exist, got {config.error}.\nMore of it.')
  records.write(folder, config=config, contents=contents.of(config),
                metrics={'seed': records.metric(config.seed)}, wall_time=2.0)


def killed(config: Config) -> None:
  """Kills its process the first time, as one without memory is."""
  if not (mark := pathlib.Path(config.workdir, 'killed')).exists():
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
  run(config)


def preempted(config: Config) -> None:
  """Six steps with checkpoints; a SIGTERM comes after the third, once."""
  folder, made = pathlib.Path(config.workdir), []

  def on_chunk(step, state, info):
    made.append(step)
    if not (mark := folder / 'preempted').exists():
      if step == 3:
        mark.touch()
        os.kill(os.getpid(), signal.SIGTERM)

  result = loop.run(
      _step, jnp.zeros(()), None, num_steps=6, chunk=1, workdir=folder,
      progress=False, on_chunk=on_chunk)
  with open(folder / 'steps.txt', 'a', encoding='utf-8') as file:
    file.write(f'{made}\n')
  if result.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  run(config)


class Info(NamedTuple):
  """Of a step."""

  loss: Any
  finite: Any


def _step(state, data):
  return state + 1, Info(state, jnp.isfinite(state))


def slow(config: Config) -> None:
  """Waits until it is stopped, and tells by files that it runs and ends."""
  folder = pathlib.Path(config.workdir)
  (folder / 'runs').touch()
  try:
    time.sleep(60)
  finally:
    (folder / 'stopped').touch()


def jobs(root: pathlib.Path, **fields) -> list[plan.Job]:
  """a and b of nothing; c reads a; d reads b, where b fails given `error`."""
  at = lambda name: str(root / name)
  config = lambda name, **own: Config(at(name), **own)
  return [
      plan.Job('d', run, config('d', set=at('b')), (at('b'),), 'late'),
      plan.Job('c', run, config('c', set=at('a')), (at('a'),), 'late'),
      plan.Job('b', run, config('b', seed=2, **fields), kind='early'),
      plan.Job('a', run, config('a', seed=1), kind='early')]
