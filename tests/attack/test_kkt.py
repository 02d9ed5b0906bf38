"""The attack on theta_T alone: formulas in NumPy, KKT points, options."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from dsr import loop, nets
from dsr.attack import conditions, kkt as lib, release
from dsr.attack.prior import Prior
from dsr.types import Status
from tests.reference import attack as oracle

SHAPE = (4, 3, 1)
SLOPE = 3.0


def _released(key, num_outputs=1, *, module=None, num_train=3):
  module = module or nets.MLP(num_outputs, widths=(6, 5), use_bias=False)
  theta = module.init(key, jnp.zeros((1, *SHAPE)))['params']
  return release.parameters(
      module, None, theta, num_train=num_train, input_shape=SHAPE,
      num_outputs=num_outputs, low=-0.3, high=0.7)


def _config(**kwargs):
  return lib.Config(**{'steps': 40, 'slope': SLOPE, 'vertices': 0, **kwargs})


def _problem(key, num_outputs, num=4):
  released = _released(key, num_outputs)
  x = jax.random.normal(key, (num, *SHAPE))
  module = released.module.clone(
      activation=conditions.smooth_relu(SLOPE, False))
  host = jax.tree.map(np.asarray, released.theta_T)
  label = conditions.labels(num, num_outputs)
  return released, module, x, label, host


@pytest.mark.parametrize('form', lib.FORMS)
@pytest.mark.parametrize('num_outputs', [1, 3])
def test_published_loss_meets_numpy(key, form, num_outputs):
  released, module, x, label, theta = _problem(key, num_outputs)
  shape = (4,) if form == 'margin' else (4, num_outputs)
  duals = jax.random.normal(key, shape)
  got = conditions.joint(module, form, released.theta_T, x, label, duals)
  rows = (oracle.margin_gradients(theta, np.asarray(x), label, slope=SLOPE)
          if form == 'margin' else
          oracle.output_gradients(theta, np.asarray(x), slope=SLOPE))
  left = oracle.flat(theta) - np.ravel(duals) @ rows / 4
  np.testing.assert_allclose(got, left @ left, rtol=1e-10)


@pytest.mark.parametrize('num_outputs', [1, 3])
def test_eliminated_duals_are_nonnegative_least_squares(key, num_outputs):
  released, module, x, label, theta = _problem(key, num_outputs)
  got, duals = conditions.eliminated(
      module, 'margin', released.theta_T, x, label, jnp.zeros(4), sweeps=2000)
  rows = oracle.margin_gradients(theta, np.asarray(x), label, slope=SLOPE)
  want, miss = optimize.nnls(rows.T, oracle.flat(theta))
  np.testing.assert_allclose(duals, want, atol=1e-8)
  size = oracle.flat(theta) @ oracle.flat(theta)
  np.testing.assert_allclose(got, miss**2 / size, rtol=1e-9)


def test_eliminated_duals_of_any_sign_are_least_squares(key):
  released, module, x, label, theta = _problem(key, 2)
  got, duals = conditions.eliminated(
      module, 'decay', released.theta_T, x, label, jnp.zeros((4, 2)))
  rows = oracle.output_gradients(theta, np.asarray(x), slope=SLOPE)
  left = oracle.flat(theta) - np.ravel(duals) @ rows
  best = np.linalg.lstsq(rows.T, oracle.flat(theta), rcond=None)[0]
  want = oracle.flat(theta) - best @ rows
  size = oracle.flat(theta) @ oracle.flat(theta)
  np.testing.assert_allclose(got, want @ want / size, rtol=1e-4)
  np.testing.assert_allclose(left @ left, want @ want, rtol=1e-4)


@pytest.mark.parametrize('eliminate', [True, False])
def test_a_step_sees_loss_and_penalties(key, eliminate):
  released, _, _, _, theta = _problem(key, 1)
  config = _config(eliminate=eliminate, prior=Prior(box=2.0), fill=False,
                   subspace=False, start_scale=1.0, least_dual=0.5,
                   sweeps=2000)
  solver, data = lib.kkt(released, config), lib.given(released, config)
  state = solver.init(key, data)
  _, info = jax.jit(solver.step)(state, data)
  x = np.asarray(state.x)
  rows = oracle.margin_gradients(
      theta, x, conditions.labels(6, 1), slope=SLOPE)
  flat = oracle.flat(theta)
  penalty = 2 * oracle.box(x, -0.3, 0.7)
  if eliminate:
    _, miss = optimize.nnls(rows.T, flat)
    want = miss**2 / (flat @ flat) + penalty / 6
  else:
    duals = np.asarray(state.duals)
    left = flat - duals @ rows / 6
    want = (left @ left + penalty
            + 5 * sum(max(0.5 - dual, 0)**2 for dual in duals))
  np.testing.assert_allclose(info.loss, want, rtol=1e-9)


def test_envelope_theorem(key):
  """Slopes of the eliminated loss in x do not need those of the duals."""
  released, module, x, label, _ = _problem(key, 1)
  # A ReLU's smoothed slope is not that of its value; softplus is consistent.
  module = module.clone(activation=jax.nn.softplus)

  def loss(x):
    return conditions.eliminated(
        module, 'margin', released.theta_T, x, label, jnp.zeros(4),
        sweeps=2000)[0]

  direction = jax.random.normal(jax.random.key(3), x.shape)
  want = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
  got = jnp.vdot(jax.grad(loss)(x), direction)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_loss_is_zero_at_a_kkt_point(key):
  """One image, one layer: theta is the gradient there, scaled by Euler."""
  x = jax.random.normal(key, (2, *SHAPE))
  x = x.at[1].set(-x[0])  # Its mirror image wakes the other units.
  signs = jnp.array([1.0, -1.0])
  a = jnp.where(jnp.arange(8) < 4, 1.0, -1.0)
  flat = x.reshape(2, -1)
  size = jnp.linalg.norm(flat[0])
  # Unit k follows image k // 4: w = lambda y a x, |w| = |a| balances layers.
  owner = jnp.arange(8) // 4
  w = (signs[owner] * a)[:, None] * flat[owner] / size
  theta = {'hidden_0': {'kernel': w.T}, 'readout': {'kernel': a[:, None]}}
  module = nets.MLP(1, widths=(8,), use_bias=False)
  sharp = module.clone(activation=conditions.smooth_relu(1e3, False))
  miss, duals = conditions.eliminated(
      sharp, 'margin', theta, x, np.array([1, 0]), jnp.zeros(2), sweeps=100)
  assert miss < 1e-12
  np.testing.assert_allclose(duals, 1 / size, rtol=1e-9)
  away, _ = conditions.eliminated(
      sharp, 'margin', theta, x.at[0, 0].add(1.0), np.array([1, 0]),
      jnp.zeros(2), sweeps=100)
  assert away > 1e-3


@pytest.mark.parametrize('straight', [True, False])
def test_derivatives_of_the_smooth_relu(straight):
  relu = conditions.smooth_relu(SLOPE, straight)
  z = jnp.array([-2.0, -0.1, 0.1, 2.0])
  s = oracle.sigmoid(SLOPE * np.asarray(z))
  np.testing.assert_allclose(relu(z), np.maximum(z, 0))
  first = jax.vmap(jax.grad(relu))(z)
  np.testing.assert_allclose(first, (z > 0) if straight else s, rtol=1e-12)
  second = jax.vmap(jax.grad(jax.grad(relu)))(z)
  np.testing.assert_allclose(second, SLOPE * s * (1 - s), rtol=1e-12)


@pytest.mark.parametrize(('num', 'outputs', 'want'), [
    (4, 1, [0, 0, 1, 1]), (5, 1, [0, 0, 0, 1, 1]), (6, 3, [0, 0, 1, 1, 2, 2])])
def test_labels_are_balanced(num, outputs, want):
  np.testing.assert_array_equal(conditions.labels(num, outputs), want)


def test_candidates_stay_in_the_span_and_touch_the_range(key):
  released = _released(key)
  found = lib.reconstruct(
      key, released, _config(subspace=2), progress=False)
  weights = np.asarray(released.theta_T['hidden_0']['kernel'])
  basis = np.linalg.svd(weights)[0][:, :2]
  flat = found.candidates.reshape(len(found.candidates), -1)
  np.testing.assert_allclose(flat @ basis @ basis.T, flat, atol=1e-12)
  np.testing.assert_allclose(flat.max(axis=1), 0.7)
  assert found.curve[-1] < found.curve[0]


@pytest.mark.slow
@pytest.mark.parametrize(('num_outputs', 'kwargs'), [
    (1, {'form': 'decay'}),
    (3, {'optimizer': 'sgd', 'eliminate': False, 'learning_rate': 0.01})])
def test_duals_are_coefficients_of_gradients(key, num_outputs, kwargs):
  released = _released(key, num_outputs)
  config = _config(num_starts=2, prior=Prior(), subspace=False, **kwargs)
  found = lib.reconstruct(key, released, config, progress=False)
  assert found.candidates.shape == (12, *SHAPE)
  assert found.info['seed_losses'].shape == (2,)
  one = lib.reconstruct(
      key, released, config._replace(num_starts=1), progress=False)
  rows = oracle.output_gradients(
      jax.tree.map(np.asarray, released.theta_T), one.candidates, slope=SLOPE)
  flat = oracle.flat(released.theta_T)
  left = flat - one.duals.ravel() @ rows
  np.testing.assert_allclose(
      one.loss, left @ left / (flat @ flat), rtol=1e-3)


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run(key, tmp_path, monkeypatch):
  released, config = _released(key), _config(steps=70, eliminate=False)
  whole = lib.reconstruct(key, released, config, progress=False)
  run, seen = loop.run, []
  with monkeypatch.context() as patch:
    patch.setattr(loop, 'run', lambda *args, **kwargs: run(
        *args, **kwargs, should_stop=lambda: True))  # Ctrl-C at once.
    part = lib.reconstruct(
        key, released, config, workdir=tmp_path, progress=False,
        on_chunk=lambda step, x: seen.append((step, x.shape)))
  assert part.status == Status.INTERRUPTED
  assert seen == [(50, (6, *SHAPE))]
  rest = lib.reconstruct(
      key, released, config, workdir=tmp_path, progress=False)
  np.testing.assert_array_equal(rest.candidates, whole.candidates)
  np.testing.assert_array_equal(rest.curve, whole.curve)


def test_a_start_that_hides_the_span_is_told(key, caplog):
  released = _released(key)
  lib.given(released)
  assert 'shows no span of 3 images' in caplog.text
  caplog.clear()
  kernel = released.theta_T['hidden_0']['kernel']
  u, s, v = np.linalg.svd(kernel, full_matrices=False)
  s[3:] *= 1e-3  # As after a start near 0.
  lib.given(released._replace(theta_T=released.theta_T | {
      'hidden_0': {'kernel': jnp.asarray(u * s @ v)}}))
  assert not caplog.text


def test_homogeneity_is_seen(key):
  assert conditions.is_homogeneous(_released(key))
  assert conditions.is_scale_free(_released(key))
  biased = nets.MLP(1, widths=(6,), b_std=1.0)
  released = _released(key, module=biased)
  assert not conditions.is_homogeneous(released)
  assert not conditions.is_scale_free(released)
  found = lib.reconstruct(  # With weight decay that does not matter.
      key, released, _config(steps=2, form='decay'), progress=False)
  assert np.isfinite(found.loss)


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    ({'form': 'both'}, 'form'), ({'optimizer': 'lion'}, 'optimizer'),
    ({'steps': 0}, 'steps'), ({'ratio': 0.3}, 'ratio'), ({'slope': 0}, 'slope'),
    ({'sweeps': 0}, 'sweeps'), ({'num_starts': 0}, 'num_starts'),
    ({'dual_rate': 0}, 'dual_rate'), ({'least_dual': -1}, 'least_dual'),
    ({'subspace': 99}, 'subspace'), ({'vertices': -1}, 'vertices'),
    ({'subspace': False, 'vertices': 3}, 'subspace'),
    ({'prior': Prior(box=-1)}, 'box')])
def test_bad_options_are_named(key, change, message):
  with pytest.raises(ValueError, match=message):
    lib.kkt(_released(key), _config(**change))


@pytest.mark.errors
def test_releases_that_cannot_be_attacked(key):
  released = _released(key)
  query = released._replace(theta_T=None, module=None)
  with pytest.raises(ValueError, match='theta_T'):
    lib.kkt(query)
  linearised = released._replace(linearised=True)
  with pytest.raises(ValueError, match='linearised'):
    lib.kkt(linearised)
  biased = _released(key, module=nets.MLP(1, widths=(6,), b_std=1.0))
  with pytest.raises(ValueError, match='homogeneous'):
    lib.kkt(biased)
  conv = nets.ConvNet(1, depth=1, width=3, norm='none')
  with pytest.raises(ValueError, match='subspace'):
    lib.kkt(_released(key, module=conv), _config(subspace=True))
