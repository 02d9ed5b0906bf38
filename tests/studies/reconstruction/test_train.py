"""The train binary: what it writes, how it goes on, what it refuses."""
import dataclasses
import json
import shutil
import signal

from etils import eapp
import jax
import numpy as np
import pytest
from sklearn import datasets

from dsr import loop, nets, train as train_lib
from dsr.runs import records
from dsr.studies.reconstruction import attacks, recipes, train, victims
from dsr.types import Status

SMALL = train.Config(dataset='digits[0,3]', num_train=6, width=32)


def _run(folder, **fields):
  config = dataclasses.replace(SMALL, workdir=str(folder), **fields)
  return train.run(config)


def _equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    np.testing.assert_array_equal(left, right)


@pytest.fixture(scope='module')
def standard(tmp_path_factory):
  folder = tmp_path_factory.mktemp('standard')
  metrics = _run(folder, save_losses=(0.5, 0.01), save_steps=(0,))
  return folder, metrics


def test_writes_a_converged_victim_and_its_record(standard):
  folder, metrics = standard
  assert {p.name for p in folder.iterdir()} == {
      'record.json', 'victim.npz', 'curve.png', 'training'}
  assert set(metrics) == {
      'final_mse', 'steps', 'seconds', 'train_accuracy', 'test_accuracy'}
  assert metrics['final_mse'].value < 1e-10
  assert metrics['train_accuracy'].value == 1
  assert 0.8 < metrics['test_accuracy'].low < metrics['test_accuracy'].value
  record = records.read(folder)
  assert record['metrics'].keys() == metrics.keys()
  assert record['seeds'] == {'seed': 0}
  assert '--save_losses 0.5 0.01' in record['command']
  arrays = records.read_arrays(folder)
  assert arrays['theta_T__hidden_1__kernel'].shape == (32, 32)
  assert arrays['theta_0__readout__bias'].dtype == 'float32'
  assert arrays['duals'].shape == (6, 1)
  assert len(arrays['curve']) == metrics['steps'].value + 1


def test_training_images_are_the_dataset_s_less_their_mean(standard):
  arrays = records.read_arrays(standard[0])
  raw = datasets.load_digits()
  for pixels, label in zip(arrays['pixels'], arrays['labels']):
    error = np.abs(raw.images / 16 - pixels[..., 0]).max(axis=(1, 2))
    assert raw.target[error.argmin()] == (0, 3)[label]
    assert error.min() < 1e-6
  mean = arrays['pixels'].mean()
  np.testing.assert_allclose(
      arrays['inputs'], arrays['pixels'] - mean, atol=1e-6)
  np.testing.assert_allclose(arrays['low'], [[[-mean]]], atol=1e-6)
  np.testing.assert_allclose(arrays['high'], [[[1 - mean]]], atol=1e-6)
  np.testing.assert_array_equal(
      arrays['targets'][:, 0], [-1, -1, -1, 1, 1, 1])


def test_a_victim_comes_back_as_it_was(standard):
  config = dataclasses.replace(SMALL, save_losses=(0.5, 0.01), save_steps=(0,))
  task = victims.prepare_victim_task(config)
  victim = victims.train_victim(config, task)
  loaded = victims.load_victim(standard[0])
  assert loaded.module == victim.module == nets.MLP(1, (32, 32))
  assert loaded.status == Status.CONVERGED
  assert loaded.learning_rate == victim.learning_rate
  _equal(loaded._replace(module=None), victim._replace(module=None))
  assert len(loaded.checkpoints) == 3
  _equal(loaded.checkpoints[0].params, loaded.theta_0)
  losses = [c.loss for c in loaded.checkpoints]
  assert losses[1] <= 0.5 < losses[0]
  assert losses[2] <= 0.01
  np.testing.assert_array_equal(
      train_lib.outputs(loaded, task.examples.x),
      train_lib.outputs(victim, task.examples.x))


