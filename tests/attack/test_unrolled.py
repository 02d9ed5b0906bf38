"""Unrolled gradient flow against `train.flow`, closed forms, differences."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import unrolled
from dsr.train import flow
from dsr.types import Examples

_LENGTH = jnp.asarray(0.7)


@pytest.fixture(scope='module')
def kernel():
  root = np.random.default_rng(0).normal(size=(5, 5))
  basis = np.linalg.qr(root)[0]
  # Two pairs that are equal and nearly so, one value of 0.
  return jnp.asarray((basis * [3.0, 3.0, 1.0, 1.0 + 1e-9, 0.0]) @ basis.T)


def _by_series(k, r, length):
  """length sum_n (-k length)^n / (n + 1)! r, which needs no eigenvectors."""
  term, total = length * r, length * r
  for n in range(1, 60):
    term = -length / (n + 1) * (k @ term)
    total += term
  return total


def test_decay_and_its_derivative_where_eigenvalues_meet(kernel):
  rng = np.random.default_rng(1)
  r, dr = (jnp.asarray(rng.normal(size=5)) for _ in range(2))
  dk = jnp.asarray(rng.normal(size=(5, 5)))
  dk += dk.T
  want = jax.jvp(lambda k, r: _by_series(k, r, _LENGTH), (kernel, r), (dk, dr))
  got = jax.jvp(
      lambda k, r: unrolled.decayed(k, r, _LENGTH), (kernel, r), (dk, dr))
  np.testing.assert_allclose(got[0], want[0], rtol=1e-11, atol=1e-12)
  np.testing.assert_allclose(got[1], want[1], rtol=1e-7, atol=1e-7)
  back = jax.grad(lambda k: unrolled.decayed(k, r, _LENGTH) @ dr)(kernel)
  want = jax.grad(lambda k: _by_series(k, r, _LENGTH) @ dr)(kernel)
  np.testing.assert_allclose(back + back.T, want + want.T, atol=1e-7)


@pytest.fixture(scope='module')
def problem():
  keys = jax.random.split(jax.random.key(3), 3)
  x = jax.random.normal(keys[0], (5, 4, 4, 1))
  y = jax.random.normal(keys[1], (5, 2))
  return keys[2], Examples(x, y)


def _relative(theta, victim):
  square = lambda a, b: sum(jax.tree.leaves(jax.tree.map(
      lambda u, v: jnp.sum((u - v)**2), a, b)))
  return float(square(theta, victim.theta_T)
               / square(victim.theta_0, victim.theta_T))


@pytest.mark.parametrize('module', [
    nets.MLP(2, widths=(32,)), nets.ConvNet(2, depth=1, width=4, norm='none')],
    ids=['mlp', 'convnet'])
def test_ends_where_gradient_flow_ends(module, problem):
  key, data = problem
  theta_0 = module.init(key, data.x[:1])['params']
  victim = flow.fit_flow(module, theta_0, data, tolerance=1e-14)
  train = jax.jit(
      unrolled.train, static_argnums=0, static_argnames='steps')
  gaps = []
  for tolerance in (1.0, 0.005):
    theta, errors = train(module, theta_0, *data, 6.0, steps=48,
                          path_tolerance=tolerance)
    assert errors[-1] < 1e-12
    gaps.append(_relative(theta, victim))
  assert gaps[1] < 5e-3
  assert gaps[1] < 0.5 * gaps[0]


def test_rests_for_any_number_of_steps(problem):
  key, data = problem
  data = jax.tree.map(lambda a: a.astype(jnp.float32), data)
  module = nets.MLP(2, widths=(32,))
  theta_0 = module.init(key, data.x[:1])['params']
  theta, errors = jax.jit(
      unrolled.train, static_argnums=0, static_argnames='steps')(
          module, theta_0, *data, 6.0, steps=120, path_tolerance=0.1)
  assert errors[-1] < 1e-9
  assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(theta))


def test_the_gradient_is_that_of_a_linear_model(problem):
  key, data = problem
  module = nets.MLP(2, widths=())
  theta_0 = module.init(key, data.x[:1])['params']

  def readout(x, y, train):
    theta = train(x, y)['readout']['kernel']
    return jnp.sum(theta * jnp.cos(jnp.arange(theta.size)).reshape(theta.shape))

  def simulated(x, y):
    return unrolled.train(
        module, theta_0, x, y, 6.0, steps=8, path_tolerance=0.1)[0]

  def solved(x, y):  # theta_0 + X~' (X~ X~')^{-1} r.
    flat = x.reshape(len(x), -1)
    r = y - module.apply({'params': theta_0}, x)
    a = jnp.linalg.solve(flat @ flat.T + 1, r)
    return {'readout': {'kernel': theta_0['readout']['kernel'] + flat.T @ a}}

  got, want = (jax.jit(jax.grad(readout, (0, 1)), static_argnums=2)(
      *data, train) for train in (simulated, solved))
  for a, b in zip(got, want):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
