"""Starts, frozen pixels and the distance penalty."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr.distill import support as support_lib
from tests.reference import distill as oracle

DTYPES = pytest.mark.parametrize('dtype', ['float32', 'float64'])


def _images(dtype='float64', size=6):
  rng = np.random.default_rng(0)
  x = 3 + 2 * rng.normal(size=(size, 5, 4, 2))
  return support_lib.support(x.astype(dtype), np.ones((size, 1), dtype))


@pytest.mark.parametrize(('fraction', 'dtype'), [
    (0.0, 'float64'), (0.01, 'float32'), (0.3, 'float64'), (0.9, 'float32'),
    (1.0, 'float32')])
def test_corruption_freezes_an_exact_share_of_each_image(key, fraction, dtype):
  start = _images(dtype)
  dirty = support_lib.corrupt(key, start, fraction)
  frozen = np.asarray(dirty.frozen).reshape(6, 40)
  assert (frozen.sum(1) == {0: 0, 0.01: 0, 0.3: 12, 0.9: 36, 1.0: 40}[
      fraction]).all()
  assert dirty.x.dtype == dtype
  np.testing.assert_array_equal(dirty.x == start.x, ~dirty.frozen)
  np.testing.assert_array_equal(dirty.y, start.y)
  if 0 < frozen.sum() < frozen.size:
    assert len({row.tobytes() for row in frozen}) == 6


def test_corruption_is_noise_at_the_scale_of_the_images(key):
  dirty = support_lib.corrupt(key, _images(size=200), 1.0)
  n = dirty.x.size
  mean, deviation = _images(size=200).x.mean(), _images(size=200).x.std()
  assert abs(dirty.x.mean() - mean) < 4 * deviation / np.sqrt(n)
  assert abs(dirty.x.std() / deviation - 1) < 4 / np.sqrt(2 * n)
  again = support_lib.corrupt(key, _images(size=200), 1.0)
  np.testing.assert_array_equal(dirty.x, again.x)
  other = support_lib.corrupt(jax.random.key(1), _images(size=200), 1.0)
  assert (dirty.x != other.x).all()


@DTYPES
def test_noise_has_the_shape_and_dtype_of_the_images(key, dtype):
  noise = support_lib.noise_like(key, _images(dtype, 200).x, 0.5)
  assert (noise.shape, noise.dtype) == ((200, 5, 4, 2), dtype)
  assert abs(noise.mean()) < 4 * 0.5 / np.sqrt(noise.size)
  assert abs(noise.std() / 0.5 - 1) < 4 / np.sqrt(2 * noise.size)


@pytest.mark.parametrize('labels', [False, True])
def test_what_is_not_learned_gets_no_gradient_and_is_put_back(key, labels):
  state = support_lib.corrupt(key, _images(), 0.4)
  ones = jax.tree.map(jnp.ones_like, state._replace(frozen=None))
  gradient = support_lib.learned(state, ones, labels)
  np.testing.assert_array_equal(gradient.x, ~state.frozen)
  assert (gradient.y == labels).all()
  moved = support_lib.restore(state, ones, labels)
  np.testing.assert_array_equal(
      moved.x, np.where(state.frozen, state.x, np.ones_like(state.x)))
  np.testing.assert_array_equal(moved.y, ones.y if labels else state.y)
  np.testing.assert_array_equal(moved.frozen, state.frozen)
  free = state._replace(frozen=None)
  assert (support_lib.learned(free, ones, labels).x == 1).all()
  assert (support_lib.restore(free, ones, labels).x == 1).all()


@DTYPES
def test_closeness_meets_numpy_in_value_and_gradient(dtype):
  rng = np.random.default_rng(0)
  x, data = rng.normal(size=(4, 3, 2, 1)), rng.normal(size=(9, 3, 2, 1))
  x[0] = data[5] + 1e-3 * x[0]  # Near; the fourth is out of reach.
  x[3] = 50
  want = oracle.closeness(x, data, 1.5)
  assert 0 < want < 0.75
  value, slope = jax.value_and_grad(support_lib.closeness)(
      jnp.asarray(x, dtype), jnp.asarray(data, dtype), 1.5)
  assert value.dtype == slope.dtype == dtype
  rtol = 1e-5 if dtype == 'float32' else 1e-9
  np.testing.assert_allclose(value, want, rtol=rtol)
  numeric = oracle.gradient(lambda x: oracle.closeness(x, data, 1.5), x, 1e-7)
  np.testing.assert_allclose(
      slope, numeric, atol=1e-3 if dtype == 'float32' else 1e-6)
  assert (slope[3] == 0).all()


@DTYPES
def test_closeness_on_top_of_an_image_is_one_with_a_finite_gradient(dtype):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7)), dtype)
  value, slope = jax.value_and_grad(support_lib.closeness)(x, x[::-1], 0.1)
  np.testing.assert_allclose(value, 1, rtol=1e-6)
  assert (slope == 0).all()


def test_all_finite():
  good = jnp.ones((2, 3))
  assert support_lib.all_finite(good, jnp.zeros(()))
  for bad in (jnp.nan, jnp.inf, -jnp.inf):
    assert not support_lib.all_finite(good, good.at[1, 2].set(bad))


@pytest.mark.errors
def test_bad_arguments_are_named(key):
  start = _images()
  for fraction in (-0.1, 1.5, float('nan')):
    with pytest.raises(ValueError, match=r'`fraction` must be in \[0, 1\]'):
      support_lib.corrupt(key, start, fraction)
  with pytest.raises(ValueError, match='`scale` must be positive'):
    support_lib.noise_like(key, start.x, 0)
  with pytest.raises(ValueError, match='`support.y` has 5 rows, expected 6'):
    support_lib.support(start.x, start.y[:5])
  with pytest.raises(ValueError, match='`support.x` must be floating point'):
    support_lib.support(start.x.astype(int), start.y)
  for mask in (np.zeros((6, 40), bool), np.zeros(start.x.shape)):
    with pytest.raises(ValueError, match='`frozen` must be bool of shape'):
      support_lib.support(start.x, start.y, mask)
