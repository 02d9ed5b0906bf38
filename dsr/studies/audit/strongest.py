"""The strongest membership attack on each set, of all that were run.

The best of many attacks looks better than it is. So half of the members and of
the others, drawn at random, choose the attack by its AUC, and its numbers are
measured on the other half: nothing was chosen there, and their intervals hold
as they stand.
"""
from collections.abc import Iterator
import functools
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from dsr.probes import intervals, membership
from dsr.probes.intervals import Interval
from dsr.runs import contents, records
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
_FEWEST = 4  # Members, and others: two in each half.


class Attack(NamedTuple):
  """Scores (R, N) of one attack on R models, and the truth (R, N)."""

  model: str
  name: str
  scores: np.ndarray
  member: np.ndarray
  command: str


class Source(NamedTuple):
  """Where the scores of one attack are.

  Attributes:
    model: as in `Attack`.
    name: as in `Attack`.
    file: the npz.
    scores: its array of them.
    member: its array of the truth, (N,) for all models or (R, N).
    command: that repeats the attack.
  """

  model: str
  name: str
  file: str
  scores: str
  member: str
  command: str

  def read(self) -> Attack:
    """The attack, with the truth of each model."""
    arrays = _arrays(self.file, contents.state(self.file))
    scores, member = arrays[self.scores], arrays[self.member]
    return Attack(self.model, self.name, scores,
                  np.broadcast_to(member, scores.shape), self.command)


@functools.lru_cache(maxsize=4)
def _arrays(file, state):
  del state  # Part of the key alone.
  return records.read_arrays(file)


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


@functools.lru_cache(maxsize=256)
def of_set(results: Results, name: str, question: str = 'train'
           ) -> Strongest | None:
  """The strongest attack that was run on a set; None without any.

  Args:
    results: of an audit.
    name: of the set.
    question: as in `sources`.
  """
  attacks = [s.read() for s in sources(results, name, question)]
  return choose(key_of(results.config.seed), attacks) if attacks else None


def key_of(seed: int) -> jax.Array:
  """Of the halves: one for all sets of an audit with that seed."""
  return jax.random.key(seed + 13)


def pick(key: jax.Array, attacks: list[Attack]) -> Attack:
  """The attack with the best AUC on the first half of the images."""
  return max(attacks, key=lambda a: _auc(*half(key, a, 0)))


def choose(key: jax.Array, attacks: list[Attack]) -> Strongest:
  """The attack with the best AUC on one half, measured on the other.

  Args:
    key: of the halves and of the bootstrap.
    attacks: at least one.
  """
  best = pick(key, attacks)
  scores, member = half(key, best, 1)
  key_found = jax.random.fold_in(key, 1)
  if shared(best.member):
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


def shared(member: np.ndarray) -> bool:
  """Whether all models (R, N) have the same members."""
  return bool((member == member[0]).all())


def half(key: jax.Array, attack: Attack, which: int
         ) -> tuple[np.ndarray, np.ndarray]:
  """(scores, member) on the first (0) or the second (1) half of the images.

  Halves are the same for all attacks on the same members, where all models
  share them, or else on as many images.
  """
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
  first = np.zeros(attack.member.shape[1], bool)
  if shared(attack.member):
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


def sources(results: Results, name: str, question: str = 'train'
            ) -> Iterator[Source]:
  """All attacks on one set: on models, its images alone, and by shadow models.

  Args:
    results: of an audit.
    name: of the set.
    question: 'train', or 'init', which no shadow model was asked; nothing is
      told of less than four members.
  """
  for row in results.rows('membership'):
    asked = [row['metrics'].get(f'{question}_{kind}', records.metric(0)).value
             for kind in ('members', 'others')]
    if row['name'] != name or min(asked) < _FEWEST:
      continue
    file = str(pathlib.Path(row['folder'], row['arrays']))
    for key in row['metrics']:
      attack = key.removeprefix(f'{question}_').removesuffix('_auc')
      if key == f'{question}_{attack}_auc':
        yield Source(row['model'], attack, file, f'{question}_{attack}',
                     f'{question}_member', row['command'])
  subject = results.plan.subjects[name]
  record = results.lira.get(subject.method)
  if record is None or subject.init != 'real' or question != 'train':
    return
  file = str(pathlib.Path(
      results.plan.lira[subject.method].workdir, record['arrays']))
  for row in record['extra']['rows']:
    if row['size'] == (subject.size or None):
      of_models = row['name'].removesuffix(f'_{row["attack"]}')
      yield Source(row['model'], f'lira_{row["attack"]}', file,
                   f'{row["name"]}_scores', f'{of_models}_member',
                   record['command'])
