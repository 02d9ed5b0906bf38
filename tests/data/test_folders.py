"""Folders of pictures: what is read, what is decided, what is refused."""
import numpy as np
from PIL import Image
import pytest

from dsr import data
from dsr.data import folders, released


def _draw(shape, seed):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _save(path, pixels, **how):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, **how)


@pytest.fixture
def root(tmp_path):
  """Two classes, training and test pictures, among other files."""
  for part, num in (('train', 3), ('test', 2)):
    for c, name in enumerate(('dog', 'cat')):
      for i in range(num):
        _save(tmp_path / part / name / f'{i}.png', _draw((6, 5), 9 * c + i))
  (tmp_path / 'train' / 'cat' / 'notes.txt').write_text('no picture')
  (tmp_path / 'train' / '.cache').mkdir()
  return tmp_path


def test_pictures_keep_their_pixels_and_classes_their_names(root):
  train, test = data.load(root)
  assert (train.classes, train.notes) == (('cat', 'dog'), ())
  assert train.y.tolist() == [0, 0, 0, 1, 1, 1]
  assert test.y.tolist() == [0, 0, 1, 1]
  expected = [_draw((6, 5), s) for s in (9, 10, 11, 0, 1, 2)]
  np.testing.assert_array_equal(
      train.x[..., 0], np.array(expected) / np.float32(255))
  np.testing.assert_array_equal(test.x[1], train.x[1])
  assert data.load(f'{root}[dog,cat]').train.classes == ('dog', 'cat')
  assert data.sources.input_size(root) == 30


def test_without_test_pictures_a_part_is_held_out(tmp_path):
  for name in ('10', '9', '2'):
    for i in range(10):
      _save(tmp_path / name / f'{i}.jpg', _draw((4, 4), i))
  train, test = data.load(tmp_path, seed=3)
  assert train.classes == ('2', '9', '10')  # Numbers in the order of numbers.
  assert np.bincount(train.y).tolist() == [8, 8, 8]
  assert 'drawn with seed 3, are the test set' in test.notes[0]
  again, other = (data.load(tmp_path, seed=s).test for s in (3, 4))
  np.testing.assert_array_equal(again.x, test.x)
  assert (other.x != test.x).any()


def test_colours_depths_and_orientations(tmp_path):
  grey, colour = _draw((4, 4), 0), _draw((4, 4, 3), 1)
  _save(tmp_path / 'a' / '0.png', grey)
  _save(tmp_path / 'a' / '1.png', colour)
  found = folders.read('set', tmp_path)
  assert found.notes == ('grey pictures were made colour, as some are',)
  np.testing.assert_array_equal(found.x[0], np.repeat(grey[..., None], 3, 2))
  np.testing.assert_array_equal(found.x[1], colour)
  deep = (256 * grey.astype(np.uint16) + 7)
  _save(tmp_path / 'b' / 'c' / '0.png', deep)
  np.testing.assert_array_equal(
      folders.read('set', tmp_path / 'b').x[0, ..., 0],
      deep / np.float32(65535))
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned clockwise.
  _save(tmp_path / 't' / 'c' / '0.png', grey, exif=exif)
  np.testing.assert_array_equal(
      folders.read('set', tmp_path / 't').x[0, ..., 0], np.rot90(grey, -1))


def test_a_size_crops_and_resizes(root):
  halves = np.zeros((8, 12), np.uint8)
  halves[:, 6:] = 255
  _save(root / 'train' / 'cat' / 'other.png', halves)
  with pytest.raises(ValueError, match=r'`name` must have pictures of one size'
                     r'.*6 x 5 \(6\), 8 x 12 \(1\).*train@32'):
    data.load(root)
  train, _ = data.load(f'{root}@4')
  assert train.x.shape == (7, 4, 4, 1)
  assert 'resized to 4 x 4' in train.notes[0]
  np.testing.assert_allclose(train.x[3, ..., 0].mean(0), [0, 0.1, 0.9, 1],
                             atol=0.1)


def test_state_follows_every_file(root):
  before = folders.state(root)
  assert folders.state(root) == before
  _save(root / 'train' / 'cat' / '2.png', _draw((6, 5), 99))
  assert folders.state(root) != before
  assert (data.load(root).train.x[2, ..., 0] * 255).round().tolist() == (
      _draw((6, 5), 99).tolist())  # Not what was decoded before.


def test_sets_of_every_kind_are_the_same_arrays(root, monkeypatch):
  images, _ = released.read_set('set', root / 'train')
  assert images['labels'].tolist() == ['cat'] * 3 + ['dog'] * 3
  assert len(released.files_of(root / 'train')) == 6
  x, y = np.moveaxis(images['images'], -1, 1), np.array([0, 0, 0, 1, 1, 1])
  inside = {'images_best.pt': x, 'labels_best.pt': y, 'idc.pt': [x, y],
            'dc.pt': {'data': [[x, y], [x[:1], y[:1]]], 'accs': {}},
            'named.pth': {'images': x, 'labels': y}, 'lonely.pt': x,
            'three.pt': [x, y, y]}
  monkeypatch.setattr(released.torch_file, 'read',
                      lambda name, path: inside[path.name])
  for name in ('images_best.pt', 'idc.pt', 'dc.pt', 'named.pth'):
    found, notes = released.read_set('set', root / name)
    np.testing.assert_array_equal(found['images'], images['images'])
    np.testing.assert_array_equal(found['labels'], y)
    assert bool(notes) == (name == 'dc.pt')
  for name, message in (('lonely.pt', 'labels beside images'),
                        ('three.pt', 'two tensors')):
    with pytest.raises(ValueError, match=f'`set` must h.*{message}'):
      released.read_set('set', root / name)


@pytest.mark.errors
def test_what_is_no_folder_of_classes_is_named(tmp_path, root):
  (root / 'train' / 'empty').mkdir()
  for path, message in (
      (root, 'pictures of each class.*train/empty'),
      (tmp_path / 'train' / 'cat', 'a folder of pictures for each class'),
      (tmp_path / 'nowhere', 'must be one of'),
      (f'{root}@0', r'size after @.*\[1, 4096\], got 0')):
    with pytest.raises(ValueError, match=message):
      data.load(path)
  (root / 'train' / 'empty').rmdir()
  _save(root / 'test' / 'bird' / '0.png', _draw((6, 5), 0))
  with pytest.raises(ValueError, match="of the classes cat, dog, got 'bird'"):
    data.load(root)
  (root / 'train' / 'cat' / '0.png').write_bytes(b'\x89PNG\r\n\x1a\nbroken')
  with pytest.raises(ValueError, match='can be read, .*cat/0.png cannot'):
    data.load(root)
  _save(tmp_path / 'one' / 'a' / '0.png', _draw((6, 5), 0))
  with pytest.raises(ValueError, match="two pictures .* got 1 of 'a'"):
    data.load(tmp_path / 'one')
