"""Fairness: by hand, against fairlearn, and by the coverage it keeps."""
import jax
import numpy as np
import pytest
from scipy import special

from dsr.probes import disparity, fairness, intervals, membership, strata

NUMBERS = ('mean', 'worst', 'spread', 'ratio', 'deviation', 'variation',
           'between')


def _data(n=60, num_seeds=3, seed=0, accuracy=(0.5, 0.7, 0.9), hard=None):
  """Labels and predictions of networks that find the same points hard."""
  rng = np.random.default_rng(seed)
  labels = np.repeat(np.arange(len(accuracy)), n)
  hard = rng.normal(size=len(labels)) if hard is None else hard
  noise = rng.normal(size=(num_seeds, len(labels)))
  right = 0.8 * hard[None] + 0.6 * noise < special.ndtri(accuracy)[labels][None]
  other = (labels + rng.integers(1, len(accuracy), right.shape)) % len(accuracy)
  return labels, np.where(right, labels[None], other)


def _values(found):
  return {name: interval.value for name, interval in found._asdict().items()
          if isinstance(interval, intervals.Interval)}


def test_numbers_by_hand(key):
  labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
  said = np.array([0, 0, 0, 0, 1, 1, 0, 2, 2, 0])  # 4/4, 2/4, 1/2.
  found = fairness.evaluate(
      key, labels, said, group_names=['cat', 'dog', 'fox'], num_resamples=50)
  assert found.names == ('cat', 'dog', 'fox')
  assert found.sizes == (4, 4, 2)
  assert found.worst_group == 'dog'  # The first of two.
  assert found.accuracy == (intervals.wilson(4, 4), intervals.wilson(2, 4),
                            intervals.wilson(1, 2))
  assert found.odds_difference is found.odds_ratio is None
  # Chance: a (1 - a) / (n - 1), that is 0, 1/12 and 1/4, times 2/3 for G = 3.
  chance = 2 / 3 * (1 / 12 + 1 / 4) / 3
  expected = {
      'mean': 2 / 3, 'worst': 0.5, 'spread': 0.5, 'ratio': 0.5,
      'deviation': np.sqrt(1 / 18), 'variation': np.sqrt(1 / 18) * 3 / 2,
      'between': np.sqrt(max(0, 1 / 18 - chance))}
  assert chance > 1 / 18
  assert _values(found) == pytest.approx(expected)


def test_accuracy_is_the_mean_over_networks(key):
  labels = np.array([0, 0, 1, 1])
  said = np.array([[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0]])
  found = fairness.evaluate(key, labels, said, num_resamples=50)
  values = [i.value for i in found.accuracy]
  np.testing.assert_allclose(values, [5 / 6, 2 / 6])
  assert found.spread.value == pytest.approx(0.5)
  assert found.accuracy[0] == intervals.crossed(
      np.array([[True, True], [True, True], [False, True]]))


def test_equalised_odds_by_hand(key):
  groups = np.repeat(['a', 'b'], 6)
  labels = np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1])
  said = np.array([0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1])
  # Class 0: TPR 1 and 1/2, FPR 1/3 and 0. Class 1: TPR 2/3, 1; FPR 0, 1/2.
  found = fairness.evaluate(key, labels, said, groups=groups, num_resamples=50)
  assert found.odds_difference.value == pytest.approx(0.5)
  assert found.odds_ratio.value == 0
  assert found.spread.value == pytest.approx(0)  # 5 of 6 right in both.


