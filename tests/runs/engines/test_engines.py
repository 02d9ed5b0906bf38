"""Engines: whatever makes a job, its record is the same."""
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from dsr.runs import jobs, parts, plan, plan_table, records, store
from dsr.runs.engines import flags, local, schedule, stored, task
from tests.runs.engines import tiny

_OWN = ('date', 'wall_time')


def _record(folder):
  found = records.read(folder)
  return {name: found[name] for name in found if name not in _OWN}


def _calls(root):
  return {path.parent.name: len(path.read_text())
          for path in root.glob('*/calls.txt')}


def _here(root):
  """The records of a study that makes its jobs itself."""
  made = plan.make(tiny.jobs(root))
  for job in made.jobs:
    jobs.finished(job.config, job.run, after=job.reads)
  found = {job.name: _record(job.config.workdir) for job in made.jobs}
  for job in made.jobs:
    jobs.forget(job.config.workdir)
    pathlib.Path(job.config.workdir, 'calls.txt').unlink()
  return found


def test_workers_make_the_records_that_one_process_makes(tmp_path):
  expected = _here(tmp_path)
  gone = tmp_path / 'there'
  made = plan.make(tiny.jobs(tmp_path, error=str(gone)))
  errors = schedule.make(made, local.Local(made, 2))
  failed = f'ValueError: `error` must exist, got {gone}.'
  assert errors == {0: failed, 1: "needs 'b', which failed"}
  assert plan_table.failures(made, errors) == (
      f'b: {failed} ({tmp_path / "b"})\nd: needs \'b\', which failed')
  assert f'failed: {failed}' in plan_table.text(made)
  assert 'Traceback' in (tmp_path / 'b' / 'failed.txt').read_text()
  assert _calls(tmp_path) == {'a': 1, 'b': 1, 'c': 1}
  for name in 'ac':
    assert _record(tmp_path / name) == expected[name]
  gone.touch()  # Now b can be made: it, and what waits for it, alone.
  assert schedule.make(made, local.Local(made, 1)) == {}
  assert _calls(tmp_path) == {'a': 1, 'b': 2, 'c': 1, 'd': 1}
  assert not (tmp_path / 'b' / 'failed.txt').exists()
  assert _record(tmp_path / 'd') == expected['d']
  assert schedule.make(made, local.Local(made, 1)) == {}  # Nothing is started.
  assert _calls(tmp_path) == {'a': 1, 'b': 2, 'c': 1, 'd': 1}


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_job_alone(tmp_path):
  first, *others = tiny.jobs(tmp_path)[2:]
  lost = plan.Job('lost', tiny.killed, first.config)
  made = plan.make([lost, *others])
  assert schedule.make(made, local.Local(made, 1)) == {
      0: 'its worker ended by SIGKILL'}
  assert _calls(tmp_path) == {'a': 1}
  assert plan_table.rows(made)[0].state == 'failed'
  assert schedule.make(made, local.Local(made, 1)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'status'), [
    (signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=['int', 'term'])
def test_signals_stop_the_workers(tmp_path, number, status):
  code = f'''
import sys, signal
from dsr.runs import plan
from dsr.runs.engines import local, schedule
from tests.runs.engines import tiny
signal.signal(signal.SIGINT, signal.default_int_handler)
made = plan.make([plan.Job(n, tiny.slow, tiny.Config({str(tmp_path)!r} + n))
                  for n in ('/x', '/y')])
try:
  schedule.make(made, local.Local(made, 2))
except KeyboardInterrupt:
  sys.exit(130)
'''
  with subprocess.Popen([sys.executable, '-c', code]) as run:
    deadline = time.monotonic() + 100
    while len(list(tmp_path.glob('*/runs'))) < 2:
      assert time.monotonic() < deadline
      time.sleep(0.1)
    run.send_signal(number)
    run.wait(60)
  assert run.returncode == status
  assert len(list(tmp_path.glob('*/stopped'))) == 2
  assert not list(tmp_path.glob('*/.lock'))
  assert not list(tmp_path.glob('*/failed.txt'))


def test_workers_share_cores_and_accelerators(monkeypatch):
  monkeypatch.setattr(local.os, 'sched_getaffinity', lambda _: {0, 1, 4, 5, 6},
                      raising=False)
  assert local.shares(2) == [[0, 1], [4, 5]]
  assert local.shares(7)[5:] == [[0], [1]]
  with pytest.raises(ValueError, match='`workers` must be at least 1 and at '
                     'most 2, with 5 cores here and 2 a job, got 3'):
    local.shares(3, 2)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,3,7')
  monkeypatch.setenv('OMP_NUM_THREADS', '9')
  there = local.environment(1, local.shares(2), 1)
  assert there['CUDA_VISIBLE_DEVICES'] == '3'
  assert (there['NPROC'], there['OMP_NUM_THREADS']) == ('2', '9')
  assert local.environment(1, local.shares(2), 0)[
      'CUDA_VISIBLE_DEVICES'] == '2,3,7'


def test_flags_stand_apart_from_those_of_the_study():
  how, left = flags.parse(['x', '--plan', '--seed=1', '--workers=2'])
  assert left == ['x', '--seed=1']
  assert how == flags.Flags(plan='text', workers='2')
  assert flags.parse(['x', '--plan=json'])[0].plan == 'json'
  assert flags.check(how).engine == 'local'
  assert flags.check(flags.Flags(workers='1', engine='local')).engine == ''
  assert flags.check(flags.Flags(engine='ray')).engine == 'ray'


@pytest.mark.errors
@pytest.mark.parametrize(('how', 'message'), [
    ({'plan': 'xml'}, '`plan` must be one of text'),
    ({'engine': 'k8s'}, '`engine` must be one of local'),
    ({'workers': '0'}, '`workers` must be an integer of at least 1'),
    ({'needs': 'cores'}, '`needs` must give cores as int')])
def test_flags_out_of_their_range(how, message):
  with pytest.raises(ValueError, match=message):
    flags.check(flags.Flags(**how))


class Here:
  """Makes each job in this process, as a worker would."""

  def __init__(self, plan, workers):
    del workers
    self._tasks = task.tasks(plan)

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    pass

  def room(self):
    return 1

  def start(self, positions):
    self._started = positions

  def wait(self):
    return [(i, task.do(self._tasks(i))) for i in self._started]


@pytest.mark.parametrize('engine', [
    Here, pytest.param(local.Local, marks=pytest.mark.slow)])
def test_workers_without_a_common_disk_meet_in_a_store(
    tmp_path, monkeypatch, engine):
  monkeypatch.setenv('DSR_COMPILED', 'off')
  monkeypatch.setattr(local, 'Local', engine)
  root, url = pathlib.Path('out'), f'file://{tmp_path}/store'
  for machine in ('one', 'other'):
    (tmp_path / machine).mkdir()
  monkeypatch.chdir(tmp_path / 'one')
  expected = _here(root)
  how = flags.check(flags.Flags(workers='2', store=url))
  config = tiny.Config('out')
  study = lambda config: parts.make(tiny.jobs(root, error='there'))
  run = lambda: flags.run(
      how, config, lambda config: tiny.jobs(root, error='there'), study)
  with pytest.raises(parts.Incomplete, match='`error` must exist, got there'):
    run()
  assert _calls(root) == {'a': 1, 'c': 1}  # That of b is in the store.
  monkeypatch.chdir(tmp_path / 'other')
  pathlib.Path('there').touch()  # It is named by no flag that is copied.
  with pytest.raises(parts.Incomplete):
    run()
  assert _calls(root) == {'a': 1, 'b': 1, 'c': 1}  # As brought at first.
  made = plan.make(tiny.jobs(root), store=url)
  assert schedule.make(made, stored.Stored(local.Local(made, 1), made)) == {}
  assert _calls(root) == {'a': 1, 'b': 3, 'c': 1, 'd': 1}
  assert not list(root.rglob('failed.txt'))
  for name in 'abcd':
    assert _record(root / name) == expected[name]


@pytest.mark.errors
def test_paths_in_a_store_are_relative(tmp_path):
  made = plan.make(tiny.jobs(tmp_path), store=f'file://{tmp_path}')
  with pytest.raises(ValueError, match='`store` needs paths below the current'):
    stored.Stored(None, made)
  with pytest.raises(ValueError, match='`store` must be a URL such as s3://'):
    store.Store('nothing://x')


class Failing(Here):
  """An engine without processes, all of whose jobs fail."""

  def __init__(self, plan, workers):
    assert workers == 2
    super().__init__(plan, workers)

  def wait(self):
    return [(i, 'OSError: no room') for i in self._started]


def test_a_command_whose_jobs_fail_ends_with_a_line_for_each(
    tmp_path, monkeypatch):
  monkeypatch.setattr(local, 'Local', Failing)
  how = flags.check(flags.Flags(workers='2'))
  told = []

  def study(config):
    told.append(config)
    parts.make(tiny.jobs(tmp_path))  # None is tried again.

  with pytest.raises(parts.Incomplete) as end:
    flags.run(how, tiny.Config(str(tmp_path)),
              lambda config: tiny.jobs(tmp_path), study)
  assert len(told) == 1
  assert not list(tmp_path.rglob('calls.txt'))
  assert str(end.value).splitlines() == [
      f'b: OSError: no room ({tmp_path / "b"})',
      f'a: OSError: no room ({tmp_path / "a"})',
      "d: needs 'b', which failed", "c: needs 'a', which failed",
      'error: 4 of 4 jobs are missing; the same command makes them']


def test_after_fresh_jobs_the_study_keeps_their_records(tmp_path):
  config = tiny.Config(str(tmp_path), fresh=True)
  how = flags.check(flags.Flags(workers='2'))
  assert flags.run(how, config, lambda config: [], lambda config: config
                   ) == tiny.Config(str(tmp_path))


def _made_by(tmp_path, engine):
  """The jobs of a plan, one of them killed once, and one preempted."""
  expected = _here(tmp_path)
  given = tiny.jobs(tmp_path)
  made = plan.make([*given[:2], plan.Job('b', tiny.killed, given[2].config),
                    plan.Job('a', tiny.preempted, given[3].config)])
  assert schedule.make(made, engine(made)) == {}
  for name in 'abcd':
    assert _record(tmp_path / name) == expected[name]
  # After the SIGTERM it goes on from its checkpoint: no step is made twice.
  assert (tmp_path / 'a' / 'steps.txt').read_text().splitlines() == [
      '[1, 2, 3]', '[4, 5, 6]']


@pytest.mark.slow
def test_slurm_by_the_local_executor_of_submitit(tmp_path):
  pytest.importorskip('submitit')
  from dsr.runs.engines import slurm

  _made_by(tmp_path, lambda made: slurm.Slurm(
      made, folder=tmp_path, cluster='local'))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # Of ray.
def test_ray(tmp_path):
  pytest.importorskip('ray')
  from dsr.runs.engines import ray

  _made_by(tmp_path, lambda made: ray.Ray(made, 2))
