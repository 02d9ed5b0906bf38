"""Taylor models against differences of the network itself."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets

MODULES = {'mlp': nets.MLP(2, (7, 5), b_std=0.3),
           'convnet': nets.ConvNet(2, depth=1, width=3),
           'resnet': nets.ResNet(2, width=2)}


def _problem(name, dtype='float64'):
  """(module, theta_0, theta, x), both parameters random."""
  module, rng = MODULES[name], np.random.default_rng(0)
  x = rng.normal(size=(4, 4, 4, 1)).astype(dtype)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  theta_0, theta = (
      jax.tree.map(lambda a: rng.normal(size=a.shape).astype(dtype) / 2, shapes)
      for _ in range(2))
  return module, theta_0, theta, jnp.asarray(x)


def _flat(tree):
  leaves = [np.asarray(a).reshape(4, 2, -1) for a in jax.tree.leaves(tree)]
  return np.concatenate(leaves, -1)


@pytest.mark.parametrize('name', MODULES)
def test_value_is_that_of_the_tangent_plane(name):
  module, theta_0, theta, x = _problem(name)
  forward = jax.jit(lambda p: module.apply({'params': p}, x))
  h = 1e-6
  ahead, behind = (
      forward(jax.tree.map(lambda a, b, s=s: a + s * h * (b - a),
                           theta_0, theta)) for s in (1, -1))
  want = forward(theta_0) + (ahead - behind) / (2 * h)
  got = jax.jit(nets.linearize(module, theta_0).apply)({'params': theta}, x)
  scale = np.abs(want).max()
  np.testing.assert_allclose(got, want, atol=1e-7 * scale, rtol=0)
  assert np.abs(got - forward(theta)).max() > 1e-2 * scale  # Off the plane.


def test_touches_the_network_at_theta_0_and_has_one_slope_everywhere():
  module, theta_0, theta, x = _problem('mlp')
  model = nets.linearize(module, theta_0)
  at = lambda p: model.apply({'params': p}, x)
  np.testing.assert_array_equal(
      at(theta_0), module.apply({'params': theta_0}, x))
  slope = jax.jit(jax.jacrev(at))
  here, there = (_flat(slope(p)) for p in (theta_0, theta))
  np.testing.assert_allclose(here, there, atol=1e-14)


def test_is_an_argument_of_jit_or_a_static_one():
  module, theta_0, theta, x = _problem('mlp', 'float32')
  model = nets.linearize(module, theta_0)
  want = model.apply({'params': theta}, x)
  assert want.dtype == 'float32'
  traces = []

  @jax.jit
  def as_argument(model, theta):
    traces.append(1)
    return model.apply({'params': theta}, x)

  np.testing.assert_allclose(as_argument(model, theta), want, rtol=1e-4)
  moved = nets.linearize(module, theta)
  np.testing.assert_allclose(
      as_argument(moved, theta), module.apply({'params': theta}, x), rtol=1e-4)
  assert len(traces) == 1  # Another theta_0 is other data, no other program.
  static = jax.jit(lambda model, p: model.apply({'params': p}, x),
                   static_argnums=0)
  np.testing.assert_allclose(static(model, theta), want, rtol=1e-4)
  assert model != nets.linearize(module, theta_0)


def test_taylor_polynomials_are_those_of_numbers():
  """Of exp(a x) + b in (a, b), whose polynomial is known, at every order."""
  apply_fn = lambda p, x: {'out': jnp.exp(p['a'] * x) + p['b']}
  theta_0, theta = {'a': 0.3, 'b': 1.0}, {'a': 0.8, 'b': -2.0}
  x = jnp.linspace(-1, 1, 4)
  for order in range(4):
    got = jax.jit(nets.taylor_expand(apply_fn, theta_0, order=order))(theta, x)
    terms = [(0.5 * x) ** k / np.prod(np.arange(1, k + 1))
             for k in range(order + 1)]
    want = np.exp(0.3 * x) * sum(terms) + (1.0 if order == 0 else -2.0)
    np.testing.assert_allclose(got['out'], want, rtol=1e-12)
  with pytest.raises(ValueError, match='`order` must be an integer'):
    nets.taylor_expand(apply_fn, theta_0, order=-1)
  with pytest.raises(ValueError, match=r"`theta_0\['n'\]` must be floating"):
    nets.taylor_expand(apply_fn, {'n': 1})


@pytest.mark.errors
def test_empty_parameters_are_refused():
  with pytest.raises(ValueError, match='`theta_0` must hold parameters'):
    nets.linearize(MODULES['mlp'], {})
