"""Images: the pixels on disk are the pixels given, enlarged and in place."""
import subprocess
import sys

import numpy as np
import pytest

from dsr.report import figures


def _read(path):
  from matplotlib import image

  return image.imread(path)[..., :3]


def _contains(picture, patch):
  """Places (row, column) where `patch` occurs in `picture`, pixel for pixel."""
  windows = np.lib.stride_tricks.sliding_window_view(
      picture, patch.shape[:2], axis=(0, 1))
  patch = np.moveaxis(patch, -1, 0)
  corner = np.isclose(windows[..., 0, 0], patch[:, 0, 0], atol=1e-6).all(-1)
  return [(i, j) for i, j in np.argwhere(corner)
          if np.allclose(windows[i, j], patch, atol=1e-6)]


@pytest.fixture
def images():
  """Two rows of three 4 x 4 colour images, on the 8-bit grid of a PNG."""
  values = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 3))
  return values / 255


@pytest.mark.parametrize('channels', [1, 3])
def test_image_grid_keeps_every_pixel_crisp_and_in_order(
    tmp_path, images, channels):
  images = images[..., :channels]
  path = figures.image_grid(
      tmp_path / 'new' / 'grid.png', images, ['cat', 'dog'], title='Pets')
  picture = _read(path)
  places = {}
  for row in range(2):
    for k in range(3):
      patch = images[row, k].repeat(16, axis=0).repeat(16, axis=1)
      patch = np.broadcast_to(patch, (64, 64, 3))
      (places[row, k],) = _contains(picture, patch)
  for (row, k), (top, left) in places.items():
    assert top - places[0, 0][0] == row * 68
    assert left - places[0, 0][1] == k * 68
  assert len(list(path.parent.iterdir())) == 1


def test_values_are_clipped_or_rescaled_image_by_image(tmp_path):
  images = np.zeros((1, 2, 2, 2, 1))
  images[0, 0, :, :, 0] = [[-1, 0], [0.2, 3]]
  images[0, 1, :, :, 0] = 0.6  # A flat image has no extremes to stretch.
  clipped = _read(figures.image_grid(tmp_path / 'a.png', images))
  stretched = _read(figures.image_grid(
      tmp_path / 'b.png', images, rescale=True))
  for picture, expected in (
      (clipped, [[0, 0], [0.2, 1]]), (stretched, [[0, 0.25], [0.3, 1]])):
    corners = np.asarray(expected).repeat(32, axis=0).repeat(32, axis=1)
    patch = np.broadcast_to(corners[..., None], (64, 64, 3))
    np.testing.assert_allclose(picture[16:80, 16:80], patch, atol=0.003)
  np.testing.assert_allclose(clipped[16:80, 84:148], 0.6, atol=0.003)
  assert (stretched[16:80, 84:148] == 0).all()


def test_large_grids_stay_in_bounds_and_lose_no_pixel(tmp_path):
  images = np.zeros((2, 100, 32, 32, 1))
  picture = _read(figures.image_grid(tmp_path / 'a.png', images))
  assert (picture == 0).all(-1).sum() == 2 * 100 * 32 * 32


def test_side_by_side_places_grids_left_to_right(tmp_path, images):
  wide = 'a name wider than its column'
  grids = {'random': images[:, :1], wide: images[:, 1:2], 'kip': images[:, 2:]}
  picture = _read(figures.side_by_side(tmp_path / 'a.png', grids, [0, 1]))
  columns = []
  for k in range(3):
    patch = images[1, k].repeat(16, axis=0).repeat(16, axis=1)
    ((_, left),) = _contains(picture, patch)
    columns.append(left)
  assert columns[1] - columns[0] == 64 + 20
  assert columns[2] - columns[1] > 8 * len(wide)


@pytest.fixture
def originals():
  """Five 4 x 4 colour images, on the 8-bit grid of a PNG."""
  return np.random.default_rng(1).integers(0, 256, (5, 4, 4, 3)) / 255


def _places(picture, images):
  """Top left corners of the images, each drawn once at 16 times its size."""
  found = []
  for image in images:
    (place,) = _contains(picture, image.repeat(16, axis=0).repeat(16, axis=1))
    found.append(place)
  return np.array(found)