def test_numbers_are_those_of_fairlearn(key):
  from fairlearn import metrics
  from sklearn.metrics import accuracy_score

  labels, said = _data(num_seeds=2)
  groups = np.random.default_rng(1).integers(0, 3, len(labels))
  keep = (groups != 2) | (labels != 1)  # Group 2 has no examples of class 1.
  labels, said, groups = labels[keep], said[:, keep], groups[keep]
  found = fairness.evaluate(key, labels, said, groups=groups, num_resamples=50)
  truth, decision, group = np.tile(labels, 2), said.ravel(), np.tile(groups, 2)
  frame = metrics.MetricFrame(metrics=accuracy_score, y_true=truth,
                              y_pred=decision, sensitive_features=group)
  by_class = []
  for c in range(3):
    on = group < (2 if c == 1 else 3)
    by_class.append([
        f(truth[on] == c, decision[on] == c, sensitive_features=group[on])
        for f in (metrics.equalized_odds_difference,
                  metrics.equalized_odds_ratio)])
  difference, ratio = zip(*by_class)
  np.testing.assert_allclose([i.value for i in found.accuracy], frame.by_group)
  values = _values(found)
  ours = [values[name] for name in (
      'worst', 'spread', 'ratio', 'odds_difference', 'odds_ratio')]
  np.testing.assert_allclose(ours, [
      frame.group_min(), frame.difference(), frame.ratio(), max(difference),
      min(ratio)])
  # And the formulas that resamples are put through agree.
  point, _ = disparity.measured(
      labels, said, strata.partition(groups, rows=len(labels)))
  again = disparity.numbers(point)
  assert {n: values[n] for n in again} == pytest.approx(again)


def test_odds_are_left_out_where_the_group_tells_the_label(key):
  labels, said = _data()
  halves = np.where(labels == 0, 'animal', 'vehicle')
  for groups in (None, labels, halves):
    found = fairness.evaluate(
        key, labels, said, groups=groups, num_resamples=20)
    assert found.odds_difference is found.odds_ratio is None
  change = fairness.compare(key, labels, said, said[0], num_resamples=20)
  assert change.odds_difference is change.odds_ratio is None


def test_order_and_names_do_not_matter_and_the_key_does(key):
  labels, said = _data(n=30)
  groups = np.random.default_rng(1).integers(0, 2, len(labels))
  found = fairness.evaluate(key, labels, said, groups=groups, num_resamples=50)
  order = np.random.default_rng(2).permutation(len(labels))
  named = np.array(['x', 'y'], object)[groups]
  again = fairness.evaluate(
      key, labels[order], said[:, order], groups=named[order],
      num_resamples=50)
  assert again.names == ('x', 'y')
  np.testing.assert_allclose(found.accuracy, again.accuracy)
  for name in (*NUMBERS, 'odds_difference', 'odds_ratio'):
    np.testing.assert_allclose(
        getattr(found, name), getattr(again, name), atol=1e-12)
  other = fairness.evaluate(
      jax.random.key(1), labels, said, groups=groups, num_resamples=50)
  assert _values(other) == _values(found)
  assert other.spread != found.spread


def test_networks_that_are_all_right_or_all_wrong_are_even(key):
  labels = np.repeat([0, 1], 20)
  for said in (labels, 1 - labels):
    groups = np.tile([0, 1], 20)
    found = fairness.evaluate(
        key, labels, said, groups=groups, num_resamples=20)
    for name in ('ratio', 'odds_ratio'):
      assert getattr(found, name) == (1, 1, 1)
    for name in ('spread', 'deviation', 'variation', 'between'):
      assert getattr(found, name) == (0, 0, 0)


def test_resampling_is_a_plain_one_of_networks_and_points(key, monkeypatch):
  """One network and point at a time; odds and accuracy, in blocks or not."""
  labels, said = _data(n=20)
  groups = np.random.default_rng(1).integers(0, 2, len(labels))
  parts = strata.partition(groups, rows=len(labels))
  (whole,) = disparity.resampled(key, labels, [said], parts, 2000)
  monkeypatch.setattr(strata, '_TILE', 2000)
  (tiled,) = disparity.resampled(key, labels, [said], parts, 2000)
  rng, accuracy, odds = np.random.default_rng(3), [], []
  for _ in range(1000):
    drawn = said[rng.integers(0, 3, 2)]  # R - 1 of the R networks.
    one_accuracy, one_odds = [], []
    for g in range(2):
      rows = rng.choice(np.flatnonzero(groups == g), parts.sizes[g])
      y, p = labels[rows], drawn[:, rows]
      one_accuracy.append(np.mean(p == y))
      one_odds.append([[np.mean(p[:, y == c] == c), np.mean(p[:, y != c] == c)]
                       for c in range(3)])
    accuracy.append(one_accuracy)
    odds.append(np.moveaxis(one_odds, 0, -1))
  for ours in (whole, tiled):
    for found, plain in zip(ours, map(np.array, (accuracy, odds))):
      scale = plain.std(0)
      assert np.all(abs(found.mean(0) - plain.mean(0)) < 0.2 * scale)
      np.testing.assert_allclose(found.std(0), scale, rtol=0.15)


