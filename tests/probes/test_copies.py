"""Near-copies: found when they are there, and no more than chance else."""
import numpy as np
import pytest

from dsr.probes import copies, nearest


def _l2(x, train):
  return {'l2': copies.neighbours(x, train, 30)[1]}


def test_neighbours_are_those_of_all_distances(key):
  rng = np.random.default_rng(0)
  x, others = rng.random((7, 3, 3, 1)), rng.random((300, 3, 3, 1))
  others[5] = x[2]
  index, distance = copies.neighbours(x, others, 4)
  every = np.linalg.norm((x[:, None] - others).reshape(7, 300, -1), axis=-1)
  np.testing.assert_array_equal(index, every.argsort(1)[:, :4])
  np.testing.assert_allclose(distance, np.sort(every, 1)[:, :4], rtol=1e-12)
  assert (index[2, 0], distance[2, 0]) == (5, 0)
  first = copies.nearest_of(index[:, ::-1], distance[:, ::-1])
  np.testing.assert_array_equal(first.index, nearest.nearest(x, others).index)
  assert copies.neighbours(x, others[:3], 9)[0].shape == (7, 3)


def test_nearness_by_hand():
  distance = np.array([[2.0, 1.0, 4.0], [0.0, 0.0, 0.0], [3.0, 3.0, 3.0]])
  np.testing.assert_allclose(copies.nearness(distance), [1 / 3, 0, 1])
  far = np.r_[1.0, np.full(copies.NEIGHBOURS, 2.0), 99.0][None]
  np.testing.assert_allclose(copies.nearness(far), [0.5])


def test_copies_with_noise_are_found():
  """Their distance to the original is that of unrelated images here."""
  rng = np.random.default_rng(1)
  train, unrelated = rng.random((500, 64)), rng.random((400, 64))
  clean = train[:12]
  x = clean + rng.normal(size=clean.shape) * 0.2
  found = copies.find(_l2(x, train), _l2(unrelated, train))
  assert found.near.all()
  assert found.chance < 1e-12
  np.testing.assert_array_equal(
      copies.neighbours(x, train, 1)[0][:, 0], np.arange(12))


def test_unrelated_images_count_as_rarely_as_said():
  rng = np.random.default_rng(2)
  train, unrelated = rng.random((300, 16)), rng.random((1000, 16))
  x = rng.random((3000, 16))
  near = [copies.neighbours(a, train, 30) for a in (x, unrelated)]
  one, other = ({'l2': d, 'l4': np.linalg.norm(
      a[:, None] - train[i], ord=4, axis=-1)}
                for a, (i, d) in zip((x, unrelated), near))
  found = copies.find(one, other)
  assert found.expected == 0.01
  assert found.near.mean() < 0.015
  assert found.chance > 1e-4
  single = copies.find({'l2': one['l2']}, {'l2': other['l2']})
  assert 0.003 < single.near.mean() < 0.02
  none = copies.find({'l2': one['l2'][:5] * 0 + 1}, {'l2': other['l2']})
  assert not none.near.any()
  assert none.chance == 1


@pytest.mark.errors
def test_bad_arguments_are_named():
  good = {'l2': np.ones((3, 4))}
  with pytest.raises(ValueError, match='`own` and `unrelated` must name'):
    copies.find(good, {'ssim': np.ones((3, 4))})
  with pytest.raises(ValueError, match='`own` and `unrelated` must name'):
    copies.find({}, {})
  with pytest.raises(ValueError, match='`distance` must be'):
    copies.find({'l2': -np.ones((3, 4))}, good)
  with pytest.raises(ValueError, match='`distance` must be'):
    copies.nearness(np.ones((3, 1)))
  with pytest.raises(ValueError, match='`num` must be an integer of at least'):
    copies.neighbours(np.ones((3, 2)), np.ones((3, 2)), 0)
  with pytest.raises(ValueError, match='`others` has examples of shape'):
    copies.neighbours(np.ones((3, 2)), np.ones((3, 3)), 1)
