"""Corruptions: moments, closed forms, and the libraries behind CIFAR-10-C."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from dsr.probes import corruptions, intervals

SHAPES = [(400, 8, 8, 1), (6, 28, 28, 1), (4, 32, 32, 3)]
NOISES = ('gaussian_noise', 'shot_noise', 'impulse_noise')
FIXED = ('gaussian_blur', 'contrast', 'brightness', 'pixelate')
each_name = pytest.mark.parametrize('name', corruptions.CORRUPTIONS)


def _smooth(shape, dtype='float32'):
  """Images with large structures, as photographs have them."""
  noise = np.random.default_rng(0).random(shape)
  x = scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode='wrap')
  return ((x - x.min()) / np.ptp(x)).astype(dtype)


@pytest.mark.parametrize(('name', 'shape'), [
    pytest.param(name, shape, marks=[pytest.mark.slow] * (  # To compile.
        name in NOISES and shape != SHAPES[0]))
    for name in corruptions.CORRUPTIONS for shape in SHAPES])
def test_severity_distorts_more_and_keeps_the_range(name, shape, key):
  x = _smooth(shape)
  distances = []
  for severity in corruptions.SEVERITIES:
    out = corruptions.apply(key, name, x, severity=severity)
    assert out.shape == shape
    assert out.dtype == x.dtype
    assert 0 <= out.min() <= out.max() <= 1
    distances.append(float(jnp.mean((out - x) ** 2)))
  grid = [int(shape[1] * c) for c in corruptions.PARAMETERS['pixelate']]
  if name == 'motion_blur':  # Severities 3 and 4 differ in the radius alone.
    assert distances[2] == pytest.approx(distances[3], rel=1e-4)
  if name == 'pixelate':  # Small images have few grids; some let more through.
    assert (distances[0] == distances[1]) == (grid[0] == grid[1])
  assert 0 < distances[0] < distances[-1]
  if name not in ('motion_blur', 'pixelate'):
    assert np.all(np.diff(distances) > 0)


@each_name
def test_the_key_alone_decides(name, key):
  x = _smooth(SHAPES[0])
  corrupt = lambda k: np.asarray(corruptions.apply(k, name, x, severity=3))
  first, other = corrupt(key), corrupt(jax.random.key(1))
  np.testing.assert_array_equal(first, corrupt(key))
  assert np.array_equal(first, other) == (name in FIXED)


@pytest.mark.parametrize(
    'name', ['gaussian_noise', 'impulse_noise', 'motion_blur'])
def test_precisions_draw_the_same(name, key):
  x = _smooth(SHAPES[0])
  single = corruptions.apply(key, name, x, severity=2)
  double = corruptions.apply(key, name, x.astype('float64'), severity=2)
  assert double.dtype == 'float64'
  # A Poisson draw or a threshold may fall on the other side.
  assert np.mean(abs(single - double) > 1e-5) < 1e-3


@pytest.mark.parametrize('severity', [1, 5])
def test_noises_have_their_moments(severity, key):
  level, n = 0.5, np.prod(SHAPES[0])
  x = jnp.full(SHAPES[0], level, 'float32')  # Compiled above.
  value = lambda name: corruptions.PARAMETERS[name][severity - 1]
  draw = lambda name: np.asarray(
      corruptions.apply(key, name, x, severity=severity)).ravel()

  def check(sample, mean, variance):
    """Within 5 standard errors, those of the variance for a normal law."""
    assert abs(sample.mean() - mean) < 5 * np.sqrt(variance / n)
    assert sample.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))

  check(draw('gaussian_noise'), level, value('gaussian_noise') ** 2)
  shot = draw('shot_noise')
  check(shot, level, level / value('shot_noise'))
  photons = shot * value('shot_noise')
  np.testing.assert_allclose(photons, photons.round(), atol=1e-4)
  salted = draw('impulse_noise')
  for end in (0, 1):
    share = value('impulse_noise') / 2
    assert abs(np.mean(salted == end) - share) < 5 * np.sqrt(share / n)
  assert set(np.unique(salted)) == {0, level, 1}


def test_contrast_and_brightness_in_closed_form(key):
  x = _smooth((3, 8, 9, 3), 'float64')
  mean = x.mean((1, 2), keepdims=True)
  out = corruptions.apply(key, 'contrast', x, severity=5)
  np.testing.assert_allclose(out, 0.15 * (x - mean) + mean, atol=1e-6)
  grey = x[..., :1]
  out = corruptions.apply(key, 'brightness', grey, severity=4)
  np.testing.assert_allclose(out, np.minimum(grey + 0.2, 1), atol=1e-12)


def test_brightness_is_that_of_hsv(key):
  from skimage import color

  x = np.array(_smooth((2, 8, 8, 3), 'float64'))
  x[0, 0, :4] = 0  # Black becomes grey.
  hsv = color.rgb2hsv(x)
  hsv[..., 2] = np.minimum(hsv[..., 2] + 0.3, 1)
  out = corruptions.apply(key, 'brightness', x, severity=5)
  np.testing.assert_allclose(out, color.hsv2rgb(hsv), atol=1e-12)


def test_gaussian_blur_is_that_of_skimage(key):
  from skimage import filters

  x = np.random.default_rng(0).random((2, 12, 9, 3))
  for severity, sigma in zip((1, 5), (0.4, 1.0)):
    out = corruptions.apply(key, 'gaussian_blur', x, severity=severity)
    expected = [filters.gaussian(i, sigma, channel_axis=-1) for i in x]
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize('size', [8, 28, 32])
def test_pixelate_is_that_of_pillow(size, key):
  from PIL import Image

  x = np.random.default_rng(0).integers(0, 256, (size, size), np.uint8)
  for severity, c in zip(range(1, 6), corruptions.PARAMETERS['pixelate']):
    small = (int(size * c), int(size * c))
    expected = Image.fromarray(x).resize(small, Image.Resampling.BOX).resize(
        (size, size), Image.Resampling.BOX)
    out = corruptions.apply(
        key, 'pixelate', x[None, ..., None] / 255, severity=severity)
    np.testing.assert_allclose(  # Pillow rounds after either direction.
        np.asarray(out)[0, ..., 0], np.asarray(expected) / 255, atol=1.1 / 255)


def test_motion_blur_trails_a_point(key):
  x = np.zeros((50, 41, 41, 1))
  x[:, 20, 20] = 1
  out = np.asarray(corruptions.apply(key, 'motion_blur', x, severity=5))
  np.testing.assert_allclose(out.sum((1, 2, 3)), 1, atol=1e-6)
  weight = np.exp(-np.arange(19) ** 2 / 2 / 2.5**2)
  weight /= weight.sum()
  np.testing.assert_allclose(out[:, 20, 20, 0], weight[0], atol=1e-6)
  assert np.all(out[:, :, 21:] == 0)  # To one side only,
  row, column = np.indices((41, 41)) - 20
  for image in out[..., 0]:
    spread = np.sum(image * (row**2 + column**2))  # as far as weights say,
    assert spread == pytest.approx(np.sum(weight * np.arange(19) ** 2), rel=0.2)
    assert np.all(image[abs(row) > abs(column)] == 0)  # within 45 degrees,
  tilt = np.sum(out[..., 0] * row[None], (1, 2))
  assert tilt.min() < -1 < 1 < tilt.max()  # and in all of them.


def test_a_constant_image_stays_under_blurs(key):
  x = np.full((2, 8, 8, 1), 0.3)
  for name in ('gaussian_blur', 'motion_blur', 'pixelate', 'contrast'):
    np.testing.assert_allclose(
        corruptions.apply(key, name, x, severity=5), 0.3, atol=1e-6)


def test_accuracy_counts_by_corruption_and_in_the_mean(key):
  """A classifier that asks whether an image is brighter than 0.9."""
  x = np.broadcast_to(
      np.array([0.2, 0.55, 0.65, 0.75, 0.84, 1.0])[:, None, None, None],
      (6, 8, 8, 1))
  labels = np.array([0, 0, 0, 0, 0, 1])
  predict_fn = lambda x: x.mean((1, 2)) - 0.875
  found = corruptions.accuracy(
      key, predict_fn, x, labels, names=['brightness', 'contrast'],
      severities=[1, 5])
  assert list(found) == [
      ('brightness', 1), ('brightness', 5), ('contrast', 1), ('contrast', 5),
      'mean']
  assert found['brightness', 1] == intervals.wilson(5, 6)
  assert found['brightness', 5] == intervals.wilson(3, 6)
  assert found['contrast', 5] == intervals.wilson(6, 6)
  share = [1, 1, 3 / 4, 3 / 4, 2 / 4, 1]
  mean, low, _ = intervals.mean_t(share)
  assert found['mean'] == pytest.approx((mean, low, 1))
  noisy = dict(names=['gaussian_noise'], severities=[5])
  alone = corruptions.accuracy(key, predict_fn, x, labels, **noisy)
  among = corruptions.accuracy(
      key, predict_fn, x, labels, names=['contrast', 'gaussian_noise'])
  assert alone['gaussian_noise', 5] == among['gaussian_noise', 5]


@pytest.mark.errors
@pytest.mark.parametrize(('options', 'message'), [
    ({'severity': 0}, '`severity` must be one of 1, 2, 3, 4, 5; got 0'),
    ({'severity': 6}, '`severity` must be one of 1, 2, 3, 4, 5; got 6'),
    ({'severity': 1.5}, '`severity` must be one of'),
    ({'name': 'fog'}, '`name` must be one of gaussian_noise, .* got .fog'),
    ({'x': np.zeros((2, 8, 8))}, r'`x` must have shape \(N, H, W, C\)'),
    ({'x': np.zeros((2, 8, 8, 1), int)}, '`x` must be floating point'),
    ({'x': np.full((2, 8, 8, 1), 1.1)}, r'`x` must be in \[0, 1\], got \[1.1'),
    ({'x': np.full((2, 8, 8, 1), np.nan)}, '`x` must be finite'),
])
def test_bad_arguments_are_named(key, options, message):
  given = {'name': 'contrast', 'x': np.zeros((2, 8, 8, 1)), 'severity': 1}
  with pytest.raises(ValueError, match=message):
    corruptions.apply(key, **given | options)


@pytest.mark.errors
def test_bad_severities_and_names_are_refused_everywhere(key):
  x = jnp.zeros((2, 8, 8, 1))
  for function in corruptions.CORRUPTIONS.values():
    with pytest.raises(ValueError, match='`severity` must be one of'):
      function(key, x, 0)
  for options in ({'names': []}, {'severities': []}):
    with pytest.raises(ValueError, match='`names` and `severities` must not'):
      corruptions.accuracy(key, lambda x: x[:, 0, 0], x, np.zeros(2, int),
                           **options)
