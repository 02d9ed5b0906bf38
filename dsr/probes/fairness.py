r"""How evenly a model's accuracy is spread over groups of test points.

Groups are the classes, unless an attribute is given. With a_g the accuracy of
group g, the mean over R networks and n_g points,

  worst = min_g a_g,  spread = max_g a_g - min_g a_g,
  ratio = min_g a_g / max_g a_g,  deviation = sqrt(var_g a_g),
  variation = deviation / mean_g a_g,

with population variances, and 0 / 0 = 1. Equalised odds (arXiv:1610.02413)
hold each class against all others: with TPR_cg = P(said c | label c, group g)
and FPR_cg = P(said c | label not c, group g), the difference is the largest
max_g - min_g over classes and both rates, the ratio the least min_g / max_g. A
group counts for a class if it has examples of it and of others, a class if two
groups do. Where the group determines the label, as with classes, none does and
the odds are None. What is defined then is equal opportunity across classes:
a_c is the TPR of class c, `spread` the difference and `ratio` the ratio.

Accuracies also differ by chance, so all of these are too uneven on average,
the more so the fewer points there are. `between` = sqrt(max(0, var_g a_g - B))
is the deviation without chance's share B (`strata.sampling_variance`): the
number to compare models by where groups are small.
"""
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from dsr import checks
from dsr.probes import (
  disparity,
  groups as groups_lib,
  intervals,
  membership,
  strata,
)
from dsr.probes.intervals import Interval


class Change(NamedTuple):
  """Model minus reference of each number in `Fairness`."""

  names: tuple
  accuracy: tuple[Interval, ...]
  mean: Interval
  worst: Interval
  spread: Interval
  ratio: Interval
  deviation: Interval
  variation: Interval
  between: Interval
  odds_difference: Interval | None
  odds_ratio: Interval | None


class Fairness(NamedTuple):
  """Accuracy by group and how it varies; definitions atop the module.

  Attributes:
    names: of the G groups.
    sizes: test points of each.
    accuracy: of each group.
    worst_group: name of the (first) group of least accuracy.
    mean: of the groups' accuracies, each group counting the same.
    worst: 1 is best.
    spread: 0 is even.
    ratio: 1 is even.
    deviation: 0 is even.
    variation: 0 is even.
    between: deviation that chance does not explain; 0 is even.
    odds_difference: 0 is even; None where no class can be compared.
    odds_ratio: 1 is even; None where no class can be compared.
  """

  names: tuple
  sizes: tuple[int, ...]
  accuracy: tuple[Interval, ...]
  worst_group: Any
  mean: Interval
  worst: Interval
  spread: Interval
  ratio: Interval
  deviation: Interval
  variation: Interval
  between: Interval
  odds_difference: Interval | None
  odds_ratio: Interval | None


def evaluate(
    key: Key[Array, ''], labels: Int[Array | np.ndarray, 'N'],
    predictions: Int[Array | np.ndarray, '*R N'], *, groups: Any = None,
    group_names: Sequence | None = None, num_resamples: int = 1000,
    level: float = 0.95) -> Fairness:
  r"""Fairness of R networks of one recipe, with intervals.

  Resamples draw networks and, within each group, test points (`strata`); a
  single network is kept.

  The ends are `intervals.crossed` for group accuracies, and percentiles for
  `mean` and `between`, whose resamples have the noise of the data and that of
  resampling taken off. All other numbers are T(v) with |T(v) - T(w)| <= T(v -
  w), ranges and deviations, or min, where it is <= max |v - w|; their ends are
  T(v) -+ q, q being the `level` quantile of T(v* - v) over resamples v*. They
  keep the coverage, and are about twice too wide where groups differ much;
  percentiles of T(v*), which resampling biases once more, would never hold 0
  where groups do not differ.

  Args:
    key: of the resampling; the same key gives the same intervals.
    labels: (N,) class indices.
    predictions: (R, N) classes that R networks decide on, or (N,) of one.
    groups: (N,) integers or strings; None takes the labels.
    group_names: values that `groups` may take, each of which must occur;
      without `groups`, names of the classes 0, 1, ...
    num_resamples: of the networks and points.
    level: coverage, in [0, 1].

  Raises:
    ValueError: arrays that do not fit together or hold no integers, a label
      or group out of range, a group with less than 2 points, or a single one.
  """
  checks.within('level', level, 0, 1)
  parts, labels, (said,) = groups_lib.checked(
      labels, groups, group_names, level, predictions=predictions)
  point, values = disparity.measured(labels, said, parts)
  (drawn,) = disparity.resampled(key, labels, [said], parts, num_resamples)
  right = said == labels[None]
  accuracy = tuple(
      intervals.crossed(right[:, parts.index == g], level=level)
      for g in range(len(parts.names)))
  found = {}
  for name, errors in disparity.errors(drawn, point).items():
    reach = np.quantile(errors, level)
    most = np.inf if name == 'variation' else 1.0
    found[name] = Interval(
        float(values[name]), float(max(values[name] - reach, 0)),
        float(min(values[name] + reach, most)))
  between, resampled = groups_lib.between(right, parts, point, drawn)
  found['mean'], found['between'] = groups_lib.percentiles(
      [values['mean'], between], np.c_[drawn.accuracy.mean(-1), resampled],
      level)
  return Fairness(
      names=parts.names, sizes=tuple(parts.sizes.tolist()), accuracy=accuracy,
      worst_group=parts.names[point.accuracy.argmin()], **_ODDS | found)


