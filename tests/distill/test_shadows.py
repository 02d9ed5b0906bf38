"""Shadow distillations: each is what its own half gives; halves are random."""
import functools

import jax
import numpy as np
import optax
import pytest

from dsr import krr, loop
from dsr.distill import kip, rkip, shadows
from dsr.types import Examples
from tests.distill import problem

GAUSSIAN, RIDGE = problem.GAUSSIAN, problem.RIDGE
ADAM = optax.adam(0.02)
KIP = kip.kip(GAUSSIAN, ADAM, ridge=RIDGE, batch_size=6)
RKIP = rkip.rkip(GAUSSIAN, ADAM, ridge=RIDGE)
R, STEPS = 3, 20


@functools.cache
def _data():
  """Inputs, targets, labels: 12, 9 and 7 examples of three classes."""
  data = problem.blobs()
  labels = np.argmax(data.y, axis=1).astype(np.int32)
  return np.asarray(data.x), np.asarray(data.y), labels


def _member(num=R, seed=5):
  return shadows.stratified_halves(jax.random.key(seed), _data()[2], num)


def _distill(key, member, solver=KIP, **kwargs):
  return shadows.distill_shadows(key, solver, *_data(), member, **{
      'images_per_class': 1, 'num_steps': STEPS, **kwargs})


def _interpolant(x, y, labels):
  del labels
  return rkip.interpolant(GAUSSIAN, Examples(x, y), ridge=RIDGE)


@pytest.mark.parametrize(('solver', 'data_fn', 'init', 'parallel'), [
    (KIP, shadows.targets.targets, 'real', None),
    (KIP, shadows.targets.targets, 'noise', 2),
    (RKIP, _interpolant, 'real', None)])
def test_each_is_the_distillation_of_its_own_half(
    key, solver, data_fn, init, parallel):
  member = _member()
  found = _distill(key, member, solver, data_fn=data_fn, init=init,
                   parallel=parallel)
  assert found.x.shape == (R, 3, problem.DIM)
  np.testing.assert_array_equal(found.member, member)
  for r, one in enumerate(jax.random.split(key, R)):
    key_start, key_solver = jax.random.split(one)
    x, y, labels = (a[member[r]] for a in _data())
    start, rows = shadows.shadow_start(
        key_start, x, y, labels, images_per_class=1, init=init)
    state, info = loop.run_chunk(
        solver.step, solver.init(key_solver, start), data_fn(x, y, labels),
        num_steps=STEPS)
    np.testing.assert_allclose(found.x[r], state.support.x, rtol=1e-8)
    np.testing.assert_array_equal(found.y[r], start.y)
    np.testing.assert_allclose(found.loss[r], info.loss, rtol=1e-8)
    own = np.flatnonzero(member[r])[rows]
    np.testing.assert_array_equal(found.start[r], own)
    assert (_data()[2][own] == np.arange(3)).all()
    near = np.abs(found.x[r] - _data()[0][own]).max()
    assert near > 1 if init == 'noise' else 0.01 < near < 1
  assert (found.loss[:, -5:].mean(1) < found.loss[:, :5].mean(1)).all()


def test_no_shadow_reads_what_is_not_its_own_and_nothing_is_compiled_anew(key):
  member = _member(2)
  found = _distill(key, member)
  compiled = shadows._advance._cache_size()
  # Halves of a pair do not overlap: spoil the second, look at the first.
  x, y, labels = _data()
  other = shadows.distill_shadows(
      key, KIP, np.where(member[1][:, None], 3 * x, x), y, labels, member,
      images_per_class=1, num_steps=STEPS)
  assert shadows._advance._cache_size() == compiled
  np.testing.assert_array_equal(found.x[0], other.x[0])
  assert (found.x[1] != other.x[1]).all()


def test_outputs_are_those_of_ridge_regression_on_each_set(key):
  rng = np.random.default_rng(0)
  supports = Examples(rng.normal(size=(R, 4, problem.DIM)),
                      rng.normal(size=(R, 4, 2)))
  x = _data()[0]
  found = shadows.shadow_outputs(GAUSSIAN, supports, x, ridge=RIDGE, tile=11)
  assert found.shape == (R, len(x), 2)
  for outputs, one in zip(found, zip(*supports), strict=True):
    predict_fn = krr.fit(
        GAUSSIAN, Examples(*map(jax.numpy.asarray, one)), ridge=RIDGE)
    np.testing.assert_allclose(outputs, predict_fn(x), rtol=1e-8)


def test_halves_are_stratified_balanced_and_random(key):
  labels = np.repeat([4, 0, 2], [10, 7, 2])
  halves = shadows.stratified_halves(key, labels, 2000)
  sizes = np.stack([halves[:, labels == c].sum(1) for c in (4, 0, 2)])
  assert (sizes == np.array([[5], [3], [1]])).all()
  assert not (halves[::2] & halves[1::2]).any()
  assert (halves.sum(0)[labels != 0] == 1000).all()
  share = halves[:, labels == 0].mean(0)  # One of seven is left out.
  assert np.abs(share - 3 / 7).max() < 4 * 0.5 / np.sqrt(2000)
  # Two examples of a class of ten share a half in 4 of 9 cases; those of
  # different classes in half of them.
  for i, j, want in ((0, 1, 4 / 9), (0, 17, 1 / 2)):
    together = np.mean(halves[::2, i] == halves[::2, j])
    assert abs(together - want) < 4 * 0.5 / np.sqrt(1000)
  np.testing.assert_array_equal(
      halves[:2], shadows.stratified_halves(key, labels, 2000)[:2])
  other = shadows.stratified_halves(jax.random.key(1), labels, 3)
  assert (other != halves[:3]).any()


def test_a_loss_that_is_not_finite_is_an_error(key):
  x, y, labels = _data()
  member = _member(2)
  spoilt = np.where(member[1][:, None], np.inf, x)
  with pytest.raises(FloatingPointError, match='shadow from 1 to 1 is not f'):
    shadows.distill_shadows(key, KIP, spoilt, y, labels, member,
                            images_per_class=1, num_steps=STEPS)


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    ({'images_per_class': 4}, '`per_class` must be at most the size of each'),
    ({'images_per_class': 0}, '`per_class` must be an integer of at least 1'),
    ({'num_steps': 0}, '`num_steps` must be an integer of at least 1, got 0'),
    ({'parallel': 0}, '`parallel` must be an integer of at least 1, got 0'),
    ({'init': 'zero'}, "`init` must be one of real, noise; got 'zero'"),
])
def test_bad_options_are_named(key, change, message):
  with pytest.raises(ValueError, match=message):
    _distill(key, _member(), **change)


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    (lambda m: m[:, 1:], r'`member` must be boolean of shape \(3, 28\), got'),
    (lambda m: m & (m.cumsum(1) <= 9 + np.arange(R)[:, None]),
     '`member` must have equally many members, at least one, in each of its '
     'rows, got 9 to 11')])
def test_bad_masks_are_named(key, change, message):
  with pytest.raises(ValueError, match=message):
    _distill(key, change(_member()))


@pytest.mark.errors
@pytest.mark.parametrize(('labels', 'num', 'message'), [
    ([0, 0, 1], 2, '`labels` must have at least 2 examples of each class, got'),
    ([0.0, 0.0], 2, '`labels` must be a vector of integers'),
    ([0, 0], 0, '`num_shadows` must be an integer of at least 1, got 0')])
def test_halves_that_cannot_be_are_named(key, labels, num, message):
  with pytest.raises(ValueError, match=message):
    shadows.stratified_halves(key, np.array(labels), num)
