"""Adversarial training on sets: what is planned, made, kept and refused."""
import csv
import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from dsr import data as data_lib
from dsr.runs import records
from dsr.studies.audit import subjects
from dsr.studies.distillation import distill
from dsr.studies.hardening import adversarial, hardened

SMALL = adversarial.Config(
    dataset='digits[0,3,8]', methods='mfc,all', images_per_class='2',
    trainings='standard,wide', network='mlp', num_networks=2, train_steps=20,
    full_steps=10, attack_steps=1, num_attacked=30, bound_images=40,
    max_train=90, widest=0.2, options='mfc.time_limit=20')
ONE = hardened.Config(
    dataset=SMALL.dataset, max_train=90, network='mlp', num_networks=2,
    train_steps=3, attack_steps=1, num_attacked=10)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('adversarial')
  config = dataclasses.replace(SMALL, workdir=str(folder))
  return config, folder, adversarial.run(config)


def _rows(path):
  return list(csv.DictReader(path.read_text().splitlines()))


def test_plans_a_run_for_each_set_and_training():
  config = dataclasses.replace(
      SMALL, methods='random,mfc,all', images_per_class='3,1',
      trainings='pgd,wide,trades')
  plan = adversarial.check(config)
  assert [own and (own.method, own.images_per_class) for own, _ in plan] == [
      ('random', 1), ('mfc', 1), ('random', 3), ('mfc', 3), None]
  for own, todo in plan:
    names = [name for name, _ in todo]
    covers = own is not None and own.method == 'mfc'
    assert names == (['pgd', 'wide', 'trades'] if covers else
                     ['pgd', 'trades'])
    for name, job in todo:
      assert job.training == ('trades' if name == 'trades' else 'pgd')
      assert job.weighted == covers
      assert job.widest == (0.2 if name == 'wide' else 0)
      assert job.train_steps == (10 if own is None else 20)
      assert job.set == ('' if own is None else own.workdir)
    if own is not None:
      assert (own.networks, own.norm) == ('', 'l2')
  plain = adversarial.check(dataclasses.replace(config, weigh=False))
  assert not any(job.weighted for _, todo in plain for _, job in todo)


def test_tables_and_pictures_show_all_runs(finished):
  _, folder, metrics = finished
  rows = _rows(folder / 'table.csv')
  assert [(r['method'], r['per_class'], r['training']) for r in rows] == [
      ('mfc', '2', 'standard'), ('mfc', '2', 'wide'),
      ('all', 'all', 'standard')]
  for row in rows:
    name = '_'.join(row[k] for k in ('method', 'per_class', 'training'))
    name = name.replace('all_all', 'all')
    for attack in ('clean', *hardened.ATTACKS):
      value = metrics[f'{name}_{attack}_accuracy']
      assert float(row[f'{attack}_accuracy']) == value.value
      assert 0 <= value.low <= value.value <= value.high <= 1
      assert value.value <= metrics[f'{name}_clean_accuracy'].value
  bounds = _rows(folder / 'bound.csv')
  assert [(r['training'], r['norm']) for r in bounds] == [
      (training, norm) for training in ('standard', 'wide')
      for norm in ('linf', 'l2')]
  for row in bounds:
    assert 0 < float(row['left']) <= float(row['right'])
    assert float(row['right_by_attack']) <= float(row['right'])
    assert 0 <= float(row['relative_slack']) <= 1
  for training in ('standard', 'wide'):
    assert (folder / f'accuracy_{training}.png').stat().st_size > 1000
  extra = records.read(folder)['extra']
  assert 'experiments.distill' in extra['sets'][str(folder / 'mfc_2')]
  assert len(extra['runs']) == 3
  assert all('-m experiments.hardened' in c for c in extra['runs'].values())


def test_wide_training_has_the_radius_of_the_cover(finished):
  _, folder, metrics = finished
  arrays = records.read_arrays(folder / 'mfc_2')
  eta = metrics['mfc_2_wide_bound_l2_eta'].value
  assert eta == pytest.approx(arrays['class_eta'].max(), rel=1e-6)
  info = records.read(folder / 'mfc_2_wide')['extra']
  linf = metrics['mfc_2_wide_bound_linf_eta'].value
  assert info['radius'] == min(0.1 + linf, 0.2) == 0.2
  assert records.read(folder / 'mfc_2_standard')['config']['weighted']
  own = records.read_arrays(folder / 'mfc_2_wide')
  assert own['right_strong'].shape == (2, 30)
  assert own['bound_l2_left'].shape == (2,)
  assert (own['bound_l2_left'] <= own['bound_l2_right']).all()


