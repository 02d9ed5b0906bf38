r"""Rates of each group of test points, and the numbers made of them.

Definitions are those of `dsr.probes.fairness`. They are applied to the data by
fairlearn, where it has them, and to resamples of the data by array operations.
Letters: G groups, C classes that the odds are over, R networks, B resamples.
"""
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from dsr import checks
from dsr.probes import strata


class Rates(NamedTuple):
  """How often networks are right, and which classes they decide on.

  Attributes:
    accuracy: (..., G) of each group, the mean over networks.
    odds: (..., C, 2, G) TPR and FPR of each class that counts, NaN in groups
      it does not count on; None without such a class.
  """

  accuracy: Float[np.ndarray, '*B G']
  odds: Float[np.ndarray, '*B C 2 G'] | None


def compared(
    labels: Int[np.ndarray, 'N'], groups: strata.Groups
) -> tuple[Int[np.ndarray, 'C'], Bool[np.ndarray, 'C G']]:
  """Classes that equalised odds are defined for, and the groups they are on.

  A group counts for a class if it holds examples of it and others, a class if
  two groups do.
  """
  classes, index = np.unique(labels, return_inverse=True)
  held = np.zeros((len(classes), len(groups.names)), int)
  np.add.at(held, (index, groups.index), 1)
  counts = (held > 0) & (held < groups.sizes[None])
  kept = counts.sum(1) >= 2
  return classes[kept], counts[kept]


def measured(
    labels: Int[np.ndarray, 'N'], said: Int[np.ndarray, 'R N'],
    groups: strata.Groups) -> tuple[Rates, dict[str, float]]:
  """Rates and numbers of the data, by fairlearn's `MetricFrame`.

  Args:
    labels: (N,) classes.
    said: (R, N) classes that networks decide on.
    groups: of the N examples.
  """
  from fairlearn import metrics
  from sklearn.metrics import accuracy_score

  repeat = lambda row: np.tile(row, len(said))
  frame = metrics.MetricFrame(
      metrics=accuracy_score, y_true=repeat(labels), y_pred=said.ravel(),
      sensitive_features=repeat(groups.index))
  rates = Rates(frame.by_group.to_numpy(float), None)
  found = numbers(rates) | {
      'worst': frame.group_min(), 'spread': frame.difference(),
      'ratio': np.nan_to_num(frame.ratio(), nan=1.0)}
  classes, counts = compared(labels, groups)
  if not len(classes):
    return rates, found
  rows = []  # Of a table: weight, class, group, whether it is, was said.
  for c, g in zip(*np.nonzero(counts)):
    for truth in (1, 0):
      here = (groups.index == g) & ((labels == classes[c]) == truth)
      yes = np.sum(said[:, here] == classes[c])
      rows.append((yes, c, g, truth, 1))
      rows.append((len(said) * here.sum() - yes, c, g, truth, 0))
  weight, of_class, of_group, truth, decision = np.array(rows).T
  functions = {'tpr': metrics.true_positive_rate,
               'fpr': metrics.false_positive_rate}
  frame = metrics.MetricFrame(
      metrics=functions, y_true=truth, y_pred=decision,
      sensitive_features=of_group, control_features=of_class,
      sample_params=dict.fromkeys(functions, {'sample_weight': weight}))
  odds = np.full((len(classes), 2, len(groups.names)), np.nan)
  for (c, g), row in frame.by_group.iterrows():
    odds[c, :, g] = row
  return rates._replace(odds=odds), found | {
      'odds_difference': frame.difference().to_numpy().max(),
      'odds_ratio': frame.ratio().fillna(1).to_numpy().min()}


