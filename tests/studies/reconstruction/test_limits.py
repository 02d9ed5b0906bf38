"""The mean NTK of finite MLPs, against `kernels.fcn` and against draws."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels, nets
from dsr.kernels import distance, empirical
from dsr.studies.reconstruction import limits


@pytest.fixture
def x(key):
  return 0.5 * jax.random.normal(key, (5, 12), jnp.float64)


@pytest.mark.parametrize('depth', [1, 3])
@pytest.mark.parametrize('b_std', [0.0, 0.3])
def test_ntk_parameterisation_is_fcn(x, depth, b_std):
  module = nets.MLP(1, (8,) * depth, 'ntk', w_std=1.3, b_std=b_std)
  want = kernels.fcn(depth, W_std=1.3, b_std=b_std)(x)
  np.testing.assert_allclose(
      limits.expected_ntk(module, x), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('fields', [
    {}, {'use_bias': False}, {'w_std': 1.4, 'b_std': 0.5}],
    ids=['plain', 'no bias', 'scales'])
def test_standard_parameterisation_is_the_mean_of_draws(x, key, fields):
  module = nets.MLP(1, (256, 128), **fields)
  apply_fn = lambda theta, x: module.apply({'params': theta}, x)
  draws = np.stack([
      empirical.ntk(apply_fn, module.init(k, x)['params'])(x)
      for k in jax.random.split(key, 12)])
  want = limits.expected_ntk(module, x)
  error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
  # Beside chance, a bias of order 1 / width.
  assert (np.abs(draws.mean(axis=0) - want) < 4 * error + 0.02 * want).all()
  assert distance.cosine_distance(draws.mean(axis=0), want) < 3e-3


@pytest.mark.errors
def test_other_activations_are_refused(x):
  with pytest.raises(ValueError, match='activation relu'):
    limits.expected_ntk(nets.MLP(1, (8,), activation=jax.nn.tanh), x)
