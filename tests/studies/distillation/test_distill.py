"""The distill binary: what it writes, stops and resumes, and every option."""
import dataclasses
import json
import pathlib
import signal

import numpy as np
import pytest
from sklearn import datasets

from dsr.runs import records
from dsr.studies.distillation import distill, evaluation
from dsr.studies.distillation.methods import selections

SMALL = distill.Config(
    dataset='digits[0,3,8]', images_per_class=2, steps=6, eval_every=2,
    networks='')


def _run(folder, **fields):
  config = dataclasses.replace(SMALL, workdir=str(folder), **fields)
  return distill.run(config)


def _arrays(folder):
  return records.read_arrays(folder)


@pytest.fixture(scope='module')
def random_run(tmp_path_factory):
  """The random subset, and what its networks make of it."""
  folder = tmp_path_factory.mktemp('random')
  metrics = _run(folder, method='random', networks='mlp,convnet3',
                 num_networks=2, network_epochs=3)
  return folder, metrics


def test_random_images_are_training_images_in_pixel_space(random_run):
  arrays = _arrays(random_run[0])
  raw = datasets.load_digits()
  assert arrays['images'].shape == (6, 8, 8, 1)
  np.testing.assert_array_equal(arrays['labels'], [0, 0, 1, 1, 2, 2])
  for image, label in zip(arrays['images'][..., 0] * 16, arrays['labels']):
    error = np.abs(raw.images - image).max(axis=(1, 2))
    assert error.min() < 1e-4
    assert raw.target[error.argmin()] == (0, 3, 8)[label]
  np.testing.assert_allclose(
      arrays['targets'], np.eye(3)[arrays['labels']] - 1 / 3, atol=1e-6)
  # Standardised: one affine map of all pixels, not the identity.
  slope, offset = np.polyfit(
      arrays['images'].ravel(), arrays['inputs'].ravel(), 1)
  np.testing.assert_allclose(
      arrays['inputs'], slope * arrays['images'] + offset, atol=1e-5)
  assert slope > 2


def test_record_has_intervals_and_what_repeats_the_run(random_run):
  folder, metrics = random_run
  record = records.read(folder)
  assert set(record['metrics']) == {
      'krr_accuracy', 'krr_accuracy_start', 'method_seconds',
      'network_accuracy', *(
          f'{name}_{what}' for name in ('mlp', 'convnet3') for what in (
              'accuracy', 'train_accuracy', 'train_loss', 'seconds'))}
  raw = json.loads((folder / 'record.json').read_text())['metrics']
  assert set(raw['krr_accuracy']) == {'value', 'low', 'high'}
  for metric in record['metrics'].values():
    assert metric.low <= metric.value <= metric.high
  assert record['metrics']['krr_accuracy'] == metrics['krr_accuracy']
  assert record['metrics']['network_accuracy'] == record['metrics'][
      'mlp_accuracy']
  assert record['seeds'] == {'seed': 0}
  assert record['config']['method'] == 'random'
  assert '--images_per_class=2' in record['command']
  assert record['wall_time'] > 0
  assert record['extra']['status'] == 'FINISHED'
  # 0, 3, 8 occur 178 + 183 + 174 times; a stratified fifth is the test set.
  assert record['extra']['num_test'] in (107, 108)
  assert _is_png(folder / 'images.png')
  assert not (folder / 'curve.png').exists()  # Nothing was learned.


@pytest.mark.parametrize(
    ('method', 'least'), [('kip', 0.9), ('rkip', 0.9), ('label_solve', 0.5)])
def test_methods_improve_on_where_they_start(tmp_path, method, least):
  metrics = _run(tmp_path, method=method, batch_size=60, steps=40)
  assert metrics['krr_accuracy'].value >= metrics['krr_accuracy_start'].value
  assert metrics['krr_accuracy'].value > least
  arrays = _arrays(tmp_path)
  assert arrays['images'].shape == (6, 8, 8, 1)
  assert all(np.isfinite(a).all() for a in arrays.values())
  assert _is_png(tmp_path / 'images.png')
  assert _is_png(tmp_path / 'curve.png') == (method != 'label_solve')
  assert _is_png(tmp_path / 'validation.png') == (method != 'label_solve')
  steps = records.read(tmp_path)['extra']['validation_steps']
  assert steps == ([] if method == 'label_solve' else [*range(2, 41, 2)])
  assert not list(tmp_path.glob('.*'))  # No temporary files are left.


