"""Empirical NTK against difference quotients, neural-tangents and its limit."""
import functools
import math

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import types
from dsr.kernels import empirical, graphs, jacobians, stax


class NtkDense(nn.Module):
  """W x sigma / sqrt(I) + 0.3 b, with standard normal W and b."""

  features: int
  std: float = 1.0

  @nn.compact
  def __call__(self, x):
    normal = nn.initializers.normal(1.0)
    w = self.param('w', normal, (x.shape[-1], self.features), x.dtype)
    b = self.param('b', normal, (self.features,), x.dtype)
    return x @ w * (self.std / math.sqrt(x.shape[-1])) + 0.3 * b[None]


class Mlp(nn.Module):
  """Two hidden layers in NTK parameterisation."""

  width: int
  outputs: int

  @nn.compact
  def __call__(self, x):
    x = x.reshape(x.shape[0], -1)
    for _ in range(2):
      x = nn.relu(NtkDense(self.width, std=math.sqrt(2))(x))
    return NtkDense(self.outputs)(x)


class ConvNet(nn.Module):
  """Convolution, group norm, a shared and a plain dense layer."""

  @nn.compact
  def __call__(self, x):
    dtype = x.dtype
    x = nn.tanh(nn.Conv(4, (3, 3), param_dtype=dtype)(x))
    x = nn.GroupNorm(2, param_dtype=dtype)(x)
    x = nn.tanh(nn.Dense(5, param_dtype=dtype)(x))  # At every pixel.
    x = nn.avg_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
    return nn.Dense(3, param_dtype=dtype)(x)


class ScaledDense(nn.Module):
  """As a layer whose weight is scaled before the product."""

  features: int

  @nn.compact
  def __call__(self, x):
    shape = x.shape[-1], self.features
    w = self.param('w', nn.initializers.normal(1.0), shape, x.dtype)
    return x @ (w / math.sqrt(x.shape[-1]))


def tied(params, x):
  """Reads one weight twice, another once, and scales by a third."""
  h = jnp.tanh(x @ params['tied'] @ params['tied'])
  return params['scale'] * (h @ params['last'])


def _tied_params(key):
  keys = jax.random.split(key, 2)
  return {'tied': jax.random.normal(keys[0], (4, 4)) / 2,
          'last': jax.random.normal(keys[1], (4, 2)),
          'scale': jnp.float64(1.7)}


def _networks():
  key = jax.random.key(3)
  yield 'mlp', Mlp(7, 3), (4,)
  yield 'conv', ConvNet(), (4, 4, 2)
  yield 'tied', _tied_params(key), (4,)


@pytest.fixture(params=_networks(), ids=lambda p: p[0])
def network(request, key):
  """(apply_fn, params, x1 (5, ...), x2 (3, ...)) in float64."""
  _, model, shape = request.param
  x1 = jax.random.normal(jax.random.fold_in(key, 1), (5, *shape))
  x2 = jax.random.normal(jax.random.fold_in(key, 2), (3, *shape))
  if isinstance(model, dict):
    return tied, model, x1, x2
  return model.apply, jax.jit(model.init)(key, x1), x1, x2


def _difference_quotients(apply_fn, params, x, step=1e-5):
  """Dense Jacobian (N, C, P) by central differences, for all parameters."""
  flat, unravel = jax.flatten_util.ravel_pytree(params)
  outputs = jax.jit(jax.vmap(lambda flat: apply_fn(unravel(flat), x)))
  flat, steps = np.asarray(flat), np.eye(flat.size) * step
  plus, minus = (np.asarray(outputs(flat + s * steps)) for s in (1, -1))
  return np.moveaxis(plus - minus, 0, -1) / (2 * step)


def test_methods_match_difference_quotients(network):
  apply_fn, params, x1, x2 = network
  x = jnp.concatenate([x1, x2])
  jacobian = _difference_quotients(apply_fn, params, x)
  j1, j2 = jacobian[:5], jacobian[5:]
  want = np.einsum('ncp,mdp->nmcd', j1, j2)
  mean = np.einsum('nmcc->nm', want) / want.shape[-1]
  atol = 1e-8 * np.abs(want).max()
  for method in ('jacobian', 'structured', 'ntvp'):
    # Tiles of 2 do not divide 5 or 3: the filling must not be seen.
    kernel = empirical.ntk(apply_fn, params, method=method, batch_size=2)
    np.testing.assert_allclose(kernel(x1, x2), mean, atol=atol, rtol=0)
    kernel = empirical.full(apply_fn, params, method=method)
    np.testing.assert_allclose(kernel(x1, x2), want, atol=atol, rtol=0)


