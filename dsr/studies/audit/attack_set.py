"""Trains a victim on a set made of training images, and attacks it.

The command is `experiments.attack_set`; its docstring has an example, and what
it writes.
"""
import dataclasses
import hashlib
import pathlib
import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from dsr import checks, data as data_lib, krr
from dsr.probes import intervals
from dsr.runs import contents, jobs, pictures, records
from dsr.studies.audit import leaks
from dsr.studies.distillation.problem import encoded
from dsr.studies.reconstruction import attacks, cases, scoring, victims
from dsr.types import Dataset, Examples

_DIGITS = 12  # Of a digest.


@dataclasses.dataclass(frozen=True)
class Config(attacks.AttackConfig):
  """Trains a network on a set, attacks it, and asks what came back."""

  images: str = ''  # The set, an .npz of experiments.distill; '': all of T.
  digest: str = ''  # That the set must have; '': any.
  fresh: bool = False  # Whether to repeat a finished run.
  workdir: str = 'out/attack_set'  # Where the results go.


def digest(*arrays: Any) -> str:
  """Tells contents apart: 12 digits of the SHA-256 of `arrays`."""
  found = hashlib.sha256()
  for array in arrays:
    array = np.ascontiguousarray(array)
    found.update(f'{array.dtype} {array.shape}'.encode())
    found.update(array.tobytes())
  return found.hexdigest()[:_DIGITS]


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read.

  Args:
    config: by `attacks.resolve`.
  """
  if config.victim:
    raise ValueError('`victim` must be unset with a set of images, on which '
                     f'one is trained; got {config.victim!r}.')
  attacks.check(config)


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  config = attacks.resolve(config)
  check(config)
  record = None if config.fresh else jobs.kept(config)
  if record is not None:
    return record['metrics']
  if config.fresh:
    jobs.forget(config.workdir)
  began = time.monotonic()
  train, task, name = _task(config)
  folder = pathlib.Path(config.workdir)
  state = folder / 'attack' / name  # No other set's attack goes on from it.
  case = cases.make_case(config, state, task=task)
  found, seconds = attacks.run(
      config, case.released, state, kernel_fn=case.kernel_fn,
      norm_squared=case.norm_squared)
  leak = leaks.score(config.seed, task, train.x, scoring.to_pixels(
      case, found.candidates))
  metrics = leaks.metrics(config.seed, leak) | {
      'accuracy': _accuracy(case)} | scoring.exact({
          'num_candidates': len(found.candidates), 'seconds': seconds,
          'victim_seconds': case.seconds})
  records.write(
      folder, config=config, contents=contents.of(config),
      metrics=metrics, arrays_name='reconstruction',
      seeds={'seed': config.seed, 'attack_seed': config.attack_seed},
      arrays=leaks.arrays(leak), wall_time=time.monotonic() - began,
      extra={'status': found.status, 'digest': name,
             'range': [float(task.train.x.min()), float(task.train.x.max())]})
  pictures.draw(folder, {'reconstructions.png': lambda path: leaks.draw(
      path, task.train.x, train.x, leak,
      title=f'{config.num_train} images, {config.regime}')})
  return metrics


def _task(config) -> tuple[Dataset, victims.Task, str]:
  """(T, the set as data of a victim, its digest)."""
  train, test = data_lib.load(
      config.dataset, data_dir=config.data_dir, seed=config.seed)
  pixels, targets, labels = _read(config.images, train)
  name = digest(pixels, targets)
  if config.digest not in ('', name):
    raise ValueError(f'`digest` must be {name}, which the set has, got '
                     f'{config.digest!r}.')
  if len(pixels) != config.num_train:
    raise ValueError('`num_train` must be the number of images of the set, '
                     f'{len(pixels)}, got {config.num_train}.')
  if pixels.shape[1:] != train.x.shape[1:]:
    raise ValueError(f'`images` must be {train.x.shape[1:]} as those of '
                     f'{config.dataset}, got {pixels.shape[1:]}.')
  transform = data_lib.transforms.by_name('mean', train.x)
  x = transform.apply(pixels.astype(config.dtype))
  own = Dataset(pixels, labels, train.num_classes, config.images or train.name)
  # Of each channel, as `victims.Task` has them.
  low, high = (np.asarray(reduce(x, (0, 1, 2)))[None, None]
               for reduce in (jnp.min, jnp.max))
  return train, victims.Task(
      own, test, np.arange(len(own)), transform,
      Examples(x, jnp.asarray(targets, x.dtype)), low, high), name


def _read(images, train):
  """(pixels, targets, labels) of the set."""
  if not images:
    return train.x, np.asarray(encoded(train)), train.y
  with checks.renamed(path='images'):
    arrays = records.read_arrays(images)
  if missing := {'images', 'targets', 'labels'} - set(arrays):
    raise ValueError('`images` must be an .npz that experiments.distill wrote, '
                     f'{images} lacks {", ".join(sorted(missing))}.')
  return arrays['images'], arrays['targets'], arrays['labels']


def _accuracy(case) -> intervals.Interval:
  """Of the victim on the test set, with a Wilson interval."""
  task = case.task
  x = data_lib.map_host(
      task.transform.apply, task.test.x.astype(task.examples.x.dtype))
  right = float(krr.accuracy(case.predict(x), task.test.y))
  return intervals.wilson(round(right * len(x)), len(x))
