"""Figures of an audit, read back from their SVG: places, letters, colours."""
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from dsr.report import answers, canvas, dots, figures, trade_off
from dsr.runs.records import Metric

CLASSES = {
    'first': (['cat', 'dog', 'owl'], [0.935, 0.5, 0.8], [0.92, 0.4, 0.7],
              [0.95, 0.6, 0.9]),
    'second & last': (['dog', 'bee'], [0.25, 0.9], [0.2, 0.8], [0.3, 1.0]),
}


def _svg(path):
  return ElementTree.fromstring(path.with_suffix('.svg').read_text('utf-8'))


def _texts(svg):
  """What is written: text to place (x, y), y downwards, NaN for formulas."""
  found = {}
  for element in svg.iter('{http://www.w3.org/2000/svg}text'):
    place = re.search(r'translate\(([-\d.]+) ([-\d.]+)\)',
                      element.get('transform', ''))
    place = place.groups() if place else (element.get('x'), element.get('y'))
    found[''.join(element.itertext()).strip()] = np.array(place, float)
  return found


def _lines(svg, color):
  """The paths drawn in a colour, longest first, each (N, 2)."""
  paths = [np.array(re.findall(r'[ML] ([-\d.]+) ([-\d.]+)', path.get('d')),
                    float)
           for path in svg.iter('{http://www.w3.org/2000/svg}path')
           if f'stroke: {color.lower()}' in path.get('style', '')]
  return sorted(paths, key=lambda path: -np.ptp(path[:, 0]))


def test_a_power_law_and_the_diagonal_of_guessing(tmp_path):
  """TPR = sqrt(FPR) climbs half as fast as guessing, on logarithmic axes."""
  fpr = np.concatenate([[0], np.geomspace(1e-5, 1, 4000)])
  path = figures.roc(
      tmp_path / 'new' / 'roc.png', {'weak': (fpr, fpr), 'half': (
          fpr, np.sqrt(fpr))}, title='ROC')
  assert path == tmp_path / 'new' / 'roc.png'
  assert path.read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
  svg = _svg(path)
  diagonal, half = (_lines(svg, color)[0]
                    for color in (canvas.SOFT, canvas.COLORS[1]))
  left, right = sorted(diagonal.tolist())
  slope = (half[-1, 1] - half[0, 1]) / (half[-1, 0] - half[0, 0])
  full = (right[1] - left[1]) / (right[0] - left[0])
  np.testing.assert_allclose(slope / full, 0.5, atol=1e-3)
  np.testing.assert_allclose(half[[0, -1], 0], [left[0], right[0]], atol=0.01)
  np.testing.assert_allclose(  # Straight, all along.
      half[:, 1], half[0, 1] + slope * (half[:, 0] - half[0, 0]), atol=0.1)
  written = _texts(svg)
  order = sorted(('weak', 'half', 'guessing'), key=lambda t: written[t][1])
  assert order == ['half', 'weak', 'guessing']
  assert written['ROC'][1] < written['half'][1]


def test_steps_of_a_roc_stay_steps(tmp_path):
  """Half the members are sure finds; the axis begins at 1/n."""
  curve = [0, 0, 0.01, 0.01, 1], [0, 0.5, 0.5, 0.75, 1]
  svg = _svg(figures.roc(tmp_path / 'a.svg', {'a': curve}))
  line = _lines(svg, canvas.COLORS[0])[0]
  left, right = sorted(_lines(svg, canvas.SOFT)[0].tolist())
  tpr = 0.01 ** ((line[:, 1] - right[1]) / (left[1] - right[1]))
  np.testing.assert_allclose(tpr[[0, -1]], [0.75, 1], atol=1e-3)
  early = figures.roc(tmp_path / 'b.svg', {'a': curve}, floor=1e-3)
  line = _lines(_svg(early), canvas.COLORS[0])[0]
  steps = np.diff(line, axis=0)
  assert steps[0, 1] == 0  # Flat for the first of three decades,
  np.testing.assert_allclose(steps[0, 0] / np.ptp(line[:, 0]), 1 / 3, atol=0.01)
  assert steps[1, 0] < 0.01 * np.ptp(line[:, 0])  # then straight up.
  height = np.log(0.75 / 0.5) / np.log(1 / 1e-3)
  left, right = sorted(_lines(_svg(early), canvas.SOFT)[0].tolist())
  np.testing.assert_allclose(steps[1, 1] / (right[1] - left[1]), height,
                             rtol=0.03)


