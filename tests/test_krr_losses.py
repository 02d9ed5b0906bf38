"""Training on any loss: closed forms, slow NumPy descent, neural-tangents."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import krr
from dsr.kernels import stax
from dsr.types import Examples
from tests.test_krr_ensemble import M, N, _data, _gaussian

KERNEL = _gaussian(1.5)


def squared(f, y):
  return jnp.sum((f - y) ** 2) / (2 * f.shape[0])


def cross_entropy(f, y):
  return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(f), axis=1))


def _slope(f, y):
  """Of the cross-entropy, by hand."""
  p = np.exp(f - f.max(1, keepdims=True))
  return (p / p.sum(1, keepdims=True) - y) / len(f)


def _classes():
  """(data with one-hot targets, x, outputs at time 0 of both)."""
  data, x = _data()
  y = np.eye(2)[np.arange(N) % 2]
  rng = np.random.default_rng(3)
  return (Examples(data.x, jnp.asarray(y)), x,
          {'f0_train': jnp.asarray(rng.normal(size=(N, 2))),
           'f0_x': jnp.asarray(rng.normal(size=(M, 2)))})


def _matrices(data, x):
  return np.asarray(KERNEL(data.x)), np.asarray(KERNEL(x, data.x))


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_descent_on_the_cross_entropy_is_that_of_numpy(momentum):
  data, x, start = _classes()
  k, k_x = _matrices(data, x)
  alpha, change = np.zeros((N, 2)), np.zeros((N, 2))
  for _ in range(40):
    change = momentum * change - 0.7 * _slope(
        start['f0_train'] + k @ alpha, np.asarray(data.y))
    alpha = alpha + change
  predict_fn = krr.loss_flow(KERNEL, data, cross_entropy)
  got = predict_fn(x, krr.Descent(40, 0.7, momentum), **start)
  np.testing.assert_allclose(got, start['f0_x'] + k_x @ alpha, rtol=1e-9)
  np.testing.assert_array_equal(
      predict_fn(x, krr.Descent(0, 0.7), **start), start['f0_x'])


def test_squared_loss_is_gradient_flow():
  """At times in any order, 0 and the same one twice among them."""
  pytest.importorskip('diffrax')
  data, x = _data()
  t = np.array([30.0, 0.0, 3.0, 3.0, 300.0])
  got = krr.loss_flow(KERNEL, data, squared, tolerance=1e-8)(x, t)
  want = krr.gradient_flow(KERNEL, data)
  np.testing.assert_allclose(got, want(x, t), atol=1e-7)
  descent = krr.Descent(50, 0.3, 0.8)
  np.testing.assert_allclose(
      krr.loss_flow(KERNEL, data, squared)(x, descent), want(x, descent),
      rtol=1e-9)


@pytest.mark.slow
def test_cross_entropy_is_descent_in_tiny_steps():
  """Euler's rule in NumPy, its first order taken away by half the step."""
  pytest.importorskip('diffrax')
  data, x, start = _classes()
  k, k_x = _matrices(data, x)

  def descend(steps):
    alpha = np.zeros((N, 2))
    for _ in range(steps):
      alpha = alpha - 50.0 / steps * _slope(
          start['f0_train'] + k @ alpha, np.asarray(data.y))
    return alpha

  want = 2 * descend(40_000) - descend(20_000)
  predict_fn = krr.loss_flow(KERNEL, data, cross_entropy, tolerance=1e-9)
  got = predict_fn(x, 50.0, **start)
  np.testing.assert_allclose(got, start['f0_x'] + k_x @ want, atol=2e-7)


@pytest.mark.slow
def test_cross_entropy_matches_neural_tangents():
  pytest.importorskip('diffrax')
  data, x, start = _classes()
  k, k_x = _matrices(data, x)
  with jax.numpy_rank_promotion('allow'):
    predict_fn = stax.load().predict.gradient_descent(
        cross_entropy, k, data.y)
    _, want = predict_fn(
        np.array([1.0, 100.0]), start['f0_train'], start['f0_x'], k_x)
  got = krr.loss_flow(KERNEL, data, cross_entropy, tolerance=1e-9)(
      x, np.array([1.0, 100.0]), **start)
  np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.slow
def test_float32_gradients_and_too_few_steps():
  pytest.importorskip('diffrax')
  data, x, _ = _classes()
  want = krr.loss_flow(KERNEL, data, cross_entropy)(x, 20.0)
  with jax.enable_x64(False):
    data32, x32 = jax.tree.map(lambda a: jnp.asarray(a, 'float32'), (data, x))
    got = krr.loss_flow(KERNEL, data32, cross_entropy)(x32, 20.0)
    assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, atol=3e-4)

  def total(y):
    return krr.loss_flow(KERNEL, data._replace(y=y), squared)(x, 7.0).sum()

  def exact(y):
    return krr.gradient_flow(KERNEL, data._replace(y=y))(x, 7.0).sum()

  np.testing.assert_allclose(
      jax.grad(total)(data.y), jax.grad(exact)(data.y), atol=1e-4)
  short = krr.loss_flow(KERNEL, data, cross_entropy, max_steps=3)
  with pytest.raises(FloatingPointError, match='`max_steps` 3 did not lead to'):
    short(x, 20.0)
  assert np.isnan(jax.jit(lambda x: short(x, 20.0))(x)).all()


@pytest.mark.errors
def test_bad_arguments_are_named():
  data, x = _data()
  predict_fn = krr.loss_flow(KERNEL, data, squared)
  for t in (None, -1.0, math.inf, np.array([1.0, np.nan])):
    with pytest.raises(ValueError, match='`t` must be finite and not negative'):
      predict_fn(x, t)
  with pytest.raises(ValueError, match='`rate` must be positive'):
    predict_fn(x, krr.Descent(3, 0.0))
  with pytest.raises(ValueError, match='must return one number, got shape'):
    krr.loss_flow(KERNEL, data, lambda f, y: (f - y) ** 2)
  with pytest.raises(ValueError, match='`tolerance` must be positive'):
    krr.loss_flow(KERNEL, data, squared, tolerance=0)
