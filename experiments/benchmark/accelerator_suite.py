"""The suite `accelerator`: what a device computes, and how fast.

Every part is a process of its own with its own time limit, and leaves its rows
in a file, so that a run that is cut off keeps what it has; the next run with
the same workdir makes only what is missing. Parts run side by side, since
compilation takes most of their time; where one is timed it locks the device,
see `measure.alone`. Checks come first, since they lock nothing.
"""
from collections.abc import Callable
import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from dsr import numerics
from dsr.report import tables
from dsr.runs import records
from experiments.benchmark import device_checks, device_speed, image_kernels
from experiments.benchmark.rows import CASE, columns, ratio

_MODULE = 'experiments.benchmark.accelerator_suite'
_BOUND = 1e-5  # Of float32 kernels against 40 digits.
_PATIENCE = 4  # Times the limit, without an accelerator.


class Part(NamedTuple):
  """Some rows of a table.

  Attributes:
    fn: the configuration to a row.
    limit: seconds that it may take, compilation included.
    table: the name of its table.
  """

  fn: Callable[[Any], dict[str, Any]]
  limit: float
  table: str


def _check(name: str, config: Any) -> dict[str, Any]:
  """Differences from the CPU, and whether a second call gives the same bits."""
  check, bound = device_checks.CHECKS[name]
  if jax.default_backend() == 'cpu':  # Programs for accelerators, at least.
    with numerics.pretend_accelerator():
      found, again = (check(config.seed) for _ in range(2))
    want = check(config.seed)
  else:
    found, again = (check(config.seed) for _ in range(2))
    want = _on_cpu(name, config)
  worst = {key: float(np.max(np.abs(value - want[key]))
                      / np.max(np.abs(want[key])))
           for key, value in found.items()}
  differ = [key for key in found if not np.array_equal(found[key], again[key])]
  difference = max(worst.values())
  return {'worst': max(worst, key=worst.get), 'difference': difference,
          'bound': bound, 'passed': difference <= bound,
          'same_bits': not differ, 'not_same_bits': ' '.join(differ)}


def _on_cpu(name, config) -> dict[str, np.ndarray]:
  """The arrays of a check, from a process that sees no accelerator."""
  path = pathlib.Path(config.workdir) / 'parts' / f'{name}.cpu.npz'
  _call(['cpu', name, str(config.seed), str(path)], None, JAX_PLATFORMS='cpu')
  return records.read_arrays(path)


def _digits(config: Any) -> dict[str, Any]:
  """Float32 NTKs against 40-digit arithmetic."""
  worst = device_checks.digits_of_kernels(config.seed)
  name = max(worst, key=worst.get)
  return {'worst': name, 'difference': worst[name], 'bound': _BOUND,
          'passed': worst[name] <= _BOUND}


def _image(name: str, gradient: bool, config: Any) -> dict[str, Any]:
  with jax.enable_x64(False):
    return image_kernels.rate_row(name, gradient, config)


_IMAGES = {case.name + '_gradient' * gradient: Part(
    functools.partial(_image, case.name, gradient), 200, 'images')
    for case in image_kernels.CASES for gradient in (False, True)}
PARTS: dict[str, Part] = {
    **{f'check_{name}': Part(functools.partial(_check, name), 180, 'checks')
       for name in device_checks.CHECKS},
    'check_40_digits': Part(_digits, 60, 'checks'),
    'ceilings': Part(device_speed.ceilings, 60, 'ceilings'),
    **_IMAGES,
    'dm': Part(device_speed.dm, 90, 'loops'),
    'kip': Part(device_speed.kip, 60, 'loops'),
    'kip_convnet3': Part(functools.partial(
        device_speed.kip, kernel='convnet3_fused', per_class=1, batch=500),
        120, 'loops'),
    'networks': Part(device_speed.networks, 90, 'loops'),
    'shadow_sets': Part(device_speed.shadow_sets, 90, 'loops'),
    'published': Part(device_speed.published, 60, 'loops'),
    'regression': Part(device_speed.regression, 150, 'solves'),
    'attack_100': Part(functools.partial(device_speed.attack, num=100), 90,
                       'attacks'),
    **{f'attack_{num}': Part(functools.partial(
        device_speed.attack, num=num), limit, 'attacks')
       for num, limit in ((500, 120), (1000, 180), (2000, 300))},
}
_TABLES = {
    'checks': ('Differences from the CPU, or from 40 digits', [
        CASE, tables.Column('difference'), tables.Column('bound'),
        tables.Column('passed'), tables.Column('same_bits', 'same bits'),
        tables.Column('worst', 'worst array')]),
    'ceilings': ('What the device reaches', [CASE, *columns(
        'float32_tflops', 'tf32_tflops', 'float64_tflops', 'copy_gb_s')]),
    'images': ('Entries a second of image kernels', [
        CASE, *columns('joint', 'xla', 'fused'),
        ratio('xla_per_joint', 'xla / joint'),
        ratio('fused_per_joint', 'fused / joint'),
        ratio('fused_per_xla', 'fused / xla')]),
    'loops': ('Steps, networks and steps, or sets a second', [
        CASE, *columns('per_s', 'busy')]),
    'solves': ('Exact kernel regression', [
        CASE, tables.Column('examples'), *columns('gram_s', 'solve_s'),
        tables.Column('accuracy'), tables.Column('residual')]),
    'attacks': ('Infinitely wide networks attacked', [
        CASE, tables.Column('images'), tables.Column('below_0.05', '< 0.05'),
        tables.Column('below_0.01', '< 0.01'), *columns('seconds', 'busy')]),
}


