"""One process of the suite `hosts`: makes a part, leaves what it found.

`host_suite` starts it as a module, with PORT PROCESSES PROCESS PART FOLDER. The
folder has x.npy and y.npy, which are mapped, not read: each process takes
its rows alone.
"""
import json
import pathlib
import re
import sys
import time

import jax
import numpy as np
import optax

from dsr import hosts, kernels, krr, loop
from dsr.distill import kip, support, targets
from dsr.runs import distributed
from dsr.types import Examples

SIDE = 1024  # Makes tiles of 1000 of 8000 rows, of 4000 and of 2000.
# Of N^2 entries each: one step, and the residual after it.
REGRESSION = {'ridge': 1.0, 'rank': 20, 'max_steps': 1}
SOLVE = {'ridge': 1.0, 'rank': 100, 'tol': 1e-6}
STEPS = 50  # Of KIP.


def gram(x, y):
  """Rows of the matrix, in tiles that are whole for 1, 2 and 4 processes."""
  del y
  side = SIDE * len(x) // 8000
  found = kernels.gram(kernels.fcn(2), x, tile_bytes=6 * 4 * side**2)
  return {f'rows_{shard.index[0].start or 0:09d}': shard.data
          for shard in jax.block_until_ready(found).addressable_shards}


def solve(x, y):
  """Duals by conjugate gradients, until they have converged."""
  return regression(x, y, **SOLVE)


def regression(x, y, **options):
  """Duals by the first steps of conjugate gradients."""
  fcn1, data = kernels.fcn(1), Examples(x, y)
  predict = krr.fit_on_hosts(fcn1, data, **(options or REGRESSION))
  return {'dual': hosts.gathered(predict.dual)[:len(x)],
          'steps': predict.info.steps, 'residual': predict.info.residual}


def distillation(x, y):
  """Images after 50 steps of KIP."""
  on = hosts.mesh() if hosts.several() else None
  solver = kip.kip(kernels.fcn(1), optax.adam(0.04), batch_size=2000, on=on)
  data = targets.targets(x, y, np.argmax(y, 1), on=on)
  first = support.support(np.asarray(x[:100]), np.asarray(y[:100]))
  state = solver.init(jax.random.key(0), first)
  if on is not None:
    state = hosts.spread(state, on)
  result = loop.run(solver.step, state, data, num_steps=STEPS, chunk=10)
  return {'images': hosts.own(result.state).support.x,
          'loss': result.infos.loss}


PARTS = {'gram': gram, 'solve': solve, 'regression': regression,
         'distillation': distillation}


def main(port, num, process, part, folder):
  jax.config.update('jax_enable_x64', True)
  distributed.start(distributed.Flags(f'127.0.0.1:{port}', num, process), {})
  folder = pathlib.Path(folder)
  x, y = (np.load(folder / f'{name}.npy', mmap_mode='r') for name in 'xy')
  before, began = _memory('VmRSS'), time.monotonic()
  cpu = time.process_time()
  arrays = PARTS[part](x, y)
  told = {'seconds': time.monotonic() - began,
          'cpu_seconds': time.process_time() - cpu,
          'before': before, 'peak': _memory('VmHWM')}
  out = folder / f'{part}_{num}_{process}'
  np.savez(out.with_suffix('.npz'), **{k: np.asarray(a) for k, a in
                                       arrays.items()})
  out.with_suffix('.json').write_text(json.dumps(told))


def _memory(field: str) -> int:
  """Of this process, in bytes."""
  status = pathlib.Path('/proc/self/status').read_text('ascii')
  return 1024 * int(re.search(rf'{field}:\s+(\d+) kB', status)[1])


if __name__ == '__main__':
  main(*sys.argv[1:])