@pytest.fixture
def mlp(key):
  """(apply_fn, params, x (5, 4)) in float64."""
  x = jax.random.normal(jax.random.fold_in(key, 1), (5, 4))
  model = Mlp(7, 3)
  return model.apply, jax.jit(model.init)(key, x), x


@pytest.mark.parametrize(
    ('method', 'batch_size'), [('structured', 2), ('ntvp', 5)])
def test_symmetric_and_diag(mlp, method, batch_size):
  apply_fn, params, x = mlp
  kwargs = {'method': method, 'batch_size': batch_size}
  kernel = empirical.ntk(apply_fn, params, name='finite', **kwargs)
  assert isinstance(kernel, types.KernelFn)
  assert kernel.name == 'finite'
  k = kernel(x)
  np.testing.assert_array_equal(k, k.T)
  np.testing.assert_allclose(k, kernel(x, x), rtol=1e-12)
  np.testing.assert_allclose(kernel.diag(x), jnp.diag(k), rtol=1e-12)
  assert np.linalg.eigvalsh(k).min() > 0  # More parameters than examples.

  full = empirical.full(apply_fn, params, **kwargs)(x)
  np.testing.assert_array_equal(full, jnp.transpose(full, (1, 0, 3, 2)))
  np.testing.assert_allclose(jnp.einsum('nmcc->nm', full) / 3, k, rtol=1e-12)
  gram = jnp.transpose(full, (0, 2, 1, 3)).reshape(15, 15)
  assert np.linalg.eigvalsh(gram).min() > 0


@pytest.mark.parametrize('method', ['structured', 'ntvp'])
def test_gradient_matches_difference_quotient(key, method):
  """With respect to images, through tiles, under `jit`; tanh is smooth."""
  params = _tied_params(key)
  x1, x2, direction = jax.random.normal(key, (3, 3, 4))
  kernel = empirical.ntk(tied, params, method=method, batch_size=2)
  f = jax.jit(lambda x: (kernel(x, x2)**2).sum() + kernel.diag(x).sum())
  slope = (f(x1 + 1e-5 * direction) - f(x1 - 1e-5 * direction)) / 2e-5
  got = jnp.vdot(jax.grad(f)(x1), direction)
  np.testing.assert_allclose(got, slope, rtol=1e-7)


def test_float32_is_kept_and_parameters_may_be_traced(mlp):
  apply_fn, params, x = mlp
  params, x = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
  kernel = jax.jit(lambda p, x: empirical.ntk(apply_fn, p)(x))
  k = kernel(params, x)
  assert k.dtype == jnp.float32
  twice = kernel(jax.tree.map(lambda a: 2 * a, params), x)
  want = empirical.ntk(apply_fn, jax.tree.map(lambda a: 2 * a, params))(x)
  np.testing.assert_allclose(twice, want, rtol=1e-5)
  assert np.abs(twice - k).min() > 1e-2


def test_vmap_over_inputs(mlp):
  apply_fn, params, x = mlp
  kernel = empirical.ntk(apply_fn, params)
  got = jax.vmap(kernel.symmetric)(jnp.stack([x, 2 * x]))
  np.testing.assert_allclose(got[1], kernel(2 * x), rtol=1e-12)


def _graph(apply_fn, params, x):
  leaves, tree = jax.tree.flatten(params)
  forward = lambda leaves, x: apply_fn(tree.unflatten(leaves), x[None])
  return jax.make_jaxpr(forward)(leaves, x[0]), leaves


def test_only_weights_used_once_on_one_vector_are_structured(network):
  apply_fn, params, x, _ = network
  graph, leaves = _graph(apply_fn, params, x)
  dense = graphs.dense_leaves(graph, leaves, [x[0]])
  want = {Mlp: {(4, 7), (7, 7), (7, 3)},  # All weights.
          ConvNet: {(20, 3)},  # Neither convolutions nor the shared layer.
          type(None): {(4, 2)}}  # Not the weight that is read twice.
  kind = type(getattr(apply_fn, '__self__', None))
  assert {leaves[i].shape for i in dense} == want[kind]