def accelerator_suite(config: Any) -> tuple[list[dict], list[str]]:
  """All parts whose name contains one word of `only`, and their tables."""
  # Beside its parts this process must hold nothing of the device's memory.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  words = config.only.split(',')
  chosen = [name for name in PARTS if any(word in name for word in words)]
  if not all(any(word in name for name in PARTS) for word in words):
    raise ValueError(f'`only` must be parts of {", ".join(PARTS)}, with '
                     f'commas between them; got {config.only!r}.')
  folder = pathlib.Path(config.workdir) / 'parts'
  folder.mkdir(parents=True, exist_ok=True)
  # On CPUs the parts would only share the cores.
  workers = 1 if jax.default_backend() == 'cpu' else config.workers
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    rows = list(pool.map(
        lambda name: _row(name, config, folder / f'{name}.json'), chosen))
  shown = []
  for table, (title, wanted) in _TABLES.items():
    part = [row for row, name in zip(rows, chosen)
            if PARTS[name].table == table]
    if part:
      shown.append(tables.render(part, wanted, title=title))
  shown += [f'{row[CASE]} is missing: {row["failed"]}' for row in rows
            if 'failed' in row]
  return rows, shown


def _row(name, config, path) -> dict[str, Any]:
  """Of a file that is there, or of a process that writes it."""
  given = json.dumps(dataclasses.asdict(config))
  key = json.dumps({**json.loads(given), 'workdir': '', 'only': ''})
  if path.exists() and (kept := json.loads(path.read_text('utf-8'))
                        )['config'] == key:
    return _metrics(kept['row'])
  began = time.monotonic()
  limit = PARTS[name].limit
  if jax.default_backend() == 'cpu':
    limit *= _PATIENCE
  try:
    _call(['part', name, given, str(path), key], limit,
          DSR_BENCHMARK_LOCK=str(path.parent / 'lock'),
          XLA_PYTHON_CLIENT_PREALLOCATE='false')
  except subprocess.TimeoutExpired:
    return {CASE: name, 'failed': f'took over {limit:g} s'}
  except subprocess.CalledProcessError as error:
    (path.with_suffix('.err')).write_text(error.stderr or '', 'utf-8')
    last = (error.stderr or '').strip().splitlines()[-1:]
    return {CASE: name, 'failed': ' '.join(last)}
  logging.info('%s: %.0f s', name, time.monotonic() - began)
  return _metrics(json.loads(path.read_text('utf-8'))['row'])


def _metrics(row) -> dict[str, Any]:
  return {key: records.Metric(**value) if isinstance(value, dict) else value
          for key, value in row.items()}


def _call(args, limit, **env) -> None:
  subprocess.run(
      [sys.executable, '-m', _MODULE, *args], check=True, timeout=limit,
      capture_output=True, text=True, env=os.environ | env)


@dataclasses.dataclass(frozen=True)
class _Given:
  """The configuration of the suite, in the process of a part."""

  values: dict[str, Any]

  def __getattr__(self, name: str) -> Any:
    return self.values[name]


def _main(kind: str, name: str, *rest: str) -> None:
  """In the process of a part, or of its reference on the CPU."""
  jax.config.update('jax_enable_x64', True)
  if kind == 'cpu':
    seed, path = rest
    with numerics.pretend_accelerator():
      arrays = device_checks.CHECKS[name][0](int(seed))
    with records.replacing(pathlib.Path(path)) as part:
      with open(part, 'wb') as file:
        np.savez(file, **arrays)
    return
  given, path, key = rest
  began = time.monotonic()
  row = {CASE: name} | PARTS[name].fn(_Given(json.loads(given)))
  row |= {CASE: name, 'all_seconds': time.monotonic() - began}
  plain = {k: v._asdict() if isinstance(v, records.Metric) else v
           for k, v in row.items()}
  with records.replacing(pathlib.Path(path)) as part:
    pathlib.Path(part).write_text(
        json.dumps({'config': key, 'row': plain}), 'utf-8')


if __name__ == '__main__':
  _main(*sys.argv[1:])
