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
from dsr.report import records, tables
from experiments import (
    attack_rivals,
    measure,
    membership_rivals,
    rivals,
    set_rivals,
)
from experiments.launch import launch
from experiments.rivals import Case


@dataclasses.dataclass(frozen=True)
class Config:
  """Times kernels, steps and attacks against their rivals."""

  suite: Literal[
      'kernels', 'gram', 'sets', 'attacks', 'membership'] = 'kernels'
  only: str = ''  # Only cases whose name contains this; '' for all.
  repeats: int = 15  # Rounds of a case, at most.
  seconds: float = 12.0  # After which a case stops, if it had three rounds.
  memory: bool = True  # Whether to measure the peak memory of image kernels.
  shrink: int = 1  # Divides all sizes, to try things out.
  seed: int = 0  # Of the inputs.
  workdir: str = 'out/benchmark'  # Where record.json goes.


PRODUCTS = (
    Case('fcn2_2000x2000', 'fcn2', 2000, 2000, (784,), goal='ours <= 1.4'),
    Case('fcn2_5000x500', 'fcn2', 5000, 500, (784,), goal='ours <= 1.4'),
)
LOSSES = (  # Rows are targets, columns are support images.
    Case('kip_100', 'fcn1', 5000, 100, (3072,), goal='ours <= 2.1'),
    Case('kip_500', 'fcn1', 5000, 500, (3072,), goal='ours <= 3.6'),
)
_IMAGE = (32, 32, 3)
IMAGES = (
    Case('convnet3_nopool', 'convnet3_nopool', 32, 32, _IMAGE, 32,
         'time >= 1'),
    Case('convnet3', 'convnet3', 12, 12, _IMAGE, 6, 'time >= 6, memory >= 10'),
    Case('myrtle5', 'myrtle5', 12, 12, _IMAGE, 6, 'time >= 6, memory >= 10'),
)
GRAMS = (
    Case('gram_fcn2_20000', 'fcn2', 20_000, 20_000, (784,),
         goal='peak <= 1.3'),
)
STEPS = (  # Rows are training images a class, columns distilled ones.
    Case('dm_mnist_1', 'convnet3', 256, 1, (28, 28, 1), goal='CPU s <= 2.05'),
    Case('dm_mnist_10', 'convnet3', 256, 10, (28, 28, 1), goal='CPU s <= 2.05'),
    Case('dm_cifar10_1', 'convnet3', 256, 1, _IMAGE),
    Case('dm_cifar10_10', 'convnet3', 256, 10, _IMAGE),
)
DISTANCES = (
    Case('distances_6000', 'l2', 6000, 6000, (784,), goal='ours <= 2'),
)
_DIGIT = (28, 28, 1)
_FASTER = 'ours >= 2'
PGD = (
    attack_rivals.Case('pgd_mlp_128', 'pgd', 'mlp', 128, 40, (784,), 0.08),
    attack_rivals.Case(
        'pgd_mlp_512', 'pgd', 'mlp', 512, 40, (784,), 0.08, _FASTER),
    attack_rivals.Case('pgd_lenet_128', 'pgd', 'lenet', 128, 40, _DIGIT, 0.006),
    attack_rivals.Case(
        'pgd_lenet_512', 'pgd', 'lenet', 512, 40, _DIGIT, 0.006, _FASTER),
    attack_rivals.Case(
        'pgd_convnet3_128', 'pgd', 'convnet3', 128, 20, _DIGIT, 0.05, _FASTER),
)
APGD = (
    attack_rivals.Case(
        'apgd_mlp_256', 'apgd', 'mlp', 256, 40, (784,), 0.08, _FASTER),
    attack_rivals.Case(
        'apgd_lenet_256', 'apgd', 'lenet', 256, 40, _DIGIT, 0.006, _FASTER),
    attack_rivals.Case(
        'apgd_convnet3_128', 'apgd', 'convnet3', 128, 20, _DIGIT, 0.05,
        _FASTER),
)
WITHOUT = (  # Rows are examples, columns refits.
    Case('leave_one_out_2000', 'fcn1', 2000, 5, (784,), goal='ours >= 100'),
)
SHADOWS = (  # Columns are shadows.
    Case('shadows_256', 'fcn1', 2000, 256, (784,), goal='s <= 60'),
)


def run(config: Config) -> dict[str, records.Metric]:
  """Everything but flags; returns the metrics of the record: ratios."""
  began = time.monotonic()
  checks.one_of('suite', config.suite, _SUITES)
  checks.at_least('repeats', config.repeats, 1)
  checks.non_negative('seconds', config.seconds)
  checks.at_least('shrink', config.shrink, 1)
  load = measure.load_average()
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
  cases = _select(config, PRODUCTS + LOSSES + IMAGES)
  absent = {'nt_ms': rivals.ABSENT, 'difference': rivals.ABSENT}
  vectors = [absent | _against_matmul(
                 case.shrunk(config.shrink), config, build)
             for group, build in ((PRODUCTS, rivals.product_calls),
                                  (LOSSES, rivals.loss_calls))
             for case in group if case in cases]
  images = [absent | _image_row(case.shrunk(config.shrink), config)
            for case in IMAGES if case in cases]
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
  for case in _select(config, GRAMS):
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
  cases = _select(config, STEPS + DISTANCES)
  rows = []
  for group, build in ((STEPS, set_rivals.step_calls),
                       (DISTANCES, set_rivals.distance_calls)):
    for case in (c.shrunk(config.shrink) for c in group if c in cases):
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
  cases = _select(config, PGD + APGD)
  rows, shown = [], []
  for group, peers in ((PGD, ('torch', 'foolbox')), (APGD, ('torchattacks',))):
    found = [_attack_row(case.shrunk(config.shrink), config, peers)
             for case in group if case in cases]
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
  cases = _select(config, WITHOUT + SHADOWS)
  rows = [membership_rivals.leave_one_out_row(
      case.shrunk(config.shrink), config.seed, repeats=config.repeats,
      seconds=config.seconds) for case in WITHOUT if case in cases]
  rows += [membership_rivals.shadow_row(
      case.shrunk(config.shrink), config.seed)
           for case in SHADOWS if case in cases]
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


def _select(config, cases) -> list[Case]:
  chosen = [case for case in cases if config.only in case.name]
  if not chosen:
    raise ValueError(
        f'`only` must be part of one of {", ".join(c.name for c in cases)}; '
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
