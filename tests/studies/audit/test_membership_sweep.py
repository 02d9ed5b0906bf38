"""The sweep: which runs it makes, and the differences it takes."""
import dataclasses
import re

import numpy as np
import pytest
from scipy import stats

from dsr.runs import plan, records
from dsr.studies.audit import membership_sweep

SMALL = membership_sweep.Config(
    methods='random', images_per_class='2', num_classes='2,3', model='krr',
    num_shadows=4, num_targets=2, max_train=60, num_resamples=5)


@pytest.mark.slow
def test_a_sweep_goes_on_and_takes_differences(tmp_path):
  config = dataclasses.replace(SMALL, workdir=str(tmp_path))
  metrics = membership_sweep.run(config)
  part = tmp_path / '3' / 'random'
  own = records.read(part)['metrics']['random_2_online_auc']
  assert metrics['3_real_random_2_online_auc'] == own
  each = [[t['auc']['value'] for t in records.read(tmp_path / n / 'random')[
      'extra']['targets'][f'random_{size}_online']]
          for n, size in (('3', 2), ('2', 2))]
  found = metrics['classes_3_real_random_2_online']
  np.testing.assert_allclose(
      found.value, np.mean(each[0]) - np.mean(each[1]))
  assert '| 3 | real | random |' in (tmp_path / 'table.md').read_text()
  assert '3 against 2 classes' in (tmp_path / 'differences.md').read_text()
  before = (part / 'record.json').stat().st_mtime_ns
  membership_sweep.run(config)
  assert (part / 'record.json').stat().st_mtime_ns == before


def _row(each, **changes):
  return {'method': 'kip', 'model': 'krr', 'attack': 'online', 'classes': '10',
          'init': 'real', 'size': 1, 'name': 'kip', 'each': each} | changes


def test_differences_are_paired_but_for_classes():
  rng = np.random.default_rng(0)
  half = rng.normal(size=6)  # What is special about each attacked half.
  rows = [_row(half + 1 + 0.01 * rng.normal(size=6), size=10),
          _row(half + 0.01 * rng.normal(size=6)),
          _row(half - 2 + 0.01 * rng.normal(size=6), init='noise'),
          _row(rng.normal(size=6), classes='2')]
  found = {row['about']: row['difference']
           for row in membership_sweep.differences(rows)}
  assert set(found) == {'size', 'init', 'classes'}
  assert found['size'].low > 0.9
  assert found['size'].high < 1.1
  assert found['init'].low > 1.9
  want = stats.ttest_ind(rows[1]['each'], rows[3]['each'], equal_var=False)
  low, high = want.confidence_interval(0.95)
  np.testing.assert_allclose(found['classes'][1:], (low, high))


def test_runs_are_those_that_the_flags_name():
  config = dataclasses.replace(
      SMALL, methods='all,kcenter,kip', num_classes='10,2', workdir='out')
  found = membership_sweep.check(config)
  assert [(n, job.method, job.init, job.dataset) for n, job in found[:4]] == [
      ('2', 'all', 'real', 'digits[0:2]'),
      ('2', 'kcenter', 'real', 'digits[0:2]'),
      ('2', 'kip', 'real', 'digits[0:2]'),
      ('2', 'kip', 'noise', 'digits[0:2]')]
  todo = plan.make(membership_sweep.jobs_of(config))  # Of 6 sets in one job.
  assert len(todo.jobs) == 8 + 6
  assert sum(map(len, todo.after)) == 6
  assert len(found) == 8
  assert len({job.workdir for _, job in found}) == 8


@pytest.mark.errors
@pytest.mark.parametrize(('changes', 'message'), [
    ({'methods': 'bogus'}, '`methods` must be one of'),
    ({'inits': 'noise'}, '`inits` must have real'),
    ({'num_targets': 1}, '`num_targets` must be an integer of at least 2'),
    ({'num_classes': '1'}, '`num_classes` must be numbers of at least 2'),
    ({'num_classes': 'x'}, '`num_classes` must be numbers of at least 2'),
    ({'dataset': 'digits[0,1]'}, '`dataset` must name no classes'),
    ({'model': 'bogus'}, '`model` must be one of'),
])
def test_bad_flags_are_named(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    membership_sweep.check(dataclasses.replace(SMALL, **changes))
