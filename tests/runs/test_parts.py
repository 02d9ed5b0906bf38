"""Jobs in one process: one that fails stops what needs it, and nothing else."""
import pytest

from dsr.runs import jobs, parts, plan_table, progress, records
from tests.runs.engines import tiny


def _made(root, **fields):
  told = progress.Progress('study', [('', name) for name in 'bdac'], {'': 1})
  return parts.make(tiny.jobs(root, **fields), told=told)


def _calls(root):
  return {path.parent.name: len(path.read_text())
          for path in root.glob('*/calls.txt')}


def test_others_go_on_and_the_next_call_makes_what_is_missing(tmp_path):
  gone = tmp_path / 'there'
  made = _made(tmp_path, error=str(gone))
  failed = f'ValueError: `error` must exist, got {gone}.'
  assert made.missing == {'b': failed, 'd': "needs 'b', which failed"}
  assert _calls(tmp_path) == {'a': 1, 'b': 1, 'c': 1}
  assert [made.record(job.config) is None for job in made.plan.jobs] == [
      True, True, False, False]
  assert made.note.startswith('Missing, as 2 of 4 jobs')
  assert failed in made.note
  assert f'failed: {failed}' in plan_table.text(made.plan)
  with pytest.raises(parts.Incomplete) as end:
    made.end()
  assert str(end.value).splitlines() == [
      f'b: {failed} ({tmp_path / "b"})', "d: needs 'b', which failed",
      'error: 2 of 4 jobs are missing; the same command makes them']
  gone.touch()
  made = _made(tmp_path, error=str(gone))
  made.end()
  assert (made.missing, made.note) == ({}, '')
  assert _calls(tmp_path) == {'a': 1, 'b': 2, 'c': 1, 'd': 1}
  assert not (tmp_path / 'b' / 'failed.txt').exists()


def test_what_an_engine_could_not_make_is_not_tried_again(tmp_path):
  with pytest.raises(parts.Incomplete):  # Nothing to tell of.
    parts.make(tiny.jobs(tmp_path, error='nowhere')[2:3])
  made = _made(tmp_path, error='nowhere')
  with parts.failed_before(made):
    again = _made(tmp_path)  # Would succeed.
  assert again.errors == made.errors
  assert _calls(tmp_path)['b'] == 2
  _made(tmp_path).end()


def test_a_study_that_lacks_jobs_is_not_finished(tmp_path):
  config = tiny.Config(str(tmp_path / 'study'))
  for missing, kept in (({'b': 'OSError'}, False), ({}, True)):
    records.write(config.workdir, config=config, metrics={},
                  extra={'missing': missing})
    assert (jobs.kept(config) is not None) == kept


def test_a_stop_is_no_failure(tmp_path):
  def stopped(config):
    raise KeyboardInterrupt

  job = tiny.jobs(tmp_path)[3]
  with pytest.raises(KeyboardInterrupt):
    parts.make([parts.plan_lib.Job('a', stopped, job.config)])
  assert not (tmp_path / 'a' / 'failed.txt').exists()
