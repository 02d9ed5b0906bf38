"""The shadow attack on distilled sets: what it writes, and that it finds."""
import dataclasses
import re

import numpy as np
import pytest

from dsr.probes import membership
from dsr.runs import records
from dsr.studies.audit import lira

SMALL = lira.Config(
    dataset='digits[0,3,8]', images_per_class='2', num_shadows=8, num_targets=2,
    max_train=90, steps=20, num_resamples=20)


def _run(folder, **changes):
  config = dataclasses.replace(SMALL, workdir=str(folder), **changes)
  metrics = lira.run(config)
  return metrics, records.read(folder), np.load(folder / 'lira.npz')


@pytest.mark.parametrize(('method', 'name'), [
    ('random', 'random_2'), ('all', 'all'),
    pytest.param('kip', 'kip_2', marks=pytest.mark.slow),
    pytest.param('rkip', 'rkip_2', marks=pytest.mark.slow)])
def test_writes_metrics_scores_and_curves(tmp_path, capsys, method, name):
  metrics, record, arrays = _run(tmp_path, method=method)
  assert 'experiments.lira' in record['command']
  member = arrays[f'{name}_member']
  assert member.shape == (2, 90)
  assert (member.sum(1) == 45).all()
  for attack in lira.ATTACKS:
    score = arrays[f'{name}_{attack}_scores']
    assert score.shape == member.shape
    auc = metrics[f'{name}_{attack}_auc']
    each = record['extra']['targets'][f'{name}_{attack}']
    np.testing.assert_allclose(
        auc.value, np.mean([one['auc']['value'] for one in each]))
    assert 0 <= auc.low <= auc.value <= auc.high <= 1
    fpr, tpr = arrays[f'{name}_{attack}_fpr'], arrays[f'{name}_{attack}_tpr']
    assert fpr[0] == 0
    assert fpr[-1] == tpr[-1] == 1
    assert (np.diff(tpr) >= 0).all()
    at = metrics[f'{name}_{attack}_tpr_at_fpr_1e2'].value
    np.testing.assert_allclose(tpr[fpr <= 0.01].max(), at)
  assert 0 < metrics[f'{name}_krr_accuracy'].value <= 1
  assert metrics[f'{name}_seconds'].value > 0
  assert f'| {method} |' in (tmp_path / 'table.md').read_text()
  assert 'AUC' in capsys.readouterr().out


def test_members_are_found_where_models_see_all_of_their_half(tmp_path):
  metrics, *_ = _run(tmp_path, method='all', num_shadows=64)
  assert metrics['all_online_auc'].low > 0.6
  assert metrics['all_online_auc'].value > metrics['all_threshold_auc'].value


def test_one_target_has_the_interval_of_its_examples(tmp_path):
  metrics, record, _ = _run(tmp_path, method='all', num_targets=1,
                            score='negative_squared_error')
  one, = record['extra']['targets']['all_online']
  assert metrics['all_online_auc']._asdict() == one['auc']
  assert one['auc']['low'] < one['auc']['high']


def test_the_mean_curve_is_that_of_its_targets():
  rng = np.random.default_rng(0)
  member = np.zeros((3, 20), bool)
  member[:, :8] = True
  score = np.round(rng.normal(size=(3, 20)) + member, 1)  # With ties.
  fpr, tpr = lira.mean_roc(score, member)
  np.testing.assert_allclose(fpr, np.arange(13) / 12)
  want = []
  for row, truth in zip(score, member, strict=True):
    curve = membership.roc(row, truth)
    want.append([curve.tpr[curve.fpr <= f + 1e-9].max() for f in fpr])
  np.testing.assert_allclose(tpr, np.mean(want, axis=0))


@pytest.mark.errors
@pytest.mark.parametrize(('changes', 'message'), [
    ({'num_shadows': 9}, '`num_shadows` must be even, got 9'),
    ({'num_shadows': 2}, '`num_shadows` must be an integer of at least 4'),
    ({'num_targets': 0}, '`num_targets` must be an integer of at least 1'),
    ({'images_per_class': '1,x'}, '`images_per_class` must be positive integ'),
    ({'images_per_class': ''}, "commas between them, got ''"),
    ({'steps': 0}, '`steps` must be an integer of at least 1'),
    ({'ridge': 0.0}, '`ridge` must be positive'),
    ({'transform': 'bogus'}, '`transform` must be one of'),
])
def test_bad_flags_are_named_before_data_are_read(changes, message):
  config = dataclasses.replace(SMALL, dataset='absent', **changes)
  with pytest.raises(ValueError, match=re.escape(message)):
    lira.run(config)