def test_an_interrupted_run_goes_on(standard, tmp_path, monkeypatch):
  fields = {'save_losses': (0.5, 0.01), 'save_steps': (0,)}
  run_chunk = loop.runner.run_chunk
  calls = []

  def interrupted(*args, **kwargs):
    calls.append(1)
    if len(calls) == 2:
      signal.raise_signal(signal.SIGINT)
    return run_chunk(*args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(loop.runner, 'run_chunk', interrupted)
    _run(tmp_path, **fields)
  stopped = victims.load_victim(tmp_path)
  assert stopped.status == Status.INTERRUPTED
  assert len(stopped.curve) == 101
  _run(tmp_path, **fields)
  resumed, whole = (
      victims.load_victim(folder) for folder in (tmp_path, standard[0]))
  assert resumed.status == Status.CONVERGED
  _equal(resumed._replace(module=None), whole._replace(module=None))
  with pytest.raises(ValueError, match='`seed` was 0, is 1'):
    _run(tmp_path, seed=1, **fields)


@pytest.mark.slow
def test_linearized_victims_agree_both_ways(tmp_path):
  fields = {'regime': 'linearized', 'dtype': 'float64', 'width': 64}
  closed = _run(tmp_path / 'closed', **fields)
  descent = _run(tmp_path / 'descent', linearized_by='descent',
                 tolerance=1e-20, **fields)
  assert closed['final_mse'].value < 1e-20
  assert descent['final_mse'].value < 1e-20
  a, b = (victims.load_victim(tmp_path / n) for n in ('closed', 'descent'))
  assert a.linearised
  assert b.linearised
  pairs = zip(*(jax.tree.leaves(v.theta_T) for v in (a, b)))
  for left, right in pairs:
    assert left.dtype == 'float64'
    np.testing.assert_allclose(left, right, atol=1e-8)
  np.testing.assert_allclose(a.duals, b.duals, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize('fields', [
    {'loss': 'cross_entropy'},
    {'loss': 'cross_entropy', 'dataset': 'digits', 'num_train': 10},
    {'dataset': 'digits', 'num_train': 20, 'batch_size': 8},
    {'optimizer': 'adam', 'weight_decay': 1e-3},
    {'dp_clip': 1.0, 'dp_noise': 0.5, 'learning_rate': 1e-3},
    pytest.param({'architecture': 'convnet3', 'width': 4},
                 marks=pytest.mark.slow),
    pytest.param({'architecture': 'resnet', 'width': 2, 'norm': 'none',
                  'learning_rate': 0.01}, marks=pytest.mark.slow),
    {'parameterisation': 'ntk', 'w_std': 1.4, 'b_std': 0.1, 'depth': 1},
    {'recipe': 'flow'},
], ids=lambda fields: '-'.join(map(str, fields.values())))
def test_every_option_trains(fields, tmp_path):
  metrics = _run(tmp_path, max_steps=20, **fields)
  victim = victims.load_victim(tmp_path)
  assert victim.curve[-1] < victim.curve[0] or 'dp_clip' in fields
  assert 'final_cross_entropy' in metrics or 'final_mse' in metrics
  classes = 10 if fields.get('dataset') == 'digits' else 1
  targets = records.read_arrays(tmp_path)['targets']
  assert targets.shape[1] == classes
  if classes == 10:
    want = 1 if 'loss' in fields else 0  # One-hot, or centred.
    np.testing.assert_allclose(targets.sum(1), want, atol=1e-6)


@pytest.mark.parametrize(('fields', 'share'), [
    ({}, None), ({'batch_size': 4}, None), ({'weight_decay': 1e-4}, 0.05),
    ({'dp_clip': 1.0}, 0.05), ({'optimizer': 'adam'}, 0.05),
    ({'loss': 'cross_entropy'}, 0.05), ({'plateau': 0.2}, 0.2),
    ({'loss': 'cross_entropy', 'plateau': 0.0}, None)])
def test_a_plateau_ends_what_may_not_reach_the_tolerance(fields, share):
  assert recipes.plateau(dataclasses.replace(SMALL, **fields)) == share


def test_fine_tuning_starts_from_other_images(standard, tmp_path):
  metrics = _run(tmp_path, pretrain=40)
  config = victims.read_config(tmp_path)
  task = victims.prepare_victim_task(config)
  assert len(task.before.x) == 40
  np.testing.assert_array_equal(  # The victim's own images are as without.
      task.rows, records.read_arrays(standard[0])['rows'])
  pixels = np.asarray(task.transform.invert(task.before.x))
  gaps = np.abs(pixels[:, None] - task.train.x[None]).max(axis=(2, 3, 4))
  assert gaps.min() > 0.1  # No image is in both.
  np.testing.assert_allclose(task.before.x.mean(), 0, atol=1e-6)
  assert abs(float(task.examples.x.mean())) > 1e-3
  victim, plain = map(victims.load_victim, (tmp_path, standard[0]))
  start = victim._replace(theta_T=victim.theta_0)
  right = np.sign(train_lib.outputs(start, task.before.x))
  np.testing.assert_array_equal(right, task.before.y)
  assert metrics['final_mse'].value < 1e-10
  change = lambda v: sum(float(((a - b)**2).sum()) for a, b in zip(
      *map(jax.tree.leaves, (v.theta_T, v.theta_0))))
  assert change(victim) < 0.3 * change(plain)


def test_flags_of_the_parent_are_read():
  parse = eapp.make_flags_parser(train.Config, prog='train')
  config = parse(['train', '--save_losses', '0.1', '0.01', '--width=8',
                  '--regime=linearized', '--workdir=x'])
  assert config == train.Config(
      save_losses=(0.1, 0.01), width=8, regime='linearized', workdir='x')


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'num_train': 7}, '`num_train` must be a multiple of the 2 classes'),
    ({'num_train': 0}, '`num_train` must be .* at least 2'),
    ({'width': 0}, '`widths` must be .* at least 1'),
    ({'depth': -1}, '`depth` must be .* at least 0'),
    ({'regime': 'linearized', 'loss': 'cross_entropy'},
     "`loss` must be 'mse' with .* closed form; see `linearized_by`"),
    ({'regime': 'linearized', 'save_losses': (0.1,)}, '`save_losses` must be'),
    ({'optimizer': 'adam', 'momentum': 0.5}, '`momentum` must be 0.9 with'),
    ({'architecture': 'resnet', 'use_bias': False}, '`use_bias` must be True'),
    ({'norm': 'none'}, "`norm` must be 'instance' with mlp"),
    ({'dp_noise': 1.0}, '`clip` is needed with `noise`'),
    ({'recipe': 'flow', 'momentum': 0.5}, '`momentum` must be 0.9 with grad'),
    ({'recipe': 'flow', 'loss': 'cross_entropy'}, "`loss` must be 'mse' with"),
    ({'recipe': 'flow', 'regime': 'linearized', 'linearized_by': 'descent'},
     "`recipe` must be 'auto' with a linearized network"),
    ({'recipe': 'flow', 'regime': 'linearized'}, "`recipe` must be 'auto'"),
    ({'learning_rate': -1.0}, '`learning_rate` must be .* not negative'),
    ({'plateau': 1.5}, r'`plateau` must be in \[0, 1\]'),
    ({'recipe': 'flow', 'plateau': 0.1}, '`plateau` must be None with'),
    ({'pretrain': -2}, '`pretrain` must be .* at least 0'),
    ({'pretrain': 5}, '`pretrain` must be a multiple of the 2 classes'),
    ({'pretrain': 5000}, '`per_class` must be at most the size'),
])
def test_bad_values_are_refused_before_anything_is_written(
    fields, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    _run(tmp_path / 'out', **fields)
  assert not (tmp_path / 'out').exists()


def test_a_record_from_before_flow_is_one_of_descent(standard, tmp_path):
  shutil.copytree(standard[0], tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'record.json'
  record = json.loads(path.read_text('utf-8'))
  assert record['config'].pop('recipe') == 'auto'
  assert record['config'].pop('plateau') is None  # So it never ended by that.
  assert record['config'].pop('pretrain') == 0
  path.write_text(json.dumps(record), encoding='utf-8')
  assert victims.read_config(tmp_path) == dataclasses.replace(
      victims.read_config(standard[0]), plateau=0.0)
  attacked = attacks.resolve(attacks.AttackConfig(victim=str(tmp_path)))
  assert attacked.recipe == 'auto'


@pytest.mark.errors
def test_a_folder_without_a_victim_is_refused(tmp_path):
  with pytest.raises(ValueError, match='`workdir` must hold what'):
    victims.load_victim(tmp_path)
