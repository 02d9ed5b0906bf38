"""The comparison: runs what is missing, keeps what is finished, draws all."""
import csv
import dataclasses

import numpy as np
import pytest

from dsr.runs import parts, records
from dsr.studies.distillation import compare, distill, published

SMALL = compare.Config(
    dataset='digits[0,3,8]', methods='random,kcenter,kip',
    images_per_class='1,2', networks='mlp', num_networks=2, network_epochs=20,
    max_train=90,
    options='kip.steps=4,eval_every=2')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('compare')
  config = dataclasses.replace(SMALL, workdir=str(folder))
  return config, folder, compare.run(config)


@pytest.mark.slow
def test_writes_tables_and_figures_of_all_runs(finished):
  _, folder, metrics = finished
  rows = list(csv.DictReader(
      (folder / 'table.csv').read_text().splitlines()))
  assert [(row['method'], row['images_per_class']) for row in rows] == [
      (method, size) for size in '12'
      for method in ('random', 'kcenter', 'kip')]
  for row in rows:
    value = metrics[f'{row["method"]}_{row["images_per_class"]}_mlp_accuracy']
    assert float(row['mlp_accuracy']) == value.value
    assert 0 <= value.low <= value.value <= value.high <= 1
  assert '| method |' in (folder / 'table.md').read_text()
  for name in ('accuracy_mlp', 'time', 'images_1', 'images_2'):
    assert (folder / f'{name}.png').stat().st_size > 1000
  record = records.read(folder)
  assert len(record['extra']['runs']) == 6
  assert all('experiments.distill' in command
             for command in record['extra']['runs'].values())
  config = records.read(folder / 'kip_2')['config']
  assert (config['steps'], config['learning_rate']) == (4, 0.04)
  assert (config['network_epochs'], config['protocol']) == (20, 'condensation')


@pytest.mark.slow
def test_finished_runs_are_kept_and_missing_ones_made(finished, monkeypatch):
  config, folder, metrics = finished
  made = []
  run = distill.run

  def counted(job):
    made.append((job.method, job.images_per_class))
    return run(job)

  monkeypatch.setattr(distill, 'run', counted)
  assert compare.run(config) == metrics
  assert not made
  (folder / 'kcenter_2' / 'record.json').unlink()
  again = compare.run(config)
  assert made == [('kcenter', 2)]
  name = 'kcenter_2_mlp_accuracy'
  assert again[name] == metrics[name]


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_made_by_the_next_call(
    finished, monkeypatch):
  config, folder, metrics = finished
  run = distill.run

  def broken(job):
    if job.method == 'kcenter':
      raise MemoryError('no room')
    return run(job)

  (folder / 'kcenter_2' / 'record.json').unlink()
  with monkeypatch.context() as patch:
    patch.setattr(distill, 'run', broken)
    with pytest.raises(parts.Incomplete, match='1 of 6 jobs are missing'):
      compare.run(config)
  missing = {'kcenter, 2 per class': 'MemoryError: no room'}
  assert records.read(folder)['extra']['missing'] == missing
  assert 'kcenter, 2 per class (MemoryError: no room)' in (
      folder / 'table.md').read_text()
  assert compare.run(config).keys() == metrics.keys()
  assert 'Missing' not in (folder / 'table.md').read_text()


def _run(method, **fields):
  fields = {'dataset': 'cifar10', 'protocol': 'dsa', 'images_per_class': 10,
            'method': method, 'networks': 'convnet3'} | fields
  return distill.resolve(distill.Config(**fields))


def test_published_numbers_stand_where_their_conditions_hold():
  assert published.accuracy(_run('dm'), 'convnet3') == 0.489
  assert published.accuracy(_run('kip', kernel='fcn1'), 'krr') == 0.531
  assert published.accuracy(_run('idc', protocol='idc'), 'convnet3') == 0.675
  assert published.accuracy(
      _run('mtt', transform='zca'), 'convnet3') == 0.653
  assert published.accuracy(
      _run('dc', dataset='mnist', protocol='condensation'), 'convnet3') == 0.974
  # FRePo's own network is judged by FRePo's protocol, whatever the flag.
  assert published.claimed(_run('frepo', transform='zca')) == {
      'own_network': 0.655}


@pytest.mark.parametrize(('method', 'network', 'fields', 'reason'), [
    ('dm', 'convnet3', {'protocol': 'condensation'},
     'protocol dsa, here condensation'),
    ('dm', 'convnet3', {'max_train': 5000}, 'all training images, here 5000'),
    ('kip', 'krr', {'kernel': 'fcn3'}, 'kernel fcn1, here fcn3'),
    ('mtt', 'convnet3', {}, 'transform zca, here standardise'),
    ('idc', 'convnet3', {'protocol': 'idc', 'options': 'factor=1'},
     'options unset, here factor=1'),
    ('dc', 'convnet3', {'dataset': 'mnist', 'protocol': 'condensation',
                        'network_epochs': 300},
     'network_epochs 1000, here 300'),
])
def test_other_conditions_are_named(method, network, fields, reason):
  config = _run(method, **fields)
  assert published.accuracy(config, network) is None
  assert any(reason in line for line in
             published.under_other_conditions(config))


