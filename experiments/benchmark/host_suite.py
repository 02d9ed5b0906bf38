"""Many processes on this machine, over loopback, against one of them.

Gram matrix, regression by conjugate gradients and KIP by 1, 2 and 4 processes:
what differs, seconds, and the peak memory of a process. They share the cores,
so that no time can be gained here; what it tells is the cost of being many.
"""
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
from typing import Any

from absl import logging
import numpy as np

from dsr.report import tables
from experiments.benchmark.rows import CASE, columns

NUMBERS = (1, 2, 4)
_ROWS = {'gram': 8_000, 'solve': 3_000, 'distillation': 30_000,
         'regression': 30_000}


def host_suite(config: Any) -> tuple[list[dict], list[str]]:
  """A row for each part and number of processes."""
  parts = [part for part in _ROWS if config.only in part]
  if not parts:
    raise ValueError(f'`only` must be part of one of {", ".join(_ROWS)}; got '
                     f'{config.only!r}.')
  rows = []
  for part in parts:
    with tempfile.TemporaryDirectory() as folder:
      x, y = _data(config, _ROWS[part] // config.shrink)
      np.save(pathlib.Path(folder, 'x.npy'), x)
      np.save(pathlib.Path(folder, 'y.npy'), y)
      alone = None
      for num in NUMBERS:
        told, arrays = _run(part, num, folder)
        alone = alone or arrays
        rows.append({
            'case': f'{part}, {num}',
            'seconds': max(t['seconds'] for t in told),
            'cpu_seconds': sum(t['cpu_seconds'] for t in told),
            'before_mb': max(t['before'] for t in told) / 1e6,
            'peak_mb': max(t['peak'] for t in told) / 1e6,
            'share_mb': max(t['peak'] - t['before'] for t in told) / 1e6,
            'difference': _difference(arrays, alone),
            **{name: float(np.max(arrays[name])) for name in
               ('steps', 'residual') if name in arrays}})
        logging.info('%s', rows[-1])
  wanted = [CASE, *columns('seconds', 'cpu_seconds', 'before_mb', 'peak_mb',
                           'share_mb'), 'steps',
            tables.Column('difference', 'largest difference to one')]
  return rows, [tables.render(
      rows, wanted, title='Processes over loopback; memory of the largest')]


def _data(config, rows):
  """Standardised images (N, D) in float32, and targets of their classes."""
  if config.arrays:
    with np.load(config.arrays) as found:
      x, y = found['x_train'][:rows], found['y_train'][:rows]
  else:
    rng = np.random.default_rng(config.seed)
    x, y = rng.uniform(size=(rows, 784)), np.arange(rows) % 10
  x = x.reshape(rows, -1).astype(np.float32)
  x = (x - x.mean(0)) / x.std()
  return x, np.eye(10)[y] - 0.1


def _run(part, num, folder) -> tuple[list[dict], dict[str, np.ndarray]]:
  """What the processes tell, and their arrays: all rows, or of the first."""
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    port = found.getsockname()[1]
  logging.info('%s by %d processes', part, num)
  workers = [subprocess.Popen(
      [sys.executable, '-m', 'experiments.benchmark.host_worker', str(port),
       str(num), str(i), part, folder]) for i in range(num)]
  try:
    failed = [worker.wait() for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  if any(failed):
    raise RuntimeError(f'{part} by {num} processes ended with {failed}.')
  told, arrays = [], {}
  for i in range(num):
    path = pathlib.Path(folder, f'{part}_{num}_{i}.json')
    told.append(json.loads(path.read_text()))
    with np.load(path.with_suffix('.npz')) as found:
      arrays |= dict(found) if part == 'gram' or i == 0 else {}
    path.with_suffix('.npz').unlink()
  if part == 'gram':
    arrays = {'rows': np.concatenate([arrays[k] for k in sorted(arrays)])}
  return told, arrays


def _difference(arrays, alone) -> float:
  """Largest, over the largest number of each array."""
  return max(float(np.abs(arrays[k] - alone[k]).max() / np.abs(alone[k]).max())
             for k in alone if k not in ('steps', 'residual'))