def test_cost_counts_products(key):
  """By hand, for a convolution (36 pixels, 2 x 3 x 3 in, 4 out) and a scan."""
  image, weight = jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 4))
  conv = lambda x, w: jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  operations, written = graphs.cost(jax.make_jaxpr(conv)(image, weight).jaxpr)
  assert (operations, written) == (2 * 36 * 18 * 4, 36 * 4)

  matrix = jnp.ones((5, 5))
  def loop(x):
    return jax.lax.scan(lambda x, _: (x @ matrix, None), x, length=7)[0]
  operations, _ = graphs.cost(jax.make_jaxpr(loop)(jnp.ones(5)).jaxpr)
  assert operations == 7 * 2 * 25


@pytest.mark.parametrize(('build', 'shape', 'mean', 'want'), [
    (lambda: Mlp(64, 3), (16,), True, '_jacobian'),
    (lambda: Mlp(64, 2), (64,), False, '_jacobian'),
    (lambda: ConvNet(), (8, 8, 2), False, '_jacobian'),
    # 64 outputs of a scaled weight: no structure to use, and C > 2.
    (lambda: ScaledDense(64), (64,), False, '_ntvp'),
])
def test_auto_takes_the_cheapest(monkeypatch, key, build, shape, mean, want):
  called = []
  for name in ('_jacobian', '_ntvp'):
    method = getattr(jacobians, name)
    monkeypatch.setattr(
        jacobians, name,
        lambda *args, f=method, n=name: called.append(n) or f(*args))
  model, x = build(), jnp.ones((2, *shape))
  make = empirical.ntk if mean else empirical.full
  make = functools.partial(make, model.apply)
  jax.eval_shape(lambda key, x: make(model.init(key, x))(x), key, x)
  assert called == [want]


def test_agrees_with_neural_tangents(mlp):
  apply_fn, params, x = mlp
  oracle = stax.load().empirical_ntk_fn(apply_fn, vmap_axes=0)
  want = jax.jit(lambda x: oracle(x, None, params))(x)
  np.testing.assert_allclose(
      empirical.ntk(apply_fn, params)(x), want, rtol=1e-10)


@pytest.mark.slow
def test_tends_to_the_analytic_kernel(key):
  """The mean over seeds is within 4 standard errors; errors fall as 1/sqrt."""
  nt = stax.load()
  dense = lambda std: nt.stax.Dense(1, W_std=std, b_std=0.3)
  he = math.sqrt(2)
  _, _, kernel_fn = nt.stax.serial(
      dense(he), nt.stax.Relu(), dense(he), nt.stax.Relu(), dense(1.0))
  x = jax.random.normal(key, (4, 6))
  want = np.asarray(stax.kernel(kernel_fn)(x))

  def draws(width, seeds):
    model = Mlp(width, 2)
    one = lambda key: empirical.ntk(model.apply, model.init(key, x))(x)
    keys = jax.random.split(jax.random.fold_in(key, width), seeds)
    return np.asarray(jax.lax.map(one, keys))

  spread = {}
  for width in (16, 256):
    k = draws(width, 16)
    spread[width] = np.sqrt(np.mean((k - want)**2))
  standard_error = k.std(0, ddof=1) / math.sqrt(len(k))
  assert np.abs((k.mean(0) - want) / standard_error).max() < 4
  # 16 times the width: a quarter of the error, give or take its own spread.
  assert 2 < spread[16] / spread[256] < 8


@pytest.mark.errors
def test_bad_input_is_named(mlp):
  apply_fn, params, x = mlp
  with pytest.raises(ValueError, match='`method` must be one of auto, jac'):
    empirical.ntk(apply_fn, params, method='exact')
  with pytest.raises(ValueError, match='`batch_size` must be an integer of at'):
    empirical.full(apply_fn, params, batch_size=0)
  with pytest.raises(ValueError, match='`params` must hold floating arrays'):
    empirical.ntk(tied, {'step': jnp.arange(3)})
  kernel = empirical.ntk(apply_fn, params)
  with pytest.raises(ValueError, match=r'`x2` has examples of shape \(3,\)'):
    kernel(x, x[:, :3])
  with pytest.raises(ValueError, match='`model` must map'):
    empirical.ntk(lambda p, x: apply_fn(p, x)[0, 0], params)(x)
