"""The strongest membership attack on each set, of all that were run.

The best of many attacks looks better than it is. So half of the members and of
the others, drawn at random, choose the attack by its AUC, and its numbers are
measured on the other half: nothing was chosen there, and their intervals hold
as they stand.
"""
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from dsr.probes import intervals, membership
from dsr.probes.intervals import Interval
from dsr.runs import records
from dsr.studies.audit.results import Results, called

_CALLED = {
    'squared_error': 'squared error', 'modified_entropy': 'modified entropy',
    'logit_confidence': 'logit of the confidence',
    'learned_logistic': 'a learned attack (logistic regression)',
    'learned_mlp': 'a learned attack (MLP)',
    'pixel_distance': 'distance to the nearest image of the set',
    'kernel_distance': 'kernel distance to the nearest image of the set',
    'pixel_density': 'density of the set', 'lira_online': 'LiRA, online',
    'lira_offline': 'LiRA, offline', 'lira_rmia': 'RMIA, online',
    'lira_rmia_offline': 'RMIA, offline',
    'lira_threshold': 'one threshold for all images'}


class Attack(NamedTuple):
  """Scores (R, N) of one attack on R models, and the truth (R, N)."""

  model: str
  name: str
  scores: np.ndarray
  member: np.ndarray
  command: str


class Strongest(NamedTuple):
  """The attack that was chosen, and its numbers on images of their own.

  Attributes:
    attack: in words.
    model: in words, or 'the images alone'.
    tried: attacks among which it was chosen.
    auc: of membership in the training set.
    tpr: true positives at 1 % false positives.
    lower_tpr: at 0.1 %.
    command: that repeats the attack.
  """

  attack: str
  model: str
  tried: int
  auc: Interval
  tpr: Interval
  lower_tpr: Interval
  command: str

  @property
  def finds(self) -> bool:
    """Whether it tells members from others beyond chance."""
    return self.auc.low > 0.5 or self.tpr.low > 0.01


def of_all(results: Results) -> dict[str, Strongest]:
  """Set -> the strongest attack that was run on it."""
  seed = results.config.seed + 13
  return {name: choose(jax.random.key(seed), attacks)
          for name in results.plan.subjects
          if (attacks := list(_attacks(results, name)))}


def choose(key: jax.Array, attacks: list[Attack]) -> Strongest:
  """The attack with the best AUC on one half, measured on the other.

  Args:
    key: of the halves and of the bootstrap.
    attacks: at least one.
  """
  best = max(attacks, key=lambda a: _auc(*_half(key, a, 0)))
  scores, member = _half(key, best, 1)
  key_found = jax.random.fold_in(key, 1)
  if (best.member == best.member[0]).all():
    found = membership.evaluate_models(key_found, scores, member[0])
  else:  # Each target has members of its own.
    found = membership.Metrics(*(_over(values) for values in zip(*(
        membership.evaluate(key_found, s, m, num_resamples=200)
        for s, m in zip(scores, member)))))
  return Strongest(
      _CALLED.get(best.name, best.name), called(best.model), len(attacks),
      found.auc, found.tpr_at_fpr_1e2, found.tpr_at_fpr_1e3, best.command)


def _over(values) -> Interval:
  """The mean over targets with Student's interval, or what one alone has."""
  if len(values) == 1:
    return values[0]
  mean, low, high = intervals.mean_t([v.value for v in values])
  return Interval(mean, max(low, 0.0), min(high, 1.0))


def _half(key, attack, which) -> tuple[np.ndarray, np.ndarray]:
  """(scores, member) on the first or the second half of the images."""
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
  shared = (attack.member == attack.member[0]).all()
  first = np.zeros(attack.member.shape[1], bool)
  if shared:
    for kind in (attack.member[0], ~attack.member[0]):
      rows = rng.permutation(np.flatnonzero(kind))
      first[rows[:len(rows) // 2]] = True
  else:
    first[rng.permutation(len(first))[:len(first) // 2]] = True
  taken = ~first if which else first
  return attack.scores[:, taken], attack.member[:, taken]


def _auc(scores, member) -> float:
  """The mean over models; ranks share ties."""
  found = []
  for score, inside in zip(scores, member):
    rank = stats.rankdata(score)
    n, m = inside.sum(), (~inside).sum()
    found.append((rank[inside].sum() - n * (n + 1) / 2) / (n * m))
  return float(np.mean(found))


def _attacks(results, name):
  """All on one set: on models, on its images alone, and by shadow models."""
  for row in results.rows('membership'):
    if row['name'] != name:
      continue
    arrays = records.read_arrays(pathlib.Path(row['folder']))
    member = arrays['train_member']
    for label, scores in arrays.items():
      attack = label.removeprefix('train_')
      if attack == label or attack in ('member', 'labels'):
        continue
      yield Attack(row['model'], attack, scores,
                   np.broadcast_to(member, scores.shape), row['command'])
  subject = results.plan.subjects[name]
  record = results.lira.get(subject.method)
  if record is None or subject.init != 'real':
    return
  arrays = records.read_arrays(
      pathlib.Path(results.plan.lira[subject.method].workdir))
  for row in record['extra']['rows']:
    if row['size'] == (subject.size or None):
      of_models = row['name'].removesuffix(f'_{row["attack"]}')
      yield Attack(row['model'], f'lira_{row["attack"]}',
                   arrays[f'{row["name"]}_scores'],
                   arrays[f'{of_models}_member'], record['command'])
