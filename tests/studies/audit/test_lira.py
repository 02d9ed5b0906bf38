"""The shadow attack on distilled sets: what it writes, and that it finds."""
import dataclasses
import pathlib
import re

import numpy as np
import pytest

from dsr.distill import kcenter
from dsr.probes import membership
from dsr.runs import records
from dsr.studies.audit import half_sets, lira, shadow_models, shadow_sets
from dsr.studies.distillation.problem import prepare
from dsr.types import Examples

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
  assert [row['name'] for row in record['extra']['rows']] == [
      f'{name}_{attack}' for attack in lira.ATTACKS]


@pytest.mark.parametrize('method', [
    'kcenter', pytest.param('kip', marks=pytest.mark.slow)])
def test_sets_are_jobs_and_the_same_whoever_makes_them(tmp_path, method):
  config = dataclasses.replace(SMALL, method=method, workdir=str(tmp_path))
  todo = lira.jobs_of(config)
  assert [(job.config.first, job.config.last) for job in todo] == [
      (0, 7), (8, 9)]
  todo[1].run(todo[1].config)
  lira.run(config)
  problem = _problem()
  found = half_sets.read(config, problem, 2)
  whole = shadow_sets.make(config, problem, 2)
  np.testing.assert_array_equal(found.member, whole.member)
  for one, other in zip(found.examples, whole.examples, strict=True):
    np.testing.assert_array_equal(one, other)
  dates = [pathlib.Path(job.config.workdir, 'record.json').stat().st_mtime_ns
           for job in todo]
  assert dates[1] < dates[0]  # It was kept.
  with pytest.raises(ValueError, match='`method` must distil sets to make'):
    lira.jobs_of(dataclasses.replace(config, method='random'))


def test_members_are_found_where_models_see_all_of_their_half(tmp_path):
  metrics, *_ = _run(tmp_path, method='all', num_shadows=64)
  assert metrics['all_online_auc'].low > 0.6
  assert metrics['all_online_auc'].value > metrics['all_threshold_auc'].value


def _problem():
  return prepare(
      SMALL.dataset, data_dir=None, transform='standardise',
      images_per_class=1, max_train=90, validation=0, seed=0)


@pytest.mark.slow
def test_members_are_found_by_networks_of_all_of_their_half(tmp_path):
  metrics, *_ = _run(
      tmp_path, method='all', model='mlp', num_shadows=16, num_targets=4,
      network_epochs=60, network_learning_rate=0.05)
  for attack in ('online', 'offline', 'rmia', 'rmia_offline'):
    assert metrics[f'all_mlp_{attack}_auc'].value > 0.58


@pytest.mark.slow
def test_networks_are_asked_beside_kernel_regression(tmp_path):
  metrics, record, arrays = _run(
      tmp_path, method='random', model='krr,mlp', num_shadows=4,
      network_epochs=5, network_learning_rate=0.05)
  assert [row['name'] for row in record['extra']['rows']] == [
      f'{name}_{attack}' for name in ('random_2', 'random_2_mlp')
      for attack in lira.ATTACKS]
  assert 0.4 < metrics['random_2_mlp_accuracy'].value <= 1
  assert 'random_2_krr_accuracy' in metrics
  for name in ('random_2', 'random_2_mlp'):
    np.testing.assert_array_equal(
        arrays[f'{name}_member'], arrays['random_2_member'])
    assert np.isfinite(arrays[f'{name}_rmia_offline_scores']).all()
  assert np.any(arrays['random_2_mlp_online_scores']
                != arrays['random_2_online_scores'])


def test_a_network_sees_its_own_set_alone():
  rng = np.random.default_rng(0)
  sets = shadow_sets.Sets(
      Examples(rng.normal(size=(3, 4, 2, 2, 1)), rng.normal(size=(3, 4, 2))),
      np.ones((3, 9), bool), 0.0, 0.0)
  data, member = shadow_models._rows_of(None, sets)
  assert member.shape == (3, 12)
  for r, own in enumerate(member):
    np.testing.assert_array_equal(np.asarray(data.x)[own], sets.examples.x[r])
    np.testing.assert_array_equal(np.asarray(data.y)[own], sets.examples.y[r])


def test_any_method_is_repeated_on_each_half():
  """Of its own images alone, as the method itself would choose them."""
  problem = _problem()
  config = dataclasses.replace(
      SMALL, method='kcenter', num_shadows=4, num_targets=1,
      options='norm=linf')
  found = shadow_sets.make(config, problem, 2)
  assert found.examples.x.shape[:2] == (5, 6)
  x = np.asarray(problem.inputs(problem.train))
  for own, images in zip(found.member, found.examples.x, strict=True):
    half = problem.train.take(np.flatnonzero(own))
    rows = kcenter.kcenter(
        half.x.reshape(len(half), -1), half.y, 2, norm='linf')
    np.testing.assert_array_equal(images, x[own][rows])


@pytest.mark.parametrize('model', [
    'krr', pytest.param('mlp', marks=pytest.mark.slow)])
def test_no_attack_finds_members_of_models_that_have_none(model):
  """AUC 1/2 within its standard error, whatever the images' own difficulty."""
  rng, problem, num, targets = np.random.default_rng(0), _problem(), 8, 60
  member = rng.random((num + targets, 90)).argsort(1) < 45
  member[:num] = rng.random((num, 90)).argsort(0) < num // 2
  own = rng.normal(0, 2, (90, 3)) + 3 * np.eye(3)[problem.train.y]
  outside = shadow_models.population(problem, 0)
  models = shadow_models.Models(
      own + rng.normal(size=(num + targets, 90, 3)),
      rng.normal(size=(num + targets, len(outside), 3)), member,
      np.zeros(targets), 0.0, 0.0)
  config = dataclasses.replace(SMALL, num_shadows=num, num_targets=targets)
  found = lira.attack_scores(config, models, problem, model)
  assert set(found) == set(lira.ATTACKS)
  for score in found.values():
    curves = [membership.roc(*pair) for pair in zip(score, member[num:])]
    auc = np.array([np.trapezoid(c.tpr, c.fpr) for c in curves])
    error = np.std(auc, ddof=1) / np.sqrt(targets)
    assert error < 0.012
    assert abs(auc.mean() - 0.5) < 3 * error


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
    ({'method': 'bogus'}, '`method` must be one of'),
    ({'options': 'norm=l2'}, '`options` must be empty with kip'),
    ({'method': 'kcenter', 'options': 'bogus=1'},
     '`options` must be flag=value with flags of experiments.distill'),
    ({'method': 'kcenter', 'init': 'noise'}, '`init` must be real with kcen'),
    ({'model': 'bogus'}, '`model` must be one of'),
    ({'model': 'krr,krr'}, '`model` must name krr or networks, each once'),
    ({'model': 'mlp', 'score': 'negative_squared_error'},
     '`score` must be of logits with mlp'),
    ({'network_epochs': 0}, '`network_epochs` must be an integer'),
])
def test_bad_flags_are_named_before_data_are_read(changes, message):
  config = dataclasses.replace(SMALL, dataset='absent', **changes)
  with pytest.raises(ValueError, match=re.escape(message)):
    lira.run(config)
