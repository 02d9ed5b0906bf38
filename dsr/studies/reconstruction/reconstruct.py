"""Rebuilds the training images of a network, and says how well.

The command is `experiments.reconstruct`; its docstring has an example, and what
it writes.
"""
import dataclasses
import math
import pathlib
import time
from typing import Any, Literal, NamedTuple

from absl import logging
import numpy as np

from dsr import checks
from dsr.attack.result import Reconstruction
from dsr.report import tables
from dsr.runs import contents, jobs, pictures, records, screen
from dsr.runs.plan import Job
from dsr.studies.reconstruction import (
  attacks,
  cases,
  race,
  recipes,
  scoring,
  sweep as sweep_lib,
)
from dsr.types import Status


@dataclasses.dataclass(frozen=True)
class Config(attacks.AttackConfig):
  """Trains a network on a few images, attacks it, and scores the result."""

  # The victim: infinitely wide, or finite and trained either way; both: two
  # races with `compare`, on a linearized and on a standard victim.
  regime: Literal['infinite', 'linearized', 'standard', 'both'] = 'infinite'
  compare: str = ''  # Another attack, to race on the same victim.
  compare_steps: int | None = None  # Of that attack; unset: its own.
  sweep: bool = False  # Whether to go through all `widths` and `nums`.
  # Of the networks of a sweep, with commas between them.
  widths: str = '512,1024,2048,4096'
  # Training images of a sweep, with commas between them.
  nums: str = '20,50,100,200'
  fresh: bool = False  # Whether to repeat a finished run.
  workdir: str = 'out/reconstruct'  # Where the results go.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  if config.sweep:
    check(config)
    return sweep_lib.run(config, run)
  if config.compare:
    config = recipes.fair(config)
  config = attacks.resolve(config)
  check(config)
  record = None if config.fresh else jobs.kept(config)
  if record is not None:
    logging.info('%s: finished before, kept', config.workdir)
    screen.show((pathlib.Path(config.workdir) / 'table.txt').read_text('utf-8'))
    return record['metrics']
  if config.fresh:
    jobs.forget(config.workdir)
  if config.regime == 'both':
    return race.run_both(config, run)
  if config.compare:
    return race.run(config)
  return _attack(config)


def jobs_of(config: Config) -> list[Job]:
  """The cells of a sweep, or the races of both regimes.

  Raises:
    ValueError: as `check`, or there is one attack or one race alone.
  """
  if config.sweep:
    check(config)
    return sweep_lib.jobs_of(config, run)
  if config.regime != 'both':
    raise ValueError("`sweep` or `regime` 'both' makes several jobs, got "
                     f'neither and regime {config.regime!r}.')
  config = attacks.resolve(recipes.fair(config))
  check(config)
  return race.jobs_of(config, run)


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  if config.regime == 'both':
    if not config.compare:
      raise ValueError("`regime` can be 'both' with `compare` only, got 'both' "
                       'and no other attack.')
    if config.sweep:
      raise ValueError("`regime` must be 'linearized' or 'standard' with "
                       "`sweep`, got 'both'.")
    for part in race.parts(config):
      check(part)
    return
  if config.sweep:
    sweep_lib.check(config)
    return
  if config.compare:
    race.check(config)
  elif config.compare_steps is not None:
    raise ValueError('`compare_steps` needs `compare`, got '
                     f'{config.compare_steps} alone.')
  for field in dataclasses.fields(config):
    if field.name in ('widths', 'nums') and (
        getattr(config, field.name) != field.default):
      raise ValueError(f'`{field.name}` needs `sweep`, got '
                       f'{getattr(config, field.name)} alone.')
  attacks.check(config)
  if config.steps is not None:
    checks.at_least('steps', config.steps, 1)


class Rebuilt(NamedTuple):
  """An attack in memory.

  Attributes:
    case: the victim, with the truth about it.
    found: what the attack returned.
    scored: against the truth, and against honest guesses.
    metrics: as of `run`.
  """

  case: cases.Case
  found: Reconstruction
  scored: scoring.Scored
  metrics: dict[str, Any]


