r"""How fast kernels and attacks are: ratios taken side by side, in one run.

  python -m experiments.benchmark --suite=kernels --workdir=out/benchmark
  python -m experiments.benchmark --only=kip      # Some of the cases.
  python -m experiments.benchmark --suite=gram    # A 20,000 x 20,000 matrix.
  python -m experiments.benchmark --suite=sets    # DM steps, coreset distances.
  python -m experiments.benchmark --suite=attacks # PGD and APGD, and PyTorch's.
  python -m experiments.benchmark --suite=membership # Leave-one-out, shadows.

The rivals of a case take turns (A B C A B C ...) after a warm-up that
compiles; each round gives one ratio, and the tables show the median of the
ratios with their quartiles. Ratios carry over to other machines better than
the milliseconds beside them; on a busy machine trust neither (seen: twice the
ratio beside another job). The values of the rivals are compared too, so that
no wrong answer is timed.

Units: `matmul` is one plain product `x1 @ x2.T` of the inputs of the case. A
KIP case is the value and the gradient of its loss with respect to the support
images; its unit is the product of one forward pass. Times of image kernels
are per entry of the matrix, from as many entries as each rival can take; their
peak memory is that of one and the same matrix, in processes of their own. The
unit of a DM step is the matrix products that its convolutions are. Attacks
are given in images times steps a second, and ratios of that: above one, ours is
faster. PyTorch gets as many threads as there are cores to run on; beside other
jobs, `taskset -c 0` and CPU seconds are the fairer comparison. Leaving each of
N examples out is held against N refits, of which a few are made and timed.

Everything but `membership` is float32 with x64 off, since neural-tangents would
turn to float64 otherwise. Takes 4 minutes on 2 CPU cores, 20 s with
`--only=fcn`; works on accelerators and without neural-tangents, torch, foolbox
or torchattacks, whose columns then say so.
"""
import dataclasses
import time
from typing import Any, Literal

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks
from dsr.report import tables
from dsr.runs import machine, records
from dsr.runs.launch import launch
from experiments.benchmark import (
  attacks as attack_rivals,
  cases,
  kernels as rivals,
  measure,
  membership as membership_rivals,
  sets as set_rivals,
)
from experiments.benchmark.kernels import Case


@dataclasses.dataclass(frozen=True)
class Config:
  """Times kernels, steps and attacks against their rivals."""

  # Which cases: kernels and KIP's loss, Gram matrices on several devices, steps
  # of distillation, adversarial attacks, or membership attacks.
  suite: Literal[
      'kernels', 'gram', 'sets', 'attacks', 'membership'] = 'kernels'
  only: str = ''  # Only cases whose name contains this; '' for all.
  repeats: int = 15  # Rounds of a case, at most.
  seconds: float = 12.0  # After which a case stops, if it had three rounds.
  memory: bool = True  # Whether to measure the peak memory of image kernels.
  shrink: int = 1  # Divides all sizes, to try things out.
  seed: int = 0  # Of the inputs.
  workdir: str = 'out/benchmark'  # Where record.json goes.


def run(config: Config) -> dict[str, records.Metric]:
  """Everything but flags; returns the metrics of the record: ratios."""
  began = time.monotonic()
  checks.one_of('suite', config.suite, _SUITES)
  checks.at_least('repeats', config.repeats, 1)
  checks.non_negative('seconds', config.seconds)
  checks.at_least('shrink', config.shrink, 1)
  load = machine.load_average()
  with jax.enable_x64(False):
    rows, shown = _SUITES[config.suite](config)
    metrics = {f'{row["case"]}_{key}': value for row in rows
               for key, value in row.items()
               if isinstance(value, records.Metric)}
    path = records.write(
        config.workdir, config=config, metrics=metrics,
        wall_time=time.monotonic() - began,
        extra={'rows': [_plain(row) for row in rows],
               'low_and_high': 'quartiles of the rounds',
               'neural_tangents': rivals.nt_version(),
               **{peer: attack_rivals.version(peer)
                  for peer in attack_rivals.PEERS},
               'cores': attack_rivals.num_cores(),
               'load_average': load})
  record = records.read(path)
  print(*shown, sep='\n\n')
  print(f'\nMedians and quartiles; {record["device"]}; {record["versions"]}; '
        f'neural-tangents {rivals.nt_version()}; load {load:.2f}; {path}')
  return metrics


