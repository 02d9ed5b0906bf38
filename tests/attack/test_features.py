"""Gram form and slopes of candidates' features."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import features


def _nets(num_outputs, **options):
  module = nets.MLP(num_outputs, widths=(20, 12), **options)
  x = jax.random.normal(jax.random.key(0), (5, 7), jnp.float64)
  keys = jax.random.split(jax.random.key(1))
  theta_0, theta_T = (module.init(k, x)['params'] for k in keys)
  return module, theta_0, theta_T, x


def _jacobian(module, theta, x):
  out = jax.jacrev(lambda p: module.apply({'params': p}, x))(theta)
  return np.concatenate([np.reshape(a, (*a.shape[:2], -1))
                         for a in jax.tree.leaves(out)], axis=2)


@pytest.mark.slow
@pytest.mark.parametrize('options', [
    {}, {'use_bias': False},
    {'parameterisation': 'ntk', 'w_std': 1.4, 'b_std': 0.2}])
@pytest.mark.parametrize('num_outputs', [1, 3])
def test_gram_form_equals_explicit_jacobians(num_outputs, options):
  module, theta_0, theta_T, x = _nets(num_outputs, **options)
  delta = jax.tree.map(jnp.subtract, theta_T, theta_0)
  parts = [features.of_mlp(module, t, delta, x, 5.0)
           for t in (theta_0, theta_T)]
  joined = features.stack(parts)
  phi = np.concatenate(
      [_jacobian(module, t, x) for t in (theta_0, theta_T)])
  flat = np.concatenate([np.ravel(a) for a in jax.tree.leaves(delta)])
  np.testing.assert_allclose(
      features.gram(joined), np.einsum('icp,jdp->ijcd', phi, phi), rtol=1e-10)
  np.testing.assert_allclose(joined.change, phi @ flat, rtol=1e-9, atol=1e-12)
  apply_fn = lambda p, x: module.apply({'params': p}, x)
  k, v = features.of_any(apply_fn, [theta_0, theta_T], delta, x)
  np.testing.assert_allclose(k, features.gram(joined), rtol=1e-10)
  np.testing.assert_allclose(v, joined.change, rtol=1e-9, atol=1e-12)


def test_values_are_exact_and_slopes_are_smooth():
  z = jnp.linspace(-2, 2, 9)
  for value, exact, slope in (
      (features.relu, jnp.maximum(z, 0), jax.nn.sigmoid(4 * z)),
      (features.mask, (z > 0).astype(z.dtype),
       4 * jax.nn.sigmoid(4 * z) * (1 - jax.nn.sigmoid(4 * z)))):
    out, tangent = jax.jvp(
        functools.partial(value, slope=4.0), (z,), (jnp.ones_like(z),))
    np.testing.assert_array_equal(out, exact)
    np.testing.assert_allclose(tangent, slope, rtol=1e-12)


def test_smoothed_relu_has_the_smooth_second_derivative():
  activation = features.smoothed_relu(4.0)
  z = jnp.array([-0.3, 0.2])
  first = jax.vmap(jax.grad(activation))
  np.testing.assert_array_equal(first(z), [0.0, 1.0])
  second = jax.vmap(jax.grad(jax.grad(activation)))(z)
  share = jax.nn.sigmoid(4 * z)
  np.testing.assert_allclose(second, 4 * share * (1 - share), rtol=1e-12)
