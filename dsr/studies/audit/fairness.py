"""For whom a model works: accuracy, leakage and robustness by class or group.

The command is `experiments.fairness`; its docstring has an example, and what
it writes.
"""
import dataclasses
import pathlib
import time
from typing import Any

import jax
import numpy as np

from dsr import data as data_lib
from dsr.probes import fairness as fairness_lib, intervals
from dsr.runs import contents, records
from dsr.studies.audit import (
  claims,
  groups as groups_lib,
  models as models_lib,
)

NUMBERS = ('mean', 'worst', 'spread', 'ratio', 'deviation', 'variation',
           'between')
_ODDS = ('odds_difference', 'odds_ratio')
_ROBUST = ('worst_linf', 'pgd_linf', 'fgsm')  # The first that was measured.


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares a model's performance across classes or groups."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  fit: str = ''  # Workdir of experiments.fit, whose models are looked at.
  reference: str = ''  # Another one, to compare with; '' for none.
  membership: str = ''  # Workdir of experiments.membership; '' for none.
  robustness: str = ''  # Workdir of experiments.robustness; '' for none.
  # A .npy: an attribute of every test image, (N,), or two of them, (N, 2),
  # which are crossed; '' for none.
  groups: str = ''
  train_groups: str = ''  # The same of every training image, for membership.
  num_resamples: int = 1000  # Of the bootstrap.
  seed: int = 0  # Of all that is drawn.
  workdir: str = 'out/fairness'  # Where the record goes.


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any record is read."""
  if not config.fit:
    raise ValueError('`fit` must be the workdir of experiments.fit, got none.')
  for flag in groups_lib.FLAGS:
    if path := getattr(config, flag):
      groups_lib.load(flag, path)


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  check(config)
  train, test = data_lib.load(config.dataset, data_dir=config.data_dir,
                              seed=config.seed)
  groups_lib.check(config, groups=len(test), train_groups=len(train))
  keys = jax.random.split(jax.random.key(config.seed + 11), 4)
  said = _decisions('fit', config.fit, test)
  other = (_decisions('reference', config.reference, test)
           if config.reference else None)
  metrics, worst = _across(keys[0], config, test.y, said, other, None)
  extra = {}
  if config.groups:
    groups = groups_lib.load('groups', config.groups)
    here = groups_lib.measurable(groups)
    found, worst_group = _across(
        keys[1], config, test.y[here], said[:, here],
        None if other is None else other[:, here], groups[here])
    metrics |= {f'group_{name}': value for name, value in found.items()}
    extra = {'worst_group': worst_group,
             'group_sizes': groups_lib.sizes(groups[here]),
             'groups_left_out': groups_lib.sizes(groups[~here])}
  if config.robustness:
    metrics |= _robust(config.robustness)
  if config.membership:
    metrics |= _leaks(keys[2], config)
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics,
      wall_time=time.monotonic() - began,
      extra={'worst_class': worst, 'num_test': len(test),
             'class_sizes': {str(c): int(n) for c, n in zip(
                 *np.unique(test.y, return_counts=True))},
             'worst_group': None} | extra)
  return metrics


def _decisions(name, folder, test) -> np.ndarray:
  if not (pathlib.Path(folder) / 'record.json').exists():
    raise ValueError(f'`{name}` must be the workdir of a finished '
                     f'experiments.fit, got {folder!r}.')
  outputs = records.read_arrays(folder)['outputs']
  if outputs.shape[1] != len(test):
    raise ValueError(f'`{name}` must have outputs of all {len(test)} test '
                     f'images, got {outputs.shape[1]}.')
  return models_lib.decisions(outputs)


def _across(key, config, labels, said, other, groups):
  """The metrics of one partition of the test images, and the worst part."""
  key_own, key_change = jax.random.split(key)
  options = {'groups': groups, 'num_resamples': config.num_resamples}
  own = fairness_lib.evaluate(key_own, labels, said, **options)
  metrics = {name: getattr(own, name) for name in NUMBERS}
  metrics |= {f'accuracy_{name}': value
              for name, value in zip(own.names, own.accuracy)}
  both = {'': own}
  if other is not None:
    both['change_'] = fairness_lib.compare(
        key_change, labels, said, other, **options)
    metrics |= {f'change_{name}': getattr(both['change_'], name)
                for name in NUMBERS}
    metrics |= {f'change_accuracy_{name}': value for name, value in zip(
        both['change_'].names, both['change_'].accuracy)}
  for prefix, found in both.items():
    metrics |= {f'{prefix}{name}': getattr(found, name) for name in _ODDS
                if getattr(found, name) is not None}
  return metrics, own.worst_group


def _robust(folder) -> dict[str, Any]:
  """Accuracy of each class under the strongest attack that was made."""
  arrays = records.read_arrays(folder)
  name = next((n for n in _ROBUST if f'right_{n}' in arrays), None)
  if name is None:
    return {}
  right, labels = arrays[f'right_{name}'], arrays['labels']
  return {f'robust_{c}': intervals.crossed(right[:, labels == c])
          for c in np.unique(labels) if (labels == c).sum() > 1}


def _leaks(key, config) -> dict[str, Any]:
  """AUC of membership in the training set, class by class, over models.

  Of the classes that have members and others.
  """
  record = records.read(config.membership)
  arrays = records.read_arrays(config.membership)
  scores = arrays[f'train_{claims.attack_of(record["config"]["model"])}']
  member, labels = arrays['train_member'], arrays['train_labels']
  asked = np.isin(labels, np.intersect1d(labels[member], labels[~member]))
  found = fairness_lib.membership_by_group(
      key, scores.mean(0)[asked], member[asked], labels[asked],
      num_resamples=config.num_resamples)
  told = {f'leak_{name}': value for name, value in found.items()}
  parts = None
  if config.groups or config.train_groups:
    parts = groups_lib.of_asked(config, arrays['train_rows'])
  if parts is not None:
    asked = np.isin(parts, np.intersect1d(parts[member], parts[~member]))
    found = fairness_lib.membership_by_group(
        jax.random.fold_in(key, 1), scores.mean(0)[asked], member[asked],
        parts[asked], num_resamples=config.num_resamples)
    told |= {f'group_leak_{name}': value for name, value in found.items()}
  return told