def test_chance_is_estimated_without_bias():
  """Against what accuracies vary by, over draws of networks and points."""
  accuracy, n, drawn, chance = (0.5, 0.7, 0.9), 12, [], []
  rng = np.random.default_rng(0)
  parts = strata.partition(np.repeat(range(3), n), rows=3 * n)
  quantile = special.ndtri(accuracy)[parts.index]
  for _ in range(1500):
    of_seed = np.repeat(rng.normal(size=(3, 3)), n, axis=1)
    hard = rng.normal(size=(1, 3 * n))
    noise = rng.normal(size=(3, 3 * n))
    right = (0.3 * of_seed + 0.8 * hard + np.sqrt(0.27) * noise
             < quantile[None]).astype(float)
    by_group = right.reshape(3, 3, n).mean((0, 2))
    drawn.append(by_group.var() - np.var(accuracy))
    chance.append(strata.sampling_variance(right, parts))
  error = np.std(np.subtract(drawn, chance)) / np.sqrt(1500)
  assert np.mean(drawn) > 10 * error  # There is something to estimate.
  assert abs(np.mean(drawn) - np.mean(chance)) < 4 * error


@pytest.mark.parametrize('accuracy', [(0.7,) * 5, (0.5, 0.6, 0.7, 0.8, 0.9)])
def test_intervals_cover_even_groups_and_uneven_ones(accuracy):
  truth = disparity.numbers(disparity.Rates(np.array(accuracy), None))
  truth['between'] = truth['deviation']
  covered = {name: [] for name in truth}
  for seed in range(40):
    labels, said = _data(num_seeds=1 + 2 * (seed % 2), seed=seed,
                         accuracy=accuracy, n=50)
    found = fairness.evaluate(
        jax.random.key(seed), labels, said, num_resamples=200)
    for name, value in truth.items():
      _, low, high = getattr(found, name)
      covered[name].append(low - 1e-12 <= value <= high + 1e-12)
  for name, hits in covered.items():
    assert np.mean(hits) >= 0.86, name  # 95 % less 2.5 standard errors.


def test_what_chance_alone_spreads_is_taken_off(key):
  labels, said = _data(n=100, num_seeds=1, seed=1, accuracy=(0.7,) * 10)
  found = fairness.evaluate(key, labels, said)
  assert found.spread.value > 0.09
  assert found.spread.low == found.between.low == found.between.value == 0
  parts = strata.partition(labels, rows=len(labels))
  (drawn,) = disparity.resampled(key, labels, [said], parts, 1000)
  spreads = disparity.numbers(drawn)['spread']
  assert np.mean(spreads > found.spread.value) > 0.8  # Biased once more.


def test_comparison_is_paired(key):
  hard = np.random.default_rng(9).normal(size=300)
  labels, model = _data(n=100, seed=1, hard=hard)
  _, reference = _data(n=100, seed=2, hard=hard, accuracy=(0.7, 0.8, 0.9))
  change = fairness.compare(key, labels, model, reference)
  one, two = (fairness.evaluate(key, labels, s) for s in (model, reference))
  for name, value in _values(change).items():
    assert value == pytest.approx(
        getattr(one, name).value - getattr(two, name).value)
  width = lambda interval: interval.high - interval.low
  assert width(change.mean) < 0.85 * np.hypot(width(one.mean), width(two.mean))
  assert change.accuracy[0].high < 0  # 0.5 against 0.7 on class 0.
  assert change.between.low > 0
  back = fairness.compare(key, labels, reference, model)
  assert _values(back) == pytest.approx(
      {name: -value for name, value in _values(change).items()})
  one_network = fairness.compare(key, labels, model[0], model[0])
  assert set(map(tuple, one_network[2:9])) == {(0, 0, 0)}
  assert set(one_network.accuracy) == {(0, 0, 0)}


