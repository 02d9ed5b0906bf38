"""The share of a victim's change that its own images leave unexplained."""
import jax
import pytest

from dsr import nets, train
from dsr.studies.reconstruction import shares
from dsr.types import Examples
from tests.attack import problem


@pytest.fixture(scope='module')
def examples():
  data = problem.digits(10)
  return Examples(jax.numpy.asarray(data.x), jax.numpy.asarray(data.y))


def _shares(victim, examples):
  return shares.unexplained(victim, examples.x)


def test_gradients_at_the_start_explain_a_linearised_network(examples):
  module = nets.MLP(1, widths=(64,))
  theta_0 = module.init(jax.random.key(0), examples.x[:1])['params']
  found = _shares(train.solve_linearised(module, theta_0, examples), examples)
  assert found['initial'] < 1e-8
  assert found['final'] > 1e-3


def test_descent_near_the_edge_of_stability_is_not_explained(examples):
  """As measured on MNIST: large at the end alone, less at both and between."""
  module = nets.MLP(1, widths=(256, 256))
  fast, calm = (_shares(train.fit_victim(
      jax.random.key(7), module, examples, progress=False, tolerance=1e-6,
      max_steps=3000, recipe=train.Recipe(**recipe)), examples)
                for recipe in ({}, {'learning_rate': 0.02, 'momentum': 0.0}))
  for found in (fast, calm):
    assert found['both'] < min(found['initial'], found['final'])
    assert found['path'] < found['both']
  assert calm['final'] < fast['final']


def test_features_that_need_too_much_memory_are_left_out(
    examples, monkeypatch):
  module = nets.MLP(1, widths=(64,))
  theta_0 = module.init(jax.random.key(0), examples.x[:1])['params']
  victim = train.solve_linearised(module, theta_0, examples)
  monkeypatch.setattr(shares, '_MOST', 2 * 10 * 2 * 64 + 20**2)
  assert set(_shares(victim, examples)) == {'initial', 'final', 'both'}
