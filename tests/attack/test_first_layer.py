"""Exact reconstruction from the change of a first layer, on real digits."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import (
  compression,
  first_layer,
  release,
  rows as rows_lib,
  span,
  sparse_rows,
)
from tests.attack import problem

_QUICK = first_layer.Config(num_starts=24)


def _attack(released, config=_QUICK, **options):
  return first_layer.reconstruct(
      jax.random.key(0), released, config, progress=False, **options)


@pytest.fixture(scope='module')
def standard():
  return problem.digits(10), *problem.standard()


def test_change_is_spanned_by_the_inputs(standard):
  data, released, _ = standard
  factors = span.span(released)
  x = np.concatenate([data.x.reshape(10, -1), np.ones((10, 1))], axis=1)
  left = x.T - factors.basis @ (factors.basis.T @ x.T)
  assert np.abs(left).max() < 1e-9
  assert factors.biased
  # Pre-activations at both ends, read in the coordinates of the span.
  for level, theta in zip(np.einsum('in,anw->aiw', x @ factors.basis,
                                    factors.maps),
                          (released.theta_0, released.theta_T)):
    layer = theta['hidden_0']
    want = data.x.reshape(10, -1) @ layer['kernel'] + layer['bias'][None]
    np.testing.assert_allclose(level, want, atol=1e-9)


def test_all_images_of_a_trained_network(standard):
  data, released, _ = standard
  out = _attack(released)
  assert len(out.candidates) == out.info['rank'] == 10
  assert problem.errors(data, out.candidates).max() < 1e-6
  assert out.info['zeros'].min() > 0.4
  assert out.info['agreement'].min() > 0.95


def test_all_images_of_a_linearised_network_in_float32():
  data = problem.digits(10)
  released, _ = problem.network(data, linearised=True, dtype=np.float32)
  assert problem.errors(data, _attack(released).candidates).max() < 1e-2


def test_an_upper_bound_of_the_number_of_images_is_enough(standard):
  data, released, _ = standard
  out = _attack(released._replace(num_train=25))
  assert len(out.candidates) == 10
  assert problem.errors(data, out.candidates).max() < 1e-6


@pytest.mark.parametrize('kind', ['duplicate', 'black'])
def test_repeated_and_black_images(kind):
  """Of two equal images the change has one row, with both labels' signals."""
  data = problem.digits(10)
  if kind == 'duplicate':
    other = data._replace(x=np.concatenate([data.x, data.x[3:4]]),
                          y=np.concatenate([data.y, data.y[3:4]]))
  else:
    other = data._replace(x=np.concatenate([
        data.x[:9], np.full_like(data.x[:1], data.low)]))
  out = _attack(problem.network(other)[0])
  assert len(out.candidates) == out.info['rank'] == 10
  assert problem.errors(other, out.candidates).max() < 1e-5


@pytest.mark.slow
def test_more_digits_than_dimensions_are_not_claimed():
  """Some of the 64 pixels are black in all: the rank is below N = 60."""
  data = problem.digits(60)
  released, _ = problem.network(data, nets.MLP(1, widths=(512,)))
  out = _attack(released, _QUICK._replace(patience=2))
  assert out.info['rank'] < 60
  near = problem.distances(data, out.candidates).min(axis=0)
  assert np.all(near[out.claimed] < 0.05)


@pytest.mark.slow
@pytest.mark.parametrize('use_bias', [True, False])
def test_an_input_of_zeros_has_a_row_through_biases_alone(use_bias):
  """No weight moves by its gradient; without biases it leaves no trace."""
  data = problem.digits(10)
  other = data._replace(x=np.concatenate([data.x[:9], 0 * data.x[:1]]))
  module = nets.MLP(1, widths=(256, 256), use_bias=use_bias)
  out = _attack(problem.network(other, module)[0])
  errors = problem.errors(other, out.candidates)
  assert errors[:9].max() < 1e-5
  assert out.info['rank'] == (10 if use_bias else 9)
  assert (errors[9] < 1e-5) == use_bias


@pytest.mark.parametrize('options', [
    {'widths': (256,), 'use_bias': False},
    {'widths': (256, 64, 64), 'parameterisation': 'ntk', 'w_std': 1.4,
     'b_std': 0.1}])
def test_other_depths_parameterisations_and_outputs(options):
  data = problem.digits(10, 10)
  module = nets.MLP(10, **options)
  released, _ = problem.network(data, module)
  out = _attack(released)
  assert problem.errors(data, out.candidates).max() < 1e-5


def test_resume_goes_on_to_the_same_result(standard, tmp_path):
  _, released, _ = standard
  whole = _attack(released)
  part = _attack(released, workdir=tmp_path,
                 on_chunk=lambda step, x: None)
  again = _attack(released, workdir=tmp_path)
  np.testing.assert_array_equal(part.candidates, whole.candidates)
  np.testing.assert_array_equal(again.candidates, whole.candidates)


def _toy():
  """(codes, true t) of six rows with half their entries 0."""
  rng = np.random.default_rng(0)
  rows = (rng.random((6, 300)) < 0.5) * rng.normal(size=(6, 300))
  basis, mixing = np.linalg.qr(rows.T)
  return jnp.asarray(basis.T), mixing.T / np.linalg.norm(
      mixing.T, axis=1, keepdims=True)


