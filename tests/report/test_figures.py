"""Figures: the pixels on disk are the pixels given, enlarged and in place."""
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


def test_loss_curve_draws_each_series_and_skips_gaps(tmp_path):
  steps = np.arange(50)
  falling = np.exp(-steps / 10.0)
  falling[10] = np.nan
  for log in (False, True):
    picture = _read(figures.loss_curve(
        tmp_path / 'c.png', {'kip': (steps, falling), 'rkip': (steps, -falling)}
        if not log else {'kip': (steps, falling), 'flat': ([0], [1.0])},
        log=log, title='Loss'))
    for color in figures._COLORS[:2]:
      rgb = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
      drawn = np.isclose(picture, rgb, atol=1e-6).all(-1)
      assert drawn.sum() > 50
  blue = [int(figures._COLORS[0][i:i + 2], 16) / 255 for i in (1, 3, 5)]
  rows, columns = np.nonzero(np.isclose(picture, blue, atol=1e-6).all(-1))
  curve = columns < 0.6 * picture.shape[1]  # Left of the legend.
  assert np.corrcoef(rows[curve], columns[curve])[0, 1] > 0.99  # A line on log.


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
    (lambda p, x: figures.image_grid(p, x[0]), r'shape \(R, K, H, W, C\) with'),
    (lambda p, x: figures.image_grid(p, x[..., :2]), 'with C = 1 or 3, got'),
    (lambda p, x: figures.image_grid(p, x * np.nan), '`images` must be finite'),
    (lambda p, x: figures.image_grid(p, x, ['a']), '`row_labels` must be 2'),
    (lambda p, x: figures.side_by_side(p, {}), '`grids` must not be empty'),
    (lambda p, x: figures.side_by_side(p, {'a': x, 'b': x[:1]}),
     r'`grids` must agree in \(R, H, W, C\)'),
    (lambda p, x: figures.loss_curve(p, {}), '`series` must not be empty'),
    (lambda p, x: figures.loss_curve(p, {'a': ([1, 2], [1.0])}),
     r"`series\['a'\]` must be two vectors of one length"),
    (lambda p, x: figures.loss_curve(p, {'a': ([1], [-1.0])}, log=True),
     'must have a value that is finite and positive, got none'),
])
def test_bad_arguments_are_named(tmp_path, images, call, message):
  with pytest.raises(ValueError, match=message):
    call(tmp_path / 'a.png', images)
  assert not any(tmp_path.iterdir())