def kernel_suite(config: Config) -> tuple[list[dict], list[str]]:
  """Time of vector kernels and KIP, time and memory of image kernels."""
  chosen = _select(config, cases.PRODUCTS + cases.LOSSES + cases.IMAGES)
  absent = {'nt_ms': rivals.ABSENT, 'difference': rivals.ABSENT}
  vectors = [absent | _against_matmul(
                 case.shrunk(config.shrink), config, build)
             for group, build in ((cases.PRODUCTS, rivals.product_calls),
                                  (cases.LOSSES, rivals.loss_calls))
             for case in group if case in chosen]
  images = [absent | _image_row(case.shrunk(config.shrink), config)
            for case in cases.IMAGES if case in chosen]
  shown = []
  if vectors:
    shown.append(tables.render(
        vectors, [_CASE, *_columns('matmul_ms', 'ours_ms', 'nt_ms'),
                  _ratio('ours_per_matmul', 'ours / matmul'),
                  _ratio('nt_per_matmul', 'nt / matmul'), _DIFFERENCE, 'goal'],
        title='Milliseconds a call; ratios to one matrix product'))
  if images:
    shown.append(tables.render(
        images, [_CASE, *_columns('ours_ms', 'nt_ms'),
                 _ratio('nt_per_ours', 'time nt / ours'),
                 *_columns('ours_mb', 'nt_mb'),
                 _ratio('memory_nt_per_ours', 'memory nt / ours'),
                 _DIFFERENCE, 'goal'],
        title='Milliseconds an entry; peak MB of one matrix'))
  return vectors + images, shown


def gram_suite(config: Config) -> tuple[list[dict], list[str]]:
  """Time and peak memory of a large symmetric `kernels.gram`."""
  rows = []
  for case in _select(config, cases.GRAMS):
    case = case.shrunk(config.shrink)
    row = _against_matmul(case, config, rivals.gram_calls)
    peak = measure.peak_mb(rivals.gram_calls, (case, config.seed), 'ours')
    if peak is not None:
      row['peak_mb'] = peak
      row['peak_per_result'] = records.metric(peak * 1e6 / (4 * case.rows**2))
    rows.append(row)
  columns = [_CASE, *_columns('matmul_ms', 'ours_ms'),
             _ratio('ours_per_matmul', 'ours / matmul'), *_columns('peak_mb'),
             _ratio('peak_per_result', 'peak / result'), 'goal']
  return rows, [tables.render(rows, columns, title='Large symmetric matrix')]


def set_suite(config: Config) -> tuple[list[dict], list[str]]:
  """Wall and CPU time of DM's step, and the distances of one class."""
  chosen = _select(config, cases.STEPS + cases.DISTANCES)
  rows = []
  for group, build in ((cases.STEPS, set_rivals.step_calls),
                       (cases.DISTANCES, set_rivals.distance_calls)):
    for case in (c.shrunk(config.shrink) for c in group if c in chosen):
      row = _against_matmul(case, config, build)
      row['ours_cpu_s'] = measure.cpu_seconds(
          build(case, config.seed)['ours'])
      rows.append(row)
  columns = [_CASE, *_columns('matmul_ms', 'ours_ms', 'ours_cpu_s'),
             _ratio('ours_per_matmul', 'ours / matmul'), 'goal']
  return rows, [tables.render(
      rows, columns, title='Milliseconds a call; ratios to matrix products')]


def attack_suite(config: Config) -> tuple[list[dict], list[str]]:
  """Images times steps a second of attacks, and what they achieve."""
  chosen = _select(config, cases.PGD + cases.APGD)
  rows, shown = [], []
  for group, peers in ((cases.PGD, ('torch', 'foolbox')),
                       (cases.APGD, ('torchattacks',))):
    found = [_attack_row(case.shrunk(config.shrink), config, peers)
             for case in group if case in chosen]
    if found:
      sides = ('ours', 'stop', *peers)
      shown.append(tables.render(
          found, [_CASE,
                  *(tables.Column(f'{side}_rate', f'{side} / s', digits=0)
                    for side in sides),
                  *(_ratio(f'{side}_per_{peer}', f'{side} / {peer}')
                    for peer in peers for side in ('ours', 'stop')),
                  *(_ratio(f'cpu_{side}_per_{peer}', f'{side} / {peer}, CPU')
                    for peer in peers for side in ('ours', 'stop')),
                  *(tables.Column(f'{side}_robust', f'robust, {side}', digits=3)
                    for side in ('ours', *peers)), 'goal'],
          title='Images times steps a second; ratios of them'))
    rows += found
  return rows, shown


