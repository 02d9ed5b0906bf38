"""Transforms: against NumPy formulas, inverses, both precisions."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr.data import transforms

SHAPE = (5, 4, 3)
NAMES = ('none', 'mean', 'standardise', 'zca', 'standardise+zca')
# Of invert(apply(x)) - x for pixels in [0, 1]; whitening loses some digits.
ATOL = {'float32': 2e-5, 'float64': 1e-12}


def _pixels(n=200, dtype=np.float32, seed=0):
  """Smooth images, so that neighbours are correlated as in photographs."""
  x = np.random.default_rng(seed).random((n, *SHAPE))
  x = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + x[..., ::-1]) / 4
  return (0.2 + 0.5 * x).astype(dtype)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_invert_undoes_apply_and_keeps_the_dtype(name, dtype):
  transform = transforms.by_name(name, _pixels())
  x = _pixels(7, dtype, seed=1)
  z = jax.jit(transform.apply)(x)
  back = jax.jit(transform.invert)(z)
  assert z.dtype == back.dtype == dtype
  assert z.shape == back.shape == x.shape
  assert transform.name == name
  np.testing.assert_allclose(back, x, atol=ATOL[np.dtype(dtype).name], rtol=0)


def test_channel_statistics_are_those_of_numpy():
  x = _pixels(dtype=np.float64) * [0.5, 0.7, 1.0]
  mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
  np.testing.assert_allclose(
      transforms.standardise(x).apply(x), (x - mean) / std, atol=1e-12)
  np.testing.assert_allclose(
      transforms.remove_mean(x).apply(x), x - mean, atol=1e-12)


def test_constant_channel_is_only_centred():
  x = _pixels()
  x[..., 1] = 0.1  # No exact binary fraction: its mean carries rounding.
  z = np.asarray(transforms.standardise(x).apply(x))
  np.testing.assert_allclose(z[..., 1], 0, atol=1e-7)
  np.testing.assert_allclose(z[..., 0].std(), 1, rtol=1e-5)
  assert np.isfinite(transforms.zca(x).apply(x)).all()


@pytest.mark.parametrize('reg', [1e-3, 0.1, 10.0])
def test_zca_is_the_symmetric_inverse_root(reg):
  x = _pixels(dtype=np.float64)
  z = ((x - x.mean((0, 1, 2))) / x.std((0, 1, 2))).reshape(len(x), -1)
  z -= z.mean(0)
  covariance = np.cov(z.T, bias=True)
  ridge = reg * np.trace(covariance) / len(covariance)
  apply = transforms.zca(x, reg=reg).apply
  # Row i of W: what one unit more of the standardised pixel i changes.
  units = np.eye(z.shape[1]).reshape(-1, *SHAPE) * x.std((0, 1, 2))
  w = np.asarray(apply(x[:1] + units) - apply(x[:1])).reshape(len(units), -1)
  np.testing.assert_allclose(
      apply(x).reshape(z.shape), z @ w, atol=1e-10 * np.abs(w).max())
  # W is the one symmetric positive definite solution of W (S + r I) W = I.
  np.testing.assert_allclose(w, w.T, atol=1e-8 * np.abs(w).max())
  assert np.linalg.eigvalsh((w + w.T) / 2).min() > 0
  np.testing.assert_allclose(
      w @ (covariance + ridge * np.eye(len(w))) @ w, np.eye(len(w)), atol=1e-8)


def test_zca_with_fewer_images_than_pixels_is_invertible():
  x = _pixels(10, np.float64)
  transform = transforms.zca(x)
  other = _pixels(4, np.float64, seed=2)
  np.testing.assert_allclose(
      transform.invert(transform.apply(other)), other, atol=1e-12)


def test_zca_does_not_depend_on_the_blocks(monkeypatch):
  x = _pixels()
  whole = transforms.zca(x).apply(x)
  monkeypatch.setattr(transforms, '_BLOCK', 37)
  np.testing.assert_allclose(transforms.zca(x).apply(x), whole, atol=1e-5)


def test_parts_of_a_chain_are_fitted_one_after_another():
  x = _pixels(dtype=np.float64)
  both = transforms.by_name('mean+standardise', x)
  np.testing.assert_allclose(
      both.apply(x), transforms.standardise(x).apply(x), atol=1e-12)


def test_chain_inverts_in_the_opposite_order():
  double = transforms.Transform(lambda x: 2 * x, lambda x: x / 2, 'double')
  up = transforms.Transform(lambda x: x + 1, lambda x: x - 1, 'up')
  both = transforms.chain(double, up)
  assert both.name == 'double+up'
  assert both.apply(3.0) == 7
  assert both.invert(7.0) == 3
  x = jnp.asarray(_pixels(2))
  np.testing.assert_array_equal(transforms.chain().apply(x), x)


def test_flatten_keeps_the_order_of_numpy():
  x = _pixels(6)
  flat = transforms.flatten(SHAPE)
  np.testing.assert_array_equal(flat.apply(x), x.reshape(6, -1))
  np.testing.assert_array_equal(flat.invert(flat.apply(x)), x)


def test_gradients_flow_to_the_pixels():
  transform = transforms.by_name('zca', _pixels())
  x = jnp.asarray(_pixels(2, np.float64))
  loss = jax.jit(lambda u: jnp.sum(jnp.sin(transform.apply(u))))
  direction = jax.random.normal(jax.random.key(0), x.shape)
  step = 1e-5
  difference = (loss(x + step * direction) - loss(x - step * direction))
  np.testing.assert_allclose(
      jnp.vdot(jax.grad(loss)(x), direction), difference / (2 * step),
      rtol=1e-7)


@pytest.mark.parametrize('batch_size', [7, 10, 1000])
def test_map_host_is_the_map_of_the_whole(batch_size):
  x = _pixels(50)
  flat = transforms.flatten(SHAPE)
  out = transforms.map_host(flat.apply, x, batch_size=batch_size)
  assert isinstance(out, np.ndarray)
  np.testing.assert_array_equal(out, x.reshape(50, -1))


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda x: transforms.by_name('whiten', x), '`transform`.*none.*zca.*whit'),
    (lambda x: transforms.by_name('zca+', x), '`transform` must be one of'),
    (lambda x: transforms.zca(x, reg=0), '`reg` must be positive'),
    (lambda x: transforms.zca(x[:1]), 'two different images'),
    (lambda x: transforms.standardise(x[..., 0]), '`x`.*(N, H, W, C)'),
    (lambda x: transforms.standardise(x.astype(int)), '`x`.*floating'),
    (lambda x: transforms.remove_mean(x * np.nan), '`x` must be finite'),
    (lambda x: transforms.standardise(x).apply(x[..., :2]), r'\(5, 4, 2\)'),
    (lambda x: transforms.zca(x).apply(x[:, :2]), r'\(2, 4, 3\)'),
    (lambda x: transforms.flatten(SHAPE).invert(x), '`x`.*(N, D)'),
    (lambda x: transforms.map_host(abs, x, batch_size=0), '`batch_size`'),
])
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call(_pixels(20))


def test_equal_statistics_give_one_function():
  x = _pixels()
  one, same = (transforms.by_name('standardise', x) for _ in range(2))
  assert one.apply is same.apply
  other = transforms.by_name('standardise', x / 2)
  assert other.apply is not one.apply
