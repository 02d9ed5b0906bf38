"""What users of neural-tangents reported to its tracker, as cases of ours.

In float32 without x64, as they run it. Iris is in `test_krr_estimators`, a
module with batch norm in `kernels/test_models`.
"""
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels, krr, nets
from dsr.kernels import empirical
from dsr.types import Examples
from tests.kernels import stacks
from tests.reference import covariance


@pytest.fixture(autouse=True)
def _float32():
  with jax.enable_x64(False):
    yield


@functools.cache
def _network(get='ntk'):
  dense = lambda: kernels.Dense(W_std=1.5, b_std=0.05)
  return kernels.serial(dense(), kernels.Relu(), dense(), kernels.Relu(),
                        dense(), get=get)


def _sine(high):
  """(100 examples of a sine on [0, high], points between them, their sine)."""
  x = np.linspace(0, high, 100)[:, None]
  between = (x[1:] + x[:-1]) / 2
  as_array = lambda a: jnp.asarray(a, jnp.float32)
  return (Examples(as_array(x), as_array(np.sin(x))), as_array(between),
          np.sin(between))


# On [0, 10] and at the smaller ridge every prediction once was NaN.
@pytest.mark.filterwarnings('ignore:The kernel plus its ridge:RuntimeWarning')
@pytest.mark.parametrize(
    'ridge', [1e-4, pytest.param(1e-6, marks=pytest.mark.slow)])
def test_a_sine_of_100_points(ridge):
  data, x, want = _sine(10)
  outputs = krr.fit(_network(), data, ridge=ridge)(x)
  assert outputs.dtype == jnp.float32
  # In exact arithmetic 0.010 at the ridge 1e-4; the constant 0 has 0.73.
  assert np.sqrt(np.mean((outputs - want) ** 2)) < 0.06


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:The kernel plus its ridge:RuntimeWarning')
def test_a_sine_otherwise():
  data, x, want = _sine(10)
  kernel_fn = _network()
  inside = jax.jit(lambda data, x: krr.fit(kernel_fn, data, ridge=1e-4)(x))
  fit = jax.jit(krr.fit, static_argnums=0)
  for outputs in (inside(data, x), fit(kernel_fn, data, ridge=1e-4)(x),
                  krr.gradient_flow(kernel_fn, data, ridge=1e-4)(x)):
    assert np.sqrt(np.mean((outputs - want) ** 2)) < 0.06
  assert np.isfinite(krr.leave_one_out(kernel_fn, data, ridge=1e-4)).all()


def test_nan_among_the_inputs_is_not_silent():
  data, x, _ = _sine(10)
  kernel_fn = _network()
  bad = data._replace(x=data.x.at[3].set(jnp.nan))
  fit = jax.jit(lambda k: krr.fit(
      kernel_fn._replace(symmetric=lambda x: k), data).info)
  info = fit(kernel_fn(bad.x))
  assert not info.converged
  predict_fn = krr.Regressor(kernel_fn, bad.x, bad.y, info)
  for use in (lambda: predict_fn(x), lambda: krr.fit(kernel_fn, bad),
              lambda: krr.predict_in_tiles(predict_fn, x),
              lambda: krr.gradient_flow(kernel_fn, bad),
              lambda: krr.leave_one_out(kernel_fn, bad),
              lambda: krr.fit(kernel_fn, data._replace(y=bad.x))(x)):
    with pytest.raises(FloatingPointError, match='is not finite'):
      use()