def test_accuracies_stand_at_their_percent_and_bands_around_them(tmp_path):
  epsilons = [4, 0, 8]
  svg = _svg(figures.against_epsilon(
      tmp_path / 'a.png', {'x': (epsilons, [0.5, 1.0, 0.25], [0.4, 1.0, 0.2],
                                 [0.6, 1.0, 0.3])}, xlabel='eps'))
  line = _lines(svg, canvas.COLORS[0])[0]
  np.testing.assert_allclose(np.diff(line[:, 0])[0], np.diff(line[:, 0])[1])
  grid = [path[0, 1] for path in _lines(svg, canvas.FAINT)
          if np.ptp(path[:, 0]) > 100 and np.ptp(path[:, 1]) == 0]
  zero, hundred = max(grid), min(grid)
  shares = (line[:, 1] - zero) / (hundred - zero)
  np.testing.assert_allclose(shares, [1.0, 0.5, 0.25], atol=1e-3)
  (band,) = (use for use in svg.iter('{http://www.w3.org/2000/svg}use')
             if 'fill-opacity: 0.12' in use.get('style', ''))
  name = band.get('{http://www.w3.org/1999/xlink}href')[1:]
  (outline,) = (path for path in svg.iter('{http://www.w3.org/2000/svg}path')
                if path.get('id') == name)
  places = np.array(re.findall(r'[ML] ([-\d.]+) ([-\d.]+)', outline.get('d')),
                    float)
  ends = (places[:, 1] + float(band.get('y')) - zero) / (hundred - zero)
  for share in (0.2, 0.3, 0.4, 0.6, 1.0):
    assert np.abs(ends - share).min() < 1e-3
  assert {'x', 'eps', 'accuracy under attack (%)'} <= set(_texts(svg))


def test_cells_tell_shares_and_the_lowest_is_the_darkest(tmp_path):
  path = figures.by_group(tmp_path / 'a.png', CLASSES, title='By class')
  svg = _svg(path)
  written = _texts(svg)
  for text in ('93.5', '92–95', '50.0', '40–60', '25.0', '20–30', 'By class',
               'first', 'second & last', 'accuracy (%), darker is lower'):
    assert text in written
  columns = [written[name][0] for name in ('cat', 'dog', 'owl', 'bee')]
  assert columns == sorted(columns)
  assert abs(written['50.0'][0] - written['25.0'][0]) < 1  # Both of dogs.
  assert written['50.0'][1] < written['25.0'][1]  # As the rows.
  cells = [re.search('fill: (#[0-9a-f]{6})', path.get('style', ''))
           for path in svg.iter('{http://www.w3.org/2000/svg}path')
           if 'stroke: #ffffff' in path.get('style', '')]
  fills = [cell.group(1) for cell in cells if cell]
  shade = lambda color: sum(int(color[i:i + 2], 16) for i in (1, 3, 5))
  assert len(fills) >= 5  # The three cells without a number have no fill.
  # First row 93.5, 50, 80; then 25, 90.
  assert np.argsort([shade(color) for color in fills[:5]]).tolist() == [
      3, 1, 2, 4, 0]
  assert 'nan' not in ''.join(written)


def test_letters_are_legible_on_every_shade():
  for share in np.linspace(0, 1, 21):
    ground = answers._luminance((share, share, share))
    letters = 1.0 if ground < 0.18 else 0.0
    low, high = sorted([ground, letters])
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_points_have_bars_both_ways_and_names_beside_them(tmp_path):
  points = {'one': (Metric(0.5, 0.4, 0.6), Metric(0.7, 0.65, 0.75)),
            'two': (Metric(0.9, 0.88, 0.92), Metric(0.5, 0.5, 0.5))}
  svg = _svg(figures.trade_off(
      tmp_path / 'a.png', points, xlabel='accuracy (%)', ylabel='AUC',
      percent_x=True, chance=0.5, groups={'one': 'ours', 'two': 'theirs'},
      title='Trade'))
  written = _texts(svg)
  assert {'one', 'two', 'ours', 'theirs', 'guessing', 'Trade'} <= set(written)
  horizontal = _lines(svg, canvas.COLORS[0])[0]
  vertical = max(_lines(svg, canvas.COLORS[0]),
                 key=lambda path: np.ptp(path[:, 1]))
  other = _lines(svg, canvas.COLORS[1])[0]
  np.testing.assert_allclose(
      np.ptp(horizontal[:, 0]) / np.ptp(other[:, 0]), 0.2 / 0.04, rtol=1e-3)
  middle = horizontal[:, 0].mean(), vertical[:, 1].mean()
  assert np.abs(written['one'] - middle).max() < 40
  for tick in ('40', '60', '80'):
    assert tick in written  # In percent.


