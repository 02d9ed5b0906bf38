"""FRePo and MTT by the flags of the distill binary."""
import dataclasses

import numpy as np
import pytest

from dsr import train
from dsr.runs import records
from dsr.studies.distillation import distill, evaluation
from dsr.studies.distillation.methods import mtt, table
from dsr.studies.distillation.methods.method import family

SMALL = distill.Config(
    dataset='digits[0,3,8]', images_per_class=2, max_train=60, eval_every=2,
    networks='')


def _run(folder, **fields):
  config = dataclasses.replace(SMALL, workdir=str(folder), **fields)
  return distill.run(config)


@pytest.mark.slow
def test_frepo_learns_labels(tmp_path):
  metrics = _run(tmp_path, method='frepo', learning_rate=0.05, steps=4,
                 options='pool_network=mlp,pool=2,age=1')
  arrays = records.read_arrays(tmp_path)
  config = records.read(tmp_path)['config']
  start = np.eye(3)[arrays['labels']] - 1 / 3
  assert 0.01 < np.abs(arrays['targets'] - start).max() < 0.5
  assert metrics['krr_accuracy'].value > 0.5
  assert (config['batch_size'], config['keep']) == (1024, 'last')


@pytest.mark.slow
def test_mtt_keeps_experts_and_the_rate_that_networks_are_trained_with(
    tmp_path, monkeypatch):
  seen, evaluate = [], train.evaluate

  def watched(*args, protocol, **kwargs):
    seen.append(protocol.learning_rate)
    return evaluate(*args, protocol=protocol, **kwargs)

  monkeypatch.setattr(evaluation.train, 'evaluate', watched)
  fields = {'method': 'mtt', 'augment': 'none', 'learning_rate': 0.1,
            'networks': 'mlp', 'num_networks': 2, 'network_epochs': 2,
            'steps': 2, 'options': 'network=mlp,experts=1,student_steps=2,'
            'target_epochs=1,most_start=1,rate_rate=1e-4'}
  _run(tmp_path, protocol='condensation', **fields)
  arrays, record = records.read_arrays(tmp_path), records.read(tmp_path)
  rate = float(arrays['student_rate'])
  assert rate == record['extra']['student_rate'] == seen.pop()
  assert rate > 0
  assert abs(rate - 0.01) > 1e-4  # It was learned.
  assert (tmp_path / 'training' / 'experts_0000.npz').exists()
  assert record['extra']['num_experts'] == 1
  seconds = record['metrics']['method_seconds'].value
  assert seconds > record['extra']['expert_seconds'] > 0
  start = np.eye(3)[arrays['labels']] - 1 / 3
  np.testing.assert_allclose(arrays['targets'], start, atol=1e-6)
  _run(tmp_path, protocol='frepo', **fields)  # Adam has a rate of its own.
  assert seen.pop() == train.FREPO.learning_rate


def test_protocols_by_sgd_take_the_learned_rate_unless_told():
  config = distill.Config(protocol='dsa', dataset='mnist')
  rate = lambda c: evaluation.protocol(c, 0.02).learning_rate
  assert rate(config) == rate(distill.resolve(config)) == 0.02
  assert rate(dataclasses.replace(config, network_learning_rate=0.5)) == 0.5
  assert rate(dataclasses.replace(config, protocol='frepo')) == 3e-4
  assert evaluation.protocol(config).learning_rate == 0.01


def test_rates_go_by_the_data_set():
  assert [family(name) for name in (
      'digits[3,8]', 'mnist', 'fashion_mnist', 'cifar100', 'a/cifar10.npz',
      'mine.npz')] == ['digits', 'mnist', 'mnist', 'cifar', 'cifar', 'mnist']
  rate = lambda **f: table.resolve(distill.Config(**f)).learning_rate
  assert rate(method='frepo', dataset='mnist') == 3e-4
  assert rate(method='frepo', dataset='digits') > 3e-4
  cifar = {'method': 'mtt', 'dataset': 'cifar10'}
  assert rate(**cifar, images_per_class=1) == 100
  assert rate(**cifar, images_per_class=10) == 1000
  assert rate(**cifar, learning_rate=3.0) == 3
  for size in (1, 10):
    usual = mtt.recipe(distill.Config(
        method='mtt', dataset='digits', images_per_class=size))
    assert usual.learning_rate < 100  # More than that destroys digits.


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'method': 'frepo', 'options': 'pool=0'}, '`options pool`'),
    ({'method': 'frepo', 'options': 'optimizer=sgd'}, '`options optimizer`'),
    ({'method': 'frepo', 'options': 'pool_network=vit'}, '`options pool_net'),
    ({'method': 'frepo', 'options': 'labels=soft'}, 'labels'),
    ({'method': 'frepo', 'augment': 'dsa'}, '`augment` must be none'),
    ({'method': 'mtt', 'options': 'experts=0'}, '`options experts`'),
    ({'method': 'mtt', 'options': 'rate_rate=0'}, '`options rate_rate`'),
    ({'method': 'mtt', 'options': 'precision=int8'}, '`options precision`'),
    ({'method': 'mtt', 'options': 'network=convnet9'}, '`options network` mu'),
    ({'method': 'mtt', 'ema': 0.5}, '`ema` must be 0.0 with mtt'),
], ids=str)
def test_bad_values_are_named_and_leave_no_files(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    _run(tmp_path / 'out', **fields)
  assert not (tmp_path / 'out').exists()
