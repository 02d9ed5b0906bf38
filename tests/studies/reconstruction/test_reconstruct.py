"""The reconstruct binary: its victims, its scores, its files, its refusals."""
import dataclasses
import pathlib

from etils import eapp
import jax
import numpy as np
import pytest

from dsr.attack import release
from dsr.runs import records
from dsr.studies.reconstruction import (
  attacks,
  cases,
  reconstruct,
  scoring,
  train,
  victims,
)
from tests.studies.reconstruction import attackers

DATASET = 'digits[0,3]'
INFINITE = reconstruct.Config(
    dataset=DATASET, num_train=6, kernel='fcn1', steps=600)
FINITE = reconstruct.Config(
    dataset=DATASET, num_train=6, width=16, regime='linearized',
    attack='finite')
VALUES = {'attack': 'ntk_limit', 'parameterisation': 'ntk', 'b_std': 0.1}


def _run(config, folder, **fields):
  return reconstruct.run(
      dataclasses.replace(config, workdir=str(folder), **fields))


def _fake(monkeypatch, name='finite', **fields):
  attacker = attackers.Attacker(DATASET, **fields)
  attackers.install(monkeypatch, {name: attacker})
  return attacker


def test_full_knowledge_tells_the_norm(tmp_path, monkeypatch):
  attacker = _fake(monkeypatch, 'ntk_limit')
  for threat in ('query', 'parameters'):
    _run(INFINITE, tmp_path / threat, threat=threat, dtype='float32')
  (_, released, without, _), (_, _, config, _) = attacker.calls
  assert released.threat == 'query'
  case = cases.make_case(attacks.resolve(INFINITE), tmp_path)
  assert without.norm_squared == 0
  np.testing.assert_allclose(config.norm_squared, case.norm_squared, rtol=1e-4)
  assert config.dtype == 'float32'
  assert attacker.kernel_fn.name == 'fcn1'


def test_infinite_victim_interpolates():
  config = attacks.resolve(INFINITE)
  case = cases.make_case(config, '')
  x, y = case.task.examples
  assert x.dtype == 'float64'
  np.testing.assert_allclose(case.released.query(x), y, atol=1e-10)
  np.testing.assert_allclose(case.kernel @ case.duals, y, atol=1e-10)
  np.testing.assert_allclose(
      case.norm_squared, np.sum(case.duals * np.asarray(y)), rtol=1e-9)
  assert case.released.query(x.astype('float32')).shape == (6, 1)
  assert case.released.threat == 'query'
  assert attacks.resolve(dataclasses.replace(
      INFINITE, num_train=202)).dtype == 'float32'


def test_scores_are_those_of_known_candidates(tmp_path, monkeypatch):
  attacker = _fake(monkeypatch, offset=0.06)  # 0.02 at the last step.
  monkeypatch.setattr(attacks, 'without_first_layer', lambda config: 'Because.')
  metrics = _run(FINITE, tmp_path)
  assert metrics['recovered_rmse_0.05'].value == 1
  assert metrics['recovered_rmse_0.01'].value == 0
  np.testing.assert_allclose(metrics['median_rmse'].value, 0.02, rtol=1e-4)
  for name in ('first', 'half', 'three_quarters'):
    np.testing.assert_allclose(
        metrics[f'greedy_l2_{name}'].value, 0.16, rtol=1e-4)  # 64 pixels.
  assert metrics['kernel_distance'].value == 0
  assert 0 < metrics['limit_distance'].value < 0.2
  assert metrics['mean_rank'].value == 1 < metrics['chance_rank'].value
  assert metrics['others_mean_rank'].value > 1
  extra = records.read(tmp_path)['extra']
  assert extra['info'] == {'count': 6, 'without_first_layer': 'Because.'}
  np.testing.assert_array_equal(
      records.read_arrays(tmp_path)['info_scores'], [0, 1, 2])
  (_, released, config, _), = attacker.calls
  assert released.linearised
  assert config == attackers.Config()


@pytest.mark.parametrize(('offset', 'confidence', 'want', 'said'), [
    (0.06, [0.95, 0.97, 0.99, 0.5, 0.0, 0.94], (3, 1.0), 'claims 3 candidates'),
    (0.6, [1.0, 0, 0, 0, 0, 0], (1, 0.0), '0 of them are'),
    (0.06, None, (0, None), 'claims no candidate')])
