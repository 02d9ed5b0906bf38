"""Data of every shape: it works, or is refused before any step."""
import dataclasses

import numpy as np
import pytest

from dsr.runs import records
from dsr.studies.audit import audit
from dsr.studies.distillation import compare, distill

SHAPES = {'four_channels': (8, 8, 4), 'odd': (5, 6, 1), 'table': (7,),
          'one_pixel': (1, 1, 1)}
SMALL = distill.Config(
    method='kip', images_per_class=2, steps=4, eval_every=2, networks='mlp',
    num_networks=2, network_epochs=2, validation=0.2)


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  """Three classes that differ in brightness, in a file for each shape."""
  folder, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)
  y = np.arange(60) % 3
  found = {}
  for name, shape in (SHAPES | {'channels_first': (3, 9, 9)}).items():
    x = rng.uniform(0, 0.5, (60, *shape)) + y.reshape(-1, *[1] * len(shape)) / 6
    found[name] = str(folder / f'{name}.npz')
    np.savez(found[name], x_train=x[:45], y_train=y[:45], x_test=x[45:],
             y_test=y[45:])
  return found


@pytest.mark.parametrize('name', SHAPES)
def test_kip_and_mlps_take_any_shape(paths, tmp_path, name):
  metrics = distill.run(dataclasses.replace(
      SMALL, dataset=paths[name], workdir=str(tmp_path)))
  least = 0.3 if name == 'one_pixel' else 0.5
  assert metrics['krr_accuracy'].value > least
  assert 'mlp_accuracy' in metrics
  images = records.read_arrays(tmp_path)['images']
  assert images.shape == (6, *SHAPES[name])
  assert (tmp_path / 'images.png').exists() == (name != 'table')
  assert 'failed_pictures' not in records.read(tmp_path)['extra']


@pytest.mark.errors
@pytest.mark.parametrize(('name', 'fields', 'message'), [
    ('odd', {'networks': 'mlp,convnet3'}, '`networks` must take.*at least 8'),
    ('odd', {'kernel': 'convnet3'}, '`kernel` must take inputs of shape'),
    ('odd', {'method': 'dm'}, '`dm_network` must take inputs'),
    ('odd', {'method': 'herding', 'features': 'network'}, '`score_netw'),
    ('table', {'networks': 'lenet'}, r'`networks` must take.*\(7,\)'),
    ('table', {'method': 'dm', 'dm_network': 'mlp'}, '`augment` must le'),
    ('table', {'protocol': 'dsa'}, '`protocol` must leave tables'),
    ('channels_first', {}, r'x_train = np.moveaxis\(x_train, 1, -1\)'),
], ids=str)
def test_what_cannot_work_is_refused_before_any_step(
    paths, tmp_path, name, fields, message):
  config = dataclasses.replace(
      SMALL, dataset=paths[name], workdir=str(tmp_path), **fields)
  if config.method != 'kip':
    config = dataclasses.replace(config, batch_size=None)
  with pytest.raises(ValueError, match=message):
    distill.run(config)
  assert not list(tmp_path.iterdir())


@pytest.mark.errors
@pytest.mark.parametrize('name', ['odd', 'table', 'channels_first'])
def test_comparisons_and_audits_refuse_before_their_first_part(
    paths, tmp_path, name):
  with pytest.raises(ValueError, match='`networks` must take|np.moveaxis'):
    compare.run(compare.Config(
        dataset=paths[name], methods='random,kip', images_per_class='1',
        networks='mlp,convnet3', workdir=str(tmp_path)))
  with pytest.raises(ValueError, match='`networks` m|`dataset` m|np.move'):
    audit.run(audit.Config(
        dataset=paths[name], methods='random', images_per_class='1',
        networks='convnet3', leak_train=0, lira_shadows=0, dp_epsilon=0.0,
        workdir=str(tmp_path)))
  assert not list(tmp_path.iterdir())
