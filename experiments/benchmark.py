r"""How fast the kernels are: ratios taken side by side, in one run.

  python -m experiments.benchmark --suite=kernels --workdir=out/benchmark
  python -m experiments.benchmark --only=kip      # Some of the cases.
  python -m experiments.benchmark --suite=gram    # A 20,000 x 20,000 matrix.

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
peak memory is that of one and the same matrix, in processes of their own.

Everything is float32 with x64 off, since neural-tangents would turn to float64
otherwise. Takes 4 minutes on 2 CPU cores, 20 s with `--only=fcn`; works on
accelerators and without neural-tangents, whose columns then say so.
"""
from collections.abc import Callable, Mapping
import concurrent.futures
import ctypes
import dataclasses
import functools
from importlib import metadata
import math
import multiprocessing
import os
import pathlib
import re
import time
from typing import Any, Literal, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks, data as data_lib, kernels, krr
from dsr.distill import kip
from dsr.kernels import stax
from dsr.report import records, tables
from dsr.types import Examples, KernelFn
from experiments.launch import launch

_CLASSES = 10
_LEAST_ROUNDS = 3  # However long they take.
_QUIET = 0.25  # Load per core above which timings are in doubt.
_ABSENT = 'not installed'
_M_MMAP_THRESHOLD = -3  # Of glibc's malloc.h.
_CLEAR_REFS = pathlib.Path('/proc/self/clear_refs')

Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Config:
  """Times the kernels against a matrix product and neural-tangents."""

  suite: Literal['kernels', 'gram'] = 'kernels'  # What to time.
  only: str = ''  # Only cases whose name contains this; '' for all.
  repeats: int = 15  # Rounds of a case, at most.
  seconds: float = 12.0  # After which a case stops, if it had three rounds.
  memory: bool = True  # Whether to measure the peak memory of image kernels.
  shrink: int = 1  # Divides all sizes, to try things out.
  seed: int = 0  # Of the inputs.
  workdir: str = 'out/benchmark'  # Where record.json goes.


class Case(NamedTuple):
  """One line of a table.

  Attributes:
    name: also the prefix of its metrics.
    kernel: for `kernels.by_name`.
    rows: of the kernel matrix.
    cols: of the kernel matrix.
    shape: of one input.
    nt_size: rows and cols for neural-tangents, if it cannot take all.
    goal: what we hope to see.
  """

  name: str
  kernel: str
  rows: int
  cols: int
  shape: tuple[int, ...]
  nt_size: int | None = None
  goal: str = ''


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


def run(config: Config) -> dict[str, records.Metric]:
  """Everything but flags; returns the metrics of the record: ratios."""
  began = time.monotonic()
  checks.one_of('suite', config.suite, _SUITES)
  checks.at_least('repeats', config.repeats, 1)
  checks.non_negative('seconds', config.seconds)
  checks.at_least('shrink', config.shrink, 1)
  load = _load_average()
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
               'neural_tangents': _nt_version(),
               'load_average': load})
  record = records.read(path)
  print(*shown, sep='\n\n')
  print(f'\nMedians and quartiles; {record["device"]}; {record["versions"]}; '
        f'neural-tangents {_nt_version()}; load {load:.2f}; {path}')
  return metrics


