"""The attack that trains on its candidates, on real digits."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import release, simulate, starts
from dsr.attack.prior import Prior
from dsr.train import flow
from dsr.types import Examples
from tests.attack import problem

_QUICK = simulate.Config(steps=60, start_steps=300, learning_rate=0.02)


@pytest.fixture(scope='module')
def trained():
  """A narrow victim of gradient flow, whose features move."""
  data = problem.digits(10)
  examples = Examples(jnp.asarray(data.x, jnp.float32),
                      jnp.asarray(data.y, jnp.float32))
  module = nets.MLP(1, widths=(256, 256))
  theta_0 = module.init(jax.random.key(7), examples.x[:1])['params']
  victim = flow.fit_flow(module, theta_0, examples)
  released = release.parameters(
      module, victim.theta_0, victim.theta_T, num_train=10,
      input_shape=(8, 8, 1), num_outputs=1, low=data.low, high=data.high)
  return data, released


def test_goes_on_from_the_finite_attack_to_the_images(trained, tmp_path):
  data, released = trained
  seen = []
  out = simulate.reconstruct(
      jax.random.key(0), released, _QUICK, progress=False, workdir=tmp_path,
      on_chunk=lambda step, x: seen.append((step, x)))
  assert [step for step, _ in seen] == [10, 20, 30, 40, 50, 60]
  assert out.candidates.shape == (10, 8, 8, 1)
  assert out.loss < 0.4 * out.info['start_loss']
  assert out.info['left'] < 1e-8
  error = problem.errors(data, out.candidates)
  early = problem.errors(data, seen[0][1])  # After 10 of 60 steps.
  assert np.median(error) < 0.75 * np.median(early)
  assert np.sum(error < 0.03) >= max(5, np.sum(early < 0.03))
  np.testing.assert_allclose(np.abs(out.info['labels']), 1, atol=0.3)
  again = simulate.reconstruct(
      jax.random.key(0), released, _QUICK, progress=False, workdir=tmp_path)
  np.testing.assert_array_equal(again.candidates, out.candidates)


def test_copies_are_left_out_while_there_are_others(trained):
  _, released = trained
  x = np.zeros((4, 8, 8, 1))
  x[1], x[2], x[3] = 0.01, 0.5, -0.5
  kept = starts.distinct(x, released, 3)
  np.testing.assert_array_equal(kept, x[[0, 2, 3]])
  np.testing.assert_array_equal(
      starts.distinct(x, released, 4), x[[0, 2, 3, 1]])


def test_balanced_labels_are_those_nearest_to_the_outputs():
  np.testing.assert_array_equal(
      starts.balanced(np.array([[0.9], [0.8], [0.7], [-0.1]])),
      [[1.0], [1.0], [-1.0], [-1.0]])
  out = np.array([[0.9, 0.1, 0.0], [0.8, 0.3, 0.0], [0.1, 0.0, 0.4]])
  np.testing.assert_allclose(
      starts.balanced(out), np.eye(3)[[0, 1, 2]] - 1 / 3)


@pytest.mark.errors
def test_bad_input(trained):
  _, released = trained
  for change, message in (
      ({'ratio': 0.0}, '`ratio`'), ({'steps': 0}, '`steps`'),
      ({'start': 'truth'}, '`start`'), ({'labels': 'x'}, '`labels`'),
      ({'ratio': 0.3, 'labels': 'balanced'}, '`labels`'),
      ({'path_steps': 2}, '`path_steps`'), ({'slope': 0.0}, '`slope`'),
      ({'path_tolerance': 0.0}, '`path_tolerance`'),
      ({'prior': Prior(box=-1.0)}, '`box`')):
    with pytest.raises(ValueError, match=message):
      simulate.check(released, _QUICK._replace(**change))
  with pytest.raises(ValueError, match='linearised'):
    simulate.check(released._replace(linearised=True), _QUICK)
  with pytest.raises(ValueError, match='theta_0'):
    simulate.check(released._replace(theta_0=None), _QUICK)