@pytest.mark.slow
def test_large_targets_are_only_larger():
  data, x, want = _sine(3)
  outputs = krr.fit(_network(), data._replace(y=1e6 * data.y), ridge=1e-4)(x)
  np.testing.assert_allclose(outputs / 1e6, want, atol=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:The kernel plus its ridge:RuntimeWarning')
def test_covariances_are_never_negative():
  """At the training inputs themselves, some of them twice."""
  data, _, _ = _sine(10)
  data = jax.tree.map(lambda a: jnp.concatenate([a[::4], a[::8]]), data)
  ntk, nngp = _network(), _network('nngp')
  posterior = krr.posterior(nngp, data, noise=1e-6)
  ensemble = krr.ensemble(ntk, nngp, data)
  scale = float(jnp.max(nngp.diag(data.x)))
  for predict_fn in (posterior, ensemble):
    full = predict_fn(data.x).covariance
    assert np.diag(full).min() >= 0
    assert np.linalg.eigvalsh(np.asarray(full, float)).min() > -1e-5 * scale
    variance = predict_fn(data.x, covariance='diagonal').covariance
    assert variance.min() >= 0
    assert variance.max() < 1e-2 * scale  # Known there.


@pytest.mark.slow
def test_gradients_at_equal_and_at_zero_rows():
  """Finite, and the value is that without the gradient."""
  kernel_fn = _network()
  x = jnp.asarray([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [-1.0, -2.0]])
  for value in (lambda x: kernel_fn(x).sum(),
                lambda x: kernel_fn(x, jnp.flip(x, 0)).sum(),
                lambda x: kernel_fn.diag(x).sum()):
    both, gradient = jax.value_and_grad(value)(x)
    np.testing.assert_allclose(both, value(x), rtol=1e-6)
    assert np.isfinite(gradient).all()


def _infinite_lenet():
  scales = {'W_std': 1.5, 'b_std': 0.05}
  block = lambda: [kernels.Conv(5, padding='VALID', **scales), kernels.Relu(),
                   kernels.AvgPool(2)]
  dense = lambda: kernels.Dense(**scales)
  return kernels.serial(
      *block(), *block(), kernels.Flatten(), dense(), kernels.Relu(), dense(),
      kernels.Relu(), dense())


@pytest.mark.slow
@pytest.mark.parametrize('width', ['infinite', 'finite'])
def test_lenet_in_two_batch_sizes(width):
  """The kernel of two images does not depend on who is beside them."""
  x = stacks.normal(0, 5, 16, 16, 1, dtype='float32')
  if width == 'infinite':
    kernel_fn = _infinite_lenet()
    tiled = [kernels.gram(kernel_fn, x, tile_bytes=6 * 4 * side**2)
             for side in (2, 3)]
    rtol = 1e-5  # A pooled gap is a difference.
  else:
    module = nets.LeNet(10)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    kernel_fn, *tiled = (
        empirical.ntk(module, variables, batch_size=size)
        for size in (None, 2, 3))
    tiled = [kernel(x) for kernel in tiled]
    rtol = 1e-5  # The order of sums.
  whole = np.asarray(kernel_fn(x))
  atol = rtol * np.abs(whole).max()
  for k in (*tiled, kernel_fn(x[:2], x)):
    np.testing.assert_allclose(k, whole[:len(k)], rtol=0, atol=atol)
  np.testing.assert_allclose(kernel_fn.diag(x[:2]), np.diag(whole)[:2],
                             rtol=rtol)


@pytest.mark.slow
def test_sparse_images_through_convolutions():
  """Empty patches, without a bias: against 40 digits; gradients are finite."""
  x = np.zeros((4, 5, 4, 1), 'float32')
  x[0, 1, 2], x[1, 1, 2], x[2, 4, 0] = 1, 3, -2  # The last one is empty.
  stack = [stacks.conv(1.4, 0.0), stacks.RELU, stacks.conv(1.4, 0.0),
           stacks.RELU, stacks.avg_pool(), stacks.conv(1.4, 0.0), stacks.RELU,
           stacks.GLOBAL, stacks.dense(1.4, 0.0)]
  kernel_fn = stacks.ours(stack)
  want = covariance.kernel(stack, x).astype(float)
  np.testing.assert_allclose(
      kernel_fn(x), want, rtol=0, atol=1e-5 * want.max())
  for value in (lambda x: kernel_fn(x).sum(),
                lambda x: kernel_fn(x, jnp.flip(x, 0)).sum()):
    assert np.isfinite(jax.grad(value)(jnp.asarray(x))).all()


class _Pooled(nn.Module):

  @nn.compact
  def __call__(self, x):
    for _ in range(2):
      x = nn.relu(nn.Conv(64, (3, 3))(x))
    return nn.Dense(10)(x.mean((1, 2)))


@pytest.mark.slow
def test_convolutions_with_ten_outputs_stay_within_memory():
  """64 images, all outputs: 1.3 GB once. The plan says so beforehand."""
  x = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32)
  module = _Pooled()
  variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  plan = empirical.plan(module, variables, x, trace_axes=())
  needed = jax.jit(lambda x: empirical.full(module, variables)(x)).lower(
      x).compile().memory_analysis()
  assert needed.temp_size_in_bytes < 2**28
  assert plan.num_bytes < 2**28
