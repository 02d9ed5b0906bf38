"""What fails when a threshold of the first-layer attack is halved or doubled.

Each is tried alone, over victims of two data sets, three widths and several
seeds, twenty images each; found and claimed images are counted by the truth.
What is done before the search, the factors of the released change, has no such
threshold and is made once for each victim. A threshold on a cosine is taken as
its distance from 1.
"""
from collections.abc import Iterator
import contextlib
import functools
import json
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from dsr.attack import (
  first_layer,
  first_layer_config,
  match,
  release,
  restore,
  rows,
  sparse_rows,
)
from dsr.attack.result import CLAIM
from dsr.attack.span import Span, span
from dsr.report import tables
from dsr.runs import records
from dsr.studies.reconstruction import victims

DATA = ('mnist_odd_even', 'cifar10_animal_vehicle')
WIDTHS = (512, 1024, 2048)
SEEDS = tuple(range(11, 21))
_NUM = 20
_RIGHT = 0.01  # RMSE of an image that was found.
_CLAIMED = 0.05  # Of one that was claimed rightly.


class Threshold(NamedTuple):
  """A name in modules, or an option of the attack where there are none."""

  name: str
  modules: tuple[ModuleType, ...] = ()

  def times(self, factor: float) -> Any:
    """Its value, changed by a factor."""
    value = (getattr(self.modules[0], self.name) if self.modules
             else getattr(first_layer.DEFAULT, self.name))
    if self.name in ('_NEAR', '_SAME'):
      return 1 - factor * (1 - value)
    return type(value)(factor * value)


THRESHOLDS = (
    Threshold('zeros'),
    Threshold('oversample'),
    *(Threshold(name, (first_layer,)) for name in (
        '_NEAR', '_FEWEST', '_MANY')),
    *(Threshold(name, (first_layer, first_layer_config)) for name in (
        'MIXTURE', 'INDEPENDENT')),
    Threshold('_MARGIN', (first_layer_config,)),
    *(Threshold(name, (sparse_rows, rows)) for name in (
        'ZERO', 'MOST', 'DEVIATIONS')),
    *(Threshold(name, (sparse_rows,)) for name in ('_POWER', '_LEAST')),
    *(Threshold(name, (rows,)) for name in (
        '_SAME', '_PASSES', '_FALL', '_UNDECIDED')),
)


class Victim(NamedTuple):
  """A network to attack, its images in [0, 1], the factors of its change."""

  name: str
  released: release.Released
  factors: Span
  truth: np.ndarray


@contextlib.contextmanager
def changed(threshold: Threshold | None, factor: float) -> Iterator[
    first_layer.Config]:
  """The attack's options, with one threshold changed inside the block."""
  if threshold is None:
    yield first_layer.DEFAULT
    return
  value = threshold.times(factor)
  if not threshold.modules:
    yield first_layer.DEFAULT._replace(**{threshold.name: value})
    return
  old = getattr(threshold.modules[0], threshold.name)
  put = lambda value: [setattr(m, threshold.name, value)
                       for m in threshold.modules]
  try:
    put(value)
    _forget(threshold)
    yield first_layer.DEFAULT
  finally:
    put(old)
    _forget(threshold)


def _forget(threshold):
  """Programs have thresholds in them, other than those of NumPy."""
  if threshold.modules != (rows,):
    first_layer.first_layer.cache_clear()
    jax.clear_caches()


def make(dataset: str, width: int, seed: int) -> Victim:
  """Trains a victim, by descent at the automatic rate."""
  config = victims.VictimConfig(
      dataset=dataset, width=width, seed=seed, num_train=_NUM,
      recipe='descent')
  task = victims.prepare_victim_task(config)
  victim = victims.train_victim(config, task)
  shape = task.examples.x.shape[1:]
  released = restore.restored(release.parameters(
      victim.module, victim.theta_0, victim.theta_T, num_train=_NUM,
      input_shape=shape, num_outputs=task.examples.y.shape[1], low=task.low,
      high=task.high))
  return Victim(f'{dataset} {width} {seed}', released, span(released),
                np.asarray(task.train.x))


def attack(victim: Victim, config: first_layer.Config) -> tuple[int, int, int]:
  """How many images are found, claimed, and claimed rightly."""
  found = first_layer.reconstruct(
      jax.random.key(0), victim.released, config, progress=False,
      factors=victim.factors)
  if not len(found.candidates):
    return 0, 0, 0
  gaps = match.distances(
      victim.truth, found.candidates - victim.released.low[None])
  claimed = found.confidence >= CLAIM
  return (int((gaps.min(axis=1) < _RIGHT).sum()), int(claimed.sum()),
          int((gaps.min(axis=0)[claimed] < _CLAIMED).sum()))


def threshold_suite(config: Any) -> tuple[list[dict], list[str]]:
  """A row for each threshold; counts are kept as they come, in the workdir."""
  chosen = [t for t in (None, *THRESHOLDS)
            if config.only in (t.name if t else 'none')]
  if not chosen:
    names = ', '.join(t.name for t in THRESHOLDS)
    raise ValueError(f'`only` must be part of one of {names}, none; got '
                     f'{config.only!r}.')
  path = pathlib.Path(config.workdir) / 'thresholds.json'
  kept = json.loads(path.read_text('utf-8')) if path.exists() else {}
  path.parent.mkdir(parents=True, exist_ok=True)
  cells = [(data, width, seed) for data in DATA for width in WIDTHS
           for seed in SEEDS[:max(len(SEEDS) // config.shrink, 1)]]
  trained = functools.cache(make)
  variants = [(t, f) for t in chosen for f in ((0.5, 2.0) if t else (1.0,))]
  for threshold, factor in variants:
    name = f'{threshold.name if threshold else "none"} {factor:g}'
    counts = kept.setdefault(name, {})
    with changed(threshold, factor) as options:
      try:
        first_layer.check(options)
      except ValueError as error:
        logging.info('%s is refused: %s', name, error)
        continue
      for cell in cells:
        victim = ' '.join(map(str, cell))
        if victim not in counts:
          counts[victim] = attack(trained(*cell), options)
    _save(path, kept)
    logging.info('%s: %s', name, _summary(counts.values()))
  rows_ = [_row(threshold, kept) for threshold in chosen]
  return rows_, [tables.render(
      rows_, ['case', 'value', 'halved', 'doubled'],
      title=f'Images found of {_NUM * len(cells)}; claims, and those of them '
      f'that are right; victims of {len(cells)} that lost an image')]


def _save(path, kept):
  with records.replacing(path) as part:
    part.write_text(json.dumps(kept, indent=1), encoding='utf-8')


def _summary(counts) -> str:
  counts = np.array(list(counts)).reshape(-1, 3)
  if not len(counts):
    return 'refused'
  found, claimed, right = counts.sum(axis=0)
  return f'{found}; {claimed}, {right}; {(counts[:, 0] < _NUM).sum()}'


def _row(threshold, kept) -> dict[str, Any]:
  if threshold is None:
    return {'case': 'as it is', 'value': '',
            'halved': _summary(kept['none 1'].values()), 'doubled': ''}
  of = lambda factor: _summary(
      kept.get(f'{threshold.name} {factor:g}', {}).values())
  return {'case': threshold.name, 'value': f'{threshold.times(1):g}',
          'halved': of(0.5), 'doubled': of(2.0)}