def kernel_suite(config: Config) -> tuple[list[dict], list[str]]:
  """Time of vector kernels and KIP, time and memory of image kernels."""
  cases = _select(config, PRODUCTS + LOSSES + IMAGES)
  absent = {'nt_ms': _ABSENT, 'difference': _ABSENT}
  vectors = [absent | _against_matmul(case, config, build)
             for group, build in ((PRODUCTS, _product_calls),
                                  (LOSSES, _loss_calls))
             for case in group if case in cases]
  images = [absent | _image_row(case, config)
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
    row = _against_matmul(case, config, _gram_calls)
    size = _scaled(case.rows, config)
    if (peak := _peak_mb(_gram_calls, case, config, 'ours')) is not None:
      row['peak_mb'] = peak
      row['peak_per_result'] = records.metric(peak * 1e6 / (4 * size**2))
    rows.append(row)
  columns = [_CASE, *_columns('matmul_ms', 'ours_ms'),
             _ratio('ours_per_matmul', 'ours / matmul'), *_columns('peak_mb'),
             _ratio('peak_per_result', 'peak / result'), 'goal']
  return rows, [tables.render(rows, columns, title='Large symmetric matrix')]


_SUITES = {'kernels': kernel_suite, 'gram': gram_suite}
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


# Rows.


def _against_matmul(case: Case, config: Config, build) -> dict[str, Any]:
  """Milliseconds a call, and ratios to the matrix product."""
  values, seconds = _race(build(case, config), config, case.name)
  ratios = {f'{side}_per_matmul': _quartiles(s / seconds['matmul'])
            for side, s in seconds.items() if side != 'matmul'}
  return _row(case, values, seconds) | ratios


def _image_row(case: Case, config: Config) -> dict[str, Any]:
  """Milliseconds an entry, peak memory, and their ratios."""
  values, seconds = _race(_image_calls(case, config), config, case.name)
  seconds = {side: s / values[side].size for side, s in seconds.items()}
  row = _row(case, values, seconds)
  if 'nt' in seconds:
    row['nt_per_ours'] = _quartiles(seconds['nt'] / seconds['ours'])
  if config.memory:
    equal = case._replace(rows=case.nt_size, cols=case.nt_size)
    peaks = {f'{side}_mb': _peak_mb(_image_calls, equal, config, side)
             for side in seconds}
    row |= {key: peak for key, peak in peaks.items() if peak is not None}
    if 'ours_mb' in row and 'nt_mb' in row:
      row['memory_nt_per_ours'] = records.metric(
          row['nt_mb'] / row['ours_mb'])
  return row


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


def _quartiles(samples: np.ndarray) -> records.Metric:
  low, value, high = np.quantile(samples, (0.25, 0.5, 0.75))
  return records.metric(value, low, high)


def _plain(row) -> dict[str, Any]:
  return {key: value._asdict() if isinstance(value, records.Metric) else value
          for key, value in row.items()}


# Time.


def _race(calls: Mapping[str, Call], config: Config, name: str
          ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What each call returns, and its seconds in every round."""
  logging.info('%s: %s', name, ', '.join(calls))
  values = {side: jax.block_until_ready(call())
            for side, call in calls.items()}
  rounds = []
  began = time.perf_counter()
  while len(rounds) < config.repeats and (
      len(rounds) < _LEAST_ROUNDS
      or time.perf_counter() - began < config.seconds):
    rounds.append([_seconds(call) for call in calls.values()])
  return values, dict(zip(calls, np.transpose(rounds), strict=True))


def _seconds(call: Call) -> float:
  began = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - began


def _load_average() -> float:
  load = os.getloadavg()[0]
  if load > _QUIET * os.cpu_count():
    logging.warning(
        'The machine is not quiet (load average %.2f on %d cores): times may '
        'double, and ratios with them.', load, os.cpu_count())
  return load


# What is timed: each builder gives {'matmul': ..., 'ours': ..., 'nt': ...}.


def _product_calls(case: Case, config: Config) -> dict[str, Call]:
  one, two = _inputs(case, config)
  rivals = {'matmul': _matmul} | {
      side: kernel_fn.cross for side, kernel_fn in _kernels(case.kernel)}
  return {side: functools.partial(jax.jit(f), one.x, two.x)
          for side, f in rivals.items()}


def _loss_calls(case: Case, config: Config) -> dict[str, Call]:
  batch, support = _inputs(case, config)

  def value_and_gradient(kernel_fn):
    def loss(x, y, batch):
      predict = krr.fit(kernel_fn, Examples(x, y))
      return kip.batch_loss(predict(batch.x), batch.y, 'mse')
    return functools.partial(
        jax.jit(jax.value_and_grad(loss)), support.x, support.y, batch)

  return {'matmul': functools.partial(jax.jit(_matmul), batch.x, support.x)} | {
      side: value_and_gradient(kernel_fn)
      for side, kernel_fn in _kernels(case.kernel)}


def _image_calls(case: Case, config: Config) -> dict[str, Call]:
  one, two = _inputs(case, config)
  sizes = {'ours': None, 'nt': _scaled(case.nt_size, config)}
  return {side: functools.partial(
              jax.jit(kernel_fn.cross), one.x[:sizes[side]],
              two.x[:sizes[side]])
          for side, kernel_fn in _kernels(case.kernel)}


def _gram_calls(case: Case, config: Config) -> dict[str, Call]:
  x = _inputs(case, config)[0].x
  return {'matmul': functools.partial(jax.jit(_matmul), x, x),
          'ours': functools.partial(
              kernels.gram, kernels.by_name(case.kernel), x)}


def _matmul(x1, x2):
  """x1 @ x2.T in full float32, as the kernels need it, on accelerators too."""
  return jnp.matmul(x1, x2.T, precision='highest')


def _inputs(case: Case, config: Config) -> tuple[Examples, Examples]:
  """Noisy copies of one centre a class: (N, ...) and (M, ...) of them."""
  n, m = (_scaled(size, config) for size in (case.rows, case.cols))
  shape = case.shape
  if len(shape) == 3:
    side = max(8, shape[0] // config.shrink)  # Three times halved by pooling.
    shape = (side, side, shape[2])
  key_y, key_centre, key_noise = jax.random.split(
      jax.random.key(config.seed), 3)
  y = jax.random.randint(key_y, (n + m,), 0, _CLASSES)
  x = jax.random.normal(key_centre, (_CLASSES, *shape), jnp.float32)[y]
  x += jax.random.normal(key_noise, x.shape, jnp.float32)
  targets = data_lib.encode(np.asarray(y), _CLASSES)
  return Examples(x[:n], targets[:n]), Examples(x[n:], targets[n:])


def _scaled(size: int, config: Config) -> int:
  return max(2, size // config.shrink)


def _kernels(name: str) -> list[tuple[str, KernelFn]]:
  """('ours', kernel) and, where installed, ('nt', the same network's)."""
  found = [('ours', kernels.by_name(name))]
  if _nt_version() != _ABSENT:
    nt = stax.load()
    _, _, kernel_fn = nt.stax.serial(*_nt_layers(nt.stax, name))
    found.append(('nt', stax.kernel(kernel_fn)))
  return found


def _nt_layers(s, name: str) -> list:
  """The layers of `kernels.by_name(name)`, as neural-tangents has them."""
  scales = {'W_std': math.sqrt(2), 'b_std': 0.1}
  dense = s.Dense(1, **scales)
  hidden = [dense, s.Relu()]
  block = [s.Conv(1, (3, 3), padding='SAME', **scales), s.Relu()]
  pool = s.AvgPool((2, 2), (2, 2))
  return {
      'fcn1': [*hidden, dense],
      'fcn2': [*hidden * 2, dense],
      'convnet3_nopool': [*block * 3, s.Flatten(), dense],
      'convnet3': [*[*block, pool] * 3, s.Flatten(), dense],
      'myrtle5': [*block * 2, pool, *block, pool, *block, s.GlobalAvgPool(),
                  dense],
  }[name]


def _nt_version() -> str:
  try:
    return metadata.version('neural-tangents')
  except metadata.PackageNotFoundError:
    return _ABSENT


# Memory.


def _peak_mb(build, case: Case, config: Config, side: str) -> float | None:
  """Peak of one call beside its inputs, in a fresh process; None: unknown."""
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
    peak = pool.submit(_peak_of_call, build, case, config, side).result()
  return None if peak is None else peak / 1e6


def _peak_of_call(build, case: Case, config: Config, side: str) -> int | None:
  """In bytes. The first call compiles, which takes memory of its own."""
  # The parent may hold the rest of the accelerator's memory.
  os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  with jax.enable_x64(False):
    call = build(case, config)[side]
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
      before = stats['bytes_in_use']
      jax.block_until_ready(call())
      return device.memory_stats()['peak_bytes_in_use'] - before
    libc = ctypes.CDLL(None)
    if not (_CLEAR_REFS.exists() and hasattr(libc, 'mallopt')):
      return None
    # Give back each buffer that is freed: else it is reused, and not counted.
    libc.mallopt(_M_MMAP_THRESHOLD, 2**16)
    jax.block_until_ready(call())
    time.sleep(0.5)  # Buffers go a moment after the result is ready.
    libc.malloc_trim(0)
    _CLEAR_REFS.write_text('5')  # Linux: the peak starts anew from here.
    before = _resident('VmRSS')
    result = jax.block_until_ready(call())
    return max(_resident('VmHWM') - before, result.nbytes)


def _resident(field: str) -> int:
  """Of this process, in bytes; unlike ru_maxrss not inherited from a parent."""
  status = pathlib.Path('/proc/self/status').read_text('ascii')
  return 1024 * int(re.search(rf'{field}:\s+(\d+) kB', status)[1])


if __name__ == '__main__':
  launch(Config, run)
