"""Matching: against scikit-image, brute force, and arithmetic by hand."""
import itertools
import math

import numpy as np
import pytest
from skimage import metrics

from dsr.attack import match


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.mark.parametrize('shape', [(28, 28, 1), (8, 8, 1), (9, 12, 3),
                                   (6, 11, 1), (3, 3, 2)])
def test_ssim_is_scikit_images(rng, shape):
  truth, candidates = rng.random((3, *shape)), rng.random((4, *shape)) * 1.3
  candidates[0] = truth[1]
  candidates[1] = truth[1] + 0.01 * candidates[1]
  candidates[2] = 0.25  # Flat: no variance in any window.
  side = min(7, *(n - 1 + n % 2 for n in shape[:2]))
  want = [[1 - metrics.structural_similarity(
      x, z, win_size=side, data_range=1, channel_axis=-1)
           for z in candidates] for x in truth]
  got = match.distances(truth, candidates, 'ssim')
  np.testing.assert_allclose(got, want, atol=1e-10)
  assert (got >= 0).all()


@pytest.mark.parametrize('shape', [(5,), (4, 4, 3)])
def test_l2_and_rmse_are_exact_even_when_tiny(rng, shape):
  truth = rng.random((4, *shape))
  candidates = np.concatenate([truth, truth + 1e-9, rng.random((2, *shape))])
  gaps = truth[:, None] - candidates[None]
  squares = (gaps**2).reshape(4, 10, -1)
  l2 = match.distances(truth, candidates, 'l2')
  np.testing.assert_allclose(l2, np.sqrt(squares.sum(-1)), rtol=1e-12)
  np.testing.assert_allclose(
      match.distances(truth, candidates), np.sqrt(squares.mean(-1)), rtol=1e-12)
  assert (np.diag(l2) == 0).all()


def test_float32_is_compared_in_float64(rng):
  truth = rng.random((2, 6)).astype(np.float32)
  got = match.distances(truth, truth.astype(np.float64)[::-1])
  assert got.dtype == np.float64
  np.testing.assert_array_equal(np.diag(got[:, ::-1]), 0)


@pytest.mark.parametrize('shape', [(4, 6), (5, 5), (6, 4)])
def test_assignment_is_the_best_of_all(rng, shape):
  """By trying every injective map of the smaller side into the larger."""
  distances = rng.random(shape)
  few = distances if shape[0] <= shape[1] else distances.T
  best = min(sum(few[i, j] for i, j in enumerate(columns))
             for columns in itertools.permutations(
                 range(few.shape[1]), few.shape[0]))
  matched = match.assign(distances)
  has = matched.candidate >= 0
  assert has.sum() == min(shape)
  assert len(set(matched.candidate[has])) == has.sum()
  np.testing.assert_allclose(matched.distance[has].sum(), best, rtol=1e-12)
  assert np.isinf(matched.distance[~has]).all()


def test_the_three_matchings_differ_as_they_should():
  distances = np.array([[1.0, 2.0, 9.0],
                        [2.0, 9.0, 9.0]])
  # Greedy takes the 1 and is left with a 9; the best total is 2 + 2.
  for method, candidate, distance in (
      (match.greedy, [0, 1], [1, 9]), (match.assign, [1, 0], [2, 2]),
      (match.nearest, [0, 0], [1, 2])):
    matched = method(distances)
    assert matched.candidate.tolist() == candidate
    assert matched.distance.tolist() == distance


@pytest.mark.parametrize('shape', [(7, 12), (12, 7)])
def test_greedy_walks_the_sorted_list(rng, shape):
  """As one would by hand: all pairs by distance, skipping those taken."""
  distances = rng.integers(0, 30, shape).astype(float)  # With ties.
  want, taken = {}, set()
  for i, j in sorted(np.ndindex(shape), key=lambda ij: (distances[ij], ij)):
    if i not in want and j not in taken:
      want[i] = j
      taken.add(j)
  matched = match.greedy(distances)
  for i in range(shape[0]):
    assert matched.candidate[i] == want.get(i, -1)
    assert matched.distance[i] == (distances[i, want[i]] if i in want
                                   else math.inf)


