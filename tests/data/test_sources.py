"""Sources: exact pixels, the cache, and messages for what cannot be loaded."""
import sys
import types

import numpy as np
import pytest

from dsr import data
from dsr.data import prepared as prepared_lib


def _arrays(seed=0, shape=(8, 8, 3), train=40, test=20):
  """Ten classes, all present, as eight-bit images."""
  rng = np.random.default_rng(seed)
  draw = lambda n: rng.integers(0, 256, (n, *shape), dtype=np.uint8)
  return {'x_train': draw(train), 'y_train': np.arange(train) % 10,
          'x_test': draw(test), 'y_test': np.arange(test) % 10}


def _write(path, **changes):
  arrays = _arrays() | changes
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  return str(path)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
  """A folder that looks like prepared TFDS sets; decoding only counts."""
  folder = tmp_path / 'tfds'
  for name in ('mnist', 'cifar10'):
    (folder / name / '1.0.0').mkdir(parents=True)
    (folder / name / '1.0.0/dataset_info.json').write_text('{}')
  calls = []

  def decode(name, where):
    calls.append((name, str(where)))
    return list(_arrays(seed=len(calls)).values())

  monkeypatch.setattr(prepared_lib, '_decode_tfds', decode)
  monkeypatch.setenv('DSR_CACHE_DIR', str(tmp_path / 'cache'))
  return folder, calls


def test_digits_are_all_there_and_split_by_class():
  import sklearn.datasets
  raw = sklearn.datasets.load_digits()
  train, test = data.load('digits')
  assert train.x.shape[1:] == (8, 8, 1)
  assert train.x.dtype == np.float32
  assert train.y.dtype == np.int32
  assert len(test) == round(0.2 * 1797)
  both = np.concatenate([train.x, test.x]).reshape(1797, -1) * 16
  order = lambda a: a[np.lexsort(a.T)]
  np.testing.assert_array_equal(order(both), order(raw.data))
  exact = 0.2 * np.bincount(raw.target)
  assert np.abs(np.bincount(test.y) - exact).max() < 1


