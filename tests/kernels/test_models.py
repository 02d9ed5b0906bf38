"""Empirical kernels of what users have, against dense Jacobians."""
from flax import linen as nn, nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr.kernels import empirical, products
from dsr.kernels.monte_carlo import monte_carlo

N, M = 4, 3


def _inputs():
  """(x1, x2): dicts of integers (N, 2) and of floats (N, 3)."""
  rng = np.random.default_rng(0)
  return tuple(
      {'tokens': jnp.asarray(rng.integers(0, 5, (n, 2))),
       'z': jnp.asarray(rng.normal(size=(n, 3)))} for n in (N, M))


PARAMS = {
    'embed': np.random.default_rng(1).normal(size=(5, 3)),
    'frozen': np.random.default_rng(2).normal(size=(3, 3)),
    'head': np.random.default_rng(3).normal(size=(3, 6)),
    'step': np.arange(2),
}


def images(p, x):
  """Outputs (N, 2, 3), of integers and floats, with an integer leaf."""
  h = jnp.tanh(p['embed'][x['tokens']].sum(1) @ p['frozen'] + x['z'])
  return (h @ p['head'] * p['step'][1]).reshape(-1, 2, 3)


def trainable(path):
  return 'frozen' not in path


def _jacobian(x):
  """(N, 2, 3, P) with respect to what is trained."""
  trained = {k: jnp.asarray(PARAMS[k]) for k in ('embed', 'head')}
  found = jax.jit(jax.jacrev(lambda p: images({**PARAMS, **p}, x)))(trained)
  return np.concatenate([np.asarray(a).reshape(-1, 2, 3, a.shape[-1] * a.shape[
      -2]) for a in jax.tree.leaves(found)], -1)


@pytest.fixture(scope='module')
def dense():
  """(x1, x2, \\Theta (N, M, 2, 2, 3, 3) by dense Jacobians)."""
  x1, x2 = _inputs()
  j1, j2 = _jacobian(x1), _jacobian(x2)
  return x1, x2, np.einsum('nhwz,mijz->nmhiwj', j1, j2)


@pytest.mark.parametrize(('trace', 'diagonal', 'rule'), [
    pytest.param((), (), 'nmhiwj->nmhiwj', marks=pytest.mark.slow),
    ((-1,), (1,), 'nmhhww->nmh'),
    pytest.param((1, 2), (), 'nmhhww->nm', marks=pytest.mark.slow),
])
@pytest.mark.parametrize('method', ['jacobian', 'structured', 'ntvp'])
def test_axes_of_outputs(dense, method, trace, diagonal, rule):
  x1, x2, theta = dense
  kernel = empirical.full(
      images, PARAMS, trace_axes=trace, diagonal_axes=diagonal, method=method,
      batch_size=2, trainable=trainable)
  size = {0: 1, 1: 3, 2: 6}[len(trace)]
  want = np.einsum(rule, theta) / size
  np.testing.assert_allclose(kernel(x1, x2), want, atol=1e-10)
  if method == 'ntvp' and trace == ():
    symmetric = kernel(x1)
    np.testing.assert_allclose(symmetric[:, :M], kernel(
        x1, jax.tree.map(lambda a: a[:M], x1)), atol=1e-12)


@pytest.mark.slow
def test_views_of_one_kernel(dense):
  x1, x2, theta = dense
  flat = theta.transpose(0, 1, 2, 4, 3, 5).reshape(N, M, 6, 6)
  keep = {'trainable': trainable}
  np.testing.assert_allclose(
      empirical.pair(images, PARAMS, left=1, right=5, **keep)(x1, x2),
      flat[:, :, 1, 5], atol=1e-10)
  np.testing.assert_allclose(
      empirical.pseudo_ntk(images, PARAMS, **keep)(x1, x2),
      flat.sum((2, 3)) / 6, atol=1e-10)
  v = np.random.default_rng(4).normal(size=(M, 2, 3))
  product = products.matvec(images, PARAMS, x2, batch_size=2, **keep)(
      jnp.asarray(v))
  j2 = _jacobian(x2).reshape(M * 6, -1)
  np.testing.assert_allclose(
      product.ravel(), j2 @ (j2.T @ v.ravel()), atol=1e-9)
  f1, f2 = (np.asarray(images(PARAMS, x)).reshape(-1, 6) for x in (x1, x2))
  nngp = empirical.nngp(images, PARAMS)
  np.testing.assert_allclose(nngp(x1, x2), f1 @ f2.T / 6, rtol=1e-10)
  np.testing.assert_allclose(nngp.diag(x1), (f1**2).mean(1), rtol=1e-10)
  # Outputs of several arrays are laid end to end; (N,) is one output.
  several = lambda p, x: {'a': images(p, x)[:, 0], 'b': images(p, x)[:, 1, 2]}
  want = np.einsum('nmcc->nm', flat[:, :, [0, 1, 2, 5]][..., [0, 1, 2, 5]]) / 4
  np.testing.assert_allclose(
      empirical.ntk(several, PARAMS, **keep)(x1, x2), want, atol=1e-10)
  one = empirical.full(lambda p, x: images(p, x)[:, 1, 2], PARAMS, **keep)
  np.testing.assert_allclose(one(x1, x2), flat[:, :, 5, 5], atol=1e-10)


def test_a_plan_says_its_memory():
  x1, x2 = _inputs()
  plan = empirical.plan(images, PARAMS, x1, x2, method='jacobian',
                        trace_axes=(), batch_size=2)
  # 12 results of 36 numbers, two tiles of two Jacobians of 6 x (15 + 9 + 18).
  assert plan[:2] == ('jacobian', 2)
  assert 8 * (12 * 36 + 4 * 6 * 42) < plan.num_bytes < 8 * 8000
  assert empirical.plan(images, PARAMS, x1).num_bytes >= 8 * 16


