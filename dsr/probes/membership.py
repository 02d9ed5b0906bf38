r"""How well an attack's score tells members from non-members.

A score is larger where membership is more likely; at threshold t the attack
says "member" to score >= t. With TPR(t) and FPR(t) the fractions of members
and of non-members so called,

  AUC = P(member's score > other's) + P(equal) / 2,
  advantage = max_t TPR(t) - FPR(t),
  balanced accuracy = (1 + advantage) / 2,
  TPR at FPR a = max of TPR(t) over FPR(t) <= a.

The last is the one to look at (arXiv:2112.03570): an attack that is sure of
a few members does harm, though its AUC be near 1/2. The advantage picks its
threshold on the data that it is computed on, hence is above 0 by chance:
compare it with `advantage_by_chance`.
"""
import math
from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Key
import numpy as np

from dsr import checks
from dsr.probes import intervals
from dsr.probes.intervals import Interval

_TILE = 2**22  # Entries of a block of resamples: 32 MB.


class Roc(NamedTuple):
  """The ROC curve, from (0, 0) to (1, 1), a point for each distinct score.

  Attributes:
    fpr: (G + 1,) ascending false-positive rates, for the G distinct scores.
    tpr: (G + 1,) true-positive rates.
    threshold: (G + 1,) descending; infinity at (0, 0).
  """

  fpr: Float[np.ndarray, 'G1']
  tpr: Float[np.ndarray, 'G1']
  threshold: Float[np.ndarray, 'G1']


class Metrics(NamedTuple):
  """What an audit reports of an attack; definitions at the top of the module.

  Attributes:
    auc: 1/2 is guessing.
    balanced_accuracy: at the best threshold; 1/2 is guessing.
    advantage: at the best threshold; 0 is guessing.
    tpr_at_fpr_1e2: TPR at 1 % FPR; 0.01 is guessing.
    tpr_at_fpr_1e3: TPR at 0.1 % FPR; 0.001 is guessing.
  """

  auc: Interval
  balanced_accuracy: Interval
  advantage: Interval
  tpr_at_fpr_1e2: Interval
  tpr_at_fpr_1e3: Interval


def roc(
    score: Float[Array | np.ndarray, 'N'],
    member: Bool[Array | np.ndarray, 'N']) -> Roc:
  """The curve (FPR(t), TPR(t)); equal scores share one point.

  Args:
    score: (N,) finite, larger for likelier members.
    member: (N,) booleans, the truth; both values must occur.

  Raises:
    ValueError: wrong shape or dtype, not finite, or only one kind.
  """
  values, inside, outside = _groups(score, member)
  return Roc(_rates(outside), _rates(inside), np.r_[np.inf, values])


