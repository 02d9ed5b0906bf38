"""The stable learning rate against eigenvalues and against training itself."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets, train
from dsr.kernels import empirical
from tests.train.problem import examples, jacobian

MODULE = nets.MLP(2, (16, 16), b_std=0.2)


def _theta(x, key):
  return MODULE.init(key, x)['params']


def test_largest_eigenvalue_is_that_of_the_empirical_ntk(key):
  data = examples()
  theta = _theta(data.x, key)
  apply_fn = lambda p, x: MODULE.apply({'params': p}, x)
  kernel = empirical.full(apply_fn, theta)(data.x)
  kernel = np.swapaxes(kernel, 1, 2).reshape(12, 12)
  want = np.linalg.eigvalsh(kernel / 6)[-1]
  j = jacobian(MODULE, theta, data.x).reshape(12, -1)
  np.testing.assert_allclose(np.linalg.norm(j, 2)**2 / 6, want, rtol=1e-10)
  exact = train.max_eigenvalue(key, MODULE, theta, data.x, tolerance=1e-12,
                               max_iterations=2000)
  np.testing.assert_allclose(exact, want, rtol=1e-9)
  rough = float(train.max_eigenvalue(jax.random.key(1), MODULE, theta, data.x))
  assert 0.97 * want < rough <= want * (1 + 1e-12)


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_linearised_descent_is_stable_up_to_the_rate_and_not_beyond(
    momentum, key):
  data = examples()
  theta = _theta(data.x, key)
  largest = float(train.max_eigenvalue(
      key, MODULE, theta, data.x, tolerance=1e-12, max_iterations=2000))
  loss = {}
  for factor in (0.99, 1.01):
    recipe = train.Recipe(
        momentum=momentum,
        learning_rate=factor * 2 * (1 + momentum) / largest)
    victim = train.fit_victim(
        key, MODULE, data, theta_0=theta, recipe=recipe, linearised=True,
        tolerance=0, max_steps=2000, progress=False)
    loss[factor] = victim.curve
  assert loss[0.99][-200:].max() < loss[0.99][0] / 2
  assert loss[1.01][-1] > 1e3 * loss[1.01][0]


def test_automatic_rate_is_a_fraction_of_the_stable_one(key):
  data = examples()
  theta = _theta(data.x, key)
  largest = float(train.max_eigenvalue(key, MODULE, theta, data.x))
  rate = train.automatic_rate(
      key, MODULE, theta, data.x, momentum=0.5, fraction=0.1)
  assert rate == pytest.approx(0.1 * 2 * 1.5 / largest, rel=1e-12)
  victim = train.fit_victim(
      key, MODULE, data, theta_0=theta, max_steps=1, progress=False)
  assert victim.learning_rate == pytest.approx(
      0.25 * 2 * 1.9 / largest, rel=0.03)


@pytest.mark.errors
def test_bad_rates_are_refused(key):
  data = examples()
  theta = _theta(data.x, key)
  rate = lambda **kwargs: train.automatic_rate(
      key, MODULE, theta, data.x, **kwargs)
  with pytest.raises(ValueError, match=r'`fraction` must be positive .* 0'):
    rate(fraction=0)
  with pytest.raises(ValueError, match=r'`fraction` must be in \[0, 1\]'):
    rate(fraction=1.5)
  with pytest.raises(ValueError, match=r'`momentum` must be in \[0, 1\]'):
    rate(momentum=2)
  with pytest.raises(ValueError, match='`max_iterations` .* at least 1'):
    train.max_eigenvalue(key, MODULE, theta, data.x, max_iterations=0)
  dead = jax.tree.map(jnp.zeros_like, theta)
  silent = nets.MLP(2, (16,), use_bias=False)
  dead = {name: {'kernel': dead[name]['kernel']}
          for name in ('hidden_0', 'readout')}
  with pytest.raises(ValueError, match='`theta_0` .* eigenvalue is 0'):
    train.automatic_rate(key, silent, dead, data.x)
