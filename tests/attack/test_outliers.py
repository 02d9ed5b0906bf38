"""Per-image values: the leave-one-out identity, and scipy's correlations."""
import jax
import numpy as np
import pytest
from scipy import stats

from dsr.attack import outliers


@pytest.fixture
def rng():
  return np.random.default_rng(2)


@pytest.mark.parametrize('outputs', [1, 3])
def test_value_is_the_loss_of_refitting_without_the_image(rng, outputs):
  """Against least squares on the features, one image dropped at a time."""
  features = rng.normal(size=(7, 12))
  duals = rng.normal(size=(7, outputs))
  moved = features.T @ duals  # Delta theta, a column an output.
  want = []
  for j in range(7):
    rest = np.delete(features, j, axis=0).T
    fit = np.linalg.lstsq(rest, moved)[0]
    want.append(np.sum((moved - rest @ fit)**2))
  got = outliers.leave_one_out(duals, features @ features.T)
  np.testing.assert_allclose(got, want, rtol=1e-10)


def test_value_is_the_dual_times_the_leave_one_out_residual(rng):
  """e_j of kernel regression without j, each time solved anew."""
  root = rng.normal(size=(6, 6))
  kernel, y = root @ root.T + np.eye(6), rng.normal(size=6)
  duals = np.linalg.solve(kernel, y)
  residuals = []
  for j in range(6):
    rest = np.delete(np.arange(6), j)
    fit = np.linalg.solve(kernel[np.ix_(rest, rest)], y[rest])
    residuals.append(y[j] - kernel[j, rest] @ fit)
  got = outliers.leave_one_out(duals[:, None], kernel)
  np.testing.assert_allclose(got, duals * residuals, rtol=1e-10)
  assert (got <= duals**2 * np.diag(kernel)).all()


@pytest.mark.parametrize('neighbours', [2, 50])
def test_table_by_hand(rng, neighbours):
  truth = rng.random((5, 2, 3, 1))
  error, duals = rng.random(5), rng.normal(size=(5, 2))
  kernel = np.diag([1.0, 2.0, 3.0, 4.0, 5.0])
  table = outliers.per_image(truth, error, duals=duals, kernel=kernel,
                             num_neighbours=neighbours)
  flat = truth.reshape(5, 6)
  for i in range(5):
    gaps = sorted(np.linalg.norm(flat[i] - flat[j]) for j in range(5) if j != i)
    assert table.from_neighbours[i] == pytest.approx(np.mean(gaps[:neighbours]))
    assert table.from_mean[i] == pytest.approx(
        np.linalg.norm(flat[i] - flat.mean(0)))
    size = np.hypot(*duals[i])
    assert table.dual[i] == pytest.approx(size)
    assert table.leave_one_out[i] == pytest.approx(size**2 * (i + 1))
  np.testing.assert_array_equal(table.error, error)


@pytest.mark.parametrize('values', ['distinct', 'ties', 'missed'])
def test_correlation_is_scipys(rng, key, values):
  x = rng.normal(size=30)
  y = x + rng.normal(size=30)
  if values == 'ties':
    x, y = np.round(x), np.round(y)
  if values == 'missed':
    y[:4] = np.inf
  # scipy knows no infinity; a rank is all that it is here.
  want = stats.spearmanr(x, np.nan_to_num(y, posinf=1e9)).statistic
  found = outliers.rank_correlation(key, x, y)
  assert found.value == pytest.approx(want, abs=1e-12)
  assert -1 <= found.low < found.value < found.high <= 1
  assert found == outliers.rank_correlation(key, x, y)
  assert found != outliers.rank_correlation(jax.random.key(1), x, y)


def test_interval_is_that_of_scipys_bootstrap(rng, key):
  x = rng.normal(size=80)
  y = x + 2 * rng.normal(size=80)
  found = outliers.rank_correlation(key, x, y, level=0.9, num_resamples=4000)
  want = stats.bootstrap(
      (x, y), lambda a, b: stats.spearmanr(a, b).statistic, paired=True,
      vectorized=False, n_resamples=1000, method='percentile',
      confidence_level=0.9, rng=rng).confidence_interval
  np.testing.assert_allclose(found[1:], want, atol=0.025)


def test_interval_covers_no_correlation_at_its_level():
  pairs = np.random.default_rng(3).normal(size=(200, 2, 40))
  keys = jax.random.split(jax.random.key(3), 200)
  found = [outliers.rank_correlation(k, *p, num_resamples=300)
           for k, p in zip(keys, pairs)]
  covered = np.mean([f.low <= 0 <= f.high for f in found])
  assert 0.88 <= covered <= 0.99


def test_perfect_order_is_one_and_resamples_of_one_value_have_no_say(key):
  x = np.arange(3.0)
  assert outliers.rank_correlation(key, x, np.exp(x)) == pytest.approx((1,) * 3)
  assert outliers.rank_correlation(key, x, -x) == pytest.approx((-1,) * 3)


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda k, x: outliers.leave_one_out(x[:2, :1], x), '`duals` has 2 rows, '),
    (lambda k, x: outliers.leave_one_out(x, x[:2]), r'`kernel` must have shap'),
    (lambda k, x: outliers.leave_one_out(x, -np.eye(3)), '`kernel` must be po'),
    (lambda k, x: outliers.per_image(
        x, np.ones(2), duals=x, kernel=np.eye(3)), 'same number of rows'),
    (lambda k, x: outliers.per_image(
        x, x[0], duals=x, kernel=np.eye(3), num_neighbours=0), '`num_neighbou'),
    (lambda k, x: outliers.rank_correlation(k, x[0, :2], x[0, :2]), 'at least'),
    (lambda k, x: outliers.rank_correlation(k, x[0], np.ones(3)), '`y` must n'),
    (lambda k, x: outliers.rank_correlation(k, x[0], x[0] * np.nan),
     r'`y` must be a vector without NaN, got shape \(3,\) with 3 NaN'),
    (lambda k, x: outliers.rank_correlation(k, x[0], x[1], level=2), '`level`'),
])
def test_bad_arguments_are_named(rng, key, call, message):
  with pytest.raises(ValueError, match=message):
    call(key, rng.random((3, 3)))
