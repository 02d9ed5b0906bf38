"""Published test accuracies, and what they hold for.

A number stands beside ours only where all that its row names is as in our run;
otherwise `compare` says which of it differs. Rows are read from the tables of
the sources named with them; what no flag can say (`besides`) keeps a row from
ever standing beside ours.
"""
import dataclasses
from typing import Any, NamedTuple

from dsr.studies.distillation import evaluation
from dsr.studies.distillation.methods import table

KRR = 'krr'  # In place of a network: kernel regression on the distilled set.


class Row(NamedTuple):
  """Accuracies of one method under one evaluation.

  Attributes:
    dataset: its name.
    method: its name.
    network: that was trained on the set, or `KRR`.
    shares: images per class -> share of the test set.
    conditions: flag of `experiments.distill` -> its value there.
    source: where the numbers stand.
    besides: further conditions, in words; '' for none.
  """

  dataset: str
  method: str
  network: str
  shares: dict[int, float]
  conditions: dict[str, Any]
  source: str
  besides: str = ''


def _sizes(one: float, ten: float, fifty: float) -> dict[int, float]:
  return {1: one, 10: ten, 50: fifty}


_PLAIN = {'protocol': 'condensation', 'transform': 'standardise'}
_SIAMESE = {'protocol': 'dsa', 'transform': 'standardise'}
_IDC = {'protocol': 'idc', 'transform': 'standardise', 'options': ''}
_GREY = {'transform': 'standardise', 'learn_labels': True}
_COLOUR = {'transform': 'zca', 'learn_labels': True}
_KIP, _PAD = 'arXiv:2107.13034', 'arXiv:2408.03360, Table 1'
_TUNED = 'augmented training images, and networks with rates tuned for the set'

ROWS = (
    Row('cifar10', 'random', 'convnet3', _sizes(0.154, 0.310, 0.506), _PLAIN,
        _PAD),
    Row('cifar10', 'dc', 'convnet3', _sizes(0.283, 0.449, 0.539), _PLAIN,
        'arXiv:2006.05929'),
    Row('cifar10', 'dsa', 'convnet3', _sizes(0.288, 0.521, 0.606), _SIAMESE,
        'arXiv:2102.08259'),
    Row('cifar10', 'dm', 'convnet3', _sizes(0.260, 0.489, 0.630), _SIAMESE,
        'arXiv:2110.04181'),
    Row('cifar10', 'mtt', 'convnet3', _sizes(0.463, 0.653, 0.716),
        {'protocol': 'dsa', 'transform': 'zca'}, 'arXiv:2203.11932'),
    Row('cifar10', 'idc', 'convnet3', _sizes(0.506, 0.675, 0.745), _IDC,
        'arXiv:2205.14959'),
    Row('cifar10', 'frepo', 'frepo_convnet_none', _sizes(0.468, 0.655, 0.717),
        {'protocol': 'frepo', 'transform': 'zca'}, 'arXiv:2206.00719'),
    Row('cifar10', 'kcenter', 'convnet3', _sizes(0.2516, 0.4149, 0.56),
        {'transform': 'standardise'}, 'arXiv:2207.09639',
        'the best of several augmentations'),
    Row('cifar10', 'kip', KRR, _sizes(0.405, 0.531, 0.586), {
        'kernel': 'fcn1', 'transform': 'standardise'}, _KIP),
    Row('cifar10', 'kip', KRR, _sizes(0.634, 0.755, 0.797),
        _COLOUR | {'kernel': 'convnet3'}, _KIP, 'augmented training images'),
    Row('cifar10', 'kip', 'convnet3', _sizes(0.499, 0.627, 0.686),
        _COLOUR | {'kernel': 'convnet3'}, _KIP, _TUNED),
    Row('mnist', 'dc', 'convnet3', _sizes(0.917, 0.974, 0.988), _PLAIN,
        'arXiv:2006.05929'),
    Row('mnist', 'dsa', 'convnet3', _sizes(0.887, 0.978, 0.992), _SIAMESE,
        'arXiv:2102.08259'),
    Row('mnist', 'idc', 'convnet3', _sizes(0.942, 0.984, 0.991), _IDC,
        'arXiv:2205.14959'),
    Row('mnist', 'kip', KRR, _sizes(0.855, 0.972, 0.984), {
        'kernel': 'fcn1', 'transform': 'standardise'}, _KIP),
    Row('mnist', 'kip', KRR, _sizes(0.965, 0.991, 0.995),
        _GREY | {'kernel': 'convnet3'}, _KIP, 'augmented training images'),
    Row('mnist', 'kip', 'convnet3', _sizes(0.901, 0.975, 0.984),
        _GREY | {'kernel': 'convnet3'}, _KIP, _TUNED),
)


def claimed(config: Any) -> dict[str, float]:
  """Name of a metric less its `_accuracy` -> the published share, if any.

  Args:
    config: an `experiments.distill.Config`, resolved.
  """
  shares = {name: accuracy(job, network)
            for name, (job, network) in _judged(config).items()}
  return {name: share for name, share in shares.items() if share is not None}


def accuracy(config: Any, network: str) -> float | None:
  """The published share of a run, where all conditions agree, or None.

  Args:
    config: an `experiments.distill.Config`, resolved.
    network: that was trained on the set, or `KRR`.
  """
  for row in _rows(config, network):
    if not differences(row, config):
      return row.shares[config.images_per_class]
  return None


def under_other_conditions(config: Any) -> list[str]:
  """A sentence for each published number that does not stand beside ours."""
  found = []
  for job, network in _judged(config).values():
    if accuracy(job, network) is None:
      found += [_sentence(row, job) for row in _rows(job, network)]
  return found


def _judged(config) -> dict[str, tuple[Any, str]]:
  """Name of a metric less its `_accuracy` -> (flags, network) behind it."""
  networks = evaluation.names(config.networks)
  found = {name: (config, name) for name in (KRR, *networks)}
  own = table.METHODS[config.method].own_network
  if networks and own:
    found['own_network'] = evaluation.under(config, own[1]), own[0]
  return found


def differences(row: Row, config: Any) -> list[str]:
  """The conditions of `row` that `config` does not meet, in words."""
  found = [f'{flag} {wanted or "unset"}, here {getattr(config, flag)}'
           for flag, wanted in row.conditions.items()
           if getattr(config, flag) != wanted]
  if row.network != KRR and 'protocol' in row.conditions and not found:
    usual = evaluation.protocol(dataclasses.replace(
        config, network_epochs=None, network_learning_rate=None))
    found = [f'{flag} {wanted}, here {getattr(config, flag)}'
             for flag, wanted in (('network_epochs', usual.epochs),
                                  ('network_learning_rate',
                                   usual.learning_rate))
             if getattr(config, flag) not in (None, wanted)]
  if config.max_train:
    found.append(f'all training images, here {config.max_train}')
  return found + [row.besides] * bool(row.besides)


def _rows(config, network):
  return [row for row in ROWS
          if (row.dataset, row.method, row.network) == (
              config.dataset, config.method, network)
          and config.images_per_class in row.shares]


def _sentence(row, config) -> str:
  share = row.shares[config.images_per_class]
  name = 'kernel regression' if row.network == KRR else row.network
  return (f'{row.method}, {config.images_per_class} a class, {name}: '
          f'{100 * share:.1f} % ({row.source}) with '
          f'{"; ".join(differences(row, config))}.')