def membership_suite(config: Config) -> tuple[list[dict], list[str]]:
  """All outputs without each example against refits; fits of random halves."""
  chosen = _select(config, cases.WITHOUT + cases.SHADOWS)
  rows = [membership_rivals.leave_one_out_row(
      case.shrunk(config.shrink), config.seed, repeats=config.repeats,
      seconds=config.seconds) for case in cases.WITHOUT if case in chosen]
  rows += [membership_rivals.shadow_row(
      case.shrunk(config.shrink), config.seed)
           for case in cases.SHADOWS if case in chosen]
  columns = [_CASE, 'ours_s', 'refits_s',
             _ratio('refits_per_ours', 'refits / ours'), 'ours_cpu_s',
             _DIFFERENCE, 'goal']
  return rows, [tables.render(
      rows, columns, title='Seconds for all examples, or for all shadows')]


_SUITES = {'kernels': kernel_suite, 'gram': gram_suite, 'sets': set_suite,
           'attacks': attack_suite, 'membership': membership_suite}
_CASE = 'case'
_DIFFERENCE = tables.Column('difference', 'largest difference')


def _columns(*keys: str) -> list[tables.Column]:
  return [tables.Column(key, digits=2) for key in keys]


def _ratio(key: str, title: str) -> tables.Column:
  return tables.Column(key, title, digits=2)


def _select(config, group) -> list[Case]:
  chosen = [case for case in group if config.only in case.name]
  if not chosen:
    raise ValueError(
        f'`only` must be part of one of {", ".join(c.name for c in group)}; '
        f'got {config.only!r}.')
  return chosen


def _against_matmul(
    case: Case, config: Config, build: rivals.Builder) -> dict[str, Any]:
  """Milliseconds a call, and ratios to the matrix product."""
  values, seconds = _race(build, case, config)
  ratios = {f'{side}_per_matmul': measure.quartiles(s / seconds['matmul'])
            for side, s in seconds.items() if side != 'matmul'}
  return _row(case, values, seconds) | ratios


def _image_row(case: Case, config: Config) -> dict[str, Any]:
  """Milliseconds an entry, peak memory, and their ratios."""
  values, seconds = _race(rivals.image_calls, case, config)
  seconds = {side: s / values[side].size for side, s in seconds.items()}
  row = _row(case, values, seconds)
  if 'nt' in seconds:
    row['nt_per_ours'] = measure.quartiles(seconds['nt'] / seconds['ours'])
  if config.memory:
    equal = case._replace(rows=case.nt_size, cols=case.nt_size)
    peaks = {f'{side}_mb': measure.peak_mb(
                 rivals.image_calls, (equal, config.seed), side)
             for side in seconds}
    row |= {key: peak for key, peak in peaks.items() if peak is not None}
    if 'ours_mb' in row and 'nt_mb' in row:
      row['memory_nt_per_ours'] = records.metric(
          row['nt_mb'] / row['ours_mb'])
  return row


def _attack_row(
    case: attack_rivals.Case, config: Config, peers: tuple[str, ...],
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


def _race(build: rivals.Builder, case: Case, config: Config
          ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  calls = build(case, config.seed)
  logging.info('%s: %s', case.name, ', '.join(calls))
  return measure.race(
      calls, repeats=config.repeats, seconds=config.seconds)


def _row(case: Case, values, seconds) -> dict[str, Any]:
  row = {'case': case.name, 'goal': case.goal}
  row |= {f'{side}_ms': 1e3 * float(np.median(s))
          for side, s in seconds.items()}
  if 'nt' in values:
    row['difference'] = _difference(values['ours'], values['nt'])
  return row


def _difference(ours, theirs) -> float:
  """Largest of two pytrees, over the largest value of each leaf of theirs."""

  def leaf(a, b):
    a = a[tuple(slice(n) for n in b.shape)]  # Theirs may have fewer entries.
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))

  return max(jax.tree.leaves(jax.tree.map(leaf, ours, theirs)))


def _plain(row) -> dict[str, Any]:
  return {key: value._asdict() if isinstance(value, records.Metric) else value
          for key, value in row.items()}


if __name__ == '__main__':
  launch(Config, run)
