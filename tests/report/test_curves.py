"""Curves: where a line or a point is drawn, read back from the pixels."""
import numpy as np
import pytest

from dsr.report import canvas, figures


def _read(path):
  from matplotlib import image

  return image.imread(path)[..., :3]


def _drawn(picture, color):
  """Pixels (rows, columns) that have exactly this colour."""
  rgb = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
  return np.nonzero(np.isclose(picture, rgb, atol=1e-6).all(-1))


def test_loss_curve_draws_each_series_and_skips_gaps(tmp_path):
  steps = np.arange(50)
  falling = np.exp(-steps / 10.0)
  falling[10] = np.nan
  for log in (False, True):
    picture = _read(figures.loss_curve(
        tmp_path / 'c.png', {'kip': (steps, falling), 'rkip': (steps, -falling)}
        if not log else {'kip': (steps, falling), 'flat': ([0], [1.0])},
        log=log, title='Loss'))
    for color in canvas.COLORS[:2]:
      assert len(_drawn(picture, color)[0]) > 50
  rows, columns = _drawn(picture, canvas.COLORS[0])
  curve = columns < 0.6 * picture.shape[1]  # Left of the legend.
  assert np.corrcoef(rows[curve], columns[curve])[0, 1] > 0.99  # A line on log.


def test_ticks_of_a_log_axis_are_read_as_formulas_and_titles_are_not():
  figure, axes = canvas.plot(xlabel='', ylabel='', title='$x^{', log_y=True)
  axes.plot([1, 2], [1e-6, 0.1])
  canvas.as_text(figure)
  figure.canvas.draw()
  ticks = [tick.label1 for tick in axes.yaxis.get_major_ticks()]
  assert len(ticks) > 2
  assert all('10^' in tick.get_text() for tick in ticks)
  assert all(tick.get_parse_math() for tick in ticks)
  assert not axes.title.get_parse_math()


def test_a_power_law_is_a_line_on_two_log_axes(tmp_path):
  x = np.arange(100.0)  # A log axis has no place for step 0: a gap.
  picture = _read(figures.loss_curve(
      tmp_path / 'c.png', {'a': (x, 3 * np.maximum(x, 1) ** -0.7)}, log=True,
      log_x=True))
  rows, columns = _drawn(picture, canvas.COLORS[0])
  assert np.corrcoef(rows, columns)[0, 1] > 0.99


def test_reconstruction_curve_sorts_and_floors(tmp_path):
  """Geometric errors make a straight line; zero is drawn at the floor."""
  errors = np.random.default_rng(0).permutation(10.0 ** np.linspace(-4, 0, 60))
  picture = _read(figures.reconstruction_curve(
      tmp_path / 'a.png', {'ours': errors}, thresholds=(0.01, 0.1)))
  rows, columns = _drawn(picture, canvas.COLORS[0])
  assert np.corrcoef(rows, columns)[0, 1] < -0.99
  dotted = _drawn(picture, canvas.SOFT)[0]
  for share in (0.5, 0.75):  # Of images below 0.01, and below 0.1.
    here = columns.min() + share * np.ptp(columns)
    crossing = rows[np.abs(columns - here).argmin()]
    assert np.abs(dotted - crossing).min() < 12

  exact = _read(figures.reconstruction_curve(
      tmp_path / 'b.png', {'ours': [0.0, 0.0, 1e-3, 1.0]}, floor=1e-3))
  rows, columns = _drawn(exact, canvas.COLORS[0])
  left = columns < columns.min() + 0.6 * np.ptp(columns)
  assert np.ptp(rows[left]) < 8  # 0, 0 and 1e-3 lie level.


def test_reconstruction_curve_ends_where_images_are_missing(tmp_path):
  widths = []
  for missing in (0, 20):
    errors = np.where(np.arange(40) < missing, np.inf, 0.1)
    picture = _read(figures.reconstruction_curve(
        tmp_path / 'a.png', {'ours': errors, 'all': np.full(40, 0.2)},
        published={'paper': ([0, 20, 39], [0.3, 0.3, 0.4])}))
    rows, columns = _drawn(picture, canvas.COLORS[0])
    level = np.median(rows[columns < np.median(columns)])
    widths.append(np.ptp(columns[np.abs(rows - level) < 4]))
    assert len(_drawn(picture, canvas.COLORS[1])[0]) > 200
    assert len(_drawn(picture, canvas.INK)[0]) > 200
  assert widths[1] / widths[0] == pytest.approx(19 / 39, abs=0.02)


