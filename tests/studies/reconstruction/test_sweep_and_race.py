"""Sweeps over victims, races on one victim, and what runs are kept."""
import dataclasses
import pathlib

import numpy as np
import pytest

from dsr.runs import parts, records
from dsr.studies.reconstruction import cases, race, reconstruct, sweep
from tests.studies.reconstruction import attackers

DATASET = 'digits[0,3]'
SWEEP = reconstruct.Config(
    dataset=DATASET, regime='standard', attack='finite', sweep=True,
    widths='16,8', nums='4')
RACE = reconstruct.Config(
    dataset=DATASET, num_train=6, width=16, regime='linearized',
    attack='finite', compare='published', compare_steps=5)


def _run(config, folder, **fields):
  return reconstruct.run(
      dataclasses.replace(config, workdir=str(folder), **fields))


def test_cells_are_all_pairs_in_order_each_in_its_folder(tmp_path):
  config = dataclasses.replace(SWEEP, nums='6, 4', workdir=str(tmp_path))
  cells = sweep.cells(config)
  assert [(c.num_train, c.width) for c in cells] == [
      (4, 8), (4, 16), (6, 8), (6, 16)]
  assert len({c.workdir for c in cells}) == 4
  # A cell does not know what else the sweep goes through.
  wider = sweep.cells(dataclasses.replace(config, widths='8,16,32', fresh=True))
  assert [c for c in wider if c.width != 32] == cells


def test_sweep_runs_all_cells_once_and_draws_them(tmp_path, monkeypatch):
  attacker = attackers.Attacker(DATASET)
  attackers.install(monkeypatch, {'finite': attacker})
  metrics = _run(SWEEP, tmp_path)
  names = ['n4_width8', 'n4_width16']
  assert sorted(names + ['record.json', 'sweep.png', 'table.md']) == sorted(
      p.name for p in tmp_path.iterdir())
  lines = (tmp_path / 'table.md').read_text().splitlines()
  assert [line.split('|')[1:3] for line in lines[2:]] == [
      [' 4 ', ' 8 '], [' 4 ', ' 16 ']]
  assert metrics == records.read(tmp_path)['metrics']
  for name in names:
    cell = records.read(tmp_path / name)
    for key in ('kernel_distance', 'recovered_rmse_0.05', 'mean_rmse'):
      assert metrics[f'{name}_{key}'] == cell['metrics'][key]
    assert metrics[f'{name}_kernel_distance'].value > 0
  assert len(attacker.calls) == 2
  # More widths: only their cells are run.
  metrics = _run(SWEEP, tmp_path, widths='8,16,12')
  assert len(attacker.calls) == 3
  assert 'n4_width12_kernel_distance' in metrics
  _run(SWEEP, tmp_path, widths='8', fresh=True)
  assert len(attacker.calls) == 4


def test_comparisons_train_by_gradient_flow_unless_a_flag_says_otherwise():
  for fields, recipe in (({}, 'flow'), ({'recipe': 'descent'}, 'descent'),
                         ({'momentum': 0.0}, 'auto'),
                         ({'regime': 'linearized'}, 'auto')):
    cell, = sweep.cells(dataclasses.replace(SWEEP, widths='8', **fields))
    assert cell.recipe == recipe


def test_a_cell_that_fails_is_missing_and_made_by_the_next_call(
    tmp_path, monkeypatch):
  attacker = attackers.Attacker(DATASET)
  attackers.install(monkeypatch, {'finite': attacker})
  cells = reconstruct._attack

  def broken(config):
    if config.width == 16:
      raise FloatingPointError('not finite')
    return cells(config)

  with monkeypatch.context() as patch:
    patch.setattr(reconstruct, '_attack', broken)
    with pytest.raises(parts.Incomplete) as end:
      _run(SWEEP, tmp_path)
  folder = tmp_path / 'n4_width16'
  error = 'FloatingPointError: not finite'
  assert str(end.value).splitlines()[0] == (
      f'N = 4, width 16: {error} ({folder})')
  assert error in (tmp_path / 'table.md').read_text()
  record = records.read(tmp_path)
  assert record['extra']['missing'] == {'N = 4, width 16': error}
  assert {name.partition('_width')[2].partition('_')[0]
          for name in record['metrics']} == {'8'}
  metrics = _run(SWEEP, tmp_path)
  assert len(attacker.calls) == 2
  assert 'n4_width16_mean_rmse' in metrics
  assert not (folder / 'failed.txt').exists()


