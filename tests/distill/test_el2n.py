"""EL2N against loops over networks and examples."""
import math

import numpy as np
import pytest

from dsr.distill import el2n


def test_scores_meet_a_loop():
  rng = np.random.default_rng(0)
  outputs, labels = 3 * rng.normal(size=(4, 6, 3)), rng.integers(3, size=6)
  want = []
  for i in range(6):
    scores = []
    for r in range(4):
      e = [math.exp(v) for v in outputs[r, i]]
      p = [v / sum(e) for v in e]
      p[labels[i]] -= 1
      scores.append(math.hypot(*p))
    want.append(sum(scores) / 4)
  np.testing.assert_allclose(el2n.el2n(outputs, labels), want, rtol=1e-12)


def test_one_output_is_the_pair_of_sigmoids():
  f = np.array([-3.0, 0.0, 2.0, 2.0])
  labels = np.array([0, 1, 1, 0])
  p = 1 / (1 + np.exp(-f))
  want = math.sqrt(2) * np.abs(p - labels)
  scores = el2n.el2n(np.stack([f, f])[:, :, None], labels)
  np.testing.assert_allclose(scores, want, rtol=1e-12)


def test_sure_networks_score_zero_or_the_root_of_two():
  outputs = np.array([[[1e4, 0, 0], [1e4, 0, 0]]])
  np.testing.assert_allclose(
      el2n.el2n(outputs, np.array([0, 1])), [0, math.sqrt(2)], atol=1e-12)


def test_rows_by_class_ties_to_the_first():
  scores = np.array([0.1, 0.9, 0.9, 0.5, 0.2, 0.2, 0.7])
  labels = np.array([1, 1, 1, 0, 0, 0, 0])
  assert el2n.hardest(scores, labels, 2).tolist() == [6, 3, 1, 2]
  assert el2n.easiest(scores, labels, 2).tolist() == [4, 5, 0, 1]
  assert el2n.balanced(scores, labels, 2).tolist() == [5, 6, 0, 2]
  assert el2n.balanced(scores, labels, 1).tolist() == [3, 1]


@pytest.mark.parametrize('num', [1, 3, 7, 10])
def test_balanced_rows_are_medians_of_equal_parts(num):
  scores = np.random.default_rng(0).permutation(10).astype(float)
  rows = el2n.balanced(scores, np.zeros(10, int), num)
  want = [np.floor((i + 0.5) * 10 / num) for i in range(num)]
  assert scores[rows].tolist() == want


@pytest.mark.errors
def test_bad_arguments_are_named():
  outputs, labels = np.zeros((2, 3, 4)), np.array([0, 1, 3])
  with pytest.raises(ValueError, match=r'`outputs` must have shape \(R, N, C'):
    el2n.el2n(outputs[0], labels)
  with pytest.raises(ValueError, match=r'`labels` must be in \[0, 4\)'):
    el2n.el2n(outputs, labels + 1)
  with pytest.raises(ValueError, match=r'`labels` must be in \[0, 2\)'):
    el2n.el2n(outputs[..., :1], labels)
  with pytest.raises(ValueError, match='`labels` must have N=3'):
    el2n.el2n(outputs, labels[:2])
  with pytest.raises(ValueError, match='`outputs` must be finite'):
    el2n.el2n(outputs * np.nan, labels)
  with pytest.raises(ValueError, match=r'`scores` must have shape \(N,\)'):
    el2n.hardest(np.ones((3, 1)), labels, 1)
  with pytest.raises(ValueError, match='2 where class 0 has 1'):
    el2n.easiest(np.ones(3), labels, 2)
