"""Norms without gradients of single examples, against those gradients."""
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.nets import layers, mlp
from dsr.train import clipped, dp_sgd, ghost
from dsr.types import Examples

CASES = {  # A network, the size of its images.
    'convnet_instance': (nets.ConvNet(3, depth=2, width=4), 8),
    'convnet_layer': (nets.ConvNet(3, depth=1, width=4, norm='layer'), 8),
    'lenet': (nets.LeNet(3), 12),
    'mlp_ntk': (nets.MLP(3, widths=(5,), parameterisation='ntk', b_std=0.3), 4),
}


def _problem(name, num=5):
  module, side = CASES[name]
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(num, side, side, 2)))
  y = jnp.asarray(rng.normal(size=(num, 3)))
  params = jax.jit(module.init)(jax.random.key(0), x)['params']
  spread = lambda a: a + 0.1 * rng.normal(size=a.shape)  # Scales, too.
  return module, jax.tree.map(spread, params), Examples(x, y)


def _each(module, params, data):
  """Gradients of single examples, one by one: leaves (N, ...)."""
  def loss(params, x, y):
    return 0.5 * jnp.sum((module.apply({'params': params}, x[None])[0] - y)**2)

  return jax.jit(lambda p, d: jax.lax.map(
      lambda e: jax.grad(loss)(p, e.x, e.y), d))(params, data)


@pytest.mark.parametrize('name', [
    name if name in ('convnet_instance', 'mlp_ntk') else
    pytest.param(name, marks=pytest.mark.slow) for name in CASES])
@pytest.mark.parametrize('worth', [8, *(
    pytest.param(worth, marks=pytest.mark.slow) for worth in (0, 10**6))])
def test_norms_and_weighted_sums(name, worth, monkeypatch):
  if worth != 8 and name != 'convnet_instance':  # Convolutions in either way.
    pytest.skip('no other way')
  monkeypatch.setattr(ghost, '_WORTH', worth)
  module, params, data = _problem(name)
  assert ghost.covers(module, params, data.x)
  each = _each(module, params, data)
  squares = sum(np.sum(np.square(g), axis=tuple(range(1, g.ndim)))
                for g in jax.tree.leaves(each))
  weights = jnp.asarray(np.random.default_rng(1).uniform(size=len(data.x)))

  def run(params):
    _, found, weighted = ghost.backward(
        module, params, data.x, lambda out: out - data.y)
    return found, weighted(weights)

  found, total = jax.jit(run)(params)
  np.testing.assert_allclose(found, squares, rtol=1e-10)
  jax.tree.map(lambda g, e: np.testing.assert_allclose(
      g, np.tensordot(weights, e, 1), rtol=1e-8, atol=1e-11), total, each)


def test_tiles_are_filled_up_with_nobody(monkeypatch):
  module, params, data = _problem('mlp_ntk', num=7)
  drawn = np.arange(7) != 2
  run = lambda: jax.jit(functools.partial(
      dp_sgd.clipped_sum, module, clip=1.0, loss='mse'))(params, data, drawn)
  whole = run()
  monkeypatch.setattr(clipped, '_TILE', 3)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(run())):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
  monkeypatch.setattr(ghost, 'covers', lambda *args: False)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(run())):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_what_is_not_known_is_not_covered():
  class Twice(nn.Module):
    """One dense layer in two places."""

    @nn.compact
    def __call__(self, x):
      dense = mlp.Dense(x.shape[1])
      return dense(dense(x))

  class Other(nn.Module):
    """A parameter of its own."""

    @nn.compact
    def __call__(self, x):
      scale = self.param('scale', nn.initializers.ones, (), x.dtype)
      return layers.mlp.Dense(2)(x) * scale

  for module in (Twice(), Other(), nn.Dense(2)):
    x = jnp.ones((2, 4))
    params = module.init(jax.random.key(0), x)['params']
    assert not ghost.covers(module, params, x)
