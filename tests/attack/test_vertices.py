"""Vertices of span and pixel range: polytopes with known corners."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import kkt, release, vertices

SHAPE = (5, 5, 1)
LOW, HIGH = -0.25, 0.75


@pytest.fixture
def images():
  """Black images with a few bright pixels, in [LOW, HIGH]."""
  rng = np.random.default_rng(0)
  return LOW + (rng.random((4, 25)) < 0.3) * rng.uniform(0.5, 1, (4, 25))


@pytest.fixture
def released(images):
  """A network whose first layer is a random sum of the images."""
  mix = np.random.default_rng(1).normal(size=(4, 12))
  theta = {'hidden_0': {'kernel': jnp.asarray(images.T @ mix)},
           'readout': {'kernel': jnp.ones((12, 1))}}
  return release.parameters(
      nets.MLP(1, widths=(12,), use_bias=False), None, theta, num_train=4,
      input_shape=SHAPE, num_outputs=1, low=LOW, high=HIGH)


def _basis(images):
  return np.linalg.qr(images.T)[0]


def _gap(truth, found):
  return np.abs(truth[:, None] - found[None]).max(-1).min(1)


def test_a_program_ends_in_the_best_corner_of_a_box(released):
  x = np.linspace(-1, 1, 25).reshape(1, *SHAPE)
  got = vertices.climb(np.eye(25), released, x, programs=3, slack=0)
  middle = (LOW + HIGH) / 2
  np.testing.assert_allclose(got, np.where(x > middle, HIGH, LOW), atol=1e-9)
  assert got.shape == x.shape


def test_rough_candidates_end_in_their_image(images, released):
  rng = np.random.default_rng(2)
  rough = images + 0.05 * rng.normal(size=images.shape)
  got = vertices.climb(_basis(images), released, rough, programs=1, slack=1e-6)
  np.testing.assert_allclose(got, images, atol=1e-4)


def test_random_starts_find_every_image(key, images, released):
  found = vertices.search(
      key, _basis(images), released, starts=60, slack=1e-6)
  assert (_gap(images, found.x) < 1e-4).all()
  assert (np.diff(found.hits) <= 0).all()
  assert (found.contrast <= 1 + 1e-4).all()
  assert found.hits.max() > 1


def test_hits_count_starts_not_rows(released):
  a, b = np.full((1, 25), HIGH), np.full((1, 25), LOW)
  found = vertices.distinct(
      np.concatenate([a, a, b, a + 1e-4]), released, np.array([0, 0, 1, 2]))
  np.testing.assert_array_equal(found.hits, [2, 1])


def test_images_lie_on_more_bounds_than_other_corners(key, images, released):
  basis = _basis(images)
  found = vertices.search(key, basis, released, starts=60, slack=1e-6)
  more, leverage = vertices.hold(basis, released, found.x, slack=1e-6)
  right = np.abs(found.x[:, None] - images[None]).max(-1).min(1) < 1e-4
  assert right.sum() == 4
  assert more[right].min() > 5, more
  assert not right.all()
  assert np.all((more[~right] >= 0) & (more[~right] < 5)), more
  # A point within the range lies on none; equal bounds count once.
  inside = np.full((1, 25), (LOW + HIGH) / 2)
  assert vertices.hold(basis, released, inside) == (-4, 1)
  assert leverage[~right].min() > 0.9
  assert np.sum(leverage[right] < 0.8) >= 3, leverage  # One hangs by a bound.
  dark = vertices.hold(basis[:, :1], released, images[:1] * 0 + LOW)
  assert dark.excess == 0


def test_kkt_takes_the_vertices(key, images, released):
  found = kkt.reconstruct(
      key, released, kkt.Config(steps=5, vertices=60, slack=1e-6),
      progress=False)
  got = found.candidates.reshape(-1, 25)
  assert (_gap(images, got) < 1e-4).all()
  assert found.info['confirmed'] >= 1
  assert found.info['hits'].shape == (len(got),)
  assert found.duals.shape == (len(got), 1)
  near = np.abs(got[:, None] - images[None]).max(-1).min(1)
  assert found.claimed.any()
  assert not np.any(found.claimed & (near > 1e-4))


@pytest.mark.errors
def test_bad_input_is_named(images, released):
  basis = _basis(images)
  with pytest.raises(ValueError, match='basis'):
    vertices.climb(basis[:20], released, images)
  with pytest.raises(ValueError, match='programs'):
    vertices.climb(basis, released, images, programs=0)
  with pytest.raises(ValueError, match='slack'):
    vertices.climb(basis, released, images, slack=-1)
  with pytest.raises(ValueError, match='starts'):
    vertices.search(jax.random.key(0), basis, released, starts=0)
  away = released._replace(low=np.asarray(0.5))
  with pytest.raises(ValueError, match='slack'):
    vertices.climb(basis[:, :1], away, images)