def resampled(
    key: Key[Array, ''], labels: Int[np.ndarray, 'N'],
    sides: list[Int[np.ndarray, 'R N']], groups: strata.Groups,
    num_resamples: int) -> list[Rates]:
  """Rates of each side's networks in B resamples of the same points.

  Args:
    key: of the resampling.
    labels: (N,) classes.
    sides: for each model, (R, N) classes that its R networks decide on.
    groups: of the N examples.
    num_resamples: B.

  Raises:
    ValueError: `num_resamples` below 1.
  """
  checks.at_least('num_resamples', num_resamples, 1)
  rng = strata.generator(key)
  shares = [strata.seed_shares(rng, len(said), num_resamples) for said in sides]
  classes, counts = compared(labels, groups)
  codes = np.stack([labels, *np.concatenate(sides)], axis=1)
  if not len(classes):  # All that matters is right or wrong.
    codes = (codes != codes[:, :1]).astype(int)
  ends = np.cumsum([len(said) for said in sides])[:-1]

  def visit(weight, rows, block):
    return tuple(
        _rates(weight, rows[:, 0], said, share[block], classes)
        for share, said in zip(shares, np.split(rows[:, 1:], ends, axis=1)))

  drawn = strata.resample_points(rng, codes, groups, num_resamples, visit)
  found = []
  for rates in zip(*drawn):  # Of one side: for each group (B, 1 + 2C).
    rates = np.stack(rates, axis=-1)
    odds = None
    if len(classes):
      odds = rates[:, 1:].reshape(num_resamples, len(classes), 2, -1)
      odds = np.where(counts[None, :, None], odds, np.nan)
    found.append(Rates(rates[:, 0], odds))
  return found


def _rates(weight, label, said, share, classes):
  """Accuracy, and TPR and FPR of each class, (B, 1 + 2C), in one group."""

  def total(flags):  # (P, R, K) -> (B, K): of points, as a mean over networks.
    sums = weight @ flags.reshape(len(flags), -1).astype(float)
    return np.einsum('br,brk->bk', share, sums.reshape(*share.shape, -1))

  size = weight.sum(1, keepdims=True)
  right = total((said == label[:, None])[..., None]) / size
  is_class = label[:, None] == classes[None]
  yes = said[:, :, None] == classes[None, None]
  held, hits = weight @ is_class.astype(float), total(yes & is_class[:, None])
  with np.errstate(invalid='ignore'):  # No such label drawn: NaN.
    odds = np.stack([hits / held, (total(yes) - hits) / (size - held)], axis=-1)
  return np.concatenate([right, odds.reshape(len(right), -1)], axis=1)


def numbers(rates: Rates) -> dict[str, Any]:
  """Numbers (*B,) of `fairness.Change` but `between`, by their definitions."""
  accuracy, odds = rates
  found = {
      'mean': accuracy.mean(-1), 'worst': accuracy.min(-1),
      'spread': _range(accuracy), 'ratio': 1 - _range(_of_most(accuracy)),
      'deviation': accuracy.std(-1), 'variation': _of_mean(accuracy).std(-1)}
  if odds is not None:
    found |= {'odds_difference': _range(odds).max((-1, -2)),
              'odds_ratio': 1 - _range(_of_most(odds)).max((-1, -2))}
  return found


def errors(
    drawn: Rates, point: Rates) -> dict[str, Float[np.ndarray, 'B']]:
  """T(v* - v) of each number that is T(v) or 1 - T(v); |v* - v| for `worst`.

  v are group accuracies, or rates; divided by the greatest of the groups for
  ratios, by their mean for `variation`.

  Args:
    drawn: v*, of B resamples.
    point: v, as measured.
  """
  apart = lambda change, field: (
      change(getattr(drawn, field)) - change(getattr(point, field))[None])
  same = lambda v: v
  moved = apart(same, 'accuracy')
  found = {
      'worst': np.abs(moved).max(-1), 'spread': _range(moved),
      'ratio': _range(apart(_of_most, 'accuracy')), 'deviation': moved.std(-1),
      'variation': apart(_of_mean, 'accuracy').std(-1)}
  if point.odds is not None:
    found |= {
        'odds_difference': _range(apart(same, 'odds')).max((-1, -2)),
        'odds_ratio': _range(apart(_of_most, 'odds')).max((-1, -2))}
  return found


def _range(v):
  """Largest minus smallest along the last axis; NaN is left out."""
  gap = np.isnan(v)
  most = np.where(gap, -np.inf, v).max(-1)
  return np.maximum(most - np.where(gap, np.inf, v).min(-1), 0)


def _of_most(v):
  """v / max v along the last axis; 1 where all are 0."""
  most = np.where(np.isnan(v), 0, v).max(-1, keepdims=True)
  return np.where(most > 0, v / np.where(most > 0, most, 1), 1)


def _of_mean(v):
  """v / mean v along the last axis; 1 where all are 0."""
  mean = v.mean(-1, keepdims=True)
  return np.where(mean > 0, v / np.where(mean > 0, mean, 1), 1)
