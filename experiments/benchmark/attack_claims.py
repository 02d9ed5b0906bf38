"""Whether attacks are right where they claim to have a training image.

Small victims of several kinds are attacked, among them some on which the attack
must fail; claims, made without the truth, are held against it. The level of
claims is fixed beforehand (`result.CLAIM`).
"""
import json
import pathlib
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from dsr.attack import match, release
from dsr.probes import intervals
from dsr.report import tables
from dsr.runs import records
from dsr.studies.reconstruction import table, victims
from dsr.train import flow

SEEDS = tuple(range(11, 15))
_NUM = 10
_RIGHT = 0.05  # RMSE of a claim that is true, and of an image that was found.
_NOISE = 0.01  # On each parameter, of about 0.03: as large as its change.
_KKT = {'depth': 1, 'use_bias': False, 'first_scale': 1e-4, 'max_steps': 2000,
        'loss': 'cross_entropy', 'tolerance': 1e-9, 'recipe': 'descent'}
_SHORT = {'steps': 300}
_FLOW, _DESCENT = {'recipe': 'flow'}, {'recipe': 'descent'}


class Case(NamedTuple):
  """Victims that differ by their seed, and who attacks them.

  Attributes:
    attack: its name.
    victim: fields of `VictimConfig`.
    seeds: how many of them.
    options: of the attack.
    wrong: what the attacker is told wrongly, or is done to the release:
      'activation', a GELU network taken for one of ReLUs; 'start', theta_0 of
      another seed; 'noise'.
  """

  attack: str
  victim: dict[str, Any]
  seeds: int = 4
  options: dict[str, Any] = {}
  wrong: str = ''

  def __str__(self) -> str:
    fields = {'dataset': 'digits'} | self.victim
    words = [self.attack, *(f'{k}={v}' for k, v in fields.items())]
    return ' '.join([*words, *([f'wrong={self.wrong}'] if self.wrong else [])])


CASES = (
    *(Case('finite', recipe | {'width': width}, options=_SHORT)
      for recipe in (_FLOW, _DESCENT) for width in (256, 1024)),
    Case('finite', {'regime': 'linearized', 'width': 256}, options=_SHORT),
    *(Case('finite', _FLOW | {'width': 512, 'dataset': name}, 2)
      for name in ('mnist_odd_even', 'cifar10_animal_vehicle')),
    Case('simulate', _FLOW | {'width': 256}, 2, {'start_steps': 300}),
    Case('published', _FLOW | {'width': 256}, 2, {'steps': 5000}),
    Case('kkt', _KKT | {'width': 256}, options=_SHORT),
    Case('kkt', _KKT | {'width': 512, 'dataset': 'mnist_odd_even'}),
    # Here they must fail, all or nearly all.
    Case('simulate', _DESCENT | {'width': 256}, 2, {'start_steps': 300}),
    Case('finite', _DESCENT | {'width': 256, 'optimizer': 'adam',
                               'learning_rate': 1e-2}, 2, _SHORT),
    *(Case('finite', _FLOW | {'width': 256}, 2, _SHORT, wrong)
      for wrong in ('noise', 'activation', 'start')),
    Case('kkt', _KKT | {'width': 256, 'first_scale': 1.0}, 2, _SHORT),
)


def make(case: Case, seed: int) -> tuple[release.Released, np.ndarray]:
  """(what is released of a new victim, its images in [0, 1])."""
  config = victims.VictimConfig(seed=seed, num_train=_NUM, **case.victim)
  task = victims.prepare_victim_task(config)
  module = victims.build(config, task.examples.y.shape[1])
  key = jax.random.key(seed)
  if case.wrong == 'activation':
    other = module.clone(activation=jax.nn.gelu)
    theta_0 = jax.jit(other.init)(key, task.examples.x[:1])['params']
    victim = flow.fit_flow(other, theta_0, task.examples, progress=False)
  else:
    victim = victims.train_victim(config, task)
  theta_0 = victim.theta_0
  if case.wrong == 'start':
    theta_0 = jax.jit(module.init)(
        jax.random.fold_in(key, 1), task.examples.x[:1])['params']
  released = release.parameters(
      module, None if case.attack == 'kkt' else theta_0, victim.theta_T,
      num_train=_NUM, input_shape=task.examples.x.shape[1:],
      num_outputs=task.examples.y.shape[1], low=task.low, high=task.high,
      linearised=victim.linearised)
  if case.wrong == 'noise':
    released = release.with_noise(key, released, _NOISE)
  return released, np.asarray(task.train.x)


def attack(case: Case, seed: int) -> tuple[int, int, int]:
  """How many images are found, claimed, and claimed rightly."""
  released, truth = make(case, seed)
  attacker = table.ATTACKS[case.attack]
  found = attacker.reconstruct(
      jax.random.key(seed), released,
      attacker.settings(False)._replace(**case.options), progress=False)
  gaps = match.distances(truth, found.candidates - released.low[None], 'rmse')
  right = gaps.min(axis=0)[found.claimed] < _RIGHT
  return (int((gaps.min(axis=1) < _RIGHT).sum()), len(right), int(right.sum()))


def claim_suite(config: Any) -> tuple[list[dict], list[str]]:
  """A row for each case; counts are kept as they come, in the workdir."""
  chosen = [case for case in CASES if config.only in str(case)]
  if not chosen:
    raise ValueError('`only` must be part of one of '
                     f'{"; ".join(map(str, CASES))}; got {config.only!r}.')
  path = pathlib.Path(config.workdir) / 'claims.json'
  kept = json.loads(path.read_text('utf-8')) if path.exists() else {}
  path.parent.mkdir(parents=True, exist_ok=True)
  for case in chosen:
    counts = kept.setdefault(str(case), {})
    for seed in SEEDS[:max(case.seeds // config.shrink, 1)]:
      if str(seed) not in counts:
        counts[str(seed)] = attack(case, seed)
        with records.replacing(path) as part:
          part.write_text(json.dumps(kept, indent=1), encoding='utf-8')
    logging.info('%s: %s', case, list(counts.values()))
  found = [_row(str(case), kept[str(case)].values()) for case in chosen]
  found.append(_row('all', [c for case in chosen
                            for c in kept[str(case)].values()]))
  return found, [tables.render(
      found, ['case', 'images', 'found', 'claimed',
              tables.Column('precision', percent=True)],
      title=f'Images; those below an RMSE of {_RIGHT:g}; claims; claims that '
      'are right [95 % interval]')]


def _row(name, counts) -> dict[str, Any]:
  found, claimed, right = np.sum(list(counts), axis=0)
  row = {'case': name} | {key: records.metric(float(value)) for key, value in (
      ('images', _NUM * len(counts)), ('found', found), ('claimed', claimed))}
  if claimed:
    row['precision'] = records.metric(
        *intervals.wilson(int(right), int(claimed)))
  return row