def test_pairs_stand_in_order_of_error_the_original_above(tmp_path, originals):
  rebuilt = np.round(originals[::-1] * 0.6 * 255) / 255
  errors = np.array([0.3, 1e-5, 22.0, 0.0, 0.04])
  picture = _read(figures.pairs(
      tmp_path / 'new' / 'pairs.png', originals, rebuilt, errors, per_row=3,
      title='Pairs'))
  above, below = (_places(picture, images) for images in (originals, rebuilt))
  np.testing.assert_array_equal(below - above, [[64 + 2, 0]] * 5)
  order = sorted(range(5), key=lambda i: tuple(above[i]))
  assert order == [3, 1, 4, 0, 2]
  top, left = above[3]
  assert above[1].tolist() == [top, left + 72]
  assert above[0].tolist() == [top + 2 * 64 + 2 + 30, left]
  # A caption under each pair, and white between the captions and the next row.
  for i in range(5):
    y, x = below[i]
    assert (picture[y + 64:y + 82, x:x + 64] < 0.5).any()
    assert (picture[y + 83:y + 90, x:x + 64] == 1).all()


def test_a_missed_image_stands_above_a_grey_square(tmp_path, originals):
  errors = np.array([0.1, np.inf, 0.2, 0.3, 0.4])
  picture = _read(figures.pairs(
      tmp_path / 'a.png', originals, originals[[1, 0, 0, 0, 0]], errors))
  # The same image is also drawn below, as the reconstruction of image 0.
  top, left = min(_contains(
      picture, originals[1].repeat(16, axis=0).repeat(16, axis=1)))
  grey = picture[top + 66:top + 130, left:left + 64]
  np.testing.assert_allclose(grey, 0xd9 / 255, atol=1e-6)


def test_of_many_pairs_the_drawn_ones_are_even_by_rank(tmp_path):
  values = np.random.default_rng(2).permutation(41)
  originals = np.broadcast_to(
      (40 + 5 * values[:, None, None, None]) / 255, (41, 4, 4, 3))
  picture = _read(figures.pairs(
      tmp_path / 'a.png', originals, originals, values / 41.0, max_pairs=5,
      title='Even'))
  drawn = [v for v in range(41) if _contains(
      picture, np.full((64, 64, 3), (40 + 5 * v) / 255))]
  assert drawn == [0, 10, 20, 30, 40]
  assert figures._short(0.00023) == '2e-4'
  assert [figures._short(e) for e in (0.0, 0.0123, 0.5, 12.34, np.inf)] == [
      '0', '0.012', '0.50', '12.3', 'none']


def test_matplotlib_is_imported_only_to_draw_and_pyplot_never(tmp_path):
  code = (
      'import sys, numpy as np; from dsr.report import figures;'
      'assert "matplotlib" not in sys.modules;'
      f'figures.image_grid({str(tmp_path / "a.png")!r},'
      'np.zeros((1, 1, 2, 2, 1)));'
      'assert "matplotlib.pyplot" not in sys.modules')
  subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda p, x: figures.image_grid(p, x[0]), r'shape \(R, K, H, W, C\), got'),
    (lambda p, x: figures.image_grid(p, x * np.nan), '`images` must be finite'),
    (lambda p, x: figures.image_grid(p, x, ['a']), '`row_labels` must be 2'),
    (lambda p, x: figures.side_by_side(p, {}), '`grids` must not be empty'),
    (lambda p, x: figures.side_by_side(p, {'a': x, 'b': x[:1]}),
     r'`grids` must agree in \(R, H, W, C\)'),
    (lambda p, x: figures.pairs(p, x[0], x[0, :2], [1, 2, 3]),
     r'must have one shape \(N, H, W, C\), got \(3, 4, 4, 3\) and \(2'),
    (lambda p, x: figures.pairs(p, x[0], x[0], [1, 2]),
     r'`errors` must have shape \(3,\), got \(2,\)'),
    (lambda p, x: figures.pairs(p, x[0], x[0], [1, 2, np.nan]),
     '`errors` must not be NaN'),
    (lambda p, x: figures.pairs(p, x[0], x[0] * np.nan, [1, 2, 3]),
     '`reconstructions` must be finite'),
    (lambda p, x: figures.pairs(p, x[0], x[0], [1, 2, 3], per_row=0),
     '`per_row` must be an integer of at least 1'),
])
def test_bad_arguments_are_named(tmp_path, images, call, message):
  with pytest.raises(ValueError, match=message):
    call(tmp_path / 'a.png', images)
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize('channels', [2, 4, 7])
def test_any_number_of_channels_is_drawn_and_the_title_says_which(
    tmp_path, channels):
  images = np.random.default_rng(0).uniform(size=(2, 3, 5, 6, channels))
  shown = images[..., :1] if channels == 2 else images[..., :3]
  path = figures.image_grid(tmp_path / 'a.png', images)
  drawn = 'the first channel' if channels == 2 else 'channels 1 to 3'
  other = figures.image_grid(
      tmp_path / 'b.png', shown, title=f'({drawn} of {channels})')
  assert path.read_bytes() == other.read_bytes()