class Norms(nn.Module):
  """Batch norm, as its users write it."""

  @nn.compact
  def __call__(self, x, train: bool = True):
    x = nn.Dense(5, param_dtype=float)(x)
    x = nn.BatchNorm(use_running_average=not train, param_dtype=float)(x)
    return nn.Dense(2, param_dtype=float)(nn.tanh(x))


def test_collections_of_linen_stay_as_they_are(key):
  """Statistics were once differentiated as well, in silence."""
  x = jax.random.normal(key, (N, 3))
  module = Norms()
  variables = jax.jit(lambda: module.init(key, x, train=False))()
  variables['batch_stats'] = jax.tree.map(
      lambda a: a + 0.3, variables['batch_stats'])

  def outputs(params):
    return module.apply({**variables, 'params': params}, x, train=False)

  jacobian = jax.jit(jax.jacrev(outputs))(variables['params'])
  want = sum(np.einsum('ncp,mcp->nm', a, a) / 2 for a in (
      np.asarray(leaf).reshape(N, 2, -1) for leaf in jax.tree.leaves(jacobian)))
  got = empirical.ntk(module.apply, variables)(x)  # Or `module` itself.
  np.testing.assert_allclose(got, want, rtol=1e-10)
  with pytest.raises(ValueError, match='must run in evaluation mode'):
    empirical.ntk(module, variables, train=True)(x)
  with pytest.raises(ValueError, match="the collection 'params'"):
    empirical.ntk(module, variables['params'])


class Nnx(nnx.Module):
  """The same in NNX, with dropout besides."""

  def __init__(self, rngs):
    like = {'rngs': rngs, 'param_dtype': float}
    self.first, self.last = nnx.Linear(3, 5, **like), nnx.Linear(5, 2, **like)
    self.norm = nnx.BatchNorm(5, **like)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x):
    return self.last(self.dropout(nnx.tanh(self.norm(self.first(x)))))


@pytest.mark.slow
def test_nnx_is_linen(key):
  x = jax.random.normal(key, (N, 3))
  module, linen = Nnx(nnx.Rngs(0)), Norms()
  variables = linen.init(key, x, train=False)
  variables['params'] = {
      'Dense_0': {'kernel': module.first.kernel[...],
                  'bias': module.first.bias[...]},
      'Dense_1': {'kernel': module.last.kernel[...],
                  'bias': module.last.bias[...]},
      'BatchNorm_0': {'scale': module.norm.scale[...],
                      'bias': module.norm.bias[...]}}
  np.testing.assert_allclose(
      empirical.ntk(module)(x), empirical.ntk(linen, variables)(x), rtol=1e-6)
  assert not module.norm.use_running_average  # A copy evaluates.
  with pytest.raises(ValueError, match='`params` must be None'):
    empirical.ntk(module, variables)


@pytest.mark.slow
def test_equinox(key):
  equinox = pytest.importorskip('equinox')
  x = jax.random.normal(key, (N, 3))
  module = equinox.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=key)
  arrays, static = equinox.partition(module, equinox.is_inexact_array)
  want = empirical.ntk(
      lambda p, x: jax.vmap(equinox.combine(p, static))(x), arrays)(x)
  np.testing.assert_allclose(empirical.ntk(module)(x), want, rtol=1e-12)


@pytest.mark.errors
def test_bad_input_is_named():
  x1, x2 = _inputs()
  kernel = empirical.full(images, PARAMS)
  cases = [
      (lambda: empirical.ntk(3), '`model` must be a Flax or equinox module'),
      (lambda: empirical.ntk(images), '`params` must be given'),
      (lambda: empirical.ntk(images, PARAMS, trainable=lambda path: False),
       '`params` must hold floating arrays'),
      (lambda: kernel({'z': x1['z'], 'tokens': x1['tokens'][:2]}),
       r"`x\['z'\]` has 4"),
      (lambda: kernel(x1, x1['z']), '`x2` must be the pytree'),
      (lambda: kernel(x1, {**x2, 'z': x2['z'].astype('float32')}),
       r"`x2\['z'\]` has dtype float32"),
      (lambda: empirical.full(images, PARAMS, trace_axes=(3,))(x1),
       '`trace_axes` must be axes of the outputs'),
      (lambda: empirical.pair(images, PARAMS, left=0, right=6)(x1), 'below 6'),
      (lambda: products.matvec(images, PARAMS, x1)(jnp.ones((N, 6))),
       r'`v` must have shape \(4, 2, 3\)'),
  ]
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()


@pytest.mark.slow
def test_monte_carlo_mean_and_standard_error(key):
  x = jax.random.normal(key, (N, 3))
  draw = lambda key: jax.random.normal(key, (3, 5))
  forward = lambda w, x: jnp.tanh(x @ w)
  estimate = monte_carlo(key, draw, forward, num=6, get='nngp')
  f = np.stack([forward(draw(k), x) for k in jax.random.split(key, 6)])
  each = np.einsum('rnc,rmc->rnm', f, f) / 5
  got = estimate(x)
  np.testing.assert_allclose(got.mean, each.mean(0), rtol=1e-9)
  np.testing.assert_allclose(
      got.standard_error, each.std(0, ddof=1) / np.sqrt(6), rtol=1e-8)
  with pytest.raises(ValueError, match='`num` must be an integer of at least'):
    monte_carlo(key, draw, forward, num=1)
