"""A link between two hosts that is cut in the middle of a solve."""
import json
import pathlib
import time

import jax
import numpy as np
import pytest

from dsr import krr
from dsr.runs import distributed
from tests import many_hosts, network

_CUT = 20.0  # Seconds.
_SLACK = 60.0  # Of the network's own patience, beside the heartbeat's.


def _step(folder: pathlib.Path) -> int:
  """Of the newest checkpoint."""
  found = folder / 'checkpoints'
  names = [p.name for p in found.iterdir()] if found.is_dir() else []
  return max((int(name) for name in names if name.isdigit()), default=0)


@pytest.mark.slow
def test_a_cut_link_ends_the_solve_in_time_and_it_goes_on(tmp_path):
  folder = tmp_path / 'run'
  with network.two(tmp_path) as hosts:
    if hosts is None:
      pytest.skip('needs root on Linux, with `ip` and `unshare`')
    start = lambda every: [
        hosts.start(i, 'tests.many_hosts:lengthy', str(folder), every)
        for i in range(2)]
    processes = start('1')
    try:
      while _step(folder) < 5:
        assert all(p.poll() is None for p in processes)
        time.sleep(0.2)
      hosts.link('down')
      cut = time.monotonic()
      time.sleep(_CUT)
      hosts.link('up')
      limit = cut + distributed.HEARTBEAT + _SLACK - time.monotonic()
      told = [p.communicate(timeout=limit) for p in processes]
    finally:
      for process in processes:
        process.kill()
    lost = [err for p, (_, err) in zip(processes, told) if p.returncode]
    if lost:  # Else the network has brought it over.
      assert any('has lost another one' in err or 'another task died' in err
                 for err in lost)
      processes = start('500')
      told = [p.communicate(timeout=600) for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
  found = json.loads(told[0][0].strip().splitlines()[-1])
  data, ahead = many_hosts.examples()
  want = jax.jit(krr.fit, static_argnums=0)(
      many_hosts.SQUARE, data, ridge=1e-9)(ahead)
  assert found['converged']
  np.testing.assert_allclose(found['outputs'], want, atol=1e-3)
