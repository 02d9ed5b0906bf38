"""One writer a folder: refused while it lives, taken over once it is dead."""
import json
import os
import subprocess
import sys
import time

import pytest

from dsr.runs import lock

_HOLD = ('import sys, time; from dsr.runs import lock\n'
         'with lock.held(sys.argv[1]):\n'
         '  print("held", flush=True); time.sleep(60)')


def _holder(folder):
  run = subprocess.Popen([sys.executable, '-c', _HOLD, str(folder)],
                         stdout=subprocess.PIPE, text=True)
  assert run.stdout.readline() == 'held\n'
  return run


def test_the_second_comer_is_told_who_was_first(tmp_path):
  run = _holder(tmp_path)
  try:
    with pytest.raises(BlockingIOError, match=f'process {run.pid} on '):
      with lock.held(tmp_path):
        raise AssertionError
  finally:
    run.kill()
    run.communicate()
  with lock.held(tmp_path):  # It died without a word.
    owner = json.loads((tmp_path / '.lock').read_text())
    assert owner['process'] == os.getpid()
  assert not list(tmp_path.iterdir())


def test_one_process_may_lock_twice(tmp_path):
  with lock.held(tmp_path):
    with lock.held(tmp_path):
      pass
    assert (tmp_path / '.lock').exists()
  assert not (tmp_path / '.lock').exists()


def test_of_many_that_start_at_once_one_wins(tmp_path):
  code = ('import sys, time; from dsr.runs import lock\n'
          'while time.time() < float(sys.argv[2]): pass\n'
          'try:\n'
          '  with lock.held(sys.argv[1]): time.sleep(1.5)\n'
          'except BlockingIOError: sys.exit(7)')
  (tmp_path / '.lock').write_text(json.dumps({  # Of a process that is gone.
      'host': os.uname().nodename, 'process': 2**22 + 1, 'started': '1',
      'token': 'x', 'since': 'long ago'}))
  start = str(time.time() + 12)
  runs = [subprocess.Popen([sys.executable, '-c', code, str(tmp_path), start])
          for _ in range(4)]
  assert sorted(run.wait() for run in runs) == [0, 7, 7, 7]
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('age', 'dead'), [(10, False), (600, True)])
def test_a_lock_of_another_host_lives_by_its_touch(tmp_path, age, dead):
  path = tmp_path / '.lock'
  path.write_text(json.dumps({'host': 'elsewhere', 'process': 1, 'token': 'x',
                              'started': '1', 'since': 'then'}))
  os.utime(path, (time.time() - age,) * 2)
  if dead:
    with lock.held(tmp_path):
      pass
  else:
    with pytest.raises(BlockingIOError, match='on elsewhere'):
      with lock.held(tmp_path):
        raise AssertionError


def test_a_refused_run_leaves_no_folder(tmp_path):
  with lock.held(tmp_path / 'a' / 'b'):
    pass
  assert not list(tmp_path.iterdir())