def test_interrupted_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch):
  attackers.install(
      monkeypatch, {'finite': attackers.Attacker(DATASET, stop_after=1)})
  with pytest.raises(KeyboardInterrupt):
    _run(SWEEP, tmp_path, widths='8')
  assert not (tmp_path / 'table.md').exists()
  attackers.install(monkeypatch, {'finite': attackers.Attacker(DATASET)})
  _run(SWEEP, tmp_path, widths='8')
  assert (tmp_path / 'table.md').exists()


def test_sweep_of_linearized_networks_compares_with_the_limit(
    tmp_path, monkeypatch):
  attackers.install(monkeypatch, {'finite': attackers.Attacker(DATASET)})
  metrics = _run(SWEEP, tmp_path, widths='8', regime='linearized')
  assert metrics['n4_width8_kernel_distance'].value == 0
  assert (tmp_path / 'sweep.png').exists()


def test_race_has_both_trails_and_their_ratio(tmp_path, monkeypatch):
  ours, other = (attackers.Attacker(DATASET, offset=o) for o in (0.03, 0.09))
  attackers.install(monkeypatch, {'finite': ours, 'published': other})
  metrics = _run(RACE, tmp_path)
  assert (tmp_path / 'race.png').exists()
  assert ours.calls[0][1] is other.calls[0][1]  # One victim, one release.
  assert ours.calls[0][2].steps == 3
  assert other.calls[0][2].steps == 5
  arrays = records.read_arrays(tmp_path)
  trail = arrays['published_trail']
  np.testing.assert_array_equal(trail[:, 1], [1, 2, 3, 4, 5, 5])
  assert (np.diff(trail[:, 0]) >= 0).all()
  np.testing.assert_allclose(
      trail[:, 2], 0.09 / trail[:, 1], rtol=1e-4)
  # 0.03 / 2 is the first error below 0.09 / 5.
  np.testing.assert_allclose(
      metrics['seconds_to_match'].value, arrays['finite_trail'][1, 0])
  np.testing.assert_allclose(
      metrics['speed_ratio'].value,
      trail[-1, 0] / arrays['finite_trail'][1, 0])
  np.testing.assert_allclose(
      metrics['published_median_rmse'].value, 0.018, rtol=1e-4)
  assert _run(RACE, tmp_path) == metrics
  assert len(ours.calls) == 1


def test_race_that_is_never_won_has_no_ratio(tmp_path, monkeypatch):
  attackers.install(monkeypatch, {
      'finite': attackers.Attacker(DATASET, offset=0.9),
      'published': attackers.Attacker(DATASET, offset=0.03)})
  metrics = _run(RACE, tmp_path)
  assert 'speed_ratio' not in metrics
  assert records.read(tmp_path)['extra']['reached'] is False


def test_interrupted_race_keeps_its_trail(tmp_path, monkeypatch):
  attackers.install(monkeypatch, {
      'finite': attackers.Attacker(DATASET),
      'published': attackers.Attacker(DATASET, stop_after=2)})
  with pytest.raises(KeyboardInterrupt):
    _run(RACE, tmp_path)
  assert not (tmp_path / 'record.json').exists()
  trail = race.Trail(tmp_path / 'published/trail.npz', None)
  assert [row[1] for row in trail.rows] == [1, 2, 2]


BOTH = dataclasses.replace(RACE, regime='both')