def test_greedy_leaves_its_argument_alone(rng):
  distances = rng.random((3, 3))
  before = distances.copy()
  match.greedy(distances)
  np.testing.assert_array_equal(distances, before)


@pytest.fixture
def attack(rng):
  """(truth (6, 8, 8, 1), candidates (9, ...), order, RMSE of each image)."""
  truth = rng.random((6, 8, 8, 1))
  rmse = np.array([0.004, 0.03, 0.07, 0.2, 0.0, 0.049])
  signs = rng.choice([-1.0, 1.0], size=truth.shape)
  rebuilt = truth + signs * rmse[:, None, None, None]
  order = rng.permutation(9)
  candidates = np.concatenate([rebuilt, np.full((3, 8, 8, 1), 5.0)])
  return truth, candidates[order], np.argsort(order)[:6], rmse


def test_score_finds_a_hidden_reconstruction(attack):
  truth, candidates, place, rmse = attack
  score = match.score(truth, candidates)
  np.testing.assert_array_equal(score.assigned.candidate, place)
  np.testing.assert_array_equal(score.greedy.candidate, place)
  np.testing.assert_array_equal(score.nearest.candidate, place)
  np.testing.assert_allclose(score.rmse, rmse, atol=1e-12)
  np.testing.assert_allclose(score.rmse_curve, sorted(rmse), atol=1e-12)
  np.testing.assert_allclose(score.curve, 8 * np.sort(rmse), atol=1e-12)
  np.testing.assert_allclose(score.greedy_curve, score.curve)
  assert score.recovered == {0.01: 2, 0.05: 4, 0.1: 5}
  similarity = [metrics.structural_similarity(
      x[..., 0], candidates[j, ..., 0], data_range=1)
                for x, j in zip(truth, place)]
  np.testing.assert_allclose(score.ssim, similarity, atol=1e-10)
  assert score.mean_ssim == pytest.approx(np.mean(similarity))
  np.testing.assert_array_equal(score.by_ssim.candidate, place)
  np.testing.assert_array_equal(score.greedy_ssim.candidate, place)
  np.testing.assert_allclose(1 - score.greedy_ssim.distance, similarity)


def test_one_candidate_recovers_one_image_only(attack):
  """Nearest counts a copy twice; the score does not."""
  truth, *_ = attack
  score = match.score(np.repeat(truth[:1], 2, axis=0), truth[:1])
  assert score.nearest.distance.tolist() == [0, 0]
  assert sorted(score.rmse) == [0, math.inf]
  assert sorted(score.assigned.candidate) == [-1, 0]
  assert score.recovered[0.01] == 1
  assert sorted(score.ssim) == pytest.approx([0, 1])


def test_score_of_vectors_has_no_ssim_and_counts_strictly(rng):
  truth = np.zeros((2, 4))
  candidates = np.array([[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25]])
  score = match.score(truth, candidates, thresholds=(0.25, 0.5, 0.6))
  assert score.recovered == {0.25: 0, 0.5: 1, 0.6: 2}
  assert score.ssim is score.by_ssim is score.mean_ssim is None
  assert score.greedy_ssim is None


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda x: match.distances(x, x, 'l1'), '`metric` must be one of l2, rmse'),
    (lambda x: match.distances(x, x[:, :4]), '`candidates` has examples of sh'),
    (lambda x: match.distances(x, x * np.nan), '`candidates` must be finite, '),
    (lambda x: match.distances(x - 0.5, x), r'`truth` must be pixels in \[0, '),
    (lambda x: match.distances((x * 255).astype(int), x), 'floating point, go'),
    (lambda x: match.distances(x[:, :2], x[:, :2], 'ssim'),
     '`truth` must have images of 3 x 3 pixels or more for SSIM, got 2 x 8'),
    (lambda x: match.distances(x[..., 0], x[..., 0], 'ssim'), 'shape .N, H, W'),
    (lambda x: match.score(x, x, thresholds=(0.0,)), '`thresholds` must be po'),
    (lambda x: match.assign(np.array([[np.inf, 1.0]])), '`distances` must be '),
    (lambda x: match.greedy(x), r'`distances` must have shape \(N, D\)'),
])
def test_bad_arguments_are_named(rng, call, message):
  with pytest.raises(ValueError, match=message):
    call(rng.random((3, 8, 8, 1)))