def test_values_by_group(key):
  rng = np.random.default_rng(0)
  groups = np.array(['b', 'a', 'b'] * 20)
  values = rng.normal(size=60) + (groups == 'b')
  found = fairness.per_group(key, values, groups, np.median)
  assert list(found) == ['a', 'b']
  for subkey, name in zip(jax.random.split(key), 'ab'):
    assert found[name] == intervals.bootstrap(
        subkey, values[groups == name], np.median)
  right = values > 0.5
  found = fairness.per_group(key, right, groups, level=0.9)
  assert found['b'] == intervals.wilson(
      int(right[groups == 'b'].sum()), 40, level=0.9)


def test_membership_by_group(key):
  rng = np.random.default_rng(0)
  groups, member = np.arange(90) % 3, np.arange(90) % 2 == 0
  score = rng.normal(size=90) + member * groups
  found = fairness.membership_by_group(
      key, score, member, groups, num_resamples=50)
  assert found[2].value > 0.85 > found[0].value
  for g, subkey in enumerate(jax.random.split(key, 3)):
    here = groups == g
    assert found[g] == membership.evaluate(
        subkey, score[here], member[here], num_resamples=50).auc


@pytest.mark.errors
@pytest.mark.parametrize(('options', 'message'), [
    ({'labels': np.ones(6)}, '`labels` must be a vector of integers'),
    ({'labels': np.arange(6) - 1}, '`labels` must be in'),
    ({'group_names': 'ab'}, r'`labels` must be in \[0, 2\)'),
    ({'group_names': 'abcd'}, '`labels` must hold .* got 0 of 3'),
    ({'predictions': np.zeros((2, 5), int)}, '`predictions` must have shape'),
    ({'predictions': np.zeros(6)}, '`predictions` must be a vector of int'),
    ({'predictions': -np.ones(6, int)}, '`predictions` must be in'),
    ({'groups': np.zeros(5, int)}, r'`groups` must be \(6,\) integers or str'),
    ({'groups': np.array([0, 1, np.nan] * 2)}, '`groups` must be .* or string'),
    ({'groups': [0, 0, 0, 1, 1, 2]}, '`groups` must hold .* got 1 of 2'),
    ({'groups': [0] * 6}, '`groups` must hold at least 2 groups'),
    ({'groups': list('aabbcc'), 'group_names': 'ab'}, "be among .* got 'c'"),
    ({'groups': list('aabbbb'), 'group_names': 'abc'}, "got 0 of 'c'"),
    ({'groups': list('aabbbb'), 'group_names': 'aab'}, '`group_names` must di'),
    ({'num_resamples': 0}, '`num_resamples` must be an integer of at least 1'),
    ({'level': 95}, '`level` must be in'),
])
def test_bad_arguments_are_named(key, options, message):
  given = {'labels': np.array([0, 0, 1, 1, 2, 2]),
           'predictions': np.zeros(6, int)} | options
  with pytest.raises(ValueError, match=message):
    fairness.evaluate(key, **given)
  if 'labels' not in options:
    with pytest.raises(ValueError, match=message):
      fairness.compare(key, reference=np.zeros(6, int), **given)


@pytest.mark.errors
def test_bad_values_by_group_are_named(key):
  groups = np.array([0, 0, 1, 1])
  with pytest.raises(ValueError, match='`values` must be finite'):
    fairness.per_group(key, [1, 2, 3, np.nan], groups)
  with pytest.raises(ValueError, match='`values` must be a vector of numbers'):
    fairness.per_group(key, np.ones((4, 1)), groups)
  with pytest.raises(ValueError, match='`groups` must hold .* got 0 of 2'):
    fairness.per_group(key, np.ones(4), groups, group_names=range(3))
  with pytest.raises(ValueError, match='`member` must hold .* 2 in 1'):
    fairness.membership_by_group(
        key, np.arange(4.0), np.array([True, False, True, True]), groups)
