"""Two attacks on one victim: error against wall time, side by side.

With `regime=both` there are two such races, on a linearized victim and on a
standard one, and a picture of all four.
"""
from collections.abc import Callable, Iterable
import dataclasses
import pathlib
import time
from typing import Any

import numpy as np

from dsr import checks
from dsr.attack import match
from dsr.report import figures, tables
from dsr.runs import (
    contents,
    jobs,
    parts as parts_lib,
    pictures,
    records,
    screen,
)
from dsr.runs.plan import Job
from dsr.studies.reconstruction import attacks, cases, recipes, scoring, table
from dsr.types import Status

_EVERY = 5.0  # Seconds between two saves of a trail.
_GOOD = 0.05  # RMSE below which the trail counts an image.
_COLUMNS = (*scoring.COLUMNS, tables.Column('seconds', digits=1))
_REGIMES = ('linearized', 'standard')  # Of `both`.


class Trail:
  """What the error was when: rows of (seconds, step, median, share)."""

  def __init__(self, path: pathlib.Path, case: cases.Case):
    self._path, self._case, self._saved = path, case, 0.0
    self.rows: list[tuple[float, ...]] = []
    if path.exists():
      self.rows = list(map(tuple, records.read_arrays(path)['rows']))
    self._resumed = bool(self.rows)

  def look(self, step: int, candidates: np.ndarray, seconds: float) -> None:
    """Adds a row; after a resume, instead of those that are made again."""
    if self._resumed:
      self.rows = [row for row in self.rows if row[1] < step]
      self._resumed = False
    error = scoring.rmse(self._case, candidates)
    self.rows.append((
        seconds, step, scoring.median(error), float(np.mean(error < _GOOD))))
    if time.monotonic() - self._saved > _EVERY:
      self.save()

  def save(self) -> None:
    """Writes the rows, so that a resumed race has them."""
    self._saved = time.monotonic()
    with records.replacing(self._path) as part, open(part, 'wb') as file:
      np.savez(file, rows=np.asarray(self.rows))

  def curve(self) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, median RMSE of what the attacker had then)."""
    return _curve(self.rows)


def _curve(rows: Iterable) -> tuple[np.ndarray, np.ndarray]:
  seconds, _, median, _ = np.transpose(rows)
  return seconds, median


def check(config: Any) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  if config.regime == 'infinite':
    raise ValueError("`regime` must be 'linearized', 'standard' or 'both' with "
                     "`compare`, got 'infinite'.")
  if config.threat in attacks.VALUES:
    raise ValueError("`threat` must be 'parameters' or 'final' with `compare`, "
                     f'got {config.threat!r}, which one attack works with.')
  checks.one_of('compare', config.compare,
                [a for a in table.known(False) if a != config.attack and
                 config.threat in table.ATTACKS[a].threats])
  if config.compare_steps is not None:
    checks.at_least('compare_steps', config.compare_steps, 1)
  attacks.check(_rival(config))


def _rival(config):
  """The other attack, with its own settings."""
  unset = dict.fromkeys(('ratio', 'attack_learning_rate', 'gradients', 'box',
                         'variation', 'high_frequency'))
  return dataclasses.replace(
      config, attack=config.compare, steps=config.compare_steps, compare='',
      compare_steps=None, options='', **unset)


def run(config: Any) -> dict[str, Any]:
  """Runs both attacks; returns the metrics of the record.

  Writes `race.png`, `curve.png`, `race.npz`, `table.txt` and `record.json`, and
  a folder for each attack.

  Args:
    config: an `experiments.reconstruct.Config` with `compare`, resolved.

  Raises:
    KeyboardInterrupt: one was interrupted; the same flags go on.
  """
  began = time.monotonic()
  folder = pathlib.Path(config.workdir)
  case = cases.make_case(config, folder)
  rivals = {config.attack: dataclasses.replace(config, compare=''),
            config.compare: _rival(config)}
  trails, scores, rows, curves, metrics, arrays = {}, {}, [], {}, {}, {}
  for name, rival in rivals.items():
    own = folder / name
    if config.fresh:
      jobs.forget(own)
      (own / 'trail.npz').unlink(missing_ok=True)
    trails[name] = trail = Trail(own / 'trail.npz', case)
    own.mkdir(parents=True, exist_ok=True)
    found, seconds = attacks.run(
        rival, case.released, own, on_chunk=trail.look)
    trail.look(len(found.curve), found.candidates, seconds)
    trail.save()
    if found.status == Status.INTERRUPTED:
      raise KeyboardInterrupt
    scored = scoring.score(rival, case, found.candidates)
    scores[name] = scored
    rows.append(scoring.rows(name, scored)[0] | {'seconds': seconds})
    curves[name] = scored.score.rmse
    metrics |= {f'{name}_{metric}': value for metric, value in (
        scoring.metrics(case, scored) | scoring.exact({
            'relative_loss': found.loss, 'seconds': seconds})).items()}
    arrays |= {f'{name}_trail': np.asarray(trail.rows),
               f'{name}_pixels': scored.pixels, f'{name}_rmse': curves[name]}
  curves |= {'other images': scored.others.rmse, 'class means': scored.means}
  reached = _reached(trails[config.attack], trails[config.compare])
  total = trails[config.compare].rows[-1][0]
  if reached is not None:
    metrics |= scoring.exact({'seconds_to_match': reached,
                              'speed_ratio': total / reached})
  title = f'{config.dataset}, N = {config.num_train}, {config.regime}'
  records.write(
      folder, config=config, contents=contents.of(config),
      metrics=metrics, arrays=arrays,
      arrays_name='race', wall_time=time.monotonic() - began,
      seeds={'seed': config.seed, 'attack_seed': config.attack_seed},
      extra={'status': Status.FINISHED, 'reached': reached is not None,
             'distances': case.distances, 'unexplained': case.unexplained})
  paths = [tables.write(folder / 'table.txt', rows, _COLUMNS)]
  paths += pictures.draw(folder, {
      'race.png': lambda path: _draw(
          path, {name: trail.curve() for name, trail in trails.items()}, title),
      'curve.png': lambda path: figures.reconstruction_curve(
          path, curves, thresholds=match.THRESHOLDS, title=title)})
  for name, rival in rivals.items():
    paths += pictures.draw(
        folder, scoring.drawings(rival, case, scores[name], name))
  screen.show(tables.render(rows, _COLUMNS, title=title))
  ratio = 'never' if reached is None else (
      f'after {reached:.1f} s, {total / reached:.3g} times as fast')
  screen.show(f'\n{config.attack} reaches the last error of {config.compare} '
              f'{ratio}')
  screen.show('\n'.join(f'  {path}' for path in paths))
  return metrics


def parts(config: Any) -> list[Any]:
  """The race of each regime of `both`, in a folder of its own."""
  folder = pathlib.Path(config.workdir)
  return [recipes.fair(dataclasses.replace(
      config, regime=regime, workdir=str(folder / regime)))
          for regime in _REGIMES]


def jobs_of(config: Any, run_part: Callable) -> list[Job]:
  """Of `parts`; one of other flags is no start: its attacks are repeated."""
  return [Job(f'race: {part.regime}', run_part, dataclasses.replace(
      part, fresh=config.fresh or (
          jobs.recorded(part) is not None and jobs.kept(part) is None)))
          for part in parts(config)]


def run_both(config: Any, run_part: Callable) -> dict[str, Any]:
  """Runs the races that are not finished, then shows both together.

  Writes `race.png`, `table.txt` and `record.json`, whose metrics are those of
  the races behind their regime: `linearized_speed_ratio`.

  Args:
    config: an `experiments.reconstruct.Config` with `compare` and
      `regime='both'`, resolved.
    run_part: called with the config of a race; writes its record.

  Raises:
    KeyboardInterrupt: a race was interrupted; the same flags go on.
    Incomplete: one has failed; the table names it.
  """
  began = time.monotonic()
  folder = pathlib.Path(config.workdir)
  rows, curves, metrics, reached = [], {}, {}, {}
  todo = jobs_of(config, run_part)
  made = parts_lib.make(todo, fresh=config.fresh)
  for part in (job.config for job in todo):
    own, record = pathlib.Path(part.workdir), made.record(part)
    if record is None:
      continue
    found, trails = record['metrics'], records.read_arrays(own)
    for attack in (config.attack, config.compare):
      who = f'{attack}, {part.regime}'
      rows.append({'who': who, 'metrics': {
          name.removeprefix(f'{attack}_'): metric
          for name, metric in found.items() if name.startswith(f'{attack}_')}})
      curves[who] = _curve(trails[f'{attack}_trail'])
    if 'speed_ratio' in found:
      rows[-2]['metrics']['speed_ratio'] = found['speed_ratio']
    metrics |= {f'{part.regime}_{name}': m for name, m in found.items()}
    reached[part.regime] = record['extra']['reached']
  columns = (*_COLUMNS, tables.Column('speed_ratio', title='times as fast'))
  title = f'{config.dataset}, N = {config.num_train}'
  records.write(
      folder, config=config, contents=contents.of(config), metrics=metrics,
      wall_time=time.monotonic() - began,
      seeds={'seed': config.seed, 'attack_seed': config.attack_seed},
      extra={'status': Status.FINISHED, 'reached': reached,
             'missing': made.missing})
  paths = [tables.write(folder / 'table.txt', rows, columns, note=made.note)]
  paths += pictures.draw(
      folder, {'race.png': lambda path: _draw(path, curves, title)})
  screen.show(tables.render(rows, columns, title=title))
  screen.show(*filter(None, [made.note]), *(f'  {path}' for path in paths))
  made.end()
  return metrics


def _draw(path, series, title) -> pathlib.Path:
  """(Seconds, median RMSE) by name."""
  return figures.loss_curve(
      path, series, log=True, log_x=True, xlabel='seconds',
      ylabel='median RMSE', title=title)


def _reached(ours: Trail, other: Trail) -> float | None:
  """Seconds from which `ours` stays as good as `other` ends; None for never.

  An attacker cannot see when the error was least, so that does not count.
  """
  seconds, error = ours.curve()
  worse = np.flatnonzero(error > other.curve()[1][-1])
  first = worse[-1] + 1 if len(worse) else 0
  return float(seconds[first]) if first < len(seconds) else None
