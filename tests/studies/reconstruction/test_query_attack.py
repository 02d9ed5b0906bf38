"""The reconstruct binary with a real attack, from queries alone."""
import dataclasses
import json
import signal

import numpy as np
import pytest

from dsr import loop, train
from dsr.runs import records
from dsr.studies.reconstruction import attacks, cases, reconstruct, victims

INFINITE = reconstruct.Config(
    dataset='digits[0,3]', num_train=6, kernel='fcn1', steps=1000)


def _run(config, folder):
  return reconstruct.run(dataclasses.replace(config, workdir=str(folder)))


@pytest.fixture(scope='module')
def infinite(tmp_path_factory):
  """An attack that only queried, and its metrics."""
  folder = tmp_path_factory.mktemp('infinite')
  return folder, _run(INFINITE, folder)


def test_query_attack_finds_every_image_and_writes_all_files(infinite):
  folder, metrics = infinite
  assert {p.name for p in folder.iterdir()} == {
      'attack', 'curve.png', 'outliers.png', 'reconstruction.npz',
      'reconstructions.png', 'record.json', 'table.txt'}
  assert metrics['recovered_rmse_0.01'].value == 1
  assert metrics['mean_rmse'].value < 1e-3
  assert metrics['others_recovered_rmse_0.1'].value == 0
  assert 'relative_loss' not in metrics  # The attacker does not know the norm.
  record = records.read(folder)
  assert record['metrics'] == metrics
  assert record['seeds'] == {'seed': 0, 'attack_seed': 0}
  assert record['config']['attack'] == 'ntk_limit'
  assert record['config']['threat'] == 'query'
  assert record['extra']['status'] == 'FINISHED'
  arrays = records.read_arrays(folder)
  assert len(arrays['pixels']) == record['extra']['num_candidates']
  rebuilt = arrays['pixels'][arrays['assigned']]
  gaps = (rebuilt - arrays['truth']).reshape(6, -1)
  np.testing.assert_allclose(
      np.sqrt((gaps**2).mean(axis=1)), arrays['rmse'], rtol=1e-9)
  assert 'info_gains' in arrays


def test_an_interrupted_attack_goes_on(infinite, tmp_path, monkeypatch):
  run_chunk, calls = loop.runner.run_chunk, []

  def interrupted(*args, **kwargs):
    calls.append(1)
    if len(calls) == 2:
      signal.raise_signal(signal.SIGINT)
    return run_chunk(*args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(loop.runner, 'run_chunk', interrupted)
    first = _run(INFINITE, tmp_path)
  assert records.read(tmp_path)['extra']['status'] == 'INTERRUPTED'
  clock = json.loads((tmp_path / 'attack/clock.json').read_text())['seconds']
  assert clock == first['seconds'].value > 0
  second = _run(INFINITE, tmp_path)
  assert records.read(tmp_path)['extra']['status'] == 'FINISHED'
  assert second['seconds'].value > clock  # Of both sessions.
  whole, both = (records.read_arrays(f) for f in (infinite[0], tmp_path))
  np.testing.assert_array_equal(whole['pixels'], both['pixels'])


FINITE = reconstruct.Config(
    dataset='digits', num_train=10, width=1024, depth=1,
    parameterisation='ntk', w_std=1.4, b_std=0.1, regime='linearized',
    threat='query', steps=300, options='blur=0.7')


def test_a_wide_network_gives_its_images_away_by_values(tmp_path):
  config = attacks.resolve(FINITE)
  assert config.attack == 'ntk_limit'
  found = reconstruct.rebuild(config)
  assert found.case.kernel_fn.name == 'fcn1'
  assert found.case.released.threat == 'query'
  assert (found.scored.score.rmse < 0.1).sum() >= 8
  assert (found.scored.means < 0.1).sum() == 0
  assert found.found.candidates.min() >= found.case.released.low - 1e-6


@pytest.mark.parametrize('regime', ['standard', 'linearized'])
def test_values_are_those_of_the_victim(regime):
  own = {'recipe': 'flow', 'tolerance': 1e-6} if regime == 'standard' else {}
  config = attacks.resolve(
      dataclasses.replace(FINITE, regime=regime, width=32, **own))
  task = victims.prepare_victim_task(attacks.victim_config(config))
  victim = victims.train_victim(attacks.victim_config(config), task)
  x = task.test.x[:4]
  after = cases.released_values(victim, change=False)(x)
  np.testing.assert_allclose(after, train.outputs(victim, x), atol=1e-6)
  before = victim.module.apply({'params': victim.theta_0}, x)
  change = cases.released_values(victim, change=True)(x)
  np.testing.assert_allclose(change, after - before, atol=1e-6)
  assert np.abs(before).max() > 0.1
