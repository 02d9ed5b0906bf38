"""Adversarial attacks, beside PyTorch and its libraries."""
from typing import Any

from absl import logging
import numpy as np

from dsr.report import tables
from dsr.runs import records
from experiments.benchmark import (
  attacks as attack_rivals,
  cases,
  kernels as rivals,
  measure,
)
from experiments.benchmark.rows import (
    CASE,
    ratio,
    select,
)


def attack_suite(config: Any) -> tuple[list[dict], list[str]]:
  """Images times steps a second of attacks, and what they achieve."""
  chosen = select(config, cases.PGD + cases.APGD)
  rows, shown = [], []
  for group, peers in ((cases.PGD, ('torch', 'foolbox')),
                       (cases.APGD, ('torchattacks',))):
    found = [_attack_row(case.shrunk(config.shrink), config, peers)
             for case in group if case in chosen]
    if found:
      sides = ('ours', 'stop', *peers)
      shown.append(tables.render(
          found, [CASE,
                  *(tables.Column(f'{side}_rate', f'{side} / s', digits=0)
                    for side in sides),
                  *(ratio(f'{side}_per_{peer}', f'{side} / {peer}')
                    for peer in peers for side in ('ours', 'stop')),
                  *(ratio(f'cpu_{side}_per_{peer}', f'{side} / {peer}, CPU')
                    for peer in peers for side in ('ours', 'stop')),
                  *(tables.Column(f'{side}_robust', f'robust, {side}', digits=3)
                    for side in ('ours', *peers)), 'goal'],
          title='Images times steps a second; ratios of them'))
    rows += found
  return rows, shown


def _attack_row(
    case: attack_rivals.Case, config: Any, peers: tuple[str, ...],
) -> dict[str, Any]:
  """Rates of all sides, ratios of ours to the peers, robust accuracies."""
  given = attack_rivals.problem(case, config.seed)
  calls = attack_rivals.attack_calls(case, given)
  logging.info('%s: %s', case.name, ', '.join(calls))
  values, seconds = measure.race(
      calls, repeats=config.repeats, seconds=config.seconds)
  cpu = {side: measure.cpu_seconds(call) for side, call in calls.items()}
  row = {'case': case.name, 'goal': case.goal}
  for peer in peers:  # Overwritten below where there is one.
    row |= {f'{peer}_rate': rivals.ABSENT, f'{peer}_robust': rivals.ABSENT}
  for side in calls:
    row[f'{side}_rate'] = (
        case.images * case.steps / float(np.median(seconds[side])))
    row[f'{side}_robust'] = attack_rivals.robust_accuracy(given, values[side])
  for peer in (p for p in peers if p in calls):
    for side in ('ours', 'stop'):
      row[f'{side}_per_{peer}'] = measure.quartiles(
          seconds[peer] / seconds[side])
      row[f'cpu_{side}_per_{peer}'] = records.metric(cpu[peer] / cpu[side])
  return row
