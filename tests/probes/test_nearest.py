"""Nearest neighbours and what is read off them: against brute force."""
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import neighbors

from dsr.probes import nearest

NORMS = {'l2': lambda gap: np.sqrt((gap**2).sum(-1)),
         'linf': lambda gap: np.abs(gap).max(-1)}


def _far(x, others, metric='l2'):
  """(N, M) in float64, from all differences at once."""
  x, others = (np.asarray(a, float).reshape(len(a), -1) for a in (x, others))
  return NORMS[metric](x[:, None] - others[None])


@pytest.fixture(params=[None, 40])  # One block, or several, the last short.
def blocks(request, monkeypatch):
  if request.param is not None:
    monkeypatch.setattr(nearest, '_BLOCK', request.param)


@pytest.mark.usefixtures('blocks')
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('metric', list(NORMS))
def test_finds_what_brute_force_finds(metric, dtype):
  rng = np.random.default_rng(0)
  x = rng.normal(5, 1, (23, 3, 4, 1)).astype(dtype)
  others = rng.normal(5, 1, (17, 3, 4, 1)).astype(dtype)
  others[5] = x[2]
  found = nearest.nearest(x, others, metric=metric)
  far = _far(x, others, metric)
  np.testing.assert_array_equal(found.index, far.argmin(1))
  np.testing.assert_allclose(found.distance, far.min(1), rtol=1e-12)
  assert found.distance[2] == 0
  own = nearest.nearest(x, x, metric=metric, exclude_self=True)
  far = _far(x, x, metric) + np.where(np.eye(len(x)), np.inf, 0)
  np.testing.assert_array_equal(own.index, far.argmin(1))
  np.testing.assert_allclose(own.distance, far.min(1), rtol=1e-12)


@pytest.mark.usefixtures('blocks')
def test_the_winner_is_exact_where_single_precision_cannot_tell():
  """Others 1e-9 apart on a sphere around x: their float32 images coincide."""
  rng = np.random.default_rng(1)
  x = rng.random((1, 30))
  away = rng.normal(size=(12, 30))
  away /= np.linalg.norm(away, axis=1, keepdims=True)
  radius = 1 + 1e-9 * rng.permutation(12)[:, None]
  found = nearest.nearest(x, x + radius * away)
  assert found.index[0] == radius.argmin()
  np.testing.assert_allclose(found.distance, 1, atol=1e-12)


def test_equal_ones_give_the_first_and_copies_are_neighbours():
  x = np.tile(np.arange(3.0)[:, None], (2, 4))
  np.testing.assert_array_equal(
      nearest.nearest(x, x).index, [0, 1, 2, 0, 1, 2])
  own = nearest.nearest(x, x, exclude_self=True)
  np.testing.assert_array_equal(own.index, [3, 4, 5, 0, 1, 2])
  assert not own.distance.any()
  flat = np.ones((4, 2), np.float32)
  np.testing.assert_array_equal(nearest.nearest(flat, flat).index, 0)


@pytest.mark.usefixtures('blocks')
def test_a_function_may_stand_for_the_metric():
  rng = np.random.default_rng(2)
  x, others = rng.random((9, 2, 2, 1)), rng.random((7, 2, 2, 1))

  def city(a, b):
    assert a.shape[1:] == b.shape[1:] == (2, 2, 1)
    return np.abs(a[:, None] - b[None]).sum((2, 3, 4))

  found = nearest.nearest(x, others, metric=city)
  far = city(x, others)
  np.testing.assert_array_equal(found.index, far.argmin(1))
  np.testing.assert_array_equal(found.distance, far.min(1))
  np.testing.assert_array_equal(
      nearest.nearest_scores(x, others, metric=city), -far.min(1))
  own = nearest.nearest(x, x, metric=city, exclude_self=True)
  assert (own.index != np.arange(9)).all()


def test_nearest_scores_are_largest_for_what_is_shown():
  rng = np.random.default_rng(3)
  x = rng.random((20, 6)).astype('float32')
  score = nearest.nearest_scores(jnp.asarray(x), x[:5] + 1e-3)
  np.testing.assert_allclose(score, -_far(x, x[:5] + 1e-3).min(1), rtol=1e-6)
  assert score[:5].min() > score[5:].max()


