"""Jobs: what is kept, what is done again, and what is refused."""
import dataclasses
import json
import os
import time

import numpy as np
import pytest

from dsr import loop
from dsr.runs import contents, jobs, pictures, records, stopwatch


@dataclasses.dataclass(frozen=True)
class Job:
  """As a command has it."""

  workdir: str
  dataset: str = ''
  set: str = ''
  size: int = 1
  seed: int = 0
  fresh: bool = False


def _write(job, status='FINISHED', **extra):
  records.write(job.workdir, config=job, metrics={'done': records.metric(1)},
                contents=contents.of(job), wall_time=1.0,
                extra={'status': status, **extra})


@pytest.fixture
def job(tmp_path):
  """A job that reads a dataset of its own."""
  rng = np.random.default_rng(0)
  path = tmp_path / 'data.npz'
  np.savez(path, x_train=rng.uniform(size=(8, 4, 4)), y_train=np.arange(8) % 2,
           x_test=rng.uniform(size=(4, 4, 4)), y_test=np.arange(4) % 2)
  return Job(str(tmp_path / 'run'), dataset=str(path))


def _change(job):
  arrays = dict(np.load(job.dataset))
  arrays['x_test'][0, 0, 0] = 0.123
  np.savez(job.dataset, **arrays)


def test_kept_are_finished_runs_of_the_same_flags_and_data(job):
  assert jobs.kept(job) is None
  _write(job)
  assert jobs.kept(job)['metrics'] == {'done': (1, 1, 1)}
  assert jobs.kept(dataclasses.replace(job, fresh=True))
  assert jobs.kept(dataclasses.replace(job, size=2)) is None
  _write(job, 'INTERRUPTED')
  assert jobs.kept(job) is None
  _write(job)
  _change(job)
  assert jobs.kept(job) is None
  assert jobs.differences(jobs.recorded(job), job) == [
      'the contents of `dataset` have changed']


def test_finished_runs_are_not_made_again_unless_something_is_new(
    job, tmp_path):
  made = []

  def run(config):
    made.append(config)
    _write(config)

  for _ in range(2):
    jobs.finished(job, run)
  assert len(made) == 1
  jobs.finished(dataclasses.replace(job, size=2), run)
  jobs.finished(job, run)
  assert len(made) == 3
  _change(job)
  jobs.finished(job, run)
  assert len(made) == 4
  jobs.finished(job, run, fresh=True)
  assert len(made) == 5
  other = tmp_path / 'other.npy'
  np.save(other, np.zeros(1))
  os.utime(other, (time.time() + 60,) * 2)
  jobs.finished(job, run, after=[other])
  assert len(made) == 6


def test_checkpoints_of_other_flags_are_forgotten(job, tmp_path):
  """As those of a run that has failed, and is made with other flags."""
  left = tmp_path / 'run' / 'checkpoints' / '7'
  left.mkdir(parents=True)

  def run(config):
    if left.exists():
      raise loop.OtherRun('`fingerprint` must match the checkpoint')
    _write(config)

  assert jobs.finished(job, run)['config']['size'] == 1


def test_an_interrupted_run_interrupts_the_larger_one(job):
  with pytest.raises(KeyboardInterrupt):
    jobs.finished(job, lambda config: _write(config, 'INTERRUPTED'))


@pytest.mark.errors
def test_a_workdir_is_not_for_two(job):
  claim = lambda **fields: jobs.claim(
      dataclasses.replace(job, **fields), only=('dataset', 'size'))
  claim()
  _write(job)
  claim(seed=7)
  with pytest.raises(ValueError, match='`size` was 1, is 2.*by `--fresh`'):
    claim(size=2)
  _change(job)
  with pytest.raises(ValueError, match='contents of `dataset` have changed'):
    claim()
  claim(fresh=True)
  assert jobs.recorded(job) is None


@pytest.mark.errors
@pytest.mark.parametrize('text', ['{"format": 1, "con', '', '\xff', '[]'])
def test_a_damaged_record_is_one_line_and_fresh_gets_past_it(job, text):
  _write(job)
  path = os.path.join(job.workdir, 'record.json')
  with open(path, 'w', encoding='latin-1') as file:
    file.write(text)
  with pytest.raises(ValueError, match='record.json') as error:
    jobs.claim(job)
  assert '\n' not in str(error.value)
  jobs.claim(dataclasses.replace(job, fresh=True))
  assert not os.path.exists(path)
  _write(job)
  assert jobs.kept(job)


def test_contents_of_a_set_do_not_depend_on_when_it_was_written(tmp_path):
  job = Job(str(tmp_path / 'run'), set=str(tmp_path))
  found = []
  for number in (1.0, 1.0, 2.0):
    records.write(tmp_path, config=job, metrics={},
                  arrays={'images': np.full(300, number)})
    os.utime(tmp_path / 'distilled.npz', (time.time() + len(found),) * 2)
    found.append(contents.of(job)['set'])
    time.sleep(1.1)  # ZIP writes down when, to two seconds.
  assert found[0] == found[1] != found[2]


def test_hostile_paths_have_no_contents_and_no_traceback(tmp_path):
  (tmp_path / 'a.npz').write_bytes(b'PK\x05\x06' + bytes(18) + b'rest')
  for path in ('~nouser_of_that_name/x.npz', str(tmp_path / 'a.npz'), 'none'):
    contents.of(Job(str(tmp_path), set=path))


def test_stopwatch_adds_up_sessions_and_stands_still_at_the_end(tmp_path):
  watch = stopwatch.Stopwatch(tmp_path)
  watch.leave_out(-7.0)
  assert watch.save(now=True) == pytest.approx(7, abs=1)
  assert stopwatch.Stopwatch(tmp_path).seconds < 1  # Nothing to go on from.
  (tmp_path / 'checkpoints').mkdir()
  again = stopwatch.Stopwatch(tmp_path)
  assert again.seconds == pytest.approx(7, abs=1)
  seconds = again.finish()
  later = stopwatch.Stopwatch(tmp_path)
  later.leave_out(-30.0)
  assert later.seconds == later.finish() == seconds


@pytest.mark.errors
@pytest.mark.parametrize('text', ['', '{"sec', '[]', '{"seconds": "x"}'])
def test_a_damaged_clock_is_named(tmp_path, text):
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / 'clock.json').write_text(text)
  with pytest.raises(ValueError, match='clock.json: start over by `--fresh`'):
    stopwatch.Stopwatch(tmp_path)


def test_a_picture_that_fails_loses_nothing(job):
  _write(job, note=1)

  def fail(path):
    raise OSError('no room')

  drawn = pictures.draw(job.workdir, {
      'a.png': fail, 'b.png': lambda path: path.write_bytes(b'x')})
  assert [path.name for path in drawn] == ['b.png']
  record = records.read(job.workdir)
  assert record['extra']['failed_pictures'] == {'a.png': 'OSError: no room'}
  assert record['extra']['note'] == 1
  assert json.loads(json.dumps(record['config'])) == record['config']
