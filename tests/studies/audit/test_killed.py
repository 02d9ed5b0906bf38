"""An audit that is killed at random moments ends as one that was left alone."""
import dataclasses
import json
import os
import pathlib
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dsr.runs import records
from dsr.studies.audit import audit
from tests.studies.audit.test_audit import SMALL

KILLS = 20
ROOT = pathlib.Path(__file__).resolve().parents[3]
# In the names of what no two runs share.
_TIMES = ('seconds', 'date', 'wall_time', 'load_average')


def _start(config, log):
  """The command, and the moment at which it began with its first part."""
  _, *words = shlex.split(records.command(config))
  process = subprocess.Popen(
      [sys.executable, *words], cwd=ROOT, stderr=log, stdout=log,
      start_new_session=True)
  before = log.tell()
  while process.poll() is None and b'results go to' not in _new(log, before):
    time.sleep(0.05)
  return process, time.monotonic()


def _new(log, start):
  log.seek(start)
  return log.read()


def _paths(folder):
  return [path for path in sorted(folder.rglob('*.json'))
          if path.name in ('record.json', 'cells.json')]


def _timed(record, other):
  """`record` with the times of `other`, at any depth."""
  if not isinstance(record, dict) or not isinstance(other, dict):
    return record
  return {key: other.get(key) if any(t in key for t in _TIMES) else
          _timed(value, other.get(key)) for key, value in record.items()}


def _with_times_of(kept, folder):
  """Gives the records in `folder` the dates and seconds of those in `kept`."""
  for path in _paths(folder):
    theirs = json.loads((kept / path.relative_to(folder)).read_text())
    record, stat = json.loads(path.read_text()), path.stat()
    path.write_text(json.dumps(_timed(record, theirs), indent=2) + '\n')
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _check(config, folder, kept):
  """Records, arrays, pictures and the page are those in `kept`."""
  _with_times_of(kept, folder)
  sides = [[path.relative_to(root) for path in _paths(root)]
           for root in (folder, kept)]
  assert sides[0] == sides[1]
  for name in sides[0]:
    ours, theirs = (json.loads((root / name).read_text())
                    for root in (folder, kept))
    assert ours == theirs, name
    if ours['arrays']:
      one, other = (np.load((root / name).parent / ours['arrays'])
                    for root in (folder, kept))
      assert set(one) == set(other)
      for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=str(name))
  audit.run(config)  # Every part is kept; the page is made of the records.
  for name in ('report.html', 'report.md', 'table.csv', *(
      p.name for p in kept.glob('*.png'))):
    assert (folder / name).read_bytes() == (kept / name).read_bytes(), name
  assert not list(folder.rglob('*.part')) + list(folder.rglob('.lock*'))


@pytest.mark.slow
def test_killed_audits_end_as_one_that_was_left_alone(tmp_path, monkeypatch):
  """Both have one path, which the page names in its commands."""
  monkeypatch.setenv('DSR_COMPILED', str(tmp_path / 'compiled'))
  folder, kept = tmp_path / 'audit', tmp_path / 'kept'
  config = dataclasses.replace(
      SMALL, lira_shadows=8, lira_networks='', leak_train=6,
      leak_methods='all,random', leak_regimes='infinite', workdir=str(folder))
  moments = random.Random(0)
  with open(tmp_path / 'log', 'a+b') as log:
    process, began = _start(config, log)
    assert process.wait() == 0, _new(log, 0).decode()
    whole = time.monotonic() - began
    audit.run(config)  # As after `_with_times_of`: the record of the page.
    folder.rename(kept)
    done, audits = [], 0
    while len(done) < KILLS or not audits:
      process, began = _start(config, log)
      try:  # A tenth of the audit on average, so that each gets on.
        if len(done) >= KILLS:
          process.wait()
        else:
          process.wait(moments.uniform(0, whole / 5))
      except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done.append(len(list(folder.rglob('record.json'))))
        (tmp_path / 'kills.json').write_text(json.dumps(done))
        continue
      assert process.returncode == 0, _new(log, 0).decode()[-4000:]
      _check(config, folder, kept)
      audits += 1
      shutil.rmtree(folder)
  assert len(set(done)) > 3, done  # Killed at different stages.
