"""Augmentations: against SciPy, as sets of allowed moves, and the parser."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from dsr.data import augment, geometry

SHAPE = (6, 5, 2)  # Not square, so that exchanged axes are seen.
NAMES = ('flip', 'shift2', 'crop_pad2', 'rotate30', 'scale1.5',
         'flip+shift1+rotate10', 'shift2|stretch0.2|rotate45')


def _images(n=40, dtype=np.float32, shape=SHAPE):
  return jnp.asarray(np.random.default_rng(0).random((n, *shape)), dtype)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_shape_dtype_and_draws(name, dtype, key):
  fn, x = jax.jit(augment.by_name(name)), _images(dtype=dtype)
  out = fn(key, x)
  assert out.shape == x.shape
  assert out.dtype == dtype
  np.testing.assert_array_equal(out, fn(key, x))
  assert (out != fn(jax.random.key(1), x)).any()
  same = np.asarray(fn(key, jnp.broadcast_to(x[:1], x.shape)))
  assert (same != same[:1]).any()  # Images draw for themselves.


def test_flip_mirrors_about_half(key):
  x = _images(2000, shape=(1, 3, 1))
  out = np.asarray(augment.flip(key, x))
  kept = (out == x).all((1, 2, 3))
  mirrored = (out == x[:, :, ::-1]).all((1, 2, 3))
  assert (kept | mirrored).all()
  assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)


def _moved(image, dy, dx, mode):
  """The window of a padded image, its top left corner at (2 + dy, 2 + dx)."""
  padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode)
  return padded[2 + dy:2 + dy + SHAPE[0], 2 + dx:2 + dx + SHAPE[1]]


@pytest.mark.parametrize(
    ('name', 'mode'), [('shift2', 'constant'), ('crop_pad2', 'reflect')])
def test_moves_are_uniform_over_the_whole_pixels(name, mode, key):
  image = np.asarray(_images(1)[0])
  draws = 2500
  batch = jnp.broadcast_to(image, (draws, *SHAPE))
  out = np.asarray(augment.by_name(name)(key, batch))
  counts = [(out == _moved(image, dy, dx, mode)).all((1, 2, 3)).sum()
            for dy in range(-2, 3) for dx in range(-2, 3)]
  assert sum(counts) == draws
  assert np.abs(np.array(counts) - 100).max() < 5 * np.sqrt(100)


@pytest.mark.parametrize('kind', ['rotate', 'scale'])
def test_resampling_agrees_with_scipy(kind, key):
  x = _images(dtype=np.float64)
  if kind == 'rotate':
    out = jax.jit(augment.rotate(40.0))(key, x)
    bound = np.deg2rad(40.0)
  else:
    out = jax.jit(augment.scale(1.5))(key, x)
    bound = np.log(1.5)
  draws = jax.random.uniform(key, (len(x),), jnp.float32, -bound, bound)
  centre = (np.array(SHAPE[:2]) - 1) / 2
  for image, got, draw in zip(
      np.asarray(x), np.asarray(out), np.asarray(draws, float)):
    if kind == 'rotate':
      matrix = np.array([[np.cos(draw), -np.sin(draw)],
                         [np.sin(draw), np.cos(draw)]])
    else:
      matrix = np.exp(-draw) * np.eye(2)
    for c in range(SHAPE[2]):
      expected = scipy.ndimage.affine_transform(
          image[..., c], matrix, offset=centre - matrix @ centre, order=1,
          mode='grid-constant')
      np.testing.assert_allclose(got[..., c], expected, atol=1e-6)


def test_quarter_turn_is_exact():
  square = np.asarray(_images(3, np.float64, (5, 5, 1)))
  turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
  resample = jax.jit(geometry.resample)
  for image in square:
    np.testing.assert_allclose(
        resample(image, turn), np.rot90(image, -1), atol=1e-12)


@pytest.mark.parametrize('name', ['rotate0', 'scale1', 'shift0', 'crop_pad0'])
def test_no_move_is_the_identity(name, key):
  x = _images()
  np.testing.assert_array_equal(augment.by_name(name)(key, x), x)


@pytest.mark.parametrize('name', ['shift2', 'rotate30', 'scale1.5'])
@pytest.mark.parametrize(
    'fill', [-0.4, (-0.4, 2.0), np.random.default_rng(1).random(SHAPE)],
    ids=['number', 'channels', 'image'])
def test_background_stays_background(name, fill, key):
  fn = jax.jit(augment.by_name(name, fill=fill))
  background = jnp.broadcast_to(jnp.asarray(fill), (9, *SHAPE))
  np.testing.assert_allclose(fn(key, background), background, atol=1e-12)
  x = _images(9, np.float64)
  moved = jax.jit(augment.by_name(name))(key, x)  # Zero outside.
  np.testing.assert_allclose(
      fn(key, x + background), moved + background, atol=1e-12)


def test_chain_goes_from_left_to_right_with_keys_of_its_own(key):
  x = _images()
  both = augment.by_name('shift1+shift1')(key, x)
  once = augment.shift(1)(jax.random.fold_in(key, 0), x)
  twice = augment.shift(1)(jax.random.fold_in(key, 1), once)
  np.testing.assert_array_equal(both, twice)
  assert (both != augment.shift(1)(jax.random.fold_in(key, 0), once)).any()


@pytest.mark.parametrize('name', NAMES)
def test_draws_do_not_depend_on_x64(name, key):
  fn, x = jax.jit(augment.by_name(name)), _images()
  with_x64 = fn(key, x)
  with jax.enable_x64(False):
    np.testing.assert_array_equal(fn(key, x), with_x64)


def test_none_is_none():
  assert augment.by_name('none') is None


@pytest.mark.errors
@pytest.mark.parametrize('name', [
    '', 'grey2', 'blur', 'siamese', 'flip2', 'shift', 'shift1.5', 'rotate',
    'rotate-5', 'flip+', 'none+flip'])
def test_unknown_parts_are_named(name):
  with pytest.raises(ValueError, match='`name` must be .*flip.*rotate<deg'):
    augment.by_name(name)


@pytest.mark.errors
@pytest.mark.parametrize(('name', 'fill', 'message'), [
    ('rotate200', 0, r'`max_degrees` must be in \[0.0, 180.0\]'),
    ('scale0.5', 0, r'`max_factor` must be in \[1.0, 10.0\]'),
    ('crop_pad5', 0, r'`max_pixels` must be below.*5 for \(6, 5\)'),
    ('shift1', np.zeros(3), r'`fill` must be a number, 2 numbers'),
])
def test_bad_numbers(name, fill, message, key):
  with pytest.raises(ValueError, match=message):
    augment.by_name(name, fill=fill)(key, _images())


@pytest.mark.errors
@pytest.mark.parametrize('name', NAMES)
def test_images_have_four_axes(name, key):
  with pytest.raises(ValueError, match='`x` must have shape'):
    augment.by_name(name)(key, _images()[0])


def test_one_of_several_is_drawn_for_each_image(key):
  x = _images(3000, shape=(1, 3, 1))
  out = np.asarray(augment.by_name('shift0|flip')(key, x))
  kept = (out == x).all((1, 2, 3))
  mirrored = (out == x[:, :, ::-1]).all((1, 2, 3))
  assert (kept | mirrored).all()
  assert abs(mirrored.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 3000)


def test_stretch_takes_each_axis_by_its_own_factor(key):
  """A line through the centre stays one, and its ends move by the factor."""
  ramp = jnp.arange(-10.0, 11.0)
  image = jnp.stack(jnp.meshgrid(ramp, ramp, indexing='ij'), -1)
  out = np.asarray(augment.stretch(0.2)(
      key, jnp.broadcast_to(image, (200, *image.shape))))
  slopes = np.stack([out[:, 11, 10, 0], out[:, 10, 11, 1]], 1)  # 1 / factor.
  assert ((1 / slopes >= 0.8 - 1e-5) & (1 / slopes <= 1.2 + 1e-5)).all()
  assert abs(np.corrcoef(slopes.T)[0, 1]) < 0.3
  assert np.ptp(1 / slopes) > 0.35
