"""Gradient flow against descent of ever smaller rates and closed forms."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets, numerics, train
from dsr.train import flow
from dsr.types import Examples, Status


@pytest.fixture(scope='module')
def problem():
  keys = jax.random.split(jax.random.key(3), 3)
  module = nets.build('mlp', 2, widths=(32,))
  x = jax.random.normal(keys[0], (6, 5, 1, 1))
  y = jax.random.normal(keys[1], (6, 2))
  theta_0 = module.init(keys[2], x[:1])['params']
  return module, theta_0, Examples(x, y)


@pytest.fixture(scope='module')
def exact(problem):
  return flow.fit_flow(*problem, tolerance=1e-14, path_tolerance=1e-5)


def gap(left, right):
  tree = jax.tree.map(jnp.subtract, left, right)
  return float(numerics.tree_dot(tree, tree)) ** 0.5


def test_descent_comes_nearer_in_proportion_to_its_rate(problem, exact):
  module, theta_0, data = problem
  gaps = []
  for rate in (0.02, 0.01, 0.005):
    victim = train.fit_victim(
        jax.random.key(0), module, data, theta_0=theta_0,
        recipe=train.Recipe(learning_rate=rate, momentum=0.0),
        tolerance=1e-14)
    assert victim.status == Status.CONVERGED
    gaps.append(gap(victim.theta_T, exact.theta_T))
  moved = gap(exact.theta_T, theta_0)
  assert gaps[2] < 0.01 * moved
  for coarse, fine in zip(gaps, gaps[1:]):
    assert 1.6 < coarse / fine < 2.5
  # Of what the steps sum up, the same: the residuals over time.
  np.testing.assert_allclose(
      exact.duals, victim.duals, atol=0.02 * np.abs(exact.duals).max())


def test_a_looser_path_is_still_near(problem, exact):
  module, theta_0, data = problem
  loose = flow.fit_flow(module, theta_0, data, tolerance=1e-14)
  moved = gap(exact.theta_T, theta_0)
  assert gap(loose.theta_T, exact.theta_T) < 0.01 * moved
  assert len(loose.curve) < len(exact.curve)
  assert loose.status == Status.CONVERGED
  assert loose.curve[-1] < 1e-14
  assert (np.diff(loose.curve) <= 0).all()
  assert loose.learning_rate is None
  assert not loose.linearised


def test_float32_is_as_good_as_its_digits(problem, exact):
  theta_0, data = jax.tree.map(
      lambda a: a.astype(jnp.float32), problem[1:])
  found = flow.fit_flow(problem[0], theta_0, data, tolerance=1e-10)
  moved = gap(exact.theta_T, problem[1])
  assert found.status == Status.CONVERGED
  assert gap(found.theta_T, exact.theta_T) < 0.01 * moved


def test_a_linear_network_is_solved_in_closed_form(problem):
  *_, data = problem
  data = data._replace(x=data.x[:4], y=data.y[:4])
  module = nets.build('mlp', 2, widths=())
  theta_0 = module.init(jax.random.key(1), data.x[:1])['params']
  found = flow.fit_flow(module, theta_0, data, tolerance=1e-20)
  solved = train.solve_linearised(module, theta_0, data)
  np.testing.assert_allclose(found.duals, solved.duals, rtol=1e-7, atol=1e-9)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9),
               found.theta_T, solved.theta_T)


def test_a_run_goes_on_to_the_same_bits(problem, tmp_path):
  options = {'workdir': tmp_path, 'progress': False}
  flow.fit_flow(*problem, max_steps=10, **options)
  more = flow.fit_flow(*problem, max_steps=60, **options)
  once = flow.fit_flow(*problem, max_steps=60, progress=False)
  jax.tree.map(np.testing.assert_array_equal, more.theta_T, once.theta_T)
  np.testing.assert_array_equal(more.curve, once.curve)
  assert len(once.curve) > 12


@pytest.mark.parametrize(('options', 'message'), [
    ({'tolerance': -1}, '`tolerance`'),
    ({'path_tolerance': 0}, '`path_tolerance`'),
    ({'max_steps': 0}, '`max_steps`'),
])
def test_refusals(problem, options, message):
  with pytest.raises(ValueError, match=message):
    flow.fit_flow(*problem, **options)