def test_claims_are_held_against_the_truth(
    offset, confidence, want, said, tmp_path, monkeypatch, capsys):
  if confidence is not None:
    confidence = np.asarray(confidence)
  _fake(monkeypatch, offset=offset, confidence=confidence, rank=5)
  metrics = _run(FINITE, tmp_path)
  assert 'rank 5, for 6 images' in records.read(tmp_path)['extra']['info'][
      'low_rank']
  found = metrics['claimed'].value, metrics.get('claim_precision')
  assert (found[0], found[1] and found[1].value) == want
  out = capsys.readouterr().out
  assert said in out
  assert 'rank 5, for 6 images' in out


@pytest.mark.parametrize(('num', 'missing'), [
    (1, {'mean_rmse', 'median_rmse', 'greedy_l2_half'}),
    (4, {'mean_rmse', 'greedy_l2_three_quarters'}),
    (0, {'mean_rmse', 'median_rmse'})])
def test_missing_candidates_are_no_numbers(num, missing, tmp_path, monkeypatch):
  """With none at all, the attack is taken to guess the mean image."""
  _fake(monkeypatch, num=num)
  metrics = _run(FINITE, tmp_path, num_train=6, regime='standard')
  assert not missing & set(metrics)
  assert metrics['recovered_rmse_0.01'].value == pytest.approx(num / 6)
  assert metrics['kernel_distance'].value > 0
  assert (tmp_path / 'reconstructions.png').exists()


def test_true_duals_and_kernel_make_the_change(tmp_path, monkeypatch):
  _fake(monkeypatch)
  config = attacks.resolve(dataclasses.replace(
      FINITE, dtype='float64', workdir=str(tmp_path)))
  case = cases.make_case(config, tmp_path)
  change = jax.tree.map(
      lambda a, b: a - b, case.released.theta_T, case.released.theta_0)
  norm = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(change))
  np.testing.assert_allclose(
      np.sum(case.duals * (case.kernel @ case.duals)), norm, rtol=1e-6)


@pytest.mark.parametrize(('fields', 'attack'), [
    ({'num_train': 64}, 'first_layer'),  # 8 x 8 pixels, and a bias.
    ({'num_train': 66}, 'finite'),
    ({'num_train': 64, 'use_bias': False}, 'finite'),
    ({'num_train': 16, 'width': 16}, 'finite'),
    ({'num_train': 70, 'dataset': 'mnist_odd_even'}, 'first_layer'),
    ({'num_train': 784, 'dataset': 'mnist[3,8]'}, 'first_layer'),
    ({'num_train': 786, 'dataset': 'mnist[3,8]'}, 'finite'),
    ({'num_train': 786, 'dataset': 'nowhere.npz'}, 'first_layer'),
    ({'depth': 0}, 'finite'),
    ({'num_train': 20, 'num_told': 64}, 'first_layer'),
    ({'num_train': 20, 'num_told': 65}, 'finite'),
    ({'num_train': 66, 'threat': 'final'}, 'kkt')])
def test_auto_is_an_attack_that_can_work(fields, attack):
  config = dataclasses.replace(
      FINITE, width=1024, attack='auto', regime='standard')
  config = attacks.resolve(dataclasses.replace(config, **fields))
  assert config.attack == attack


def test_the_reason_for_another_attack_is_a_sentence():
  config = attacks.resolve(dataclasses.replace(
      FINITE, attack='auto', num_train=16))
  assert config.attack == 'finite'
  assert attacks.without_first_layer(config) == (
      'first_layer needs at most 15 training images for inputs of 64 numbers '
      'and 16 units, got 16.')
  assert not attacks.without_first_layer(FINITE)


def test_threats_decide_what_is_released(tmp_path, monkeypatch):
  attacker = _fake(monkeypatch, 'kkt')
  _run(FINITE, tmp_path / 'final', regime='standard', attack='kkt')
  (_, released, *_), = attacker.calls
  assert released.theta_0 is None
  attacker = _fake(monkeypatch)
  for noise in (0.0, 0.1):
    _run(FINITE, tmp_path / str(noise), noise=noise)
  pairs = zip(*(jax.tree.leaves(call[1].theta_T) for call in attacker.calls))
  spread = np.concatenate([np.ravel(a - b) for a, b in pairs])
  np.testing.assert_allclose(spread.std(), 0.1, rtol=0.1)
  _run(FINITE, tmp_path / 'small', prune=0.4, release_dtype='bfloat16')
  whole, *_, (_, small, *_) = attacker.calls
  for old, new in zip(*(jax.tree.leaves(r.theta_T) for r in (
      whole[1], small))):
    kept = np.asarray(new != 0)
    assert new.ndim == 1 or kept.mean() == pytest.approx(0.6, abs=0.03)
    np.testing.assert_array_equal(
        new[kept], old.astype('bfloat16').astype('float32')[kept])
  np.testing.assert_array_equal(*(
      r.theta_0['readout']['kernel'] for r in (whole[1], small)))
  assert records.read(tmp_path / 'small')['extra'][
      'training_ended'] == 'CONVERGED'


