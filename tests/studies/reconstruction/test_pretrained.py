"""Fine-tuned victims: a small network stands for the one from ImageNet."""
import dataclasses

import jax
import numpy as np
import pytest

from dsr import nets
from dsr.attack import match
from dsr.nets import pretrained
from dsr.nets.fixed_norm import Moments
from dsr.runs import records
from dsr.studies.reconstruction import cases, reconstruct, victims
from tests.studies.reconstruction import attackers

SHAPE = (8, 8, 3)


@pytest.fixture
def trunk(monkeypatch):
  """The parameters, but the readout, that are taken for those of ImageNet."""
  module = lambda num_outputs: nets.ResNet(num_outputs, width=2, norm='none')
  shapes = jax.eval_shape(
      module(5).init, jax.random.key(0), np.zeros((1, *SHAPE), 'float32'))
  leaves, tree = jax.tree.flatten(shapes['params'])
  rng = np.random.default_rng(0)
  params = tree.unflatten([
      rng.normal(size=a.shape).astype('float32') / 4 for a in leaves])
  readout = params.pop('readout')
  monkeypatch.setattr(pretrained, 'module', module)
  monkeypatch.setattr(pretrained, 'load', lambda: pretrained.Pretrained(
      params, Moments({}), readout))
  return params


@pytest.fixture
def config(tmp_path):
  """Of a victim on four colour images."""
  rng = np.random.default_rng(1)
  path = tmp_path / 'colours.npz'
  np.savez(path, x_train=rng.random((12, *SHAPE), 'float32'),
           y_train=np.arange(12) % 2, x_test=rng.random((4, *SHAPE), 'float32'),
           y_test=np.arange(4) % 2)
  return reconstruct.Config(
      dataset=str(path), num_train=4, regime='standard', attack='finite',
      architecture='efficientnet_lite0', momentum=0.0, learning_rate=0.01,
      max_steps=20, workdir=str(tmp_path / 'out'))


def test_starts_from_the_trunk_and_is_scored_by_ssim(
    trunk, config, monkeypatch):
  attacker = attackers.Attacker(config.dataset, offset=0.0)
  attackers.install(monkeypatch, {'finite': attacker})
  seen = []
  make_case = cases.make_case
  monkeypatch.setattr(cases, 'make_case', lambda *args, **kwargs: seen.append(
      make_case(*args, **kwargs)) or seen[-1])
  metrics = reconstruct.run(config)
  (case,) = seen
  theta_0 = dict(case.released.theta_0)
  assert set(theta_0.pop('readout')) == {'kernel', 'bias'}
  jax.tree.map(np.testing.assert_array_equal, theta_0, trunk)
  assert any((a != b).any() for a, b in zip(
      jax.tree.leaves(case.released.theta_T), jax.tree.leaves(theta_0)))
  np.testing.assert_allclose(
      case.task.examples.x, case.task.train.x - 127 / 255, atol=1e-6)
  np.testing.assert_allclose(case.task.low, np.full((1, 1, 3), -127 / 255),
                             rtol=1e-6)
  arrays = records.read_arrays(config.workdir)
  far = match.distances(arrays['truth'], arrays['pixels'], 'ssim')
  matched = match.greedy(far)
  np.testing.assert_allclose(arrays['greedy_ssim'], 1 - matched.distance)
  assert metrics['greedy_ssim_0.4'].value == np.mean(matched.distance < 0.6)
  assert metrics['others_greedy_ssim_0.4'].value < 1
  assert metrics['means_median_greedy_ssim'].value < 0.9
  assert {'similar.png', 'reconstructions.png'} <= {
      p.name for p in (records.pathlib.Path(config.workdir)).iterdir()}


@pytest.mark.errors
def test_what_does_not_suit_the_network_is_refused(trunk, config):
  for fields, message in (
      ({'norm': 'none'}, "`norm` must be 'instance' with efficientnet_lite0"),
      ({'width': 8}, '`width` must be None with'),
      ({'depth': 8}, '`depth` must be None with')):
    with pytest.raises(ValueError, match=message):
      reconstruct.run(dataclasses.replace(config, **fields))
  with pytest.raises(ValueError, match='`dataset` must have images of 3 chan'):
    victims.prepare_victim_task(victims.VictimConfig(
        dataset='digits', num_train=10, architecture='efficientnet_lite0'))
