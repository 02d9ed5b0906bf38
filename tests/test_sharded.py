"""Eight devices give what one gives; see `tests.sharded` for the checks."""
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_eight_devices_give_what_one_gives():
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT),
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}
  done = subprocess.run(
      [sys.executable, '-m', 'tests.sharded'], cwd=ROOT, env=environment,
      capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr[-4000:]