def test_flags_reach_the_attack(tmp_path, monkeypatch):
  attacker = _fake(monkeypatch)
  _run(FINITE, tmp_path, ratio=1.5, steps=5, attack_learning_rate=0.3, box=2.0)
  (key, _, config, workdir), = attacker.calls
  assert config == attackers.Config(
      1.5, 5, 0.3, attackers.Prior(box=2.0))
  assert workdir == tmp_path / 'attack'
  _run(FINITE, tmp_path / 'other', attack_seed=1)
  assert not np.array_equal(
      *(jax.random.key_data(k) for k in (key, attacker.calls[1][0])))
  _run(FINITE, tmp_path / 'more', options='norm_squared=2, dtype=float64')
  assert attacker.calls[2][2] == attackers.Config(
      norm_squared=2.0, dtype='float64')
  with pytest.raises(ValueError, match='`gradients` must be unset with the'):
    _run(FINITE, tmp_path / 'none', gradients='final')


@pytest.mark.slow
def test_attacks_a_victim_that_was_trained_before(tmp_path, monkeypatch):
  train.run(train.Config(dataset=DATASET, num_train=4, width=8, seed=3,
                         regime='linearized', workdir=str(tmp_path / 'victim')))
  victim = victims.load_victim(tmp_path / 'victim')
  attacker = _fake(monkeypatch)
  config = reconstruct.Config(
      victim=str(tmp_path / 'victim'), attack='finite')
  metrics = _run(config, tmp_path / 'out')
  (_, released, *_), = attacker.calls
  for a, b in zip(*(jax.tree.leaves(t) for t in (
      released.theta_T, victim.theta_T))):
    np.testing.assert_array_equal(a, b)
  recorded = records.read(tmp_path / 'out')['config']
  assert [recorded[n] for n in ('num_train', 'width', 'seed', 'regime')] == [
      4, 8, 3, 'linearized']
  assert metrics['recovered_rmse_0.05'].high > 0
  with pytest.raises(ValueError, match='`width` must be 8, as in the record'):
    _run(config, tmp_path / 'out', width=9)


def test_finished_runs_are_kept_unless_fresh(tmp_path, monkeypatch, capsys):
  attacker = _fake(monkeypatch)
  metrics = _run(FINITE, tmp_path)
  shown = capsys.readouterr().out
  assert _run(FINITE, tmp_path) == metrics
  assert len(attacker.calls) == 1
  assert 'class means' in shown
  assert 'class means' in capsys.readouterr().out
  with pytest.raises(ValueError, match='`attack_seed` was 0, is 1'):
    _run(FINITE, tmp_path, attack_seed=1)
  _run(FINITE, tmp_path, attack_seed=1, fresh=True)
  assert len(attacker.calls) == 2


def test_published_values_stand_beside_the_same_case_only():
  config = dataclasses.replace(
      FINITE, dataset='mnist_odd_even', num_train=200, width=2048,
      regime='standard')
  assert scoring.claimed(config) == {
      'greedy_l2_first': 0.5, 'greedy_l2_half': 1.45,
      'greedy_l2_three_quarters': 5.9}
  for fields in ({'width': 1024}, {'num_train': 100}, {'dataset': 'mnist'},
                 {'regime': 'linearized'}, {'depth': 3}):
    assert scoring.claimed(dataclasses.replace(config, **fields)) == {}


def test_flags_are_read_and_help_is_complete(capsys):
  parse = eapp.make_flags_parser(reconstruct.Config, prog='reconstruct')
  config = parse(['x', '--regime=linearized', '--ratio=1.5', '--nums=20,50',
                  '--sweep', '--workdir=y'])
  assert config == reconstruct.Config(
      regime='linearized', ratio=1.5, nums='20,50', sweep=True, workdir='y')
  with pytest.raises(SystemExit):
    parse(['x', '--help'])
  text = ' '.join(capsys.readouterr().out.split())
  for field in dataclasses.fields(reconstruct.Config):
    assert f'--{field.name}' in text