@pytest.mark.parametrize('fields', [
    {'dataset': 'digits'}, {'images_per_class': 3}, {'networks': 'mlp'}])
def test_what_nobody_has_published_is_not_spoken_of(fields):
  config = _run('dm', **fields)
  assert published.accuracy(config, config.networks) is None
  assert published.under_other_conditions(config) == []


@pytest.mark.slow
def test_all_images_own_sets_and_sizes_by_class_are_rows(tmp_path):
  x = np.random.default_rng(0).random((4, 8, 8, 1), dtype=np.float32)
  y = np.array([0, 0, 1, 2])
  targets = np.full((4, 3), -0.2, np.float32)
  targets[np.arange(4), y] = 0.4
  np.savez(tmp_path / 'mine.npz', images=x, labels=y, targets=targets)
  metrics = compare.run(dataclasses.replace(
      SMALL, methods='random,mfc,all', images_per_class='2:1:3', options='',
      distilled=str(tmp_path / 'mine.npz'), full_epochs=1,
      workdir=str(tmp_path / 'out')))
  rows = list(csv.DictReader(
      (tmp_path / 'out' / 'table.csv').read_text().splitlines()))
  assert [(row['method'], row['images_per_class']) for row in rows] == [
      ('random', '2:1:3'), ('mfc', '2:1:3'), ('mine', '1 to 2'), ('all', '30')]
  made = records.read_arrays(tmp_path / 'out' / 'mfc_2-1-3')
  np.testing.assert_array_equal(made['labels'], [0, 0, 1, 2, 2, 2])
  assert int(made['num_train']) == 90  # Nothing is held out.
  assert [bool(row['mlp_hard_accuracy']) for row in rows] == [
      False, False, True, False]
  assert metrics['all_krr_accuracy'].value > metrics[
      'mine_krr_accuracy'].value
  assert records.read(tmp_path / 'out' / 'all')['config'][
      'network_epochs'] == 1


@pytest.mark.slow
def test_published_numbers_stand_beside_ours(finished, monkeypatch):
  config, folder, _ = finished
  monkeypatch.setattr(
      published, 'accuracy', lambda job, network: 0.5 if (
          job.method, job.images_per_class, network) == ('kip', 2, 'mlp')
      else None)
  before = (folder / 'accuracy_mlp.png').read_bytes()
  compare.run(config)
  assert (folder / 'accuracy_mlp.png').read_bytes() != before
  rows = list(csv.DictReader(
      (folder / 'table.csv').read_text().splitlines()))
  assert [row['published_mlp'] for row in rows] == [''] * 5 + ['0.5']


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'methods': 'random,gan'}, '`methods` must be one of kip'),
    ({'methods': ''}, '`methods` must name one or more'),
    ({'images_per_class': '1,ten'}, '`images_per_class` must be a positive'),
    ({'images_per_class': '1:0:2'}, '`images_per_class` must be a positive'),
    ({'images_per_class': '1:2'}, '3 of them, one for each class, got 2'),
    ({'methods': 'dm', 'images_per_class': '1:2:1', 'options': ''},
     '`images_per_class` must be one number with dm'),
    ({'methods': 'random,all', 'full_epochs': 0}, '`full_epochs` must be'),
    ({'distilled': 'nowhere.npz'}, '`distilled`|nowhere.npz'),
    ({'networks': ''}, '`networks` must name one or more'),
    ({'networks': 'vit'}, 'must be one of mlp'),
    ({'options': 'kip.steps'}, r'`options` must be \[method.\]flag=value'),
    ({'options': 'kip.speed=1'}, r'`options` must be \[method.\]flag=value'),
    ({'options': 'networks=mlp'}, r'`options` must be \[method.\]flag=value'),
    ({'options': 'kip.workdir=x'}, r'`options` must be \[method.\]flag=value'),
    ({'options': 'rkip.steps=3'}, '`options` must be one of random'),
    ({'options': 'kip.steps=many'}, '`options` must give steps as int'),
    ({'options': 'kip.loss=l2'}, '`options loss` must be one of mse'),
    ({'options': 'kip.learn_labels=si'}, 'must give learn_labels as bool'),
    ({'options': 'kip.steps=0'}, '`steps` must be'),
])
def test_bad_flags_are_named_before_anything_runs(tmp_path, fields, message):
  config = dataclasses.replace(SMALL, workdir=str(tmp_path / 'out'), **fields)
  with pytest.raises(ValueError, match=message):
    compare.run(config)
  assert not (tmp_path / 'out').exists()