@pytest.mark.slow
def test_finished_runs_are_kept_and_others_made_again(finished, monkeypatch):
  config, folder, metrics = finished
  made = []
  for module in (distill, hardened):
    run = module.run
    monkeypatch.setattr(
        module, 'run', lambda job, run=run: (
            made.append(pathlib.Path(job.workdir).name), run(job)))
  assert adversarial.run(config) == metrics
  assert not made
  (folder / 'mfc_2_wide' / 'record.json').unlink()
  stamp = lambda: (folder / 'mfc_2_wide' / 'checkpoints').stat().st_mtime_ns
  before = stamp()
  again = adversarial.run(config)
  assert made == ['mfc_2_wide']
  assert stamp() == before  # It was there: no step was made again.
  own = [name for name in metrics if 'seconds' not in name]
  assert {name: again[name] for name in own} == {
      name: metrics[name] for name in own}
  (folder / 'mfc_2' / 'record.json').unlink()
  made.clear()
  adversarial.run(config)
  assert made == ['mfc_2', 'mfc_2_standard', 'mfc_2_wide']


@pytest.mark.slow
def test_a_set_of_ones_own_has_no_bound(tmp_path):
  train = data_lib.load(SMALL.dataset, seed=0).train
  rows = data_lib.balanced_rows(jax.random.key(0), train.y, 2, 3)
  images = 1.2 * train.x[rows]  # Beyond 1, as learned ones.
  assert images.max() > 1
  np.savez(tmp_path / 'own.npz', images=images, labels=train.y[rows])
  config = dataclasses.replace(
      ONE, set=str(tmp_path / 'own.npz'), training='trades',
      workdir=str(tmp_path / 'out'))
  metrics = hardened.run(config)
  assert not any('bound' in name for name in metrics)
  assert records.read(tmp_path / 'out')['extra']['num_images'] == 6
  with pytest.raises(ValueError, match='`widest` must be 0 with a set that'):
    hardened.run(dataclasses.replace(config, widest=0.3))
  with pytest.raises(ValueError, match='`weighted` must be false for a set'):
    hardened.run(dataclasses.replace(config, weighted=True))


@pytest.mark.slow
def test_networks_read_pixels_through_the_transform(tmp_path):
  config = dataclasses.replace(
      ONE, training='standard', train_steps=60, workdir=str(tmp_path))
  metrics = hardened.run(config)
  assert metrics['clean_accuracy'].value > 0.7  # Chance is 1/3.
  problem = subjects.load_problem(config)
  assert problem.transform.name == 'standardise'
  arrays = records.read_arrays(tmp_path)
  assert arrays['curve'].shape == (60, 2)
  assert (arrays['right_clean'] >= arrays['right_linf']).all()


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'methods': 'mfc,gan'}, '`methods` must be one of kip'),
    ({'methods': ''}, '`methods` must name one or more'),
    ({'images_per_class': '1,ten'}, '`images_per_class` must be positive'),
    ({'trainings': ''}, '`trainings` must name one or more'),
    ({'trainings': 'fgsm'}, '`trainings` must be one of standard'),
    ({'methods': 'random,all'}, '`methods` must name mfc with training wide'),
    ({'widest': 0.0}, '`widest` must be positive'),
    ({'network': 'vit'}, '`network` must be one of mlp'),
    ({'num_networks': 1}, '`num_networks` must be an integer of at least 2'),
    ({'train_steps': 0}, '`train_steps` must be'),
    ({'full_steps': 0}, '`full_steps` must be'),
    ({'epsilon': -0.1}, '`epsilon` must be finite and not negative'),
    ({'linf_epsilon': 0.0}, '`linf_epsilon` must be positive'),
    ({'num_attacked': 1}, '`num_attacked` must be an integer of at least 2'),
    ({'transform': 'whiten'}, '`transform` must be one of'),
    ({'options': 'mfc.speed=1'}, r'`options` must be \[method.\]flag=value'),
    ({'options': 'mfc.validation=0'}, '`options` must leave validation alone'),
])
def test_bad_flags_are_named_before_anything_runs(tmp_path, fields, message):
  config = dataclasses.replace(SMALL, workdir=str(tmp_path / 'out'), **fields)
  with pytest.raises(ValueError, match=message):
    adversarial.run(config)
  assert not (tmp_path / 'out').exists()


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'weighted': True}, '`widest` and `weighted` need a `set`'),
    ({'widest': 0.2, 'training': 'standard'}, '`widest` must be 0 with stand'),
    ({'set': 'nowhere'}, '`set` must be an .npz or the workdir'),
])
def test_bad_flags_of_one_training(tmp_path, fields, message):
  config = dataclasses.replace(ONE, workdir=str(tmp_path / 'out'), **fields)
  with pytest.raises(ValueError, match=message):
    hardened.run(config)
  assert not (tmp_path / 'out').exists()