@pytest.mark.slow
def test_both_regimes_race_in_one_picture(tmp_path, monkeypatch):
  ours, other = (attackers.Attacker(DATASET, offset=o) for o in (0.03, 0.09))
  attackers.install(monkeypatch, {'finite': ours, 'published': other})
  drawn, draw = {}, race.figures.loss_curve

  def loss_curve(path, series, **kwargs):
    drawn[path] = series
    return draw(path, series, **kwargs)

  monkeypatch.setattr(race.figures, 'loss_curve', loss_curve)
  metrics = _run(BOTH, tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == {
      'linearized', 'standard', 'race.png', 'table.txt', 'record.json'}
  assert [call[1].linearised for call in ours.calls] == [True, False]
  assert metrics == records.read(tmp_path)['metrics']
  assert list(drawn[tmp_path / 'race.png']) == [
      'finite, linearized', 'published, linearized', 'finite, standard',
      'published, standard']
  for regime in ('linearized', 'standard'):
    part = records.read(tmp_path / regime)
    assert part['config']['regime'] == regime
    assert part['config']['recipe'] == (
        'flow' if regime == 'standard' else 'auto')
    assert {name.removeprefix(f'{regime}_'): metric
            for name, metric in metrics.items()
            if name.startswith(regime)} == part['metrics']
    trail = records.read_arrays(tmp_path / regime)['published_trail']
    seconds, best = drawn[tmp_path / 'race.png'][f'published, {regime}']
    np.testing.assert_array_equal(seconds, trail[:, 0])
    np.testing.assert_allclose(best, 0.09 / trail[:, 1], rtol=1e-4)
    assert metrics[f'{regime}_speed_ratio'].value > 0
  head, _, *rows = (tmp_path / 'table.txt').read_text().splitlines()
  assert head.endswith('times as fast')
  assert [row.split()[:2] for row in rows] == [
      name.split() for name in drawn[tmp_path / 'race.png']]
  assert _run(BOTH, tmp_path) == metrics
  assert len(ours.calls) == 2
  _run(BOTH, tmp_path, fresh=True)
  assert len(ours.calls) == 4


@pytest.mark.slow
def test_interrupted_races_keep_what_is_finished(tmp_path, monkeypatch):
  ours, other = (attackers.Attacker(DATASET, offset=o) for o in (0.9, 0.03))
  attackers.install(monkeypatch, {'finite': ours, 'published': other})
  _run(BOTH, tmp_path / 'linearized', regime='linearized')
  stopped = attackers.Attacker(DATASET, stop_after=2)
  attackers.install(monkeypatch, {'finite': ours, 'published': stopped})
  with pytest.raises(KeyboardInterrupt):
    _run(BOTH, tmp_path)
  assert not (tmp_path / 'record.json').exists()
  attackers.install(monkeypatch, {'finite': ours, 'published': other})
  metrics = _run(BOTH, tmp_path)
  assert [call[1].linearised for call in ours.calls] == [True, False, False]
  assert 'linearized_speed_ratio' not in metrics
  assert records.read(tmp_path)['extra']['reached'] == {
      'linearized': False, 'standard': False}
  # Other flags: both races start over, attacks that were finished as well.
  metrics = _run(BOTH, tmp_path, attack_seed=1)
  assert len(ours.calls) == 5
  assert records.read(tmp_path / 'standard')['config']['attack_seed'] == 1


def test_a_resumed_trail_replaces_what_is_done_again(tmp_path, monkeypatch):
  monkeypatch.setattr(
      race.scoring, 'rmse', lambda case, candidates: candidates)
  first = race.Trail(tmp_path / 'trail.npz', None)
  for step in (1, 2, 3):
    first.look(step, np.asarray([1.0, 0.04, 0.5]) / step, 10.0 * step)
  first.save()
  second = race.Trail(tmp_path / 'trail.npz', None)
  second.look(2, np.asarray([0.7, 0.7, 0.01]), 25.0)
  second.look(3, np.asarray([0.0, 0.0, 0.01]), 35.0)
  np.testing.assert_allclose(second.rows, [
      (10, 1, 0.5, 1 / 3), (25, 2, 0.7, 1 / 3), (35, 3, 0.0, 1)])
  np.testing.assert_allclose(second.curve(), [[10, 25, 35], [0.5, 0.7, 0]])
  # Below 0.5 for good since 35 s: the truth alone told that 10 s was as good.
  assert race._reached(second, first_half(tmp_path)) == 35


def first_half(folder):
  """A trail that ends at 0.5."""
  trail = race.Trail(folder / 'other.npz', None)
  trail.look(1, np.asarray([0.5, 0.5, 0.5]), 1.0)
  return trail


def test_training_that_is_stopped_stops_the_attack(tmp_path, monkeypatch):
  attackers.install(monkeypatch, {'finite': attackers.Attacker(DATASET)})
  train_victim = cases.victims.train_victim

  def stopped(*args, **kwargs):
    victim = train_victim(*args, **kwargs)
    return victim._replace(status=cases.Status.INTERRUPTED)

  monkeypatch.setattr(cases.victims, 'train_victim', stopped)
  with pytest.raises(KeyboardInterrupt):
    _run(RACE, tmp_path, compare='', compare_steps=None)
  assert not (pathlib.Path(tmp_path) / 'record.json').exists()