def test_names_do_not_overlap_and_stay_inside():
  rng = np.random.default_rng(0)
  at = np.concatenate([rng.uniform(100, 700, (10, 2)), [[400, 400]] * 2])
  low, high = at - 12, at + 12
  boxes = trade_off._places(
      at, np.full((12, 2), [70.0, 10.0]), trade_off._obstacles(
          at, low, high, 1.5), np.array([0.0, 0, 800, 800]), 1.0)
  boxes = np.array([box for box, _ in boxes])
  for i, box in enumerate(boxes):
    assert trade_off._shared(box, np.delete(boxes, i, axis=0)).sum() == 0
  assert boxes.min() >= 0
  assert boxes.max() <= 800
  np.testing.assert_allclose(boxes[:, 2] - boxes[:, 0], 70)


def test_a_bar_that_ends_at_zero_is_drawn_on_a_logarithmic_axis(tmp_path):
  points = {'a': (Metric(0.5, 0.4, 0.6), Metric(1e-3, 0.0, 2e-3)),
            'b': (Metric(0.6, 0.5, 0.7), Metric(0.1, 0.05, 0.2))}
  svg = _svg(figures.trade_off(tmp_path / 'a.png', points, xlabel='x',
                               ylabel='TPR', log_y=True))
  written = _texts(svg)
  assert written['a'][1] > written['b'][1]
  assert np.isfinite([written['a'], written['b']]).all()


def test_distilled_images_stand_above_their_nearest(tmp_path):
  from matplotlib import image

  rng = np.random.default_rng(0)
  images, nearest = rng.integers(0, 256, (2, 3, 4, 4, 3)) / 255
  distances = [2.0, 0.5, 1.0]
  read = lambda path: image.imread(path)[..., :3]
  drawn = read(figures.neighbours(
      tmp_path / 'a.png', images, nearest, distances, title='Near'))
  named = read(figures.pairs(
      tmp_path / 'b.png', images, nearest, distances, title='Near',
      names=('distilled', 'nearest')))
  np.testing.assert_array_equal(drawn, named)
  plain = read(figures.pairs(
      tmp_path / 'c.png', images, nearest, distances, title='Near'))
  assert (plain[:, :72] != drawn[:, :72]).any()  # Other names, same images.
  np.testing.assert_array_equal(plain[:, 75:], drawn[:, 75 + 3:])
  first = images[1].repeat(16, axis=0).repeat(16, axis=1)
  np.testing.assert_allclose(drawn[44:108, 75:75 + 64], first,
                             atol=1e-6)
  long = figures.pairs(tmp_path / 'd.png', images, nearest, distances,
                       names=('a very long name of a set', 'b'))
  assert read(long).shape[1] > drawn.shape[1]


def test_figures_are_the_same_each_time_and_leave_the_settings(tmp_path):
  before = dict(matplotlib.rcParams)
  for name in 'ab':
    figures.by_group(tmp_path / f'{name}.png', CLASSES)
  for ending in ('png', 'svg'):
    assert ((tmp_path / f'a.{ending}').read_bytes()
            == (tmp_path / f'b.{ending}').read_bytes())
  assert dict(matplotlib.rcParams) == before
  assert '<dc:date>' not in (tmp_path / 'a.svg').read_text()
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'a.png', 'a.svg', 'b.png', 'b.svg']


