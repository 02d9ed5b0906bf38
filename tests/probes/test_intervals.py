"""Intervals: against scipy and closed forms, and by the coverage they keep."""
import jax
import numpy as np
import pytest
from scipy import stats

from dsr.probes import intervals

LEVELS = pytest.mark.parametrize('level', [0.8, 0.95, 0.99])


@LEVELS
@pytest.mark.parametrize(('successes', 'n'), [
    (0, 1), (1, 1), (0, 50), (50, 50), (7, 10), (855, 1000), (9840, 10000)])
def test_wilson_is_scipys(successes, n, level):
  expected = stats.binomtest(successes, n).proportion_ci(level, method='wilson')
  ours = intervals.wilson(successes, n, level=level)
  np.testing.assert_allclose(ours, (successes / n, *expected), atol=1e-14)
  assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_wilson_has_half_of_the_rest_on_each_side():
  """A one-sided interval of the same level would be narrower."""
  for n in (20, 1000):
    low, high = intervals.wilson(n // 2, n)[1:]
    z = stats.norm.ppf(0.975)
    assert 0.5 - low == pytest.approx(high - 0.5)
    assert high - 0.5 == pytest.approx(z / (2 * np.sqrt(n + z**2)))


def test_wilson_keeps_its_coverage_at_accuracies_near_one():
  """Exactly, by summing over all outcomes; the normal interval falls short."""
  n, outcomes = 200, np.arange(201)
  ends = np.array([intervals.wilson(int(k), n)[1:] for k in outcomes])
  p_hat = outcomes / n
  half = 1.96 * np.sqrt(p_hat * (1 - p_hat) / n)
  for p in (0.5, 0.855, 0.97, 0.99):
    mass = stats.binom.pmf(outcomes, n, p)
    inside = (ends[:, 0] <= p) & (p <= ends[:, 1])
    assert 0.93 <= mass[inside].sum() <= 0.98
  assert mass[np.abs(p_hat - p) <= half].sum() < 0.9  # What we avoid.


@LEVELS
@pytest.mark.parametrize('values', [[1.0, 2.0], [0.9, 0.91, 0.88, 0.9, 0.93]])
def test_mean_t_is_scipys(values, level):
  expected = stats.ttest_1samp(values, 0).confidence_interval(level)
  ours = intervals.mean_t(values, level=level)
  np.testing.assert_allclose(ours, (np.mean(values), *expected), rtol=1e-12)


def test_mean_t_of_equal_values_is_a_point():
  assert intervals.mean_t([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_mean_t_covers_five_normal_values_at_its_level():
  samples = np.random.default_rng(0).normal(3, 2, (4000, 5))
  covered = [i.low <= 3 <= i.high for i in map(intervals.mean_t, samples)]
  assert abs(np.mean(covered) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize('method', ['bca', 'percentile'])
def test_bootstrap_of_a_mean_is_close_to_the_normal_interval(key, method):
  values = np.random.default_rng(1).normal(size=400)
  ours = intervals.bootstrap(key, values, method=method)
  half = 1.96 * values.std() / 20
  np.testing.assert_allclose(
      ours, values.mean() + np.array([0, -half, half]), atol=0.1 * half)


def test_bca_follows_the_skew_of_a_lognormal_mean(key):
  values = np.random.default_rng(2).lognormal(size=60)
  bca = intervals.bootstrap(key, values)
  plain = intervals.bootstrap(key, values, method='percentile')
  assert bca.low > plain.low
  assert bca.high > plain.high


def test_bootstrap_takes_any_statistic_and_covers_it():
  keys = jax.random.split(jax.random.key(5), 200)
  samples = np.random.default_rng(3).exponential(size=(200, 40))
  found = [intervals.bootstrap(k, v, np.median, num_resamples=199)
           for k, v in zip(keys, samples, strict=True)]
  np.testing.assert_allclose(
      [i.value for i in found], np.median(samples, axis=1))
  covered = [i.low <= np.log(2) <= i.high for i in found]
  assert 0.88 <= np.mean(covered) <= 0.99


def test_bootstrap_repeats_by_key(key):
  values = np.arange(20.0)
  first = intervals.bootstrap(key, values)
  assert first == intervals.bootstrap(key, values)
  assert first != intervals.bootstrap(jax.random.key(1), values)


def test_bootstrap_of_equal_values_is_a_point(key):
  assert intervals.bootstrap(key, np.full(9, 0.25)) == (0.25, 0.25, 0.25)


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda k: intervals.wilson(1, 0), '`n` must be an integer of at least 1'),
    (lambda k: intervals.wilson(11, 10), r'`successes` must be in \[0, 10\]'),
    (lambda k: intervals.wilson(0.9, 10), '`successes` must be an integer'),
    (lambda k: intervals.wilson(1, 2, level=95), r'`level` must be in \[0, 1'),
    (lambda k: intervals.wilson(1, 2, level=1), '`level` must be between 0 an'),
    (lambda k: intervals.mean_t([1.0]), '`values` must be a vector of at leas'),
    (lambda k: intervals.mean_t([1, np.nan]), '`values` must be finite, got 1'),
    (lambda k: intervals.bootstrap(k, [1, np.inf]), '`values` must be finite'),
    (lambda k: intervals.bootstrap(k, [1, 2], method='t'), '`method` must be'),
    (lambda k: intervals.bootstrap(k, [1, 2], num_resamples=0),
     '`num_resamples` must be an integer of at least 1'),
])
def test_bad_arguments_are_named(key, call, message):
  with pytest.raises(ValueError, match=message):
    call(key)


def test_crossed_covers_the_mean_over_models_and_examples():
  """Additive effects of models and examples, and noise: 5 models, 40 cases."""
  rng, covered, alone = np.random.default_rng(0), [], []
  for _ in range(400):
    values = (rng.normal(size=(5, 1)) + rng.normal(size=(1, 40))
              + rng.normal(size=(5, 40)))
    low, high = intervals.crossed(values)[1:]
    covered.append(low <= 0 <= high)
    low, high = intervals.crossed(values[:1])[1:]
    alone.append(low <= 0 <= high)
  assert 0.93 <= np.mean(covered) <= 0.99
  assert np.mean(alone) < 0.7  # One model says nothing of the others.


def test_crossed_of_one_model_and_of_equal_ones():
  right = np.arange(50) < 40
  assert intervals.crossed(right[None]) == intervals.wilson(40, 50)
  value, low, high = intervals.crossed(np.tile(right, (3, 1)))
  half = stats.t.ppf(0.975, 49) * np.std(right, ddof=1) / np.sqrt(50)
  np.testing.assert_allclose((value, low, high), (0.8, 0.8 - half, 0.8 + half))
  # Nothing varies, yet 50 examples are no proof of 100 %.
  for right in (0, 50):
    values = np.full((3, 50), right > 0)
    assert intervals.crossed(values) == intervals.wilson(right, 50)


def test_satterthwaite_is_welchs_interval():
  a, b = np.array([1.0, 2, 4, 4.5]), np.array([0.5, 1.5, 0.9, 1.1, 3.0, 2.0])
  expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
  parts = [(np.var(v, ddof=1) / len(v), len(v) - 1) for v in (a, b)]
  ours = intervals.satterthwaite(a.mean() - b.mean(), parts)
  np.testing.assert_allclose(ours[1:], expected, rtol=1e-12)


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda: intervals.crossed(np.ones(4)), r'`values` must be \(R, N\)'),
    (lambda: intervals.crossed(np.ones((2, 1))), r'`values` must be \(R, N\)'),
    (lambda: intervals.crossed(np.full((2, 3), np.nan)), '`values` must be f'),
    (lambda: intervals.satterthwaite(0.0, []), '`parts` must have'),
    (lambda: intervals.satterthwaite(0.0, [(-1.0, 2)]), '`variance` must be'),
    (lambda: intervals.satterthwaite(0.0, [(1.0, 0)]), '`freedom` must be'),
])
def test_crossed_names_bad_arguments(call, message):
  with pytest.raises(ValueError, match=message):
    call()