def evaluate(
    key: Key[Array, ''], score: Float[Array | np.ndarray, 'N'],
    member: Bool[Array | np.ndarray, 'N'], *, level: float = 0.95,
    num_resamples: int = 1000) -> Metrics:
  """All metrics of an attack, each with a percentile bootstrap interval.

  Members and non-members are resampled apart, keeping the number of each.
  The intervals are over examples, for the one model attacked. At an FPR below
  1 / non-members the TPR is that at no false positive at all, and its
  interval too narrow.

  Args:
    key: of the resampling; the same key gives the same intervals.
    score: (N,) finite, larger for likelier members.
    member: (N,) booleans, the truth; both values must occur.
    level: coverage, in [0, 1].
    num_resamples: of the N examples.

  Raises:
    ValueError: as `roc`, or an option out of its range.
  """
  checks.within('level', level, 0, 1)
  checks.at_least('num_resamples', num_resamples, 1)
  _, inside, outside = _groups(score, member)
  values = _metrics(_rates(inside[None]), _rates(outside[None]))
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
  tile = max(1, _TILE // len(inside))
  drawn = []
  for done in range(0, num_resamples, tile):
    size = min(tile, num_resamples - done)
    drawn.append(_metrics(*(
        _rates(rng.multinomial(counts.sum(), counts / counts.sum(), size))
        for counts in (inside, outside))))
  ends = np.quantile(
      np.concatenate(drawn, 1), [(1 - level) / 2, (1 + level) / 2], axis=1)
  return Metrics(*(
      Interval(*map(float, row)) for row in np.c_[values, ends.T]))


def evaluate_models(
    key: Key[Array, ''], scores: Float[Array | np.ndarray, 'R N'],
    member: Bool[Array | np.ndarray, 'N'], *, level: float = 0.95,
    num_resamples: int = 500) -> Metrics:
  """Mean metrics of one attack on R models of one training set.

  The intervals are over models and examples: the variance of the mean over
  models, and that of a bootstrap of the examples (the same ones for all
  models), see `intervals.satterthwaite`. With R = 1 this is `evaluate`.

  Args:
    key: of the resampling.
    scores: (R, N) finite, larger for likelier members.
    member: (N,) booleans; both values must occur.
    level: coverage, in (0, 1).
    num_resamples: of the N examples.

  Raises:
    ValueError: as `evaluate`, or `scores` of another shape.
  """
  checks.features('scores', scores)
  if len(scores) == 1:
    return evaluate(key, scores[0], member, level=level,
                    num_resamples=num_resamples)
  found = _difference(key, scores, None, member, level, num_resamples)
  return Metrics(*(Interval(i.value, max(i.low, 0.0), min(i.high, 1.0))
                   for i in found))


def difference(
    key: Key[Array, ''], scores: Float[Array | np.ndarray, 'R N'],
    others: Float[Array | np.ndarray, 'Q N'],
    member: Bool[Array | np.ndarray, 'N'], *, level: float = 0.95,
    num_resamples: int = 500) -> Metrics:
  """How much better an attack does on R models than on Q other ones.

  Differences of the mean metrics, paired: both sides see the same members and
  non-members, and are resampled together. Models are independent.

  Args:
    key: of the resampling.
    scores: (R, N) of the first models, finite.
    others: (Q, N) of the second, on the same examples.
    member: (N,) booleans, true for both; both values must occur.
    level: coverage, in (0, 1).
    num_resamples: of the N examples.

  Raises:
    ValueError: as `evaluate`, or scores of other shapes.
  """
  checks.features('scores', scores)
  checks.features('others', others, dim=scores.shape[1])
  return _difference(key, scores, others, member, level, num_resamples)


def _difference(key, scores, others, member, level, num_resamples):
  checks.at_least('num_resamples', num_resamples, 2)
  sides = [scores] if others is None else [scores, others]
  sides = [[_checked(score, member)[0] for score in side] for side in sides]
  member = np.asarray(member)
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
  point = [_curves(side, member, np.ones((1, len(member)), int))
           for side in sides]  # Each (R, 5, 1).
  tile = max(1, _TILE // (4 * len(member)))
  drawn = []
  for done in range(0, num_resamples, tile):
    counts = np.zeros((min(tile, num_resamples - done), len(member)), int)
    for kind in (member, ~member):
      n = int(kind.sum())
      counts[:, kind] = rng.multinomial(n, np.full(n, 1 / n), len(counts))
    means = [_curves(side, member, counts).mean(0) for side in sides]
    drawn.append(means[0] - means[1] if len(sides) == 2 else means[0])
  over_examples = np.var(np.concatenate(drawn, axis=1), axis=1, ddof=1)
  means = [side.mean(0)[:, 0] for side in point]
  values = means[0] - means[1] if len(sides) == 2 else means[0]
  found = []
  for i, value in enumerate(values):
    parts = [(float(over_examples[i]), min(map(int, (
        member.sum(), (~member).sum()))) or 1)]
    parts += [(float(np.var(side[:, i, 0], ddof=1) / len(side)), len(side) - 1)
              for side in point if len(side) > 1]
    found.append(intervals.satterthwaite(float(value), parts, level=level))
  return Metrics(*found)


def _curves(side, member, counts):
  """Metrics (R, 5, T) of R scores (N,) with examples `counts` (T, N) times."""
  found = []
  for score in side:
    order = np.argsort(-score, kind='stable')
    ranked = -score[order]
    starts = np.flatnonzero(np.r_[True, np.diff(ranked) > 0])
    inside, outside = (
        np.add.reduceat(counts[:, order] * kind[order], starts, axis=1)
        for kind in (member, ~member))
    found.append(_metrics(_rates(inside), _rates(outside)))
  return np.stack(found)


def advantage_by_chance(num_members: int, num_others: int) -> float:
  r"""The advantage to expect of a score that knows nothing, for many examples.

  E[max_t TPR(t) - FPR(t)] = \sqrt{\pi (n + m) / (8 n m)}: the mean of the
  limit law P(D > x) = \exp(-2 x^2 n m / (n + m)) of Smirnov's one-sided
  statistic D of two samples, here n members and m non-members.

  Raises:
    ValueError: a number below 1.
  """
  checks.at_least('num_members', num_members, 1)
  checks.at_least('num_others', num_others, 1)
  return math.sqrt(math.pi * (1 / num_members + 1 / num_others) / 8)


def _groups(score, member):
  """Distinct scores, descending, and the members and others at each."""
  score, member = _checked(score, member)
  values, group = np.unique(-score, return_inverse=True)
  inside = np.bincount(group[member], minlength=len(values))
  outside = np.bincount(group[~member], minlength=len(values))
  return -values, inside, outside


def _checked(score, member):
  checks.numbers('score', score)
  checks.flags('member', member, shape=score.shape)
  score, member = np.asarray(score, float), np.asarray(member)
  checks.finite('score', score)
  if member.all() or not member.any():
    raise ValueError('`member` must hold members and non-members, '
                     f'got {member.sum()} members of {len(member)}.')
  return score, member


def _rates(counts):
  """Fractions at or above each score, from 0 to 1: (..., G) -> (..., G + 1)."""
  total = counts.cumsum(-1)
  return np.insert(total / total[..., -1:], 0, 0, axis=-1)


def _metrics(tpr, fpr):
  """The five metrics, (5, R), of R curves (R, G + 1)."""
  auc = np.sum(np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1]) / 2, axis=1)
  advantage = np.max(tpr - fpr, axis=1)
  # Rates grow along a curve, so the best allowed is the last allowed.
  low = [np.max(np.where(fpr <= limit, tpr, 0), axis=1)
         for limit in (0.01, 0.001)]
  return np.stack([auc, (1 + advantage) / 2, advantage, *low])
