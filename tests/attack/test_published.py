"""The published attack against its formula in NumPy."""
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import loop, nets
from dsr.attack import published as lib, release, sparse_adam
from dsr.attack.prior import Prior
from dsr.types import Status
from tests.reference import attack as oracle

SHAPE = (4, 3, 1)


def _theta(module, key, scale=1.0):
  """Random parameters, biases too."""
  theta = module.init(key, jnp.zeros((1, *SHAPE)))['params']
  leaves, tree = jax.tree.flatten(theta)
  keys = jax.random.split(key, len(leaves))
  return tree.unflatten([scale * jax.random.normal(k, a.shape)
                         for k, a in zip(keys, leaves)])


def _released(key, *, num_outputs=2, linearised=False, module=None):
  module = module or nets.MLP(num_outputs, widths=(6, 5))
  keys = jax.random.split(key)
  return release.parameters(
      module, _theta(module, keys[0], 0.5), _theta(module, keys[1], 0.5),
      num_train=3, input_shape=SHAPE, num_outputs=num_outputs, low=-0.3,
      high=0.7, linearised=linearised)


@pytest.mark.parametrize('gradients', lib.GRADIENTS)
@pytest.mark.parametrize(('linearised', 'num_outputs', 'step'), [
    (False, 1, 0), (False, 3, 20_000), (True, 2, 60_000)])
def test_loss_is_the_published_formula(
    key, gradients, linearised, num_outputs, step):
  released = _released(key, num_outputs=num_outputs, linearised=linearised)
  config = lib.Config(
      gradients=gradients, prior=Prior(box=0.1, high_frequency=0.3),
      high_frequency_after=100, sparsity=0.2)
  data = lib.given(released, config)
  state = lib.published(released, config).init(key, data)
  total, first = lib.objective(
      released, config, data, state.x, state.duals, jnp.asarray(step))
  host = lambda tree: jax.tree.map(np.asarray, tree)
  theta_0, theta_T = host(released.theta_0), host(released.theta_T)
  thetas = {'final': [theta_T], 'initial': [theta_0],
            'both': [theta_T, theta_0]}[gradients]
  want = oracle.published_loss(
      [theta_0] if linearised else thetas,
      jax.tree.map(np.subtract, theta_T, theta_0), np.asarray(state.x),
      host(state.duals), beta={0: 11.0, 20_000: 20.0, 60_000: 200.0}[step],
      low=-0.3, high=0.7, box_weight=0.1,
      high_frequency_weight=0.3 * (step >= 100), sparsity=0.2)
  np.testing.assert_allclose((total, first), want, rtol=1e-10)
  assert len(state.duals) == (1 if linearised else len(thetas))


@pytest.mark.slow
def test_a_step_moves_against_the_gradient_of_the_loss(key):
  released = _released(key)
  config = lib.Config(learning_rate=1e-3)
  data, solver = lib.given(released, config), lib.published(released, config)
  state = solver.init(key, data)
  moved, info = jax.jit(solver.step)(state, data)
  loss = lambda x: lib.objective(
      released, config, data, x, state.duals, state.step)[0]
  np.testing.assert_allclose(
      moved.x - state.x, -1e-3 * jnp.sign(jax.grad(loss)(state.x)), rtol=1e-4)
  np.testing.assert_allclose(info.loss, loss(state.x), rtol=1e-12)


@pytest.mark.slow
def test_duals_are_coefficients_of_gradients(key):
  released = _released(key)
  config = lib.Config(steps=3, prior=Prior())
  found = lib.reconstruct(key, released, config, progress=False)
  data = lib.given(released, config)
  # At the end beta is that of step 3.
  smooth = lib.with_activation(
      released.module, lambda z: jax.nn.softplus(z * lib.sharpness(3))
      / lib.sharpness(3))
  jacobian = jax.jacrev(
      lambda p: smooth.apply({'params': p}, found.candidates))(
          released.theta_T)
  left = sum(jnp.sum((change - jnp.einsum('mc,mc...->...', found.duals, j))**2)
             for change, j in zip(jax.tree.leaves(data.change),
                                  jax.tree.leaves(jacobian)))
  total = sum(jnp.sum(a**2) for a in jax.tree.leaves(data.change))
  np.testing.assert_allclose(found.loss, left / total, rtol=1e-10)


