"""DC, DSA and IDC through the command: resumed bits, advice, what it writes."""
import dataclasses

import numpy as np
import pytest

from dsr.runs import records
from dsr.studies.distillation import distill, evaluation
from dsr.studies.distillation.methods import idc

SMALL = distill.Config(
    dataset='digits[0,3,8]', images_per_class=2, steps=4, eval_every=2,
    networks='', batch_size=20, learning_rate=1e-3)
# A network in the middle of its turns at the checkpoint, after two steps.
CASES = {
    'dc': 'network=mlp,outer=3,inner=2',
    'dsa': 'network=mlp,outer=3,inner=2',
    'idc': 'network=mlp,factor=2,inner=3,network_examples=30,cutmix=0.5',
}


def _run(folder, method, **fields):
  config = dataclasses.replace(
      SMALL, workdir=str(folder), method=method, options=CASES[method])
  return distill.run(dataclasses.replace(config, **fields))


@pytest.mark.slow
@pytest.mark.parametrize('method', ['dc', 'dsa', 'idc'])
def test_a_resumed_run_has_the_same_bits(tmp_path, method):
  for steps in (2, 4):
    _run(tmp_path / 'twice', method, steps=steps)
  _run(tmp_path / 'once', method)
  twice, once = (records.read_arrays(tmp_path / name)
                 for name in ('twice', 'once'))
  assert twice.keys() == once.keys()
  for name, array in once.items():
    np.testing.assert_array_equal(twice[name], array, strict=True)
  tiles = 4 if method == 'idc' else 1
  assert once['images'].shape == (6 * tiles, 8, 8, 1)
  np.testing.assert_array_equal(
      once['labels'], np.repeat([0, 1, 2], 2 * tiles))
  np.testing.assert_allclose(
      once['targets'], np.eye(3)[once['labels']] - 1 / 3, atol=1e-6)
  if method == 'idc':
    assert once['stored'].shape == (6, 8, 8, 1)
    assert once['images'].min() >= -1e-6
    assert once['images'].max() <= 1 + 1e-6
  extra = records.read(tmp_path / 'twice')['extra']
  assert extra['steps_done'] == 4
  assert extra['validation_steps'] == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize('method', ['dc', 'idc'])
def test_a_diverging_rate_is_told_with_options_of_the_method(tmp_path, method):
  with pytest.raises(FloatingPointError, match=(
      f'The loss of {method} is not finite at step .: lower `learning_rate` '
      r'\(got 1e\+38\) or lower `network_rate` of `options` \(got its def')):
    _run(tmp_path, method, learning_rate=1e38)


def test_recipes_belong_to_the_data():
  def idc_of(dataset, options='', images=1):
    config = distill.resolve(distill.Config(
        method='idc', dataset=dataset, options=options,
        images_per_class=images))
    return config, idc.options(config)

  config, own = idc_of('cifar10')
  assert config.learning_rate == pytest.approx(5e-4)
  assert config.augment == 'color_crop_cutout'
  assert own[2:] == ('mse', 100, 0.01, 2000, 0.5)
  config, own = idc_of('some/where/mnist.npz', images=50)
  assert config.learning_rate == pytest.approx(5e-4)
  assert config.augment == 'color_crop'
  assert own[2:] == ('l1', 100, 0.01, 500, 0.0)
  config, own = idc_of('digits[0,1]')
  assert (own.network, own.factor) == ('convnet2', 1)
  assert config.learning_rate == pytest.approx(3e-5)
  config, own = idc_of('mnist', 'factor=1')
  assert config.augment == 'color_crop_cutout'
  assert own.cutmix == 0.5
  for method in ('dc', 'dsa'):
    config = distill.resolve(distill.Config(method=method, dataset='cifar10'))
    assert config.learning_rate == 0.1
    assert config.augment == {'dc': 'none', 'dsa': 'dsa'}[method]
  config = distill.Config(dataset='mnist', protocol='idc')
  assert evaluation.protocol(config).cutmix == 0
  assert evaluation.protocol(
      config).augment == 'layered_color_crop_scale_rotate'
  config = dataclasses.replace(config, dataset='cifar10')
  assert evaluation.protocol(config).cutmix == 0.5


@pytest.mark.errors
@pytest.mark.parametrize(('method', 'fields', 'message'), [
    ('dc', {'augment': 'dsa'}, '`augment` must be none with dc'),
    ('dc', {'batch_size': 0}, '`batch_size` must be an integer of at least 1'),
    ('dc', {'options': 'outer=-1'}, '`options outer` must be an integer of'),
    ('dsa', {'options': 'factor=2'}, 'options are: network, outer, inner'),
    ('dsa', {'augment': 'blur'}, '`strategy` must be one of'),
    ('dsa', {'options': 'network=vit'}, 'must be one of mlp'),
    ('idc', {'options': 'factor=0'}, '`options factor` must be an integer'),
    ('idc', {'options': 'metric=cos'}, 'metric` must be one of auto, mse, l1'),
    ('idc', {'corruption': 0.5}, '`corruption` must be 0 with idc'),
    ('idc', {'images_per_class': 100, 'options': 'factor=2'},
     '`images_per_class` must be at most'),
])
def test_bad_values_are_named_and_leave_no_files(
    tmp_path, method, fields, message):
  with pytest.raises(ValueError, match=message):
    _run(tmp_path / 'out', method, **fields)
  assert not (tmp_path / 'out' / 'record.json').exists()
