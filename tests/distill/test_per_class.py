"""Choosing class by class."""
import numpy as np
import pytest

from dsr.distill import per_class


def test_rows_come_by_class_in_the_order_of_the_method():
  labels = np.array([7, 2, 7, 2, 2, 7])
  x = np.array([3.0, 1, 5, 9, 4, 8])[:, None]
  rows = per_class.choose(x, labels, 2, lambda x, k: np.argsort(-x[:, 0])[:k])
  assert rows.tolist() == [3, 4, 5, 2]
  assert {c: r.tolist() for c, r in per_class.members(labels).items()} == {
      2: [1, 3, 4], 7: [0, 2, 5]}


def test_classes_may_have_numbers_of_their_own():
  labels, x = np.array([7, 2, 7, 2, 2, 7]), np.arange(6.0)[:, None]
  first = lambda x, k: np.arange(k)
  assert per_class.choose(x, labels, (3, 1), first).tolist() == [1, 3, 4, 0]
  with pytest.raises(ValueError, match='2 of them, one for each class, got 3'):
    per_class.choose(x, labels, (1, 1, 1), first)
  with pytest.raises(ValueError, match='4 where class 7 has 3'):
    per_class.choose(x, labels, (1, 4), first)


def test_images_are_flattened_in_their_own_dtype():
  x, labels = per_class.flat(np.ones((3, 4, 5, 2), np.float32), np.arange(3))
  assert (x.shape, x.dtype, labels.tolist()) == (
      (3, 40), np.float32, [0, 1, 2])


@pytest.mark.errors
def test_bad_arguments_are_named():
  x, labels = np.ones((5, 2)), np.array([0, 0, 0, 4, 4])
  first = lambda x, k: np.arange(k)
  with pytest.raises(ValueError, match='3 where class 4 has 2'):
    per_class.choose(x, labels, 3, first)
  for count in (0, 1.0, True):
    with pytest.raises(ValueError, match='`num_per_class` must be an integer'):
      per_class.choose(x, labels, count, first)
  with pytest.raises(ValueError, match='same number of rows'):
    per_class.choose(x, labels[:4], 1, first)
  with pytest.raises(ValueError, match='`labels` must be a vector'):
    per_class.choose(x, labels * 1.0, 1, first)
  x[3, 1] = np.nan
  with pytest.raises(ValueError, match='`x` must be finite, got 1 NaN'):
    per_class.choose(x, labels, 1, first)
