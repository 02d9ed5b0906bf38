"""A toy of each kind joins by one line of its table, from outside."""
import dataclasses
import pathlib
from typing import NamedTuple

from flax import linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack.result import Reconstruction
from dsr.probes import scores
from dsr.runs import records
from dsr.studies.audit import attack_table, audit
from dsr.studies.distillation import compare, distill
from dsr.studies.distillation.methods import table as methods
from dsr.studies.distillation.methods.method import (
    Method,
    options_of,
    unlearned,
)
from dsr.studies.reconstruction import reconstruct, table as attacks
from dsr.types import Status

DATA = 'digits[0,3,8]'


class MeansOptions(NamedTuple):
  """Of the toy method."""

  shift: float = 0.0


def means(config, kernel_fn, problem, baseline):
  """Every image is the mean of its class."""
  del kernel_fn
  own = options_of(METHOD, config.options)
  x, y = problem.inputs(problem.train), problem.train.y
  of_class = jnp.stack([x[y == c].mean(0) for c in range(3)])
  return unlearned(baseline._replace(
      x=of_class[problem.start.y] + own.shift))


METHOD = Method(means, 'means of classes', {'keep': 'last'},
                options=MeansOptions)


class Linear(nn.Module):
  """A network of one layer."""

  num_outputs: int

  @nn.compact
  def __call__(self, x, *, features=False):
    x = x.reshape(len(x), -1)
    return x if features else nn.Dense(self.num_outputs, name='readout')(x)


class GreyOptions(NamedTuple):
  """Of the toy attack on networks."""

  steps: int = 1
  level: float = 0.5


def grey(key, released, config, *, workdir=None, on_chunk=None):
  """Says that all images are grey."""
  del key, workdir, on_chunk
  low, high = np.asarray(released.low), np.asarray(released.high)
  image = np.broadcast_to(
      low + config.level * (high - low), released.input_shape)
  found = np.repeat(image[None], released.num_train, 0)
  return Reconstruction(
      found, np.zeros((len(found), released.num_outputs)), 0.0, np.ones(1),
      Status.FINISHED, {})


def spread(outputs, y):
  """The deviation of the outputs."""
  del y
  return np.asarray(outputs, float).std(-1)


def still(key, predict_fn, x, labels, *, epsilon, norm):
  """Leaves images as they are."""
  del key, predict_fn, labels, epsilon, norm
  return x


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  """One line for each kind."""
  for table, name, line in (
      (methods.METHODS, 'means', METHOD),
      (attacks.ATTACKS, 'grey', attacks.Attack(grey, GreyOptions, 'grey')),
      (attack_table.ATTACKS, 'still', attack_table.Attack(
          still, 'linf', 'nothing', steps=None)),
      (scores.SCORES, 'spread', spread),
      (nets.NETWORKS, 'linear', nets.Network(Linear, 'one layer'))):
    monkeypatch.setitem(table, name, line)


def test_a_method_and_a_network_in_distill_and_compare(tmp_path):
  config = distill.Config(
      dataset=DATA, method='means', images_per_class=2, networks='linear',
      num_networks=2, network_epochs=2, options='shift=0.25',
      workdir=str(tmp_path / 'one'))
  metrics = distill.run(config)
  assert metrics['krr_accuracy'].value > 0.8
  assert 'linear_accuracy' in metrics
  inputs = records.read_arrays(tmp_path / 'one')['inputs']
  np.testing.assert_allclose(inputs[0], inputs[1])  # Of one class.
  compared = compare.run(compare.Config(
      dataset=DATA, methods='random,means', images_per_class='1',
      networks='linear', num_networks=2, network_epochs=2,
      options='means.shift=0.25', workdir=str(tmp_path / 'all')))
  assert 'means_1_linear_accuracy' in compared
  job = records.read(tmp_path / 'all' / 'means_1')['config']
  assert job['options'] == 'shift=0.25'
  assert 'means of classes' in distill.Config.describe()


@pytest.mark.errors
def test_errors_read_the_tables(tmp_path):
  config = distill.Config(dataset=DATA, method='means', networks='',
                          workdir=str(tmp_path / 'none'))
  for fields, message in (
      ({'method': 'mean'}, '`method` must be one of .*means'),
      ({'options': 'shift=x'}, '`options` must give shift as float'),
      ({'options': 'lift=1'}, 'options are: shift; got'),
      ({'networks': 'lineal'}, 'must be one of .*linear')):
    with pytest.raises(ValueError, match=message):
      distill.run(dataclasses.replace(config, **fields))
  assert not (tmp_path / 'none').exists()


def test_an_attack_on_networks_in_reconstruct(tmp_path):
  config = reconstruct.Config(
      dataset=DATA, num_train=6, regime='linearized', width=16, attack='grey',
      options='level=0.25', workdir=str(tmp_path))
  metrics = reconstruct.run(config)
  assert metrics['mean_rmse'].value > 0.1
  rebuilt = records.read_arrays(tmp_path / 'reconstruction.npz')
  assert any(np.allclose(a, 0.25, atol=1e-5) for a in rebuilt.values()
             if a.shape == (6, 8, 8, 1))


def test_all_kinds_in_an_audit(tmp_path):
  metrics = audit.run(audit.Config(
      dataset=DATA, max_train=60, methods='means', images_per_class='2',
      inits='real', networks='linear', num_networks=2, network_epochs=2,
      full_epochs=1, options='', num_probed=40, learned='', dp_epsilon=0.0,
      lira_shadows=0, num_attacked=6, attacks='still', curve='still',
      corruptions='', leak_train=0, workdir=str(tmp_path)))
  assert 'means_2_linear_accuracy' in metrics
  folder = pathlib.Path(tmp_path) / 'means_2' / 'linear'
  probed = records.read(folder / 'membership')
  assert 'train_spread_auc' in probed['metrics']
  attacked = records.read(folder / 'robustness')['metrics']
  assert attacked['still_accuracy'] == attacked['clean_accuracy']
  assert (tmp_path / 'report.html').exists()


def test_studies_work_in_memory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = distill.Config(
      dataset=DATA, method='kip', images_per_class=1, steps=4, eval_every=2,
      networks='linear', num_networks=2, network_epochs=2, workdir='written')
  made = distill.distil(config)
  assert not list(tmp_path.iterdir())
  assert made.learned.examples.x.shape == (3, 8, 8, 1)
  written = distill.run(config)
  for name, metric in made.metrics.items():
    if not name.endswith('seconds'):
      assert metric == written[name]
  rebuilt = reconstruct.rebuild(reconstruct.Config(
      dataset=DATA, num_train=6, regime='linearized', width=16, attack='grey',
      workdir='nowhere'))
  assert rebuilt.found.candidates.shape == (6, 8, 8, 1)
  assert rebuilt.metrics['mean_rmse'].value > 0.1
  assert [path.name for path in tmp_path.iterdir()] == ['written']