def test_sparse_adam_rests_where_there_is_no_gradient():
  optimizer, dense = sparse_adam.sparse_adam(0.1), optax.adam(0.1)
  params = jnp.array([1.0, -2.0, 3.0])
  gradients = [jnp.array(g) for g in (
      [0.5, 0.0, 1.0], [0.2, 0.0, 0.0], [-0.3, 0.4, 0.0], [0.1, 0.0, 2.0])]
  state, trace = optimizer.init(params), []
  for gradient in gradients:
    moves, state = optimizer.update(gradient, state)
    trace.append(np.asarray(moves))
  for place in range(3):
    own = [g[place] for g in gradients if g[place]]
    dense_state, want = dense.init(params[0]), []
    for g in own:
      move, dense_state = dense.update(g, dense_state)
      want.append(float(move))
    got = [t[place] for t, g in zip(trace, gradients) if g[place]]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert all(t[place] == 0 for t, g in zip(trace, gradients)
               if not g[place])
  np.testing.assert_array_equal(state.count, [4, 1, 2])


@pytest.mark.parametrize('gradients', ['final', 'both'])
def test_a_run_lowers_the_loss(key, gradients):
  found = lib.reconstruct(
      key, _released(key), lib.Config(steps=200, gradients=gradients),
      progress=False)
  assert found.curve[-1] < 0.8 * found.curve[0]
  assert found.candidates.shape == (6, *SHAPE)
  assert found.status == Status.FINISHED
  size = np.linalg.norm(found.duals, axis=1)
  assert (np.diff(size) <= 0).all()
  if gradients == 'both':
    np.testing.assert_allclose(
        found.info['duals_final'] + found.info['duals_initial'], found.duals)


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run(key, tmp_path):
  released, config = _released(key), lib.Config(steps=120)
  whole = lib.reconstruct(key, released, config, progress=False)
  seen = []
  with pytest.MonkeyPatch.context() as patch:
    # Ctrl-C after the first chunk.
    run = loop.run
    patch.setattr(loop, 'run', lambda *args, **kwargs: run(
        *args, **kwargs, should_stop=lambda: True))
    part = lib.reconstruct(
        key, released, config, workdir=tmp_path, progress=False,
        on_chunk=lambda step, x: seen.append(x.shape))
  assert part.status == Status.INTERRUPTED
  assert len(part.curve) == 50
  assert seen == [(6, *SHAPE)]
  rest = lib.reconstruct(
      key, released, config, workdir=tmp_path, progress=False)
  np.testing.assert_array_equal(rest.candidates, whole.candidates)
  np.testing.assert_array_equal(rest.curve, whole.curve)
  with pytest.raises(ValueError, match='fingerprint'):
    lib.reconstruct(key, _released(jax.random.key(5)), config,
                    workdir=tmp_path, progress=False)


def test_other_networks_are_attacked_by_the_same_code(key):
  module = nets.ConvNet(2, depth=1, width=3, norm='none')
  found = lib.reconstruct(key, _released(key, module=module),
                          lib.Config(steps=5), progress=False)
  assert found.curve[-1] < found.curve[0]


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    ({'ratio': 0}, 'ratio'), ({'steps': 0}, 'steps'),
    ({'gradients': 'all'}, 'gradients'), ({'learning_rate': -1}, 'learning'),
    ({'sparsity': -1}, 'sparsity'), ({'num_seeds': 0}, 'num_seeds'),
    ({'prior': Prior(box=-1)}, 'box')])
def test_bad_options_are_named(key, change, message):
  with pytest.raises(ValueError, match=message):
    lib.published(_released(key), lib.Config()._replace(**change))


@pytest.mark.errors
def test_theta_0_is_needed(key):
  released = _released(key)._replace(theta_0=None)
  with pytest.raises(ValueError, match='theta_0'):
    lib.published(released)


@pytest.mark.errors
def test_a_network_must_let_its_nonlinearity_be_exchanged(key):
  released = _released(key)._replace(module=nn.Dense(2))
  with pytest.raises(ValueError, match='activation'):
    lib.published(released)