def compare(
    key: Key[Array, ''], labels: Int[Array | np.ndarray, 'N'],
    predictions: Int[Array | np.ndarray, '*R N'],
    reference: Int[Array | np.ndarray, '*S N'], *, groups: Any = None,
    group_names: Sequence | None = None, num_resamples: int = 1000,
    level: float = 0.95) -> Change:
  """How `Fairness` differs between a model and a reference, e.g. full data.

  Resamples draw the same test points for both, and networks for each: what
  makes a point hard for both falls out. Ends are percentiles of the change.
  The unevenness that is chance falls out, too, if both models have much the
  same of it. Where the groups of one hardly differ and those of the other do,
  it does not and the change is understated, ends included; `between` is rid of
  chance on both sides, and is the one to trust.

  Args:
    key: of the resampling.
    labels: (N,) class indices.
    predictions: (R, N) or (N,) classes that the model decides on.
    reference: (S, N) or (N,) those of the reference, on the same points.
    groups: as in `evaluate`.
    group_names: as in `evaluate`.
    num_resamples: of the networks and points.
    level: coverage, in [0, 1].

  Raises:
    ValueError: as `evaluate`.
  """
  parts, labels, both = groups_lib.checked(
      labels, groups, group_names, level, predictions=predictions,
      reference=reference)
  drawn = disparity.resampled(key, labels, both, parts, num_resamples)
  sides = []
  for said, draws in zip(both, drawn):
    point, values = disparity.measured(labels, said, parts)
    between, resampled = groups_lib.between(
        said == labels[None], parts, point, draws)
    sides.append((point.accuracy, values | {'between': between},
                  disparity.numbers(draws) | {'between': resampled}))
  accuracy, values, draws = (
      jax.tree.map(np.subtract, *pair) for pair in zip(*sides))
  changes = groups_lib.percentiles(
      list(values.values()), np.stack([draws[k] for k in values], 1), level)
  return Change(
      names=parts.names,
      accuracy=groups_lib.percentiles(
          accuracy, drawn[0].accuracy - drawn[1].accuracy, level),
      **_ODDS | dict(zip(values, changes)))


def per_group(
    key: Key[Array, ''], values: Any, groups: Any,
    statistic: Callable = np.mean, *, group_names: Sequence | None = None,
    num_resamples: int = 9999, level: float = 0.95) -> dict[Any, Interval]:
  """A statistic of any value of an example, in each group.

  For instance whether an attack left the example right, by class: booleans
  under `np.mean` get Wilson's interval, all else `intervals.bootstrap`.

  Args:
    key: split among the groups.
    values: (N,) finite numbers or booleans.
    groups: (N,) integers or strings.
    statistic: maps an array to its statistic along the argument `axis`.
    group_names: values that `groups` may take, each of which must occur.
    num_resamples: of each group's examples.
    level: coverage, in (0, 1).

  Returns:
    Name of the group -> interval.

  Raises:
    ValueError: as `strata.partition` with at least 2 examples in a group, or
      values that are not finite numbers.
  """
  values = np.asarray(values)
  if values.ndim != 1 or values.dtype.kind not in 'biuf':
    raise ValueError('`values` must be a vector of numbers, got '
                     f'{values.dtype} {values.shape}.')
  checks.finite('values', values)
  parts = strata.partition(
      groups, rows=len(values), names=group_names, fewest=2)
  found = {}
  for g, subkey in enumerate(jax.random.split(key, len(parts.names))):
    here = values[parts.index == g]
    if values.dtype == bool and statistic is np.mean:
      interval = intervals.wilson(int(here.sum()), len(here), level=level)
    else:
      interval = intervals.bootstrap(
          subkey, here, statistic, level=level, num_resamples=num_resamples)
    found[parts.names[g]] = interval
  return found


def membership_by_group(
    key: Key[Array, ''], score: Float[Array | np.ndarray, 'N'],
    member: Bool[Array | np.ndarray, 'N'], groups: Any, *,
    group_names: Sequence | None = None, num_resamples: int = 1000,
    level: float = 0.95) -> dict[Any, Interval]:
  """AUC of a membership score among each group's examples.

  Args:
    key: split among the groups.
    score: (N,) finite, larger for likelier members.
    member: (N,) booleans, the truth; every group must hold both values.
    groups: (N,) integers or strings.
    group_names: values that `groups` may take, each of which must occur.
    num_resamples: of each group's members and others.
    level: coverage, in [0, 1].

  Returns:
    Name of the group -> interval, see `membership.evaluate`.

  Raises:
    ValueError: as `strata.partition` or `membership.evaluate`, or a group
      without members or without others.
  """
  checks.numbers('score', score)
  checks.flags('member', member, shape=score.shape)
  score, member = np.asarray(score), np.asarray(member)
  parts = strata.partition(groups, rows=len(score), names=group_names)
  found = {}
  for g, subkey in enumerate(jax.random.split(key, len(parts.names))):
    here = parts.index == g
    if member[here].all() or not member[here].any():
      raise ValueError(
          '`member` must hold members and others of each group, got '
          f'{member[here].sum()} members of {here.sum()} in '
          f'{parts.names[g]!r}.')
    found[parts.names[g]] = membership.evaluate(
        subkey, score[here], member[here], level=level,
        num_resamples=num_resamples).auc
  return found


_ODDS = {'odds_difference': None, 'odds_ratio': None}
