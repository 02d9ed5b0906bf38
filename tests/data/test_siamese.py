"""Siamese augmentation: NumPy oracles whose parameters are read off probes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from dsr.data import augment, siamese

SHAPE = (9, 16, 3)  # Not square, one side odd; crops by 1 and 2 pixels.
KEYS = 40


def _images(n=4, shape=SHAPE, dtype='float64'):
  return np.random.default_rng(0).normal(size=(n, *shape)).astype(dtype)


def _keys(num=KEYS):
  return jax.random.split(jax.random.key(0), num)


def _over_keys(strategy, x, *, num=KEYS, **options):
  """(num, B, H, W, C): the same images under many keys."""
  fn = siamese.siamese(strategy, **options)
  return np.asarray(jax.jit(jax.vmap(fn, (0, None)))(_keys(num), x))


def _ramps():
  """Row and column, measured from the centre, in the first two channels."""
  height, width, _ = SHAPE
  rows, columns = np.meshgrid(np.arange(height) - (height - 1) / 2,
                              np.arange(width) - (width - 1) / 2, indexing='ij')
  return np.stack([rows, columns, 0 * rows], -1)[None]


def test_color_is_brightness_then_saturation_then_contrast():
  grey = np.tile(np.arange(9.0).reshape(9, 1, 1), (1, 16, 3))
  hue = np.tile([-1.0, 0.0, 1.0], (9, 16, 1))
  x = np.concatenate([np.zeros((1, *SHAPE)), grey[None], hue[None], _images()])
  drawn = []
  for out in _over_keys('color', x):
    brightness = out[0, 0, 0, 0]  # All that can be done to a flat image.
    contrast = out[1, 1, 0, 0] - out[1, 0, 0, 0]
    saturation = (out[2, 0, 0, 2] - out[2, 0, 0, 1]) / contrast
    want = x + brightness
    mean = want.mean(3, keepdims=True)
    want = (want - mean) * saturation + mean
    mean = want.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(out, (want - mean) * contrast + mean, atol=1e-9)
    drawn.append((brightness, saturation, contrast))
  drawn = np.array(drawn)
  for low, high, values in zip((-0.5, 0, 0.5), (0.5, 2, 1.5), drawn.T):
    assert low <= values.min() < low + 0.15 * (high - low)
    assert high - 0.15 * (high - low) < values.max() <= high
  correlation = np.corrcoef(drawn.T) - np.eye(3)
  assert np.abs(correlation).max() < 4 / np.sqrt(KEYS)


def test_crops_are_all_moves_up_to_an_eighth():
  x, found = _images(), set()
  padded = np.pad(x, [(0, 0), (1, 1), (2, 2), (0, 0)])
  windows = {(i, j): padded[:, i:i + 9, j:j + 16]
             for i in range(3) for j in range(5)}
  for out in _over_keys('crop', x, num=150):
    hits = [at for at, want in windows.items() if (out == want).all()]
    assert len(hits) == 1
    found.add(hits[0])
  assert found == set(windows)


def test_cutouts_are_rectangles_of_half_the_side_with_centres_everywhere():
  x, sides, firsts = np.ones((2, *SHAPE)), (5, 8), [set(), set()]
  for out in _over_keys('cutout', x, num=300):
    hole = out[0, :, :, 0] == 0
    np.testing.assert_array_equal(out, np.where(hole[..., None], 0, x))
    kept = ~hole.any(1), ~hole.any(0)
    assert (hole == ~kept[0][:, None] & ~kept[1][None]).all()
    for axis, side in enumerate(sides):
      inside = np.flatnonzero(~kept[axis])
      first, last = inside[0], inside[-1]
      assert inside.size == last - first + 1 <= side
      cut = first == 0 or last == SHAPE[axis] - 1
      assert inside.size == side or (cut and inside.size >= side // 2)
      firsts[axis].add(int(first if first else last - side + 1))
  assert firsts == [set(range(-2, 7)), set(range(-4, 13))]


def test_flips_are_half_of_the_calls():
  x = _images()
  out = _over_keys('flip', x, num=200)
  mirrored = (out == x[:, :, ::-1]).all((1, 2, 3, 4))
  kept = (out == x).all((1, 2, 3, 4))
  assert (mirrored != kept).all()
  assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(200)


@pytest.mark.parametrize('operation', ['scale', 'rotate'])
def test_resampling_agrees_with_scipy(operation):
  x = np.concatenate([_ramps(), _images()])
  centre, drawn = (np.array(SHAPE[:2]) - 1) / 2, []
  for out in _over_keys(operation, x):
    # Around the centre the ramps are where samples were taken: M (p - c).
    there = out[0, 3:6, 7:9, :2].reshape(-1, 2)
    here = x[0, 3:6, 7:9, :2].reshape(-1, 2)
    matrix = np.linalg.lstsq(here, there, rcond=None)[0].T
    if operation == 'scale':
      np.testing.assert_allclose(matrix[[0, 1], [1, 0]], 0, atol=1e-12)
      drawn.append(np.diag(matrix))
    else:
      np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-6)
      drawn.append([np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))])
    for image, got in zip(x[1:], out[1:]):
      for c in range(3):
        want = scipy.ndimage.affine_transform(
            image[..., c], matrix, offset=centre - matrix @ centre, order=1,
            mode='grid-constant')
        np.testing.assert_allclose(got[..., c], want, atol=1e-6)
  low, high = (1 / 1.2, 1.2) if operation == 'scale' else (-15, 15)
  for values in np.array(drawn).T:
    assert low <= values.min() < low + 0.15 * (high - low)
    assert high - 0.15 * (high - low) < values.max() <= high
  if operation == 'scale':
    assert np.abs(np.diff(drawn)).max() > 0.1  # One factor for each axis.


def test_one_operation_is_drawn_evenly_and_repeats_count():
  out = _over_keys('cutout_color_cutout', np.ones((1, *SHAPE)), num=300)
  cut = (out == 0).any((1, 2, 3, 4)) & (out == 1).any((1, 2, 3, 4))
  assert abs(cut.mean() - 2 / 3) < 4 * np.sqrt(2 / 9 / 300)


@pytest.mark.slow
def test_shared_parameters_are_the_same_in_every_batch():
  x = _images(5, dtype='float32')
  few, many = _over_keys('cifar10', x[1:3]), _over_keys('cifar10', x)
  assert few.dtype == many.dtype == np.float32
  np.testing.assert_array_equal(few, many[:, 1:3])
  assert (many != x).any((1, 2, 3, 4)).sum() > 0.7 * KEYS


@pytest.mark.slow
def test_own_parameters_are_those_of_one_operation():
  x = np.repeat(_images(1, (5, 4, 1)), 6, axis=0)
  out = _over_keys('cifar10', x, num=200, shared=False)
  differ = (out != out[:, :1]).any((1, 2, 3, 4))
  assert differ.mean() > 0.9  # All six operations; flips may agree by chance.
  out = _over_keys('color_cutout', np.ones_like(x), shared=False)
  cut = (out == 0).any((2, 3, 4)) & (out == 1).any((2, 3, 4))
  assert (cut == cut[:, :1]).all()  # Cut all or none.
  assert 0 < cut[:, 0].mean() < 1


def test_gradients_are_those_of_affine_maps():
  x, towards, weights = _images(12).reshape(3, 4, *SHAPE)
  fn = siamese.siamese()

  def loss(x, key):
    return jnp.sum(weights * fn(key, x))

  grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(x, _keys())
  value = jax.jit(jax.vmap(loss, (None, 0)))
  want = value(x + towards, _keys()) - value(x, _keys())
  np.testing.assert_allclose(
      jnp.sum(grads * towards[None], (1, 2, 3, 4)), want, rtol=1e-9, atol=1e-9)
  assert (np.abs(grads) > 0).any((1, 2, 3, 4)).all()


@pytest.mark.parametrize(
    'fill', [(-0.4, 2.0, 1.0), np.random.default_rng(1).random(SHAPE)],
    ids=['channels', 'image'])
def test_background_stays_background(fill):
  moves = 'crop_cutout_scale_rotate'
  background = np.broadcast_to(fill, (2, *SHAPE))
  np.testing.assert_allclose(
      _over_keys(moves, background, fill=fill)[:, 0],
      np.broadcast_to(fill, (KEYS, *SHAPE)), atol=1e-12)


def test_draws_do_not_depend_on_x64(key):
  fn, x = jax.jit(siamese.siamese('color', shared=False)), _images(3)
  x = x.astype('float32')
  with_x64 = fn(key, x)
  with jax.enable_x64(False):
    np.testing.assert_array_equal(fn(key, x), with_x64)


def test_equal_arguments_give_one_function():
  assert siamese.siamese('mnist', fill=np.zeros(3)) is siamese.siamese(
      'color_crop_cutout_scale_rotate', fill=(0, 0, 0))
  assert siamese.siamese('mnist') is not siamese.siamese('cifar10')
  assert siamese.siamese() is not siamese.siamese(shared=False)
  assert augment.by_name('siamese_mnist', fill=-0.5) is siamese.siamese(
      'mnist', shared=False, fill=-0.5)
  assert 'flip' not in siamese.STRATEGIES['mnist']


@pytest.mark.errors
def test_bad_strategies_and_images_are_refused(key):
  for strategy in ('', 'color_blur', 'color__flip', 'svhn'):
    with pytest.raises(ValueError, match='`strategy` must be one of color, cr'):
      siamese.siamese(strategy)
  with pytest.raises(ValueError, match=r'`x` must have shape \(N, H, W, C\)'):
    siamese.siamese()(key, _images()[0])
  with pytest.raises(ValueError, match='`fill` must be a number, 3 numbers'):
    siamese.siamese('crop', fill=(1.0, 2.0))(key, _images())


def test_layers_are_colour_one_of_the_others_and_cutout():
  """Whatever the order of their names, each with a key of its own."""
  x = _images(3)
  key = jax.random.key(5)
  want = x
  for i, name in enumerate(('flip', 'color', 'crop_scale', 'cutout')):
    want = siamese.siamese(name)(jax.random.fold_in(key, i), want)
  strategy = 'cutout_crop_color_scale_flip'
  got = siamese.layered(strategy)(key, x)
  np.testing.assert_array_equal(got, want)
  assert siamese.layered(strategy) is siamese.layered(strategy)
  named = augment.by_name('layered_color')(key, x)
  np.testing.assert_array_equal(named, siamese.siamese(
      'color', shared=False)(jax.random.fold_in(key, 0), x))
