"""Accuracy of models under attack, and on corrupted images.

The command is `experiments.robustness`; its docstring has an example, and what
it writes.
"""
from collections.abc import Callable
import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np

from dsr import checks, data as data_lib
from dsr.probes import corruptions, intervals, robust_metrics, transfer
from dsr.runs import contents, records
from dsr.studies.audit import fit, models as models_lib, subjects
from dsr.studies.audit.attack_table import ATTACKS, describe
from dsr.studies.distillation import evaluation

_RADIUS = {'linf': 8 / 255, 'l2': 0.5}  # As in the benchmarks of CIFAR-10.
_GREY = {'linf': 0.1, 'l2': 1.0}  # Of one channel: arXiv:2402.05675, and more.
_SHARES = (0.25, 0.5, 1.0, 2.0)  # Radii of the curve over the radius.


@dataclasses.dataclass(frozen=True)
class Config(subjects.SubjectConfig):
  """Attacks models with adversarial examples and corruptions."""

  fit: str = ''  # Workdir of experiments.fit with the networks; '': made here.
  # Those listed at the end of --help, with commas between them; '' for none.
  attacks: str = ','.join(name for name, a in ATTACKS.items() if a.usual)
  num_attacked: int = 200  # Test images, as many of each class.
  epsilon_linf: float | None = None  # Unset: 0.1, with colours 8/255.
  epsilon_l2: float | None = None  # Unset: 1.0, with colours 0.5.
  steps: int = 20  # Of pgd and apgd.
  curve: str = 'pgd_linf'  # The attack at several radii; '' for none.
  # Names with commas between them: gaussian_noise, shot_noise, impulse_noise,
  # gaussian_blur, motion_blur, contrast, brightness, pixelate; '' for none.
  corruptions: str = ','.join(corruptions.CORRUPTIONS)
  severities: str = '1,3,5'  # Of the corruptions, 1 to 5.
  workdir: str = 'out/robustness'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all attacks."""
    return describe()


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  check(config)
  _, problem = subjects.load_set(config)
  models = fit.models(config, config.workdir)
  keys = jax.random.split(jax.random.key(config.seed + 8), 4)
  images = victims(config, problem)
  radii = radii_of(config, images.x.shape[-1])
  right, seconds = _attacked(keys[0], config, models, images, radii)
  metrics = {f'{name}_accuracy': intervals.crossed(hits)
             for name, hits in right.items()}
  metrics |= _scores(right, seconds)
  arrays = {f'right_{name}': hits for name, hits in right.items()}
  arrays |= {'labels': images.y}
  if config.curve:
    epsilons, points = _curve(keys[1], config, models, images, radii)
    arrays |= {'curve_epsilons': epsilons, 'curve_right': points}
    metrics |= {f'curve_{i}_accuracy': intervals.crossed(p)
                for i, p in enumerate(points)}
  if config.attacks and len(models) > 1:
    metrics['transfer_accuracy'] = _transferred(
        keys[2], config, models, images, radii)
  if names := evaluation.names(config.corruptions):
    hits = _corrupted(keys[3], config, names, models, images)
    metrics |= {f'{name}_accuracy': _share(v) for name, v in hits.items()}
    arrays |= {f'right_{name}': v for name, v in hits.items()}
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays=arrays,
      arrays_name='robustness', wall_time=time.monotonic() - began,
      extra={'radii': radii, 'seconds': seconds,
             'num_attacked': len(images), 'num_models': len(models)})
  return metrics


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  subjects.check(config)
  for name in evaluation.names(config.attacks):
    checks.one_of('attacks', name, ATTACKS)
  if config.curve:
    checks.one_of('curve', config.curve, ATTACKS)
  for name in evaluation.names(config.corruptions):
    checks.one_of('corruptions', name, corruptions.CORRUPTIONS)
  checks.at_least('num_attacked', config.num_attacked, 2)
  checks.at_least('steps', config.steps, 1)
  for name in ('epsilon_linf', 'epsilon_l2'):
    if getattr(config, name) is not None:
      checks.non_negative(name, getattr(config, name))
  _severities(config)


def _severities(config) -> list[int]:
  named = evaluation.names(config.severities)
  if not named or not all(s in '12345' and len(s) == 1 for s in named):
    raise ValueError('`severities` must be whole numbers from 1 to 5 with '
                     f'commas between them, got {config.severities!r}.')
  return sorted(set(map(int, named)))


def victims(config: Any, problem: Any):
  """Test images, as many of each class that has any: the same for all models.

  Args:
    config: its `num_attacked` and `seed`.
    problem: whose test images they are.
  """
  classes, y = np.unique(problem.test.y, return_inverse=True)
  rows = data_lib.balanced_rows(
      jax.random.key(config.seed + 9), y.astype(np.int32),
      max(1, min(config.num_attacked // len(classes),
                 int(np.bincount(y).min()))), len(classes))
  return problem.test.take(rows)


def radii_of(config: Any, channels: int) -> dict[str, float]:
  """Norm -> epsilon, in pixels of [0, 1]."""
  usual = _GREY if channels == 1 else _RADIUS
  given = {'linf': config.epsilon_linf, 'l2': config.epsilon_l2}
  return {norm: usual[norm] if value is None else value
          for norm, value in given.items()}


@functools.lru_cache(maxsize=64)
def bound(name: str, steps: int) -> Callable:
  """The attack as (key, predict_fn, x, labels, *, epsilon) -> x_adv."""
  attack = ATTACKS[name]
  options = dict(attack.options)
  if attack.steps:
    options[attack.steps] = steps
  return functools.partial(attack.run, norm=attack.norm, **options)


def _attacked(key, config, models, images, radii):
  """Name -> (R, n) right under attack, and the seconds of the last model."""
  right = {'clean': np.stack([_right(m, images.x, images.y) for m in models])}
  seconds = {}
  for i, name in enumerate(evaluation.names(config.attacks)):
    attack, own = ATTACKS[name], jax.random.fold_in(key, i)
    options = {}
    if attack.targeted:
      options['targets'] = (images.y + 1) % images.num_classes
    hits = []
    for r, model in enumerate(models):
      began = time.monotonic()
      x_adv = np.asarray(bound(name, config.steps)(
          jax.random.fold_in(own, r), model, images.x, images.y,
          epsilon=radii[attack.norm], **options))
      seconds[name] = time.monotonic() - began
      still = _right(model, x_adv, images.y)
      if attack.targeted:  # Another wrong class is no success.
        reached = models_lib.decisions(
            models_lib.outputs([model], x_adv))[0] == options['targets']
        still = ~reached
      hits.append(still & right['clean'][r])
    right[name] = np.stack(hits)
  for norm in radii:
    own = [right[name] for name in right if name in ATTACKS
           and ATTACKS[name].norm == norm and not ATTACKS[name].targeted]
    if own:
      right[f'worst_{norm}'] = np.logical_and.reduce(own)
  return right, seconds


def _share(values) -> records.Metric:
  """The mean of shares, with its interval cut to [0, 1]."""
  value, low, high = intervals.crossed(values)
  return records.metric(value, max(low, 0.0), min(high, 1.0))


def _right(model, x, labels) -> np.ndarray:
  return models_lib.decisions(models_lib.outputs([model], x))[0] == labels


def _scores(right, seconds) -> dict[str, Any]:
  """The robustness ratio of BEARD over the attacks, where it is defined."""
  clean = right['clean'].mean()
  under = [right[name].mean() for name in seconds]
  found = {}
  if under and min(under) < clean:
    found['robustness_ratio'] = records.metric(
        robust_metrics.robustness_ratio(clean, under))
    found['drop_rate'] = records.metric(
        robust_metrics.drop_rate(clean, min(under)))
  return found


def _curve(key, config, models, images, radii):
  attack = ATTACKS[config.curve]
  epsilons = radii[attack.norm] * np.array(_SHARES)
  points = np.empty((len(epsilons), len(models), len(images)), bool)
  for r, model in enumerate(models):
    standing = _right(model, images.x, images.y)
    for i, epsilon in enumerate(epsilons):
      x_adv = bound(config.curve, config.steps)(
          jax.random.fold_in(jax.random.fold_in(key, i), r), model, images.x,
          images.y, epsilon=float(epsilon))
      standing = standing & _right(model, np.asarray(x_adv), images.y)
      points[i, r] = standing
  return epsilons, points


def _transferred(key, config, models, images, radii):
  """Mean accuracy of a network under what was made for another one."""
  name = next((n for n in ('pgd_linf', *evaluation.names(config.attacks))
               if n in evaluation.names(config.attacks)), 'pgd_linf')
  attack = ATTACKS[name]
  run = lambda key, predict_fn, x, labels, *, epsilon: bound(
      name, config.steps)(key, predict_fn, x, labels, epsilon=epsilon)
  found = transfer.transfer(
      key, run, {str(r): m for r, m in enumerate(models)}, images.x, images.y,
      epsilon=radii[attack.norm])
  return transfer_mean(found)


def transfer_mean(found) -> records.Metric:
  """Over all pairs of different networks, with a t interval over sources."""
  off = ~np.eye(len(found.robust), dtype=bool)
  shares = np.array(found.robust)[..., 0]  # The values of the intervals.
  per_source = np.where(off, shares, 0).sum(1) / off.sum(1)
  value = intervals.mean_t(per_source)
  return records.metric(value.value, max(value.low, 0), min(value.high, 1))


def _corrupted(key, config, names, models, images) -> dict[str, np.ndarray]:
  """Name -> (R, n) share of severities at which the answer is right."""
  found, severities = {}, _severities(config)
  for i, name in enumerate(names):
    hits = np.zeros((len(models), len(images)))
    for severity in severities:
      x = np.asarray(corruptions.apply(
          jax.random.fold_in(jax.random.fold_in(key, i), severity), name,
          images.x, severity=severity))
      hits += np.stack([_right(m, x, images.y) for m in models])
    found[name] = hits / len(severities)
  found['corrupted'] = np.mean(list(found.values()), axis=0)
  return found