def test_scatter_places_points_by_group(tmp_path):
  x, y = [1, 10, 100, 1000], [1.0, 1.0, 0.1, 0.1]
  picture = _read(figures.scatter(
      tmp_path / 'a.png', x, y, log_x=True, log_y=True, title='Two groups',
      groups=['high', 'high', 'low', 'low']))
  picture[:picture.shape[0] // 4, int(0.7 * picture.shape[1]):] = 1  # Legend.
  places = [_drawn(picture, color) for color in canvas.COLORS[:2]]
  assert places[0][0].max() < places[1][0].min()
  assert places[0][1].max() < places[1][1].min()
  steps = [np.mean(side) for _, c in places
           for side in (c[c < c.mean()], c[c > c.mean()])]
  np.testing.assert_allclose(np.diff(steps), np.diff(steps).mean(), atol=4)
  joined = _read(figures.scatter(tmp_path / 'b.png', [1, 2], [1, 2], join=True))
  loose = _read(figures.scatter(tmp_path / 'c.png', [1, 2], [1, 2]))
  assert (len(_drawn(joined, canvas.COLORS[0])[0])
          > 3 * len(_drawn(loose, canvas.COLORS[0])[0]))


def test_scatter_writes_beside_its_points_what_tells_them_apart(tmp_path):
  same, apart = (_read(figures.scatter(
      tmp_path / f'{i}.png', [1, 2], [1, 2], labels=labels))
                 for i, labels in enumerate([['1', '1'], ['1', '10']]))
  plain = _read(figures.scatter(tmp_path / 'plain.png', [1, 2], [1, 2]))
  assert np.array_equal(same, plain)
  assert not np.array_equal(apart, plain)


def test_scatter_counts_what_it_cannot_draw(tmp_path):
  """In its title: the same plot without those points has another one."""
  x, y = np.array([1.0, 2.0, 3.0, 0.0]), np.array([1.0, 2.0, np.inf, 1.0])
  pictures = [_read(figures.scatter(tmp_path / f'{i}.png', *points, title=title,
                                    log_x=True))
              for i, (points, title) in enumerate([
                  ((x, y), 'RMSE'), ((x[:2], y[:2]), 'RMSE (2 of 4 not drawn)'),
                  ((x[:2], y[:2]), 'RMSE')])]
  np.testing.assert_array_equal(pictures[0], pictures[1])
  assert (pictures[0] != pictures[2]).any()


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda p: figures.loss_curve(p, {}), '`series` must not be empty'),
    (lambda p: figures.loss_curve(p, {'a': ([1, 2], [1.0])}),
     r"`series\['a'\]` must be two vectors of one length"),
    (lambda p: figures.loss_curve(p, {'a': ([1], [-1.0])}, log=True),
     'must have a value that is finite and positive, got none'),
    (lambda p: figures.loss_curve(p, {'a': ([0], [1.0])}, log_x=True),
     'must have a positive step, got none'),
    (lambda p: figures.reconstruction_curve(p, {}), '`series` must not be emp'),
    (lambda p: figures.reconstruction_curve(p, {'a': [np.inf]}),
     r"`series\['a'\]` must be a vector with a finite value"),
    (lambda p: figures.reconstruction_curve(p, {'a': [1.0, np.nan]}),
     'must have no NaN and nothing below 0'),
    (lambda p: figures.reconstruction_curve(p, {'a': [1.0]}, thresholds=[0]),
     '`thresholds` must be positive'),
    (lambda p: figures.reconstruction_curve(
        p, {'a': [1.0]}, published={'b': ([1, 2], [1.0])}),
     r"`published\['b'\]` must be two vectors of one length"),
    (lambda p: figures.scatter(p, [1, 2], [1]), '`x` and `y` must be two vec'),
    (lambda p: figures.scatter(p, [1, 2], [1, 2], groups=['a']),
     '`groups` must be 2 labels, got 1'),
    (lambda p: figures.scatter(p, [0.0], [1.0], log_x=True), 'got none'),
])
def test_bad_arguments_are_named(tmp_path, call, message):
  with pytest.raises(ValueError, match=message):
    call(tmp_path / 'a.png')
  assert not any(tmp_path.iterdir())
