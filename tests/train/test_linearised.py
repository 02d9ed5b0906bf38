"""Closed-form training against descent and against NumPy."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets, train
from dsr.types import Status
from tests.train.problem import examples, flat, jacobian

MODULE = nets.MLP(2, (48, 48))


def _theta(module, x):
  return module.init(jax.random.key(0), x)['params']


@pytest.mark.parametrize('outputs', [1, 2])
def test_equals_descent_run_to_convergence(outputs, key):
  data = examples(num=5, dim=8, outputs=outputs)
  module = nets.MLP(outputs, (48, 48))
  theta = _theta(module, data.x)
  solved = train.solve_linearised(module, theta, data)
  descent = train.fit_victim(
      key, module, data, theta_0=theta, linearised=True, tolerance=1e-24,
      max_steps=20_000, progress=False)
  assert descent.status == Status.CONVERGED
  change, reference = (flat(v.theta_T) - flat(theta) for v in (solved, descent))
  assert np.linalg.norm(change - reference) < 1e-9 * np.linalg.norm(reference)
  np.testing.assert_allclose(solved.duals, descent.duals, rtol=1e-8, atol=1e-9)
  np.testing.assert_allclose(
      train.outputs(solved, data.x), data.y, rtol=0, atol=1e-8)


@pytest.mark.parametrize('ridge', [0.0, 0.1])
def test_equals_the_formula_written_out(ridge):
  data = examples()
  theta = _theta(MODULE, data.x)
  victim = train.solve_linearised(MODULE, theta, data, ridge=ridge)
  j = jacobian(MODULE, theta, data.x).reshape(12, -1)
  k = j @ j.T
  start = np.asarray(MODULE.apply({'params': theta}, data.x))
  duals = np.linalg.solve(
      k + ridge * np.trace(k) / 12 * np.eye(12), (data.y - start).ravel())
  np.testing.assert_allclose(victim.duals.ravel(), duals, rtol=1e-8)
  np.testing.assert_allclose(
      flat(victim.theta_T) - flat(theta), j.T @ duals, rtol=1e-7, atol=1e-12)
  error = start.ravel() + k @ duals - data.y.ravel()
  np.testing.assert_allclose(
      victim.curve, [((start - data.y)**2).mean(), (error**2).mean()],
      rtol=1e-7, atol=1e-20)
  assert victim.status == Status.CONVERGED
  assert victim.linearised
  assert victim.learning_rate is None


@pytest.mark.parametrize('module', [
    nets.MLP(2, (48,)), nets.ConvNet(2, depth=1, width=6)],
                         ids=['mlp', 'convnet'])
def test_any_network_fits_in_float32(module):
  data = examples(num=4, dim=16, dtype='float32')
  data = data._replace(x=data.x.reshape(4, 4, 4, 1))
  theta = jax.jit(module.init)(jax.random.key(0), data.x)['params']
  victim = train.solve_linearised(module, theta, data)
  leaves = jax.tree.leaves((victim.theta_T, victim.duals))
  assert {a.dtype.name for a in leaves} == {'float32'}
  assert victim.curve[1] < 1e-10
  np.testing.assert_allclose(
      train.outputs(victim, data.x), data.y, rtol=0, atol=1e-3)


def test_many_tiles_are_one():
  data = examples(num=256, dim=3, outputs=1)  # Two tiles, compiled once.
  module = nets.MLP(1, (32,))
  theta = _theta(module, data.x)
  victim = train.solve_linearised(module, theta, data, ridge=1e-3)
  j = jacobian(module, theta, data.x)[:, 0]
  np.testing.assert_allclose(
      flat(victim.theta_T) - flat(theta), j.T @ victim.duals[:, 0],
      rtol=1e-8, atol=1e-10)


@pytest.mark.errors
def test_bad_problems_are_refused():
  data = examples()
  theta = _theta(MODULE, data.x)
  with pytest.raises(ValueError, match='`ridge` must be .* not negative'):
    train.solve_linearised(MODULE, theta, data, ridge=-1.0)
  with pytest.raises(ValueError, match='`theta_0` must have the structure'):
    train.solve_linearised(MODULE, {}, data)
  twice = data._replace(x=data.x.at[1].set(data.x[0]))
  with pytest.raises(FloatingPointError, match='Raise `ridge`'):
    train.solve_linearised(MODULE, theta, twice)
  fitted = train.solve_linearised(MODULE, theta, twice, ridge=1e-6)
  assert jnp.isfinite(flat(fitted.theta_T)).all()
