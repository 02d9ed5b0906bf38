r"""Numbers of robustness: accuracy under attack, and the published scores.

Accuracies come as fractions with Wilson intervals from this module's own
measurements; the scores of BEARD (arXiv:2411.09265) and of DD-RobustBench
(arXiv:2403.13322) take accuracies in any one unit and return fractions.
"""
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Key
import numpy as np

from dsr import checks
from dsr.probes import intervals
from dsr.types import PredictFn


class Robustness(NamedTuple):
  """How a network fares under one attack, as fractions."""

  clean: intervals.Interval  # Right without attack.
  robust: intervals.Interval  # Right without and under attack.
  drop_rate: float  # (clean - robust) / clean, the attack's success rate.


class Curve(NamedTuple):
  """Robustness at each radius."""

  epsilons: tuple[float, ...]
  points: tuple[Robustness, ...]


def accuracy_under_attack(
    predict_fn: PredictFn, x: Any, x_adv: Any, labels: Any, *,
    level: float = 0.95) -> Robustness:
  """Accuracy on `x`, and on `x` and `x_adv` at once.

  An example that is wrong by itself is not robust, whatever the attack made
  of it: no perturbation is a perturbation too.

  Args:
    predict_fn: x (N, ...) -> logits (N, C); with C = 1 the sign is the class.
    x: (N, ...) examples.
    x_adv: (N, ...) what an attack made of them.
    labels: (N,) integers in [0, C).
    level: coverage of the intervals over examples.

  Raises:
    ValueError: arrays that do not fit together, or a label out of range.
  """
  checks.inputs('x', x)
  checks.inputs('x_adv', x_adv, like=x)
  checks.same_rows(x=x, x_adv=x_adv)
  clean = right(predict_fn, x, labels)
  return _robustness(clean, clean & right(predict_fn, x_adv, labels), level)


def accuracy_curve(
    key: Key[Array, ''], attack: Callable, predict_fn: PredictFn, x: Any,
    labels: Any, *, epsilons: Sequence[float], level: float = 0.95) -> Curve:
  """Accuracy under `attack` at growing radii.

  A larger ball holds the smaller ones, so an example fooled at one radius
  counts as fooled at all larger ones and the curve never rises.

  Args:
    key: split among the radii.
    attack: (key, predict_fn, x, labels, *, epsilon) -> x_adv, such as
      `functools.partial(pgd, norm='l2')`.
    predict_fn: x (N, ...) -> logits (N, C).
    x: (N, ...) examples.
    labels: (N,) integers in [0, C).
    epsilons: increasing radii, zero or above.
    level: coverage of the intervals over examples, at each radius by itself.

  Raises:
    ValueError: no radius, or radii that do not increase from zero or above.
  """
  epsilons = tuple(float(e) for e in epsilons)
  if not epsilons or epsilons[0] < 0 or not np.all(np.diff(epsilons) > 0):
    raise ValueError('`epsilons` must increase from zero or above, got '
                     f'{epsilons}.')
  checks.inputs('x', x)
  clean = standing = right(predict_fn, x, labels)
  points = []
  for epsilon, subkey in zip(epsilons, jax.random.split(key, len(epsilons))):
    x_adv = attack(subkey, predict_fn, x, labels, epsilon=epsilon)
    standing = standing & right(predict_fn, x_adv, labels)
    points.append(_robustness(clean, standing, level))
  return Curve(epsilons, tuple(points))


def right(
    predict_fn: PredictFn, x: Any, labels: Any) -> Bool[np.ndarray, 'N']:
  """Whether each example gets its label: the largest output, the first of ties.

  Args:
    predict_fn: x (N, ...) -> logits (N, C); with C = 1 the sign is the class.
    x: (N, ...) examples.
    labels: (N,) integers in [0, C).

  Raises:
    ValueError: logits of another shape or not finite, or a label out of range.
  """
  logits = np.asarray(predict_fn(x))
  if logits.ndim != 2 or len(logits) != len(x):
    raise ValueError(f'`predict_fn` must map {tuple(x.shape)} to logits '
                     f'({len(x)}, C), got {logits.shape}.')
  checks.finite('predict_fn(x)', logits)
  checks.labels('labels', labels, max(2, logits.shape[1]))
  labels = np.asarray(labels)
  checks.same_rows(x=x, labels=labels)
  if logits.shape[1] == 1:
    return (logits[:, 0] > 0) == (labels == 1)
  return np.argmax(logits, axis=1) == labels


def drop_rate(clean: float, robust: float) -> float:
  """DD-RobustBench's relative loss of accuracy: (clean - robust) / clean.

  Raises:
    ValueError: `clean` not above zero, `robust` negative.
  """
  checks.positive('clean', clean)
  checks.non_negative('robust', robust)
  return (clean - robust) / clean


def robustness_ratio(clean: float, attacked: Sequence[float]) -> float:
  """BEARD's RR = 1 - (clean - mean attacked) / (clean - min attacked).

  Zero when all attacks do equally well, near one when most do nothing: it
  compares attacks with the strongest, and does not say how strong that was.

  Args:
    clean: accuracy without attack.
    attacked: accuracies under each attack, in the same unit.

  Raises:
    ValueError: no attack, or none that lowers the accuracy.
  """
  attacked = _numbers('attacked', attacked)
  checks.positive('clean', clean)
  if not attacked.min() < clean:
    raise ValueError('`attacked` must hold an accuracy below `clean` = '
                     f'{clean}, got {attacked.tolist()}.')
  return float(1 - (clean - attacked.mean()) / (clean - attacked.min()))


def attack_efficiency(clean_time: float, times: Sequence[float]) -> float:
  """BEARD's AE = (mean t - clean t) / (max t - clean t).

  Times depend on machine and implementation; compare within one run only.

  Args:
    clean_time: of the evaluation without attack, the smallest if several.
    times: of the evaluation under each attack, in the same unit.

  Raises:
    ValueError: no time, or none above `clean_time`.
  """
  times = _numbers('times', times)
  checks.non_negative('clean_time', clean_time)
  if not times.max() > clean_time:
    raise ValueError('`times` must hold one above `clean_time` = '
                     f'{clean_time}, got {times.tolist()}.')
  return float((times.mean() - clean_time) / (times.max() - clean_time))


def crei(rr: float, ae: float, *, weight: float = 0.5) -> float:
  """BEARD's CREI = weight RR + (1 - weight) AE.

  Raises:
    ValueError: `weight` outside [0, 1].
  """
  checks.within('weight', weight, 0, 1)
  return weight * rr + (1 - weight) * ae


def _robustness(clean, robust, level):
  n, right, standing = len(clean), int(clean.sum()), int(robust.sum())
  return Robustness(
      intervals.wilson(right, n, level=level),
      intervals.wilson(standing, n, level=level),
      (right - standing) / right if right else 0.0)


def _numbers(name, values):
  values = np.asarray(values, dtype=float)
  if values.ndim != 1 or not len(values):
    raise ValueError(
        f'`{name}` must be a vector of numbers, got shape {values.shape}.')
  checks.finite(name, values)
  return values