@pytest.mark.usefixtures('blocks')
@pytest.mark.parametrize('bandwidth', [0.05, 0.4, 30.0])
def test_densities_are_those_of_scikit_learn(bandwidth):
  rng = np.random.default_rng(4)
  x, shown = rng.random((15, 3, 2)), rng.random((11, 3, 2))
  flat = lambda a: a.reshape(len(a), -1)
  oracle = neighbors.KernelDensity(
      bandwidth=bandwidth, rtol=0, atol=0).fit(flat(shown))
  np.testing.assert_allclose(
      nearest.density_scores(x, shown, bandwidth=bandwidth),
      oracle.score_samples(flat(x)), rtol=1e-10)


@pytest.mark.parametrize('spread', [1e-3, 1.0, 50.0])
def test_the_bandwidth_explains_what_is_left_out(spread):
  """No bandwidth of a wider and finer grid does better by more than a step."""
  rng = np.random.default_rng(5)
  shown = spread * rng.normal(size=(25, 3))

  def left_out(h):
    total = 0.0
    for i in range(len(shown)):
      oracle = neighbors.KernelDensity(bandwidth=h).fit(np.delete(shown, i, 0))
      total += oracle.score(shown[i:i + 1])
    return total

  chosen = nearest._bandwidth(shown)
  others = chosen * np.geomspace(0.05, 20, 41)
  best = max(left_out(h) for h in others)
  assert left_out(chosen) > best - 0.05
  score = nearest.density_scores(shown, shown)
  np.testing.assert_allclose(
      score, nearest.density_scores(shown, shown, bandwidth=chosen))


def test_few_judge_the_bandwidth_of_many(monkeypatch):
  shown = np.random.default_rng(6).normal(size=(300, 4))
  whole = nearest._bandwidth(shown)
  monkeypatch.setattr(nearest, '_LEFT_OUT', 100)
  assert nearest._bandwidth(shown) == pytest.approx(whole, rel=0.3)


def test_kernel_scores_are_distances_between_features():
  rng = np.random.default_rng(7)
  phi, psi = rng.normal(size=(12, 5)), rng.normal(size=(4, 5))
  phi[3] = psi[1]
  diagonal = lambda a: (a**2).sum(1)
  score = nearest.kernel_scores(diagonal(phi), phi @ psi.T, diagonal(psi))
  np.testing.assert_allclose(score, -_far(phi, psi).min(1)**2, atol=1e-12)
  assert score.max() == score[3] <= 0


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda x: nearest.nearest(x, x[:, :2]),
     r'`others` has examples of shape \(2,\), expected \(3,\)'),
    (lambda x: nearest.nearest(x, x, metric='ssim'),
     '`metric` must be one of l2, linf'),
    (lambda x: nearest.nearest(x, x[:2], exclude_self=True),
     '`exclude_self` needs the same two or more'),
    (lambda x: nearest.nearest(x[:1], x[:1], exclude_self=True),
     '`exclude_self` needs the same two or more'),
    (lambda x: nearest.nearest(x, x * np.nan), '`others` must be finite'),
    (lambda x: nearest.nearest(x.astype(int), x), '`x` must be floating'),
    (lambda x: nearest.nearest(x, x, metric=lambda a, b: a),
     r'`metric` must map 4 and 4 examples to \(4, 4\), got \(4, 3\)'),
    (lambda x: nearest.density_scores(x, x[:, :1]),
     r'`shown` has examples of shape \(1,\)'),
    (lambda x: nearest.density_scores(x, x, bandwidth=0.0),
     '`bandwidth` must be positive'),
    (lambda x: nearest.density_scores(x, x[:1]), '`bandwidth` must be given'),
    (lambda x: nearest.kernel_scores(x[:2, 0], x, x[0]),
     '`k_xx_diag` has 2 rows, expected 4'),
    (lambda x: nearest.kernel_scores(x[:, 0], x, x[:, 0]),
     '`k_ss_diag` has 4 rows, expected 3'),
])
def test_bad_arguments_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call(np.random.default_rng(8).random((4, 3)))
