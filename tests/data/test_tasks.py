"""Tasks and labels: who is chosen, what the classes become, what is refused."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import data
from dsr.types import Dataset

COUNTS = (12, 7, 20, 9)


def _dataset(counts=COUNTS):
  """Labels in random order; the only pixel of an image is its row."""
  y = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
  y = np.random.default_rng(0).permutation(y)
  x = np.arange(len(y), dtype=np.float32).reshape(-1, 1, 1, 1)
  return Dataset(x, y, len(counts), 'toy')


def _rows(dataset):
  return dataset.x.ravel().astype(int)


def test_subset_relabels_in_the_order_given():
  whole = _dataset()
  part = data.subset_classes(whole, [3, 0])
  np.testing.assert_array_equal(
      _rows(part), [i for i, c in enumerate(whole.y) if c in (0, 3)])
  np.testing.assert_array_equal(
      part.y, [{3: 0, 0: 1}[c] for c in whole.y if c in (0, 3)])
  assert (part.num_classes, part.name) == (2, 'toy[3,0]')
  assert part.y.dtype == np.int32


def test_binary_keeps_all_examples():
  whole = _dataset()
  task = data.binary(whole, {1, 2}, 'middle')
  np.testing.assert_array_equal(_rows(task), _rows(whole))
  np.testing.assert_array_equal(task.y, [int(c in (1, 2)) for c in whole.y])
  assert (task.num_classes, task.name) == (2, 'middle')


def test_balanced_subset_is_class_after_class_without_repeats(key):
  whole = _dataset()
  part = data.balanced_subset(key, whole, 7)
  np.testing.assert_array_equal(part.y, np.repeat(np.arange(4), 7))
  np.testing.assert_array_equal(whole.y[_rows(part)], part.y)
  assert len(set(_rows(part))) == 28
  again = data.balanced_subset(key, whole, 7)
  np.testing.assert_array_equal(_rows(part), _rows(again))
  other = data.balanced_subset(jax.random.key(1), whole, 7)
  assert (_rows(part) != _rows(other)).any()


def test_smaller_balanced_subset_is_part_of_the_larger(key):
  y = _dataset().y
  few, many = (data.balanced_rows(key, y, n, 4).reshape(4, n) for n in (2, 5))
  np.testing.assert_array_equal(few, many[:, :2])


def test_balanced_draws_are_uniform_and_independent_between_classes():
  # Two classes of 8, one row of each: all 64 pairs are equally likely. A key
  # used again for the second class would give the same position in both.
  y = np.repeat([0, 1], 8)
  draws = 640
  keys = jax.random.split(jax.random.key(3), draws)
  pairs = np.array([data.balanced_rows(k, y, 1, 2) for k in keys]) - [0, 8]
  seen = np.bincount(pairs @ [8, 1], minlength=64)
  expected = draws / 64
  chi_squared = ((seen - expected)**2 / expected).sum()
  assert abs(chi_squared - 63) < 5 * np.sqrt(2 * 63)


@pytest.mark.parametrize('part', [0.25, 12, 1, 37])
def test_split_is_a_stratified_partition(key, part):
  whole = _dataset()
  rest, held = data.split(key, whole, part)
  size = round(part * 48) if isinstance(part, float) else part
  assert len(held) == size
  np.testing.assert_array_equal(
      np.sort(np.concatenate([_rows(rest), _rows(held)])), np.arange(48))
  assert (np.diff(_rows(held)) > 0).all()
  assert (np.diff(_rows(rest)) > 0).all()
  exact = np.array(COUNTS) * size / 48
  assert np.abs(np.bincount(held.y, minlength=4) - exact).max() < 1


def test_draws_do_not_depend_on_x64(key):
  y = _dataset().y
  with_x64 = data.balanced_rows(key, y, 5, 4)
  with jax.enable_x64(False):
    np.testing.assert_array_equal(data.balanced_rows(key, y, 5, 4), with_x64)


@pytest.mark.parametrize(('style', 'expected'), [
    ('one_hot', [[0, 1], [1, 0], [0, 1]]),
    ('centred', [[-.5, .5], [.5, -.5], [-.5, .5]]),
    ('sign', [[1], [-1], [1]]),
])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_encode_two_classes(style, expected, dtype):
  targets = data.encode(np.array([1, 0, 1]), 2, style=style, dtype=dtype)
  np.testing.assert_array_equal(targets, expected)
  assert targets.dtype == dtype
  np.testing.assert_array_equal(jax.jit(data.decode)(targets), [1, 0, 1])


def test_centred_is_the_default_and_sums_to_zero():
  y = np.arange(10).repeat(3)
  targets = data.encode(y, 10)
  np.testing.assert_allclose(targets, np.eye(10)[y] - 0.1, atol=1e-7)
  assert targets.dtype == jnp.float32
  np.testing.assert_array_equal(data.decode(targets), y)
  assert data.decode(targets).dtype == jnp.int32


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda k, d: data.balanced_subset(k, d, 8),
     'got 8 but class 1 has 7 examples'),
    (lambda k, d: data.balanced_rows(k, d.y, 1, 5), 'class 4 has 0 examples'),
    (lambda k, d: data.balanced_subset(k, d, 0), '`per_class`.*at least 1'),
    (lambda k, d: data.balanced_rows(k, d.y, 1, 3), r'`y` must be in \[0, 3\)'),
    (lambda k, d: data.split(k, d, 48), 'which is 48 of 48'),
    (lambda k, d: data.split(k, d, 0.001), 'which is 0 of 48'),
    (lambda k, d: data.split(k, d, 1.5), '`fraction_or_count`.*1.5'),
    (lambda k, d: data.split(k, d, 47), 'all .* examples of class'),
    (lambda k, d: data.subset_classes(d, [0, 4]), r'`classes`.*\[0, 4\)'),
    (lambda k, d: data.subset_classes(d, [0, 0]), '`classes` must not repeat'),
    (lambda k, d: data.subset_classes(d, [0.5, 1]), '`classes`.*integers'),
    (lambda k, d: data.subset_classes(_dataset((3, 0, 2)), [0, 1]),
     r'without examples: \[1\]'),
    (lambda k, d: data.binary(d, [], 'a'), 'some of the classes'),
    (lambda k, d: data.binary(d, range(4), 'a'), 'some of the classes'),
    (lambda k, d: data.encode(d.y, 3), r'`y` must be in \[0, 3\)'),
    (lambda k, d: data.encode(d.y, 4, style='sign'),
     '`num_classes` = 2, got 4'),
    (lambda k, d: data.encode(d.y, 4, style='pm'), '`style` must be one of'),
    (lambda k, d: data.encode(d.y / 1, 4), '`y` must be a vector of integers'),
    (lambda k, d: data.decode(jnp.zeros(3)), '`outputs` must have shape'),
])
def test_bad_input(key, call, message):
  with pytest.raises(ValueError, match=message):
    call(key, _dataset())
