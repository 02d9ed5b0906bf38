"""Distilled sets as files: ours read again, others' converted."""
import numpy as np
import pytest

from dsr import data
from dsr.data import distilled, released, transforms
from dsr.studies.distillation import distill

IMAGES = np.random.default_rng(0).uniform(size=(12, 4, 4, 3)).astype(np.float32)


@pytest.mark.parametrize(
    'name', ['none', 'mean', 'standardise', 'zca', 'standardise+zca'])
def test_a_transform_comes_back_to_the_last_bit(name):
  transform = transforms.by_name(name, IMAGES)
  again = distilled.from_arrays(distilled.to_arrays(transform))
  assert again.name == transform.name
  z = transform.apply(IMAGES)
  np.testing.assert_array_equal(again.apply(IMAGES), z)
  np.testing.assert_array_equal(again.invert(z), transform.invert(z))


def test_a_run_can_be_used_elsewhere(tmp_path):
  distill.run(distill.Config(
      dataset='digits[0,3]', method='random', images_per_class=2, networks='',
      workdir=str(tmp_path)))
  found = data.load_distilled(tmp_path / 'distilled.npz')
  assert found.pixels.shape == (4, 8, 8, 1)
  assert found.labels.tolist() == [0, 0, 1, 1]
  np.testing.assert_allclose(
      found.transform.apply(found.pixels), found.inputs, atol=1e-6)
  np.testing.assert_array_equal(
      found.transform.invert(found.inputs), found.pixels)


@pytest.mark.parametrize('first', [True, False])
def test_released_sets_become_files_of_ours(tmp_path, first):
  mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])
  x = ((IMAGES - mean) / std).astype(np.float32)
  np.save(tmp_path / 'x.npy', np.moveaxis(x, -1, 1) if first else x)
  np.save(tmp_path / 'y.npy', np.eye(3)[np.arange(12) % 3])
  out = released.convert(tmp_path / 'x.npy', tmp_path / 'y.npy',
                         tmp_path / 'out.npz', mean=mean, std=std)
  found = data.files.read_npz('set', out)
  np.testing.assert_allclose(found['images'], IMAGES, atol=1e-6)
  assert found['labels'].tolist() == [0, 1, 2] * 4
  assert found['soft_labels'].shape == (12, 3)


@pytest.mark.errors
def test_what_cannot_be_converted_is_named(tmp_path):
  np.save(tmp_path / 'x.npy', 100 * IMAGES)
  np.save(tmp_path / 'y.npy', np.arange(12) % 3)
  convert = lambda x, y, **more: released.convert(
      tmp_path / x, tmp_path / y, tmp_path / 'out.npz', **more)
  with pytest.raises(ValueError, match='give `mean` and `std`'):
    convert('x.npy', 'y.npy')
  with pytest.raises(ValueError, match='`mean` and `std` go together'):
    convert('x.npy', 'y.npy', mean=[0.0])
  with pytest.raises(ValueError, match='`labels` must be a .pt or .npy'):
    convert('x.npy', 'y.txt', mean=[0] * 3, std=[0.01] * 3)
  assert not (tmp_path / 'out.npz').exists()
  (tmp_path / 'x.pt').write_bytes(b'')
  with pytest.raises(ValueError, match='`images` must be a file of tensors'):
    convert('x.pt', 'y.npy')


def test_files_of_pytorch(tmp_path):
  torch = pytest.importorskip('torch')
  torch.save(torch.tensor(np.moveaxis(IMAGES, -1, 1)), tmp_path / 'x.pt')
  torch.save([torch.arange(12) % 3], tmp_path / 'y.pt')
  out = released.convert(
      tmp_path / 'x.pt', tmp_path / 'y.pt', tmp_path / 'out.npz')
  np.testing.assert_array_equal(
      data.files.read_npz('set', out)['images'], IMAGES)
  torch.save(test_files_of_pytorch, tmp_path / 'code.pt')
  with pytest.raises(ValueError, match='asks for tests.data'):
    released.read('images', tmp_path / 'code.pt')