def rebuild(config: Config) -> Rebuilt:
  """As `run` of one attack, in memory: nothing is read or written.

  Args:
    config: whose `workdir` does not count; no sweep and no race.

  Raises:
    ValueError: as `check`.
    FloatingPointError: the victim's training or the attack failed.
  """
  config = attacks.resolve(config)
  check(config)
  if config.sweep or config.compare:
    raise ValueError('`sweep` and `compare` need a workdir: call `run`.')
  return _rebuild(config, None)


def _rebuild(config, folder) -> Rebuilt:
  case = cases.make_case(config, folder)
  found, seconds = attacks.run(
      config, case.released, folder, kernel_fn=case.kernel_fn,
      norm_squared=case.norm_squared)
  scored = scoring.score(config, case, found.candidates)
  return Rebuilt(case, found, scored, scoring.metrics(
      case, scored) | scoring.claims(case, found) | scoring.exact({
          'relative_loss': found.loss, 'seconds': seconds,
          'victim_seconds': case.seconds}))


def _attack(config: Config) -> dict[str, Any]:
  began = time.monotonic()
  folder = pathlib.Path(config.workdir)
  case, found, scored, metrics = _rebuild(config, folder)
  rows = scoring.rows(config.attack, scored)
  shown, info = _info(found)
  notes = _notes(config, found)
  records.write(
      folder, config=config, contents=contents.of(config),
      metrics=metrics, arrays_name='reconstruction',
      claimed={name: value for name, value in scoring.claimed(config).items()
               if name in metrics},
      seeds={'seed': config.seed, 'attack_seed': config.attack_seed},
      wall_time=time.monotonic() - began,
      arrays=scoring.arrays(case, scored) | info | {
          'duals': found.duals, 'curve': found.curve},
      extra={'status': found.status, 'training_ended': case.ended,
             'num_candidates': len(found.candidates),
             'info': shown | notes, 'distances': case.distances})
  paths = [tables.write(folder / 'table.txt', rows, scoring.COLUMNS)]
  paths += pictures.draw(folder, scoring.drawings(config, case, scored))
  if found.status == Status.INTERRUPTED:
    logging.warning('Interrupted: the same command goes on.')
  title = (f'{config.dataset}, N = {config.num_train}, {config.regime}: '
           'images recovered [95 % interval]')
  screen.show(tables.render(rows, scoring.COLUMNS, title=title))
  screen.show('\n'.join(['', *notes.values(), _claim(metrics)]))
  screen.show(f'\nattack: {metrics["seconds"].value:.1f} s, '
              f'victim: {case.seconds:.1f} s')
  screen.show('\n'.join(f'  {path}' for path in paths))
  return metrics


def _claim(metrics) -> str:
  """What the attacker knows without the truth, in a sentence."""
  num = round(metrics['claimed'].value)
  if not num:
    return ('The attack claims no candidate to be a training image: without '
            'the truth, none can be told from a guess.')
  right = round(metrics['claim_precision'].value * num)
  return (f'Without the truth, the attack claims {num} candidates to be '
          f'training images; {right} of them are, up to an RMSE of '
          f'{scoring.CLAIMED_RMSE}.')


def _notes(config, found) -> dict[str, str]:
  """Why there was no other attack, or why this one misses images."""
  notes = {}
  if why := config.attack == 'finite' and attacks.without_first_layer(config):
    notes['without_first_layer'] = why
  told = config.num_told or config.num_train
  if (rank := found.info.get('rank', told)) < told:
    notes['low_rank'] = (
        f'The first layer changed by a matrix of rank {rank}, for {told} '
        'images at most: there are fewer, or some are equal, or others are '
        'sums of more, which cannot be told apart.')
  return notes


def _info(found: Reconstruction) -> tuple[dict[str, Any], dict[str, Any]]:
  """What an attack adds: (for JSON, for the npz)."""
  shown, arrays = {}, {}
  for name, value in found.info.items():
    if isinstance(value, (bool, int, str)):
      shown[name] = value
    elif np.ndim(value):
      arrays[f'info_{name}'] = np.asarray(value)
    elif math.isfinite(value):
      shown[name] = float(value)
  return shown, arrays
