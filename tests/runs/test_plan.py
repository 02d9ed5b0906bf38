"""Plans: their order, what they refuse, what they tell, what they cost."""
import json
import pathlib
import time

import pytest

from dsr.runs import plan, plan_table, records
from dsr.runs.engines import schedule, task
from tests.runs.engines import tiny


def _names(made):
  return [job.name for job in made.jobs]


def test_a_job_comes_after_those_that_it_reads_from(tmp_path):
  made = plan.make(tiny.jobs(tmp_path))
  assert _names(made) == ['b', 'd', 'a', 'c']  # The given order, if it may.
  assert made.after == ((), (0,), (), (2,))
  assert made.outside == ((),) * 4
  again = plan.make(made.jobs)
  assert again.jobs == made.jobs


def test_the_nearest_folder_is_the_one_that_is_read(tmp_path):
  config = lambda name, **own: tiny.Config(str(tmp_path / name), **own)
  job = lambda name, *reads: plan.Job(
      name, tiny.run, config(name), tuple(str(tmp_path / r) for r in reads))
  made = plan.make([
      job('set'), job('set/net'), job('file', 'set/distilled.npz'),
      job('other', 'set/net/record.json', 'setting/x.npz')])
  assert made.after == ((), (), (0,), (1,))
  assert made.outside == ((), (), (), (str(tmp_path / 'setting/x.npz'),))


@pytest.mark.errors
def test_circles_and_shared_folders_are_refused(tmp_path):
  a, b = str(tmp_path / 'a'), str(tmp_path / 'b')
  job = lambda name, folder, *reads: plan.Job(
      name, tiny.run, tiny.Config(folder), reads)
  with pytest.raises(ValueError, match="circle, got 'x', 'y'"):
    plan.make([job('x', a, b), job('y', b, a), job('z', str(tmp_path / 'c'))])
  with pytest.raises(ValueError, match="circle, got 'x'"):
    plan.make([job('x', a, a)])
  with pytest.raises(ValueError, match="workdir each, got 'x' and 'y'"):
    plan.make([job('x', a), job('y', f'{b}/../a')])


@pytest.mark.errors
@pytest.mark.parametrize(('flag', 'message'), [
    ('cpus=1', '`needs` must be one of cores'),
    ('cores=0', '`needs cores` must be'), ('gpus=-1', '`needs gpus` must be'),
    ('cores=many', '`needs` must give cores as int'),
    ('memory=0', '`needs memory` must be'),
    ('minutes=0', '`needs minutes` must be')])
def test_needs_that_no_machine_has(flag, message):
  with pytest.raises(ValueError, match=message):
    plan.parse_needs(flag)


def test_needs_are_read():
  assert plan.parse_needs('cores=4, memory=1.5,gpus=1,minutes=90') == (
      plan.Needs(4, 1.5, 1, 90))
  assert plan.parse_needs('') == plan.Needs()


def test_times_come_from_records_or_are_not_told(tmp_path):
  made = plan.make(tiny.jobs(tmp_path))
  states = lambda: dict(zip(_names(made), plan_table.rows(made)))
  assert set(states().values()) == {('missing', None, '')}
  job = next(job for job in made.jobs if job.name == 'a')
  tiny.run(job.config)
  assert states() == {
      'a': ('finished', 0, ''), 'b': ('missing', 2, ''),
      'c': ('missing', None, ''), 'd': ('missing', None, '')}
  task.fail(made.jobs[0].config, 'OSError: no room', 'Traceback ...')
  assert states()['b'] == ('failed', 2, 'OSError: no room')
  text = plan_table.text(made)
  assert 'failed: OSError: no room' in text
  assert '4 jobs, 3 to be made: by earlier records 2 s' in text
  assert 'how long 2 take is unknown' in text
  for i, made_job in enumerate(json.loads(plan_table.as_json(made))['jobs']):
    assert made_job['command'] == records.command(made.jobs[i].config)
    assert made_job['command'] in text
    assert tuple(made_job['after']) == made.after[i]
    assert made_job['config'] == vars(made.jobs[i].config)
  fresh = plan.make(tiny.jobs(tmp_path), fresh=True)
  assert plan_table.rows(fresh)[2] == ('stale', 2, '')
  assert not (tmp_path / 'd').exists()


def test_what_reads_a_job_that_is_made_again_is_stale(tmp_path):
  made = plan.make(tiny.jobs(tmp_path))
  for job in made.jobs:
    tiny.run(job.config)
  assert {row.state for row in plan_table.rows(made)} == {'finished'}
  path = pathlib.Path(made.jobs[2].config.workdir, 'record.json')
  assert made.jobs[2].name == 'a'
  path.unlink()
  assert [row.state for row in plan_table.rows(made)] == [
      'finished', 'finished', 'missing', 'stale']


class Instant:
  """An engine whose jobs end at once."""

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    pass

  def room(self):
    return 4

  def start(self, positions):
    self.started = list(positions)

  def wait(self):
    return [(i, '') for i in self.started]


def test_ten_thousand_jobs_are_little_work(tmp_path):
  shadows = [plan.Job(f'shadow {i}', tiny.run,
                      tiny.Config(str(tmp_path / f'shadow_{i}'), seed=i))
             for i in range(9_900)]
  attacks = [plan.Job(f'attack {k}', tiny.run,
                      tiny.Config(str(tmp_path / f'attack_{k}')),
                      tuple(job.config.workdir
                            for job in shadows[99 * k:99 * k + 99]))
             for k in range(100)]
  began = time.process_time()
  made = plan.make(attacks + shadows)
  told = plan_table.text(made)
  planned = time.process_time() - began
  assert sum(map(len, made.after)) == 9_900
  assert 'shadow_9899' in told
  began = time.process_time()
  assert schedule.make(made, Instant()) == {}
  assert planned < 10
  assert time.process_time() - began < 10  # 1 ms a job.
