"""Kernels in blocks of candidates: the same values and slopes, less memory."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import blocks, features, finite, release


def _rows(x):
  """Two sets of features of two outputs each, and their v."""
  phi = jnp.concatenate([
      jnp.stack([jnp.sin(c * x), jnp.cos(x) + c], axis=1) for c in (1, 3)])
  return phi, phi @ jnp.linspace(-1.0, 2.0, x.shape[1])


def _contract(left, right):
  return jnp.einsum('icp,jdp->ijcd', left, right)


@pytest.mark.parametrize('batch', [1, 2, 8])
def test_blocks_of_any_size_make_the_kernel_of_numpy(key, batch):
  x = jax.random.normal(key, (5, 4))
  k, v = blocks.kernel(_rows, _contract, x, batch=batch)
  phi = np.concatenate([
      np.stack([np.sin(c * x), np.cos(x) + c], axis=1) for c in (1, 3)])
  want = np.einsum('icp,jdp->ijcd', phi, phi)
  np.testing.assert_allclose(k, want, rtol=1e-12)
  np.testing.assert_array_equal(k, np.transpose(k, (1, 0, 3, 2)))
  np.testing.assert_allclose(v, phi @ np.linspace(-1, 2, 4), atol=1e-12)


@pytest.mark.parametrize('batch', [2, 5])
def test_slopes_of_blocks_are_finite_differences(key, batch):
  """Of a weighing that is not symmetric: both halves of dK count."""
  key_x, key_k, key_v, key_d = jax.random.split(key, 4)
  x = jax.random.normal(key_x, (5, 4))
  weights = (jax.random.normal(key_k, (10, 10, 2, 2)),
             jax.random.normal(key_v, (10, 2)))

  @jax.jit
  def loss(x):
    pair = blocks.kernel(_rows, _contract, x, batch=batch)
    return sum(jnp.vdot(a, w) for a, w in zip(pair, weights))

  direction = jax.random.normal(key_d, x.shape)
  want = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
  got = jnp.vdot(jax.grad(loss)(x), direction)
  np.testing.assert_allclose(got, want, rtol=1e-8)


def _network(name, key):
  module = {'mlp': nets.MLP(3, widths=(20,)),
            'convnet': nets.ConvNet(1, depth=1, width=3, norm='none')}[name]
  shape = (5, 4, 4, 1)
  key_x, *keys = jax.random.split(key, 3)
  x = jax.random.normal(key_x, shape)
  theta_0, theta_T = (module.init(k, x)['params'] for k in keys)
  delta = jax.tree.map(jnp.subtract, theta_T, theta_0)
  return module, finite.Data([theta_0, theta_T], delta, None, None, None), x


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mlp', 'convnet'])
def test_an_attack_in_batches_explains_the_same(name, key):
  module, data, x = _network(name, key)

  @jax.jit(static_argnames='batch')
  def explained(x, batch):
    at = finite.explain(module, data, x, 4.0, 1e-6, batch=batch)
    return at.explained + jnp.sum(at.duals), at.duals

  both = jax.value_and_grad(explained, has_aux=True)
  (want, duals), slope = both(x, None)
  (got, duals_in_batches), slope_in_batches = both(x, 2)
  np.testing.assert_allclose(got, want, rtol=1e-9)
  np.testing.assert_allclose(duals_in_batches, duals, rtol=1e-6, atol=1e-9)
  scale = np.abs(slope).max()
  np.testing.assert_allclose(slope_in_batches, slope, atol=1e-6 * scale)


@pytest.mark.parametrize(('num', 'width', 'batch', 'share'), [
    (64, 256, 8, 0.45),
    pytest.param(256, 4096, 16, 0.15, marks=pytest.mark.slow)])
def test_batches_bound_the_memory_of_a_step(num, width, batch, share):
  """Of the kernel and its slopes, as compiled."""
  module = nets.MLP(1, widths=(width, width))
  x = jax.ShapeDtypeStruct((num, 64), jnp.float32)
  theta = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  theta = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, jnp.float32), theta)

  def size(batch):
    def loss(x, theta_0, theta_T):
      k, v = features.kernel_of_mlp(
          module, [theta_0, theta_T], theta_0, x, 6.0, batch=batch)
      return jnp.sum(k**2) + jnp.sum(v**2)

    step = jax.jit(jax.value_and_grad(loss)).lower(x, theta, theta).compile()
    return step.memory_analysis().temp_size_in_bytes

  assert size(batch) < share * size(None)


@pytest.mark.slow
def test_a_whole_run_in_batches_goes_the_same_way(key):
  module = nets.MLP(1, widths=(8,))
  theta_0, theta_T = (module.init(k, jnp.zeros((1, 6)))['params']
                      for k in jax.random.split(key))
  released = release.parameters(
      module, theta_0, theta_T, num_train=2, input_shape=(6,), num_outputs=1,
      low=-1.0, high=1.0)
  config = finite.Config(steps=5, gradients='final', subspace=False)
  whole, parts = (
      finite.reconstruct(
          key, released, config._replace(batch=batch), progress=False)
      for batch in (None, 3))
  np.testing.assert_allclose(parts.curve, whole.curve, rtol=1e-6)
  np.testing.assert_allclose(parts.candidates, whole.candidates, atol=1e-5)
  np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-5)