def test_the_ending_decides_and_other_endings_are_png_as_before(tmp_path):
  figure, axes = canvas.plot(xlabel='x', ylabel='y', title='t')
  axes.plot([0, 1])
  assert canvas.save(figure, tmp_path / 'a.svg').read_text()[:5] == '<?xml'
  for name in ('a.png', 'a'):
    assert canvas.save(figure, tmp_path / name).read_bytes()[1:4] == b'PNG'


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda p: figures.roc(p, {}), '`curves` must not be empty'),
    (lambda p: figures.roc(p, {'a': ([0, 1], [0, 0.5, 1])}),
     r"`curves\['a'\]` must be two vectors of one length"),
    (lambda p: figures.roc(p, {'a': ([0, 0.5, 0.2, 1], [0, 0, 1, 1])}),
     'must have rates that rise from 0 to 1'),
    (lambda p: figures.roc(p, {'a': ([0, 1], [0.1, 1])}), 'from 0 to 1'),
    (lambda p: figures.roc(p, {'a': ([0, 1], [0, 1])}, floor=1.0),
     '`floor` must be between 0 and 1, got 1.0'),
    (lambda p: figures.against_epsilon(p, {}), '`series` must not be empty'),
    (lambda p: figures.against_epsilon(p, {'a': ([0], [1], [1])}),
     r"`series\['a'\]` must be epsilons, values, lows, highs"),
    (lambda p: figures.against_epsilon(p, {'a': ([0], [np.nan], [1], [1])}),
     r"`series\['a'\]` must be finite"),
    (lambda p: figures.by_group(p, {}), '`series` must not be empty'),
    (lambda p: figures.by_group(p, {'a': (['x'], [1, 0], [1, 0], [1, 0])}),
     r"`series\['a'\]` must name 2 different groups, got \['x'\]"),
    (lambda p: figures.trade_off(p, {}, xlabel='', ylabel=''),
     '`points` must not be empty'),
    (lambda p: figures.trade_off(
        p, {'a': (0.5, Metric(1, 1, 1))}, xlabel='', ylabel=''),
     r"`points\['a'\].x` must have value, low and high"),
    (lambda p: figures.trade_off(
        p, {'a': (Metric(1, 1, 1), Metric(0, 0, 1))}, xlabel='', ylabel='',
        log_y=True), r"`points\['a'\].y` must be positive on a logarithmic"),
    (lambda p: figures.trade_off(
        p, {'a': (Metric(1, 1, 1), Metric(np.inf, 0, 1))}, xlabel='',
        ylabel=''), r"`points\['a'\].y` must be finite"),
    (lambda p: figures.roc(p.with_suffix('.pdf'), {}), 'end in .png or .svg'),
])
def test_bad_arguments_are_named(tmp_path, call, message):
  with pytest.raises(ValueError, match=message):
    call(tmp_path / 'a.png')
  assert not any(tmp_path.iterdir())


HOSTILE = '$x^{', 'a$b$c', '<b>&"\'', '\\$', '100 % _x_ {y}'


def test_names_are_text_and_never_formulas(tmp_path):
  """As titles, in legends, and at the ticks of a table."""
  curves = {name: ([0, 1e-3, 1], [0, 0.1, 1]) for name in HOSTILE}
  table = {name: (HOSTILE[:2], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3])
           for name in HOSTILE}
  found = _texts(_svg(figures.roc(
      tmp_path / 'roc.png', curves, title=HOSTILE[0], xlabel=HOSTILE[1])))
  assert set(HOSTILE) <= set(found)
  found = _texts(_svg(figures.by_group(
      tmp_path / 'table.png', table, title=HOSTILE[1], xlabel=HOSTILE[0])))
  assert {'$x^{', 'a$b$c', '<b>&"\''} <= set(found)
  metric = Metric(0.5, 0.4, 0.6)
  dots.intervals(tmp_path / 'dots.png', {HOSTILE[0]: dict.fromkeys(
      HOSTILE, metric)}, title=HOSTILE[2])
  points = dict.fromkeys(HOSTILE, (metric, metric))
  trade_off.trade_off(tmp_path / 'points.png', points, xlabel='$', ylabel='$^$',
                      title=HOSTILE[0])
  figures.image_grid(tmp_path / 'grid.png', np.zeros((2, 1, 4, 4, 1)),
                     HOSTILE[:2], title=HOSTILE[0])
