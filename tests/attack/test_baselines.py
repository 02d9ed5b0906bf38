"""Baselines: scores of guesses whose answer is known beforehand."""
import jax
import numpy as np
import pytest

from dsr.attack import baselines, match


@pytest.fixture
def rng():
  return np.random.default_rng(1)


def test_best_of_others_scores_a_random_subset_without_repetition(rng, key):
  truth, others = rng.random((3, 16)), rng.random((8, 16))
  every = baselines.best_of_others(key, truth, others, 8)
  np.testing.assert_allclose(every.curve, match.score(truth, others).curve)
  once = baselines.best_of_others(key, truth, others, 4)
  again = baselines.best_of_others(key, truth, others, 4)
  np.testing.assert_array_equal(once.curve, again.curve)
  totals = {float(baselines.best_of_others(
      jax.random.key(seed), truth, others, 4).curve.sum())
            for seed in range(8)}
  assert len(totals) > 3
  assert min(totals) >= every.curve.sum()


def test_best_of_others_gets_better_with_more_tries(rng, key):
  truth, others = rng.random((5, 8)), rng.random((400, 8))
  few, many = (baselines.best_of_others(key, truth, others, num).curve.mean()
               for num in (5, 400))
  assert many < 0.7 * few


def test_class_means_are_those_of_other_images(rng):
  truth, others = rng.random((4, 2, 2, 1)), rng.random((6, 2, 2, 1))
  labels, other_labels = np.array([7, 2, 7, 2]), np.array([2, 2, 7, 9, 7, 7])
  matched = baselines.class_means(truth, others, labels, other_labels)
  means = {2: others[[0, 1]].mean(0), 7: others[[2, 4, 5]].mean(0)}
  want = [np.linalg.norm(x - means[c]) for x, c in zip(truth, labels)]
  np.testing.assert_allclose(matched.distance, want)
  np.testing.assert_array_equal(matched.candidate, labels)
  overall = baselines.class_means(truth, others)
  np.testing.assert_allclose(
      overall.distance,
      [np.linalg.norm(x - others.mean(0)) for x in truth])


def _in_order(n):
  return match.Match(np.arange(n), np.zeros(n))


def test_rank_by_hand():
  truth = np.array([[0.5], [0.5], [0.1]])
  candidates = np.array([[0.45], [0.0], [0.9]])
  others = np.array([[0.2], [0.41], [0.5], [1.0]])
  matched = match.Match(np.array([0, 1, -1]), np.array([0.05, 0.5, np.inf]))
  ranks = baselines.expected_rank(truth, candidates, matched, others)
  # 0.45: 0.41 is closer, 0.5 ties. 0.0: 0.2 and 0.41 are closer, 0.5 ties.
  np.testing.assert_array_equal(ranks.rank, [2.5, 3.5, np.nan])
  assert ranks[1:] == (3.0, 3.0, 5)


def test_chance_is_the_mean_rank_of_candidates_that_know_nothing(rng):
  """Ranks are then uniform on 1..K: the mean within 4 standard errors."""
  n, others = 300, rng.random((24, 9))
  truth, candidates = rng.random((n, 9)), rng.random((n, 9))
  # A new line-up for each image, else their ranks would depend on each other.
  found = [baselines.expected_rank(
      truth[i:i + 1], candidates[i:i + 1], _in_order(1), rng.random((24, 9)))
           for i in range(n)]
  assert {f.chance for f in found} == {13.0}
  error = np.sqrt((25**2 - 1) / 12 / n)
  assert abs(np.mean([f.mean for f in found]) - 13) < 4 * error
  exact = baselines.expected_rank(truth, truth, _in_order(n), others)
  assert exact.mean == 1


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda k, x: baselines.best_of_others(k, x, x, 4), r'`num` must be in .1'),
    (lambda k, x: baselines.best_of_others(k, x, x + 1, 2), '`others` must be'),
    (lambda k, x: baselines.class_means(x, x, np.arange(3)), 'go together'),
    (lambda k, x: baselines.class_means(x, x, np.arange(3), np.zeros(3, int)),
     'got none of class 1'),
    (lambda k, x: baselines.class_means(x, x, np.arange(2), np.arange(3)),
     'same number of rows'),
    (lambda k, x: baselines.expected_rank(
        x, x, match.Match(np.full(3, -1), np.full(3, np.inf)), x),
     '`matched` must have a candidate'),
    (lambda k, x: baselines.expected_rank(x, x[:, :2], _in_order(3), x),
     '`candidates` has examples of shape'),
])
def test_bad_arguments_are_named(rng, key, call, message):
  with pytest.raises(ValueError, match=message):
    call(key, rng.random((3, 4)))
