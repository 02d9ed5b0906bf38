"""What users of neural-tangents reported to its tracker, as cases of ours.

In float32 without x64, as they run it. Iris is in `test_krr_estimators`, a
module with batch norm in `kernels/test_models`.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels, krr
from dsr.types import Examples


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
