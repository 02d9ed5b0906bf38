"""Variable projection on finite networks, on real digits."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import coordinates, finite, release
from dsr.attack.prior import Prior
from tests.attack import problem

_QUICK = finite.Config(steps=300)


def _attack(released, config=_QUICK, **options):
  return finite.reconstruct(
      jax.random.key(0), released, config, progress=False, **options)


@pytest.fixture(scope='module')
def linear():
  data = problem.digits(10)
  return data, *problem.network(data, linearised=True, dtype=np.float32)


def test_loss_is_zero_at_the_truth_of_a_linearised_network(linear):
  data, released, victim = linear
  given = finite.prepare(released, _QUICK)
  at = finite.explain(released.module, given,
                      jnp.asarray(data.x, jnp.float32), 6.0, 1e-9)
  assert abs(1 - at.explained / given.norm_squared) < 1e-4
  np.testing.assert_allclose(at.duals, victim.duals, rtol=5e-2, atol=1e-3)


def test_most_images_of_a_linearised_network(linear):
  data, released, _ = linear
  out = _attack(released)
  assert out.candidates.shape == (20, 8, 8, 1)
  assert out.info['subspace'] == 9
  error = problem.errors(data, out.candidates)
  assert np.sum(error < 0.05) >= 8
  assert out.loss < 0.05
  near = problem.distances(data, out.candidates[out.claimed]).min(axis=0)
  assert len(near) >= 8
  assert near.max() < 0.05


def test_all_inputs_are_searched_where_the_change_has_full_rank(linear):
  _, released, _ = linear
  of = lambda released: coordinates.of(
      released, subspace=True, dtype=np.float32).dim(64)
  assert of(released) == 9
  assert of(release.with_noise(jax.random.key(0), released, 0.05)) == 64


@pytest.mark.slow
def test_gradients_at_both_ends_explain_a_trained_network_best():
  data = problem.digits(10)
  released, _ = problem.network(data, dtype=np.float32)
  x, losses = jnp.asarray(data.x, jnp.float32), {}
  for kind in ('initial', 'final', 'both'):
    given = finite.prepare(released, _QUICK._replace(gradients=kind))
    at = finite.explain(released.module, given, x, 6.0, 1e-7)
    losses[kind] = float(1 - at.explained / given.norm_squared)
  assert losses['both'] < 0.95 * min(losses['initial'], losses['final'])
  out = _attack(released)
  assert out.duals.shape == (20, 1)
  assert np.sum(problem.errors(data, out.candidates) < 0.15) >= 6


def test_features_along_the_line_are_stacked_or_averaged():
  data = problem.digits(4)
  module = nets.MLP(1, widths=(32,))
  x = jnp.asarray(data.x, jnp.float32)
  init = jax.jit(module.init)
  theta_0, theta_T = (
      init(jax.random.key(i), x[:1])['params'] for i in range(2))
  released = release.parameters(
      module, theta_0, theta_T, num_train=4, input_shape=(8, 8, 1),
      num_outputs=1, low=data.low, high=data.high)

  def explained(kind, points):
    config = _QUICK._replace(gradients=kind, points=points, subspace=False)
    given = finite.prepare(released, config)
    at = jax.jit(finite.explain, static_argnums=(0, 3, 4),
                 static_argnames='average')
    return at(module, given, x, 6.0, 1e-9, average=kind == 'mean')

  ends, line, mean = (explained('both', 2), explained('path', 2),
                      explained('mean', 50))
  np.testing.assert_allclose(line.duals, ends.duals, rtol=1e-3, atol=1e-5)
  # The mean of <df/dtheta, Delta> over the line is what f changes by.
  after, before = (
      module.apply({'params': theta}, x) for theta in (theta_T, theta_0))
  np.testing.assert_allclose(
      mean.factor.k @ mean.duals, after - before, atol=0.05)
  assert mean.explained < explained('path', 5).explained


@pytest.mark.slow
def test_any_flax_module_by_jacobians():
  data = problem.digits(6)
  module = nets.ConvNet(1, depth=1, width=4, norm='none')
  released, _ = problem.network(data, module, linearised=True,
                                dtype=np.float32)
  out = _attack(released, _QUICK._replace(
      steps=40, ratio=1.0, prior=Prior(box=0.1, variation=1e-3)))
  assert out.info['subspace'] == 0
  assert out.curve[-1] < 0.5 * out.curve[0]


@pytest.mark.slow
def test_many_outputs_and_seeds(linear):
  data = problem.digits(10, 10)
  module = nets.MLP(10, widths=(64, 64))
  released, _ = problem.network(data, module, linearised=True,
                                dtype=np.float32)
  out = _attack(released, _QUICK._replace(steps=40, ratio=1.0, num_seeds=2))
  assert out.duals.shape == (10, 10)
  assert out.info['seed_losses'].shape == (2,)
  assert out.curve[-1] < out.curve[0]


def test_fewer_candidates_are_a_distilled_set(linear):
  _, released, _ = linear
  out = _attack(released, _QUICK._replace(ratio=0.4, steps=100))
  assert out.info['labels'].shape == (4, 1)
  # Labels are the change that the linearised network makes, of size 1.
  assert 0.1 < np.abs(out.info['labels']).mean() < 3


def test_resume_goes_on_to_the_same_result(linear, tmp_path):
  _, released, _ = linear
  config = _QUICK._replace(steps=100)
  whole = _attack(released, config)
  steps = []
  _attack(released, config, workdir=tmp_path,
          on_chunk=lambda step, x: steps.append((step, x.shape)))
  again = _attack(released, config, workdir=tmp_path)
  assert steps == [(50, (20, 8, 8, 1)), (100, (20, 8, 8, 1))]
  np.testing.assert_array_equal(again.candidates, whole.candidates)


@pytest.mark.errors
def test_bad_input(linear):
  _, released, _ = linear
  for change, message in (
      ({'ratio': -1.0}, '`ratio`'), ({'steps': 0}, '`steps`'),
      ({'gradients': 'final'}, '`gradients`'), ({'slope': 0.0}, '`slope`'),
      ({'points': 1}, '`points`'),
      ({'batch': 0}, '`batch`'),
      ({'prior': Prior(variation=-1.0)}, '`variation`')):
    with pytest.raises(ValueError, match=message):
      _attack(released, _QUICK._replace(**change))
  with pytest.raises(ValueError, match='theta_0'):
    _attack(released._replace(theta_0=None))
