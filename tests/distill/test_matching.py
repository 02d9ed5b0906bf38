"""Forward over reverse mode against differentiating twice; blocks; counting."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets, numerics
from dsr.distill import matching

CLASSES = 3


@pytest.fixture(scope='module')
def problem():
  """A ConvNet, a gradient that is wanted, and two images."""
  module = nets.ConvNet(CLASSES, depth=1, width=4)
  rng = np.random.default_rng(0)
  x, z = (jnp.asarray(rng.normal(size=(n, 4, 4, 2))) for n in (7, 2))
  params = module.init(jax.random.key(0), x)['params']
  loss = matching.class_loss(module)
  weights = jnp.asarray(rng.uniform(size=7))
  return loss, params, x, weights, z


def test_derivatives_are_those_of_differentiating_twice(problem):
  """Of a ConvNet, and of one sum of all distances: one program."""
  loss, params, x, weights, z = problem

  def distance(want, got):
    return (matching.cosine(want, got) + 3 * matching.squared(want, got)
            + 2 * matching.absolute(want, got))

  @jax.jit
  def both(z):
    want = matching.class_gradient(loss, params, x, jnp.int32(1), weights)
    equal = jnp.full(len(z), 1 / len(z))
    naive = lambda z: distance(
        want, jax.grad(loss)(params, z, jnp.int32(1), equal))
    return (matching.matched(loss, distance, params, z, jnp.int32(1), want),
            jax.value_and_grad(naive)(z))

  (value, gradient), (value_naive, gradient_naive) = both(z)
  assert np.abs(gradient_naive).max() > 1e-3
  np.testing.assert_allclose(value, value_naive, rtol=1e-12)
  np.testing.assert_allclose(gradient, gradient_naive, rtol=1e-9, atol=1e-12)


def test_blocks_sum_to_the_whole(problem):
  loss, params, x, weights, _ = problem
  whole, parts = jax.jit(lambda x, w: [
      matching.class_gradient(loss, params, x, jnp.int32(2), w, block=block)
      for block in (None, 3)])(x, weights)  # 7 images: one is filled up.
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_biases_never_count_and_the_readout_does_for_the_cosine_alone():
  rng = np.random.default_rng(1)
  shapes = {'conv': {'kernel': (3, 3, 2, 4), 'bias': (4,)},
            'readout': {'kernel': (5, 3), 'bias': (3,)}}
  draw = lambda: {a: {b: rng.normal(size=s) for b, s in own.items()}
                  for a, own in shapes.items()}
  want, got = draw(), draw()
  rows = [(g['conv']['kernel'].reshape(-1, 4).T, g['readout']['kernel'].T)
          for g in (want, got)]
  cos = lambda a, b: a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-6)
  expected = sum(1 - cos(a, b) for left, right in zip(*rows)
                 for a, b in zip(left, right))
  np.testing.assert_allclose(matching.cosine(want, got), expected)
  gap = want['conv']['kernel'] - got['conv']['kernel']
  np.testing.assert_allclose(matching.squared(want, got), np.sum(gap**2))
  np.testing.assert_allclose(
      matching.absolute(want, got), np.abs(gap).sum())
  got['conv']['kernel'][..., 0] = 0  # A dead output: counts 1, no NaN.
  value, gradient = jax.value_and_grad(
      matching.cosine, argnums=1)(want, jax.tree.map(jnp.asarray, got))
  assert np.isfinite(value)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_blocks_are_for_cpus_and_networks_without_moments_of_a_batch():
  shape = (28, 28, 1)
  assert matching.pick_block(nets.ConvNet(2), shape) == 8
  assert matching.pick_block(nets.ConvNet(2), (8, 8, 1)) == 98
  assert matching.pick_block(nets.ConvNet(2, norm='batch'), shape) is None
  with numerics.pretend_accelerator():
    assert matching.pick_block(nets.ConvNet(2), shape) is None