def test_polish_tells_a_row_from_a_mixture_of_two():
  codes, true = _toy()
  start = true[0] - 0.3 * true[1]
  start /= np.linalg.norm(start)
  out = sparse_rows.polish(
      jnp.asarray(start[None]), codes, jnp.full(6, 1e-9))
  assert np.abs(true @ np.asarray(out.t[0])).max() > 1 - 1e-9
  assert out.zeros[0] > 0.4
  assert out.second[0] > 10


def test_a_row_of_few_active_units_stays_what_it_is():
  """As after fine-tuning: most units are 0 in all directions of a pair."""
  rng = np.random.default_rng(0)
  rows = (rng.random((6, 300)) < 0.15) * rng.normal(size=(6, 300))
  basis, mixing = np.linalg.qr(rows.T)
  true = mixing.T / np.linalg.norm(mixing.T, axis=1, keepdims=True)
  out = sparse_rows.polish(
      jnp.asarray(true), jnp.asarray(basis.T), jnp.full(6, 1e-9))
  np.testing.assert_allclose(
      np.abs(np.sum(true * np.asarray(out.t), axis=1)), 1, rtol=1e-6)
  assert out.zeros.min() > 0.7


def test_a_mixture_that_stays_one_is_told_by_its_second_direction():
  rng = np.random.default_rng(0)
  pair = (rng.random(300) < 0.5) * rng.normal(size=(2, 300))
  rows = np.concatenate([pair, rng.normal(size=(4, 300))])
  basis, mixing = np.linalg.qr(rows.T)
  t = mixing.T[0] / np.linalg.norm(mixing.T[0])  # Two images, one mask.
  out = sparse_rows.polish(
      jnp.asarray(t[None]), jnp.asarray(basis.T), jnp.full(6, 1e-9))
  assert out.zeros[0] > 0.4
  assert out.second[0] < 10


def test_rounding_does_not_hide_a_row():
  """The energy on its zeros is singular; as float32 has it, maybe negative."""
  codes, true = (jnp.asarray(a, jnp.float32) for a in _toy())
  zeros = sparse_rows.is_zero(true[0], codes, jnp.full(6, 1e-7))
  _, second = sparse_rows._pair(zeros - 2e-7, codes)  # Less 2e-7 times I.
  assert second > 10


def test_descent_finds_all_rows_from_random_starts():
  codes, true = _toy()
  start = np.random.default_rng(1).normal(size=(40, 6))
  start /= np.linalg.norm(start, axis=1, keepdims=True)
  t = sparse_rows.descend(jnp.asarray(start), codes)
  cosine = np.abs(np.asarray(t) @ true.T)
  assert (cosine.max(axis=0) > 0.999).all()


def test_a_wrong_image_does_not_agree_with_its_row(standard):
  data, released, _ = standard
  factors = span.span(released)
  out = _attack(released)
  rows = rows_lib.read(released, factors, _true_rows(data, factors), 0)
  assert rows.agreement.min() > 0.95
  places = np.concatenate([data.x.reshape(10, -1), np.ones((10, 1))], axis=1)
  places = places @ factors.basis
  other = np.roll(places, 1, axis=0)
  assert rows_lib.agreement(rows.rows, other, factors).max() < 0.9
  assert len(out.candidates) == 10


def _true_rows(data, factors):
  x = np.concatenate([data.x.reshape(10, -1), np.ones((10, 1))], axis=1)
  t = np.linalg.inv(x @ factors.basis).T * factors.size
  return t / np.linalg.norm(t, axis=1, keepdims=True)


def test_a_decayed_and_pruned_network_gives_its_images():
  data = problem.digits(10)
  released, victim = problem.network(data, weight_decay=1e-4)
  assert victim.curve[-1] > 1e-9  # The decay holds it above any tolerance.
  found = _attack(compression.pruned(released, 0.1))
  assert np.sum(problem.errors(data, found.candidates) < 0.01) >= 9
  assert found.info['restored']


def test_noise_breaks_the_attack_and_it_says_so(standard):
  _, released, _ = standard
  noisy = release.with_noise(jax.random.key(0), released, 0.05)
  with pytest.raises(ValueError, match='full rank'):
    _attack(noisy)


@pytest.mark.errors
def test_bad_input(standard):
  _, released, _ = standard
  with pytest.raises(ValueError, match='theta_0'):
    _attack(released._replace(theta_0=None))
  with pytest.raises(ValueError, match='`num_train`'):
    _attack(released._replace(num_train=65))
  with pytest.raises(ValueError, match='MLP'):
    _attack(released._replace(module=nets.ConvNet(1)))
  with pytest.raises(ValueError, match='theta_T'):
    _attack(released._replace(theta_T=released.theta_0))
  with pytest.raises(ValueError, match='`zeros`'):
    _attack(released, _QUICK._replace(zeros=0.7))
  one = {name: a + 0.01 for name, a in released.theta_0['hidden_0'].items()}
  with pytest.raises(ValueError, match='rank of 2'):
    _attack(released._replace(theta_T=released.theta_0 | {'hidden_0': one}))