@pytest.mark.errors
@pytest.mark.parametrize(('config', 'fields', 'message'), [
    (INFINITE, {'width': 8}, '`width` must be None with an infinitely wide'),
    (INFINITE, {'noise': 0.1}, '`noise` must be 0.0 with an infinitely'),
    (INFINITE, {'attack': 'kkt'}, '`attack` must be one of ntk_limit'),
    (INFINITE, {'threat': 'final'}, '`threat` must be one of query'),
    (INFINITE, {'kernel': 'rbf'}, '`kernel` must be a family'),
    (INFINITE, {'gradients': 'both'}, '`gradients` must be unset with the'),
    (INFINITE, {'steps': 0}, '`steps` must be an integer of at least 1'),
    (INFINITE, {'num_train': 7}, '`num_train` must be a multiple of the 2'),
    (INFINITE, {'compare': 'published'},
     "`regime` must be 'linearized', 'standard' or 'both' with"),
    (INFINITE, {'regime': 'both', 'kernel': 'fcn2'},
     "`regime` can be 'both' with `compare` only"),
    (FINITE, {'regime': 'both', 'sweep': True}, "`regime` can be 'both' with"),
    (FINITE, {'regime': 'both', 'sweep': True, 'compare': 'published'},
     "`regime` must be 'linearized' or 'standard' with `sweep`"),
    (FINITE, {'regime': 'both', 'compare': 'finite'},
     '`compare` must be one of first_layer'),
    (FINITE, {'regime': 'both', 'compare': 'published', 'width': 0},
     '`widths` must be an integer'),
    (INFINITE, {'sweep': True}, '`sweep` needs finite networks'),
    (INFINITE, {'compare_steps': 3}, '`compare_steps` needs `compare`'),
    (FINITE, {'kernel': 'fcn1'}, "`kernel` must be 'fcn2' with a finite"),
    (FINITE, {'attack': 'first_layer', 'num_train': 16},
     "`attack` must be another than 'first_layer': first_layer needs at most"),
    (FINITE, {'attack': 'ntk_limit'}, "`parameterisation` must be 'ntk'"),
    (FINITE, VALUES | {'threat': 'parameters'},
     '`threat` must be one of query, outputs'),
    (FINITE, VALUES | {'noise': 0.1}, '`noise` must be 0.0 with values alone'),
    (FINITE, VALUES | {'depth': 0}, '`depth` must be an integer of at least 1'),
    (FINITE, VALUES | {'first_scale': 0.5}, '`first_scale` must be 1.0 for an'),
    (FINITE, VALUES | {'compare': 'kkt'},
     "`threat` must be 'parameters' or 'final' with `compare`"),
    (INFINITE, {'threat': 'outputs'}, '`threat` must be one of query'),
    (FINITE, {'threat': 'query'}, '`threat` must be one of parameters'),
    (FINITE, {'threat': 'final'},
     "`threat` must be 'parameters' with the attack finite, which looks at"),
    (FINITE, {'num_told': 2}, '`num_told` must be an integer of at least'),
    (FINITE, {'noise': -1.0}, '`noise` must be finite and not negative'),
    (FINITE, {'prune': 1.5}, r'`prune` must be in \[0, 0.99\]'),
    (INFINITE, {'release_dtype': 'float16'}, "`release_dtype` must be 'float3"),
    (FINITE, {'sweep': True}, '`width` must be unset with `sweep`'),
    (FINITE, {'sweep': True, 'width': None, 'nums': '20,x'},
     '`nums` must be positive integers'),
    (FINITE, {'options': 'speed=3'}, '`options` must be name=value of finite'),
    (FINITE, {'options': 'steps=many'}, '`options` must give steps as int'),
    (FINITE, {'compare': 'finite'}, '`compare` must be one of first_layer'),
    (FINITE, {'victim': 'nowhere'}, '`victim` must hold what'),
])
def test_bad_values_are_refused_before_anything_is_written(
    config, fields, message, tmp_path, monkeypatch):
  if config is FINITE:
    _fake(monkeypatch)
  with pytest.raises(ValueError, match=message):
    _run(config, tmp_path / 'out', **fields)
  assert not (tmp_path / 'out').exists()


def test_release_refuses_what_does_not_fit(tmp_path):
  """The binary goes through `release`, whose checks then hold."""
  case = cases.make_case(attacks.resolve(INFINITE), tmp_path)
  with pytest.raises(ValueError, match='`query` must map'):
    release.query_only(
        case.released.query, num_train=6, input_shape=(8, 8, 1), num_outputs=2,
        low=case.task.low, high=case.task.high)
  assert not list(pathlib.Path(tmp_path).iterdir())
