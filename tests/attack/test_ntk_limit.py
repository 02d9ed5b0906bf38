"""The attack at infinite width, on real digits."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels
from dsr.attack import ntk_limit, release, scale
from dsr.attack.prior import Prior
from tests.attack import problem

_QUICK = ntk_limit.Config(steps=400, restart_every=50, dtype='float64')
_PLAIN = _QUICK._replace(restart_every=0)  # Compiles faster.


@pytest.fixture(scope='module')
def victim():
  data = problem.digits(10)
  kernel_fn = problem.fcn2()
  return (data, kernel_fn, *problem.limit(data, kernel_fn))


def _attack(victim, config, key=0, **options):
  _, kernel_fn, released, _, _ = victim
  return ntk_limit.reconstruct(
      jax.random.key(key), released, config, kernel_fn=kernel_fn,
      progress=False, **options)


def test_all_images_come_back_from_queries(victim):
  out = _attack(victim, _QUICK)
  assert problem.errors(victim[0], out.candidates).max() < 1e-4
  assert np.isnan(out.loss)
  # The surplus candidates have no gain.
  assert out.info['gains'][9] > 1e3 * out.info['gains'][10]
  # Without the truth the attack knows which of them are training images.
  apart = problem.distances(victim[0], out.candidates[out.claimed])
  assert apart.min(axis=1).max() < 1e-4
  assert apart.min(axis=0).max() < 0.01


@pytest.mark.slow
def test_duals_are_those_of_the_predictor(victim):
  config = _QUICK._replace(norm_squared=victim[4])
  out = _attack(victim, config)
  assert abs(out.loss) < 1e-5
  truth = victim[0].x.reshape(10, -1)
  found = out.candidates.reshape(len(out.candidates), -1)
  near = np.linalg.norm(truth[:, None] - found[None], axis=2) < 1e-2
  sums = near @ out.duals  # An image may be shared by several candidates.
  np.testing.assert_allclose(sums, victim[3], rtol=2e-2)
  # What is left bounds the distance of the two measures, known to us here.
  places = jnp.concatenate([jnp.asarray(victim[0].x),
                            jnp.asarray(out.candidates)])
  weights = np.concatenate([victim[3], -out.duals])
  mmd = np.sum(weights * (np.asarray(victim[1](places)) @ weights)) ** 0.5
  assert mmd <= out.info['mmd'] < 1e-2 * victim[4] ** 0.5


def test_loss_is_zero_at_the_truth_however_it_is_split(victim):
  data, kernel_fn, released, duals, norm = victim
  x = jnp.asarray(data.x)
  for candidates, weights in ((x, duals), (
      jnp.concatenate([x, x[:3]]),
      np.concatenate([duals[:3] / 2, duals[3:], duals[:3] / 2]))):
    k, v = np.asarray(kernel_fn(candidates)), released.query(candidates)
    loss = norm - 2 * np.sum(weights * v) + np.sum(weights * (k @ weights))
    assert abs(loss) < 1e-9 * norm


@pytest.mark.slow
def test_without_biases_images_come_back_up_to_scale():
  data = problem.digits(6)
  kernel_fn = kernels.fcn(1, b_std=0.0)
  released, duals, norm = problem.limit(data, kernel_fn)
  x = jnp.asarray(data.x)
  stretched = 3.0 * x  # (c x, a / c) has the same loss, which is 0.
  v, k = released.query(stretched), np.asarray(kernel_fn(stretched))
  weights = duals / 3
  loss = norm - 2 * np.sum(weights * v) + np.sum(weights * (k @ weights))
  # The angle between collinear inputs is only known to sqrt(eps).
  assert abs(loss) < 1e-6 * norm
  out = ntk_limit.reconstruct(
      jax.random.key(0), released, _PLAIN, kernel_fn=kernel_fn, progress=False)
  assert out.info['scale_free']
  # Digits have a black pixel, so that filling the range fixes the scale.
  assert problem.errors(data, out.candidates).max() < 1e-3


@pytest.mark.slow
def test_many_outputs():
  data = problem.digits(10, 10)
  kernel_fn = kernels.fcn(1)
  released, *_ = problem.limit(data, kernel_fn)
  out = ntk_limit.reconstruct(
      jax.random.key(1), released, _PLAIN, kernel_fn=kernel_fn, progress=False)
  assert out.duals.shape == (30, 10)
  assert problem.errors(data, out.candidates).max() < 1e-3


@pytest.mark.slow
def test_fewer_candidates_than_images_explain_less(victim):
  config = _PLAIN._replace(ratio=0.5, norm_squared=victim[4], steps=200)
  out = _attack(victim, config)
  assert out.candidates.shape == (5, 8, 8, 1)
  assert 0.01 < out.loss < 1


@pytest.mark.slow
def test_seeds_side_by_side_and_resume_agree(victim, tmp_path):
  config = _PLAIN._replace(steps=100, num_seeds=2)
  whole = _attack(victim, config)
  assert whole.info['seed_losses'].shape == (2,)
  _attack(victim, config, workdir=tmp_path,
          on_chunk=lambda step, x: False)
  again = _attack(victim, config, workdir=tmp_path)
  np.testing.assert_array_equal(again.candidates, whole.candidates)


def test_values_alone_suffice(victim):
  released = victim[2]
  query = release.by_differences(released.query, step=1e-5)
  x = jnp.asarray(victim[0].x[:2]) + 0.1
  slope = lambda q: jax.grad(lambda x: jnp.sum(q(x) ** 2))(x)
  np.testing.assert_allclose(slope(query), slope(released.query), rtol=1e-4,
                             atol=1e-7)


def test_fill_range_touches_the_range():
  released = release.query_only(
      lambda x: x.reshape(len(x), -1)[:, :1], num_train=1, input_shape=(3,),
      num_outputs=1, low=-0.2, high=0.8)
  out = scale.fill_range(released, np.array([[0.1, -0.1, 0.0], [4, 0, 1]]))
  np.testing.assert_allclose(out, [[0.2, -0.2, 0.0], [0.8, 0, 0.2]])


@pytest.mark.slow
def test_projection_keeps_candidates_in_range(victim):
  config = _PLAIN._replace(steps=20, prior=Prior(project=True))
  x = _attack(victim, config).candidates
  assert x.min() >= victim[0].low - 1e-6
  assert x.max() <= victim[0].high + 1e-6


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    ({'ratio': -1.0}, '`ratio`'), ({'steps': 0}, '`steps`'),
    ({'jitter': 0.0}, '`jitter`'), ({'dtype': 'float16'}, '`dtype`'),
    ({'prior': Prior(box=-1.0)}, '`box`'), ({'num_seeds': 0}, '`num_seeds`'),
    ({'probes': -1}, '`probes`'), ({'probe_scale': 0.0}, '`probe_scale`'),
    ({'probe_last': 0.0}, '`probe_last`'), ({'blur': -1.0}, '`blur`')])
def test_bad_options(victim, change, message):
  with pytest.raises(ValueError, match=message):
    _attack(victim, _QUICK._replace(**change))


@pytest.mark.errors
def test_query_is_needed(victim):
  with pytest.raises(ValueError, match='`released.query`'):
    ntk_limit.ntk_limit(victim[2]._replace(query=None), victim[1])
