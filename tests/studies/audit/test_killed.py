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
_TIMES = 'seconds'  # In the names of metrics that are times.


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


def _records(folder):
  """Path -> record, of all parts; the times are taken out."""
  found = {}
  for path in sorted(folder.rglob('*.json')):
    if path.name in ('record.json', 'cells.json'):
      record = json.loads(path.read_text())
      record['date'] = record['wall_time'] = None
      for name in [n for n in record['metrics'] if _TIMES in n]:
        record['metrics'][name] = None
      found[str(path.relative_to(folder))] = record
  return found


def _with_times_of(other, folder):
  """Gives the records in `folder` the dates and seconds of those in `other`."""
  for path in folder.rglob('*.json'):
    if path.name in ('record.json', 'cells.json'):
      theirs = json.loads((other / path.relative_to(folder)).read_text())
      record = json.loads(path.read_text())
      record |= {key: theirs[key] for key in ('date', 'wall_time')}
      record['metrics'] |= {name: value for name, value in
                            theirs['metrics'].items() if _TIMES in name}
      stat = path.stat()
      path.write_text(json.dumps(record, indent=2) + '\n')
      os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _check(config, folder, kept):
  """Records, arrays, pictures and the page are those in `kept`."""
  ours, theirs = _records(folder), _records(kept)
  assert ours.keys() == theirs.keys()
  for name, record in theirs.items():
    assert ours[name] == record, name
    if record['arrays']:
      sides = [np.load((root / name).parent / record['arrays'])
               for root in (folder, kept)]
      assert set(sides[0]) == set(sides[1])
      for key in sides[0]:
        np.testing.assert_array_equal(*(s[key] for s in sides), err_msg=name)
  _with_times_of(kept, folder)
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