def test_digits_follow_the_seed():
  first, again, other = (data.load('digits', seed=s).test.x for s in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


@pytest.mark.slow
def test_mnist_has_its_published_statistics_and_is_cached(
    tfds_dir, tmp_path, monkeypatch):
  train, test = data.load('mnist', data_dir=tfds_dir, cache_dir=tmp_path)
  assert train.x.shape == (60000, 28, 28, 1)
  assert test.x.shape == (10000, 28, 28, 1)
  np.testing.assert_array_equal(
      np.bincount(test.y),
      [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
  np.testing.assert_allclose(
      [train.x.mean(dtype=float), train.x.std(dtype=float)],
      [0.13066048, 0.30810780], rtol=1e-6)
  monkeypatch.setitem(sys.modules, 'tensorflow', None)  # Cannot be imported.
  task = data.load('mnist_odd_even', data_dir=tfds_dir, cache_dir=tmp_path)
  np.testing.assert_array_equal(task.train.x, train.x)
  np.testing.assert_array_equal(task.train.y, train.y % 2)
  np.testing.assert_array_equal(task.test.y, test.y % 2)


@pytest.mark.slow
def test_cifar10_has_its_published_statistics(tfds_dir, tmp_path):
  train, test = data.load('cifar10', data_dir=tfds_dir, cache_dir=tmp_path)
  assert train.x.shape == (50000, 32, 32, 3)
  np.testing.assert_array_equal(np.bincount(test.y), [1000] * 10)
  np.testing.assert_allclose(
      train.x.mean((0, 1, 2), dtype=float),
      [0.49139968, 0.48215841, 0.44653091], rtol=1e-6)


def test_eight_bit_pixels_are_exact_quotients(tmp_path):
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
  path = _write(
      tmp_path / 'a.npz', x_train=np.repeat(levels, 40, axis=0),
      x_test=np.repeat(levels, 20, axis=0))
  train, _ = data.load(path)
  assert train.x.shape == (40, 16, 16, 1)
  np.testing.assert_array_equal(
      train.x[0].ravel(), (np.arange(256) / 255).astype(np.float32))


def test_npz_takes_floats_and_choices_of_classes(tmp_path):
  raw = _arrays()
  path = _write(tmp_path / 'a.npz', x_train=raw['x_train'] / 255.0)
  train, test = data.load(path + '[7,2:4]')
  assert (train.num_classes, train.name) == (3, path + '[7,2:4]')
  for got, x, y in ((train, raw['x_train'], raw['y_train']),
                    (test, raw['x_test'], raw['y_test'])):
    rows = np.flatnonzero(np.isin(y, [7, 2, 3]))
    np.testing.assert_array_equal(got.y, [[7, 2, 3].index(v) for v in y[rows]])
    np.testing.assert_array_equal(np.rint(got.x * 255), x[rows])


def test_labels_as_texts_or_with_gaps_are_numbered(tmp_path):
  kinds = np.array(['wolf', 'ant', 'bee'])
  for values, names in ((kinds, ('ant', 'bee', 'wolf')),
                        (np.array([9, 3, 7]), ('3', '7', '9'))):
    y = values[np.arange(40) % 3]
    path = _write(tmp_path / 'a.npz', y_train=y, y_test=y[:20])
    train, test = data.load(path)
    assert train.classes == test.classes == names
    assert [train.classes[c] for c in train.y] == list(map(str, y))
    np.testing.assert_array_equal(test.y, train.y[:20])
    assert train.notes[0].startswith(f'labels {names[0]}, {names[1]}')
    part = data.load(f'{path}[{names[2]},{names[0]}]').test
    assert part.classes == (names[2], names[0])
    np.testing.assert_array_equal(
        part.x, test.x[(test.y == 2) | (test.y == 0)])
  with pytest.raises(ValueError, match="`name` must be of the classes 3, 7, 9"):
    data.load(f'{path}[0,1]')
  names = np.array(list('abcdefghij'))  # Of numbers that stay.
  train, _ = data.load(_write(tmp_path / 'b.npz', classes=names))
  assert (train.classes, train.notes) == (tuple('abcdefghij'), ())
  np.testing.assert_array_equal(train.y, np.arange(40) % 10)
  y = names[np.arange(40) % 10]
  again, _ = data.load(_write(
      tmp_path / 'c.npz', classes=names, y_train=y, y_test=y[:20]))
  np.testing.assert_array_equal(again.y, train.y)
  assert data.digest(train) == data.digest(again)
  assert data.digest(train) != data.digest(data.load(
      _write(tmp_path / 'd.npz', classes=names[::-1]))[0])


def test_second_load_comes_from_the_cache(prepared):
  folder, calls = prepared
  first = data.load('mnist', data_dir=folder)
  second = data.load('mnist', data_dir=folder)
  assert len(calls) == 1
  for a, b in zip(first, second):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.y, b.y)
  data.load('cifar10', data_dir=folder)
  assert [name for name, _ in calls] == ['mnist', 'cifar10']


def test_other_folder_and_changed_folder_are_decoded_anew(prepared):
  folder, calls = prepared
  first = data.load('mnist', data_dir=folder)
  folder = folder.rename(folder.with_name('moved'))
  moved = data.load('mnist', data_dir=folder)
  assert len(calls) == 2
  assert (first.train.x != moved.train.x).any()
  (folder / 'mnist/1.0.0/dataset_info.json').write_text('{ }')
  data.load('mnist', data_dir=folder)
  assert len(calls) == 3


def test_default_folder_is_that_of_tfds(prepared, monkeypatch):
  folder, calls = prepared
  monkeypatch.setenv('TFDS_DATA_DIR', str(folder))
  data.load('mnist')
  assert calls == [('mnist', str(folder))]


def test_failed_write_leaves_no_cache_behind(prepared, tmp_path, monkeypatch):
  def fail(*_, **__):
    raise OSError('disk full')
  monkeypatch.setattr(np, 'savez', fail)
  with pytest.raises(OSError, match='disk full'):
    data.load('mnist', data_dir=prepared[0])
  assert not list((tmp_path / 'cache').iterdir())


def test_trucks_are_vehicles_in_both_parts(prepared):
  train, test = data.load('cifar10_animal_vehicle', data_dir=prepared[0])
  for part in (train, test):
    original = np.arange(len(part)) % 10
    expected = [c in ('0', '1', '8', '9') for c in map(str, original)]
    np.testing.assert_array_equal(part.y, expected)
    assert (part.num_classes, part.name) == (2, 'cifar10_animal_vehicle')


def test_every_known_name_is_understood(prepared):
  for name in data.known():
    if name == 'digits' or name.startswith(('mnist', 'cifar10_')):
      assert data.load(name, data_dir=prepared[0]).train.name == name
  assert {'digits', 'mnist', 'fashion_mnist', 'cifar10', 'cifar100',
          'svhn_cropped', 'mnist_odd_even', 'cifar10_animal_vehicle'
          } == set(data.known())


def test_sizes_are_known_before_reading(tmp_path):
  size = data.sources.input_size
  assert size('digits[0,3]') == 64
  assert size('mnist_odd_even') == 784
  assert size('cifar10[0:5]') == 3072
  assert size('nonsense') is None
  assert size(tmp_path / 'none.npz') is None
  np.savez(tmp_path / 'a.npz', x_train=np.zeros((5, 3, 4)))
  assert size(f'{tmp_path}/a.npz[0,1]') == 12


@pytest.mark.errors
def test_unknown_name_lists_the_known_ones():
  with pytest.raises(ValueError) as info:
    data.load('minst')
  assert all(name in str(info.value) for name in data.known())


@pytest.mark.errors
@pytest.mark.parametrize(('name', 'message'), [
    ('digits[]', 'must choose classes'),
    ('digits[a]', 'must choose classes'),
    ('digits[-1]', 'must choose classes'),
    ('digits[3]', '`classes` must name two or more'),
    ('digits[5:3]', '`classes` must name two or more'),
    ('digits[3,3]', '`classes` must not repeat'),
    ('digits[3,10]', r'`classes` must be in \[0, 10\)'),
])
def test_bad_choice_of_classes(name, message):
  with pytest.raises(ValueError, match=message):
    data.load(name)


@pytest.mark.errors
def test_missing_tfds_data_says_how_to_get_it(tmp_path):
  with pytest.raises(ValueError, match="`data_dir`.*'svhn_cropped'.*tfds.load"):
    data.load('svhn_cropped', data_dir=tmp_path)


@pytest.mark.errors
def test_failed_download_says_how_to_get_it(tmp_path, monkeypatch):
  def builder(name, data_dir):
    raise OSError('no network')
  monkeypatch.setattr(
      prepared_lib, '_import_tfds',
      lambda: types.SimpleNamespace(builder=builder))
  monkeypatch.setattr(prepared_lib, '_reachable', lambda: True)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(ValueError, match=r'no network.*tfds.load'):
    data.load('mnist')


@pytest.mark.errors
def test_missing_tensorflow_is_named(tmp_path, monkeypatch):
  (tmp_path / 'mnist/3.0.1').mkdir(parents=True)
  (tmp_path / 'mnist/3.0.1/dataset_info.json').write_text('{}')
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  wanted = r"mnist.*pip install -e '\.\[datasets\]'"
  with pytest.raises(ImportError, match=wanted):
    data.load('mnist', data_dir=tmp_path, cache_dir=tmp_path)


@pytest.mark.errors
@pytest.mark.parametrize(('changes', 'message'), [
    ({'y_test': None}, 'lacks y_test'),
    ({'x_train': np.zeros((40, 8))}, r'`x_test` has examples of shape'),
    ({'x_train': np.zeros((40, 8, 8, 3), int)}, '`x_train` must be uint8'),
    ({'x_train': np.full((40, 8, 8, 3), np.nan)}, '`x_train` must be finite'),
    ({'x_test': np.full((20, 8, 8, 3), 255.0)}, r'`x_test`.*\[0, 1\].*255'),
    ({'x_test': np.zeros((20, 8, 9, 3))}, r'`x_test`.*\(8, 9, 3\)'),
    ({'x_test': np.zeros((0, 8, 8, 3), np.uint8)}, '`x_test` must not be emp'),
    ({'y_train': np.arange(39) % 10}, 'same number of rows.*39'),
    ({'y_train': np.arange(40) % 10 / 1.0}, '`y_train`.*integers.*float64'),
    ({'y_train': np.arange(40) % 10 - 1}, "`y_test` must be of.*got 9"),
    ({'y_train': np.arange(40) % 9 + (np.arange(40) % 9 > 3)},
     '`y_test` must be of the classes 0, 1, 2, 3, 5, .*got 4'),
    ({'classes': np.array(list('abcdefghijk'))},
     '`y_train` must have every class from 0 to 10.*of class 10'),
    ({'classes': np.array(list('abcdefghia'))}, '`classes` must name each'),
    ({'y_train': np.full((40, 2), 'a')}, '`y_train` must be a vector'),
    ({'y_test': np.arange(20)}, r'`y_test` must be in \[0, 10\)'),
    ({'y_test': np.array([{}] * 20)}, '`name` must be a readable .npz'),
])
def test_malformed_npz(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    data.load(_write(tmp_path / 'a.npz', **changes))


@pytest.mark.errors
def test_unreadable_npz(tmp_path):
  (tmp_path / 'a.npz').write_text('not an archive')
  for path in (tmp_path / 'a.npz', tmp_path / 'absent.npz'):
    with pytest.raises(ValueError, match='`name` must be a readable .npz'):
      data.load(path)


def test_a_set_that_is_nowhere_is_named_within_seconds(tmp_path, monkeypatch):
  def refused(address, timeout):
    assert timeout <= 10
    raise OSError('no network')

  monkeypatch.setattr(prepared_lib.socket, 'create_connection', refused)
  monkeypatch.setattr(prepared_lib.urllib.request, 'getproxies', dict)
  monkeypatch.setattr(prepared_lib, '_import_tfds', lambda: 1 / 0)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(ValueError, match=r'no network to download.*tfds.load'):
    data.load('mnist')


def test_tables_are_data(tmp_path):
  x = np.random.default_rng(0).normal(size=(60, 5)) * 100
  path = _write(tmp_path / 'table.npz', x_train=x[:40], x_test=x[40:])
  splits = data.load(path)
  assert splits.train.x.shape == (40, 5)
  np.testing.assert_array_equal(splits.test.x, x[40:].astype(np.float32))
  transform = data.transforms.by_name('standardise', splits.train.x)
  z = np.asarray(transform.apply(splits.train.x))
  np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(z.std(0), 1, atol=1e-5)
  np.testing.assert_allclose(
      transform.invert(z), splits.train.x, rtol=1e-4, atol=1e-3)


@pytest.mark.errors
@pytest.mark.parametrize(
    'shape', [(40, 3, 16, 16), (40, 1, 28, 28), (40, 4, 9, 9)])
def test_channels_first_are_refused_with_what_mends_them(tmp_path, shape):
  images = np.zeros(shape, np.uint8)
  path = _write(tmp_path / 'a.npz', x_train=images, x_test=images[:20])
  with pytest.raises(ValueError, match=r'= np.moveaxis\(x_train, 1, -1\)'):
    data.load(path)
  mended = np.moveaxis(images, 1, -1)
  path = _write(tmp_path / 'b.npz', x_train=mended, x_test=mended[:20])
  assert data.load(path).train.x.shape == mended.shape


@pytest.mark.parametrize('shape', [(1, 1, 1), (5, 6, 1), (8, 8, 4), (3, 2, 7)])
def test_images_of_any_size_and_number_of_channels_load(tmp_path, shape):
  path = tmp_path / 'a.npz'
  np.savez(path, **_arrays(shape=shape))
  assert data.load(path).train.x.shape == (40, *shape)


def test_digest_changes_with_a_single_pixel():
  one = data.load('digits[0,1]')
  assert data.digest(one) == data.digest(data.load('digits[0,1]'))
  other = one.test.x.copy()
  other[0, 0, 0, 0] += 1 / 16
  changed = one.test.take(np.arange(len(one.test)))
  object.__setattr__(changed, 'x', other)
  assert data.digest(one) != data.digest(one._replace(test=changed))