def _is_png(path: pathlib.Path) -> bool:
  if not path.exists():
    return False
  data = path.read_bytes()
  return data[:8] == b'\x89PNG\r\n\x1a\n' and len(data) > 500


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Arrays and record of a run on random batches that nothing stopped."""
  folder = tmp_path_factory.mktemp('whole')
  _run(folder, batch_size=60)
  return _arrays(folder), records.read(folder)


def test_same_seed_same_bits_and_another_seed_not(tmp_path, whole):
  _run(tmp_path / 'same', batch_size=60)
  same = _arrays(tmp_path / 'same')
  assert same.keys() == whole[0].keys()
  for name, array in same.items():
    np.testing.assert_array_equal(array, whole[0][name], strict=True)
  _run(tmp_path / 'other', batch_size=60, seed=1)
  assert not np.array_equal(
      _arrays(tmp_path / 'other')['images'], same['images'])


def test_interrupted_run_is_usable_and_resumes_to_the_same_set(
    tmp_path, monkeypatch, whole):
  looks = []
  accuracy = evaluation.accuracy

  def interrupted(*args):
    looks.append(args)
    if len(looks) == 1:  # After the first chunk.
      signal.raise_signal(signal.SIGINT)
    return accuracy(*args)

  monkeypatch.setattr(evaluation, 'accuracy', interrupted)
  folder = tmp_path
  fields = {'batch_size': 60, 'networks': 'mlp', 'num_networks': 2,
            'network_epochs': 1}
  metrics = _run(folder, **fields)
  record = records.read(folder)
  assert record['extra']['status'] == 'INTERRUPTED'
  assert record['extra']['steps_done'] == 2
  assert 'network_accuracy' not in metrics  # Would keep the user waiting.
  assert metrics['krr_accuracy'].value > 1 / 3
  assert _arrays(folder)['images'].shape == (6, 8, 8, 1)
  assert _is_png(folder / 'images.png')
  assert 'network_accuracy' in _run(folder, **fields)
  assert records.read(folder)['extra']['status'] == 'FINISHED'
  for name, array in whole[0].items():
    np.testing.assert_array_equal(array, _arrays(folder)[name])
  assert (records.read(folder)['extra']['validation_accuracy']
          == whole[1]['extra']['validation_accuracy'])


def test_interrupt_among_the_networks_keeps_the_distilled_set(
    tmp_path, monkeypatch):

  def stopped(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(evaluation.train, 'evaluate', stopped)
  with pytest.raises(KeyboardInterrupt):  # Its command ends with 130.
    _run(tmp_path, networks='mlp', batch_size=60)
  record = records.read(tmp_path)
  assert set(record['metrics']) == {
      'krr_accuracy', 'krr_accuracy_start', 'method_seconds'}
  assert record['extra']['status'] == 'INTERRUPTED'
  assert record['extra']['steps_done'] == 6


@pytest.mark.slow
def test_binary_task_by_cross_entropy_has_one_signed_output(tmp_path):
  metrics = _run(tmp_path, dataset='digits[3,8]', loss='cross_entropy',
                 networks='mlp', num_networks=2, network_epochs=20,
                 network_learning_rate=1e-3)
  np.testing.assert_array_equal(
      _arrays(tmp_path)['targets'], [[-1], [-1], [1], [1]])
  assert metrics['krr_accuracy'].value > 0.85
  assert metrics['network_accuracy'].value > 0.7


def test_corruption_freezes_its_share_of_the_pixels(tmp_path):
  for steps in (2, 6):
    _run(tmp_path / str(steps), corruption=0.25, steps=steps, keep='last')
  short, long = (_arrays(tmp_path / str(steps)) for steps in (2, 6))
  same = (short['inputs'] == long['inputs']).reshape(6, 64).sum(axis=1)
  assert (same >= 16).all()
  assert same.mean() < 24  # Adam moves the rest, but for what never varies.


@pytest.mark.slow
def test_noise_learned_labels_augmentation_and_distance(tmp_path):
  _run(tmp_path, init='noise', learn_labels=True, augment='shift1+rotate10',
       min_distance=0.1, batch_size=60, keep='last', transform='zca',
       schedule='cosine', validation=0.0)
  arrays, record = _arrays(tmp_path), records.read(tmp_path)
  encoded = np.eye(3)[arrays['labels']] - 1 / 3
  assert 1e-3 < np.abs(arrays['targets'] - encoded).max() < 1
  assert np.abs(arrays['inputs']).max() < 2  # N(0, 0.2^2) and six steps.
  assert record['extra']['validation_accuracy'] == []


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'images_per_class': 0}, '`images_per_class` must be an integer of at'),
    ({'images_per_class': 1000}, '1000 but class'),
    ({'corruption': 1.5}, '`corruption` must be in'),
    ({'ridge': 0.0}, '`ridge` must be positive'),
    ({'max_minutes': 0.0}, '`max_minutes` must be positive'),
    ({'method': 'mfc', 'max_minutes': 1.0}, '`max_minutes` must be None with'),
    ({'network_learning_rate': -1.0}, '`network_learning_rate` must be posit'),
    ({'networks': 'vgg'}, 'must be one of mlp'),
    ({'kernel': 'rbf'}, '`kernel` must be a family'),
    ({'transform': 'whiten'}, '`transform` must be one of none'),
    ({'augment': 'blur'}, 'blur'),
    ({'dataset': 'imagenet'}, 'must be one of digits'),
    ({'validation': 0.0}, '`keep=best` needs `validation` above 0'),
    ({'ema': 1.0}, '`decay` must be below 1'),
    ({'method': 'random', 'eta': 1.0}, '`eta` must be None with random'),
    ({'method': 'mfc', 'eta': -1.0}, '`eta` must be'),
    ({'method': 'mfc', 'eta': 1.0, 'budget': 'total'}, '`budget` must be per'),
    ({'method': 'mfc', 'time_limit': 0.0}, '`time_limit` must be positive'),
    ({'method': 'herding', 'norm': 'l1'}, '`norm` must be l2 with herding'),
    ({'method': 'el2n', 'score_epochs': 0}, '`score_epochs` must be'),
    ({'method': 'dm', 'augment': 'flip+shift2'}, '`strategy` must be one of'),
    ({'method': 'dm', 'dm_network': 'vit'}, 'must be one of mlp'),
    ({'method': 'dm', 'loss': 'cross_entropy'}, '`loss` must be mse with dm'),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else None)
def test_bad_values_are_named_and_leave_no_files(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    _run(tmp_path / 'out', **fields)
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_a_finished_run_is_extended_by_more_steps(tmp_path):
  """With a constant rate; the result is that of one long run."""
  for steps in (4, 8):
    _run(tmp_path / 'twice', steps=steps)
  _run(tmp_path / 'once', steps=8)
  twice, once = _arrays(tmp_path / 'twice'), _arrays(tmp_path / 'once')
  for name in once:
    np.testing.assert_array_equal(twice[name], once[name])
  extra = records.read(tmp_path / 'twice')['extra']
  assert extra['validation_steps'] == [2, 4, 6, 8]


@pytest.mark.slow
def test_steps_end_when_their_time_is_over(tmp_path):
  _run(tmp_path, batch_size=60, max_minutes=1e-9)
  extra = records.read(tmp_path)['extra']
  assert (extra['steps_done'], extra['status']) == (2, 'FINISHED')


@pytest.mark.errors
def test_options_of_kip_are_refused_elsewhere(tmp_path):
  for fields in ({'augment': 'flip'}, {'loss': 'cross_entropy'},
                 {'min_distance': 0.1}):
    name, = fields
    with pytest.raises(ValueError, match=f'`{name}` must be .* with rkip'):
      _run(tmp_path, method='rkip', **fields)


@pytest.mark.slow
def test_what_an_attack_makes_of_a_network_is_a_distilled_set(tmp_path):
  """M < N: better than as many real images; labels are the network's."""
  fields = {'method': 'rkip_finite', 'network_width': 512, 'max_train': 60,
            'transform': 'mean', 'steps': 60, 'learning_rate': 0.02}
  metrics = _run(tmp_path, **fields)
  assert metrics['krr_accuracy'].value > metrics['krr_accuracy_start'].value
  assert metrics['krr_accuracy'].value > 0.9
  arrays, record = _arrays(tmp_path), records.read(tmp_path)
  assert arrays['images'].shape == (6, 8, 8, 1)
  np.testing.assert_array_equal(
      arrays['labels'], arrays['targets'].argmax(axis=1))
  assert (np.diff(arrays['labels']) >= 0).all()
  assert record['extra']['steps_done'] == 60
  assert record['extra']['num_train'] == 54
  assert _is_png(tmp_path / 'images.png')
  assert _is_png(tmp_path / 'curve.png')
  with pytest.raises(ValueError, match='`network_width` was 512, is 16'):
    _run(tmp_path, **fields | {'network_width': 16})


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'network_width': 0}, '`widths` must be .* at least 1'),
    ({'corruption': 0.5}, '`corruption` must be 0.0 with rkip_finite'),
    ({'transform': 'standardise+zca'}, '`transform` must keep pixels'),
    ({'method': 'kip', 'network_width': 8}, '`network_width` must be 1024 wi'),
])
def test_options_of_rkip_finite_are_its_own(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    _run(tmp_path / 'out', **{'method': 'rkip_finite'} | fields)
  assert not (tmp_path / 'out').exists()


SELECTIONS = ('herding', 'kcenter', 'kmedoids', 'el2n', 'mfc')


@pytest.mark.parametrize('method', SELECTIONS)
def test_selections_are_training_images_and_name_their_rows(tmp_path, method):
  fields = {'max_train': 60}
  if method == 'el2n':
    fields |= {'score_network': 'mlp', 'score_networks': 1, 'score_epochs': 1}
  metrics = _run(tmp_path, method=method, **fields)
  arrays = _arrays(tmp_path)
  np.testing.assert_array_equal(arrays['labels'], [0, 0, 1, 1, 2, 2])
  assert len(set(arrays['rows'])) == 6
  assert metrics['krr_accuracy'].value > (0.1 if method == 'el2n' else 0.6)
  images = datasets.load_digits().images / 16
  for image in arrays['images'][..., 0]:
    assert np.abs(images - image).max(axis=(1, 2)).min() < 1e-5
  assert _is_png(tmp_path / 'images.png')


def test_mfc_writes_its_certificate(tmp_path):
  _run(tmp_path, method='mfc', max_train=60, budget='total')
  arrays, extra = _arrays(tmp_path), records.read(tmp_path)['extra']
  np.testing.assert_allclose(arrays['weights'].sum(), 1)
  assert len(arrays['weights']) == len(arrays['labels']) == 6
  assert extra['eta'] == arrays['class_eta'].max()
  assert extra['gap'] == 0
  assert extra['exact'] == 3
  eta = extra['eta']
  _run(tmp_path / 'given', method='mfc', max_train=60, eta=eta)
  given = _arrays(tmp_path / 'given')  # As many images as it takes.
  assert len(given['labels']) <= 6
  assert given['class_eta'].max() <= eta * (1 + 1e-9)


def test_a_selection_is_not_made_twice(tmp_path, monkeypatch):
  _run(tmp_path, method='kcenter')
  first = _arrays(tmp_path)
  monkeypatch.setattr(
      selections.kcenter_lib, 'kcenter', lambda *args, **kwargs: 1 / 0)
  _run(tmp_path, method='kcenter', ridge=1e-3)
  np.testing.assert_array_equal(_arrays(tmp_path)['rows'], first['rows'])
  with pytest.raises(ZeroDivisionError):
    _run(tmp_path, method='kcenter', norm='l1')


@pytest.mark.usefixtures('optimised')
def test_distribution_matching_learns_pixels_and_keeps_labels(tmp_path):
  _run(tmp_path, method='dm', dm_network='convnet2', steps=4, ema=0.5)
  arrays, record = _arrays(tmp_path), records.read(tmp_path)
  start = _arrays_of_random(tmp_path / 'random')
  assert np.abs(arrays['inputs'] - start['inputs']).max() > 1e-3
  np.testing.assert_array_equal(arrays['targets'], start['targets'])
  assert record['config']['augment'] == 'dsa'
  assert record['config']['learning_rate'] == 1.0
  assert _is_png(tmp_path / 'curve.png')


def _arrays_of_random(folder):
  _run(folder, method='random')
  return _arrays(folder)


@pytest.mark.slow
@pytest.mark.parametrize('dataset', ['digits[3,8]', 'digits[0,3,8]'])
def test_networks_of_the_condensation_protocol(tmp_path, dataset):
  """Cross-entropy on one-hot labels; two classes get two outputs."""
  metrics = _run(tmp_path, method='random', dataset=dataset, networks='mlp',
                 protocol='dsa', num_networks=2, network_epochs=100)
  assert metrics['mlp_accuracy'].value > 0.6
  config = records.read(tmp_path)['config']
  assert config['network_learning_rate'] == 0.01
  assert config['network_epochs'] == 100


def test_probabilities_take_encodings_back():
  one_hot = np.eye(3)[[0, 2]]
  np.testing.assert_allclose(
      evaluation.probabilities(one_hot - 1 / 3), one_hot, atol=1e-12)
  np.testing.assert_allclose(
      evaluation.probabilities(np.array([[-1.0], [1.0], [0.0], [3.0]])),
      [[1, 0], [0, 1], [0.5, 0.5], [0, 1]])
  np.testing.assert_allclose(
      evaluation.probabilities(np.full((1, 4), -1.0)), 0.25)
