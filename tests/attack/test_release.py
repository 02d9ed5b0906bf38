"""What is released, and what is refused."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import prior, release

_PUBLIC = dict(num_train=3, input_shape=(4, 4, 1), num_outputs=1, low=-0.2,
               high=0.8)


def _parameters(**changes):
  module = nets.MLP(1, widths=(5,))
  thetas = [module.init(key, jnp.zeros((1, 4, 4, 1)))['params']
            for key in jax.random.split(jax.random.key(0))]
  values = dict(theta_0=thetas[0], theta_T=thetas[1], **_PUBLIC) | changes
  return release.parameters(module, **values)


def test_threats():
  assert _parameters().threat == 'parameters'
  assert _parameters(theta_0=None).threat == 'final'
  query = release.query_only(
      lambda x: x.reshape(len(x), -1).sum(1, keepdims=True), **_PUBLIC)
  assert query.threat == 'query'
  assert query.size == 16


def test_noise_has_the_scale_asked_for():
  released = _parameters()
  noisy = release.with_noise(jax.random.key(0), released, 0.5)
  change = np.concatenate([np.ravel(a - b) for a, b in zip(
      jax.tree.leaves(noisy.theta_T), jax.tree.leaves(released.theta_T))])
  assert abs(change.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * change.size)


def test_penalties_against_loops():
  released = _parameters()
  x = np.asarray(jax.random.normal(jax.random.key(1), (3, 4, 4, 1)))
  box = np.maximum(x - 0.8, 0) ** 2 + np.maximum(-0.2 - x, 0) ** 2
  got = prior.penalty(prior.Prior(box=2.0), released, jnp.asarray(x))
  np.testing.assert_allclose(got, 2 * box.mean(axis=(1, 2, 3)).sum(), rtol=1e-6)
  edge = np.pad(x[..., 0], ((0, 0), (1, 1), (1, 1)), mode='edge')
  blur = np.array([[[edge[m, i:i + 3, j:j + 3].mean() for j in range(4)]
                    for i in range(4)] for m in range(3)])
  want = ((x[..., 0] - blur) ** 2).mean(axis=(1, 2)).sum()
  got = prior.penalty(prior.Prior(high_frequency=1.0), released, jnp.asarray(x))
  np.testing.assert_allclose(got, want, rtol=1e-6)
  flat = jnp.full((2, 4, 4, 1), 0.3)
  assert prior.penalty(prior.Prior(variation=1.0), released, flat) < 1e-6
  clipped = prior.project(prior.Prior(project=True), released, jnp.asarray(x))
  np.testing.assert_allclose(clipped, np.clip(x, -0.2, 0.8), rtol=1e-6)


@pytest.mark.errors
@pytest.mark.parametrize(('changes', 'message'), [
    ({'num_train': 0}, '`num_train`'), ({'low': 1.0}, '`low`'),
    ({'high': np.nan}, '`high`'), ({'low': np.zeros(3) - 1}, '`low`'),
    ({'num_outputs': 2}, '`module`'), ({'input_shape': (5, 5, 1)}, '`theta_T`'),
    ({'input_shape': ()}, '`input_shape`'),
    ({'theta_T': {'a': jnp.array([jnp.nan])}}, '`theta_T'),
    ({'theta_0': {'a': jnp.zeros(1)}}, '`theta_0`'),
    ({'theta_0': None, 'linearised': True}, '`theta_0`')])
def test_bad_releases(changes, message):
  with pytest.raises(ValueError, match=message):
    _parameters(**changes)


@pytest.mark.errors
def test_bad_queries():
  with pytest.raises(ValueError, match='`query`'):
    release.query_only(lambda x: x, **_PUBLIC)
  with pytest.raises(ValueError, match='`theta_T`'):
    release.with_noise(jax.random.key(0),
                       _parameters()._replace(theta_T=None), 1.0)
