"""Exact in- and out-models of ridge regression: against refits."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import krr
from dsr.probes import lira, membership, scores
from tests.reference import krr as oracle

N = 30


def _problem(n=N, *, dtype=np.float64):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(n, 3))
  y = np.c_[np.sin(x.sum(1)), rng.normal(size=n)]
  k = oracle.gaussian(x, x, 1.5) * rng.uniform(0.5, 2, n)[:, None]
  k = k @ k.T / n  # Positive definite, with an uneven diagonal.
  return jnp.asarray(k, dtype), jnp.asarray(y, dtype)


@pytest.mark.parametrize('ridge', [1e-4, 0.3])
def test_in_and_out_equal_refits(ridge):
  k, y = _problem()
  found = jax.jit(krr.in_out)(k, y, ridge=ridge)
  k, y = np.asarray(k), np.asarray(y)
  np.testing.assert_allclose(
      found.inside, oracle.ridge_predict(k, k, y, ridge), rtol=1e-8, atol=1e-8)
  np.testing.assert_allclose(
      found.outside, oracle.leave_one_out(k, y, ridge), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(('n', 'tile'), [(N, None), (N, 3), (21, 1)])
def test_shadows_equal_refits_of_their_halves(key, n, tile):
  k, y = _problem(n)
  found = krr.shadows(key, k, y, num_shadows=7, ridge=1e-3, tile=tile)
  assert found.converged.all()
  k, y, member = map(np.asarray, (k, y, found.member))
  assert (member.sum(1) == n // 2).all()
  for rows, outputs in zip(member, found.outputs, strict=True):
    want = oracle.ridge_predict(
        k[:, rows], k[np.ix_(rows, rows)], y[rows], 1e-3)
    np.testing.assert_allclose(outputs, want, rtol=1e-8, atol=1e-8)


def test_shadows_are_evaluated_at_other_examples_too(key):
  k, y = _problem()
  others = jnp.asarray(np.random.default_rng(2).normal(size=(4, N)))
  found = krr.shadows(key, k, y, num_shadows=7, ridge=1e-3, others=others)
  assert krr.shadows(key, k, y, num_shadows=7, ridge=1e-3).others is None
  k, y, others = map(np.asarray, (k, y, others))
  for rows, outputs in zip(np.asarray(found.member), found.others, strict=True):
    want = oracle.ridge_predict(
        others[:, rows], k[np.ix_(rows, rows)], y[rows], 1e-3)
    np.testing.assert_allclose(outputs, want, rtol=1e-8, atol=1e-8)


def test_halves_are_balanced_random_and_those_of_the_shadows(key):
  halves = np.asarray(krr.random_halves(key, N, 2000))
  assert (halves.sum(0) == 1000).all()
  assert (halves.sum(1) == N // 2).all()
  assert not (halves[::2] & halves[1::2]).any()
  assert len(np.unique(halves, axis=0)) > 1990
  # Two examples share a half in (N/2 - 1) / (N - 1) of the cases.
  together = np.mean(halves[::2, 0] == halves[::2, 1])
  assert abs(together - 14 / 29) < 4 * 0.5 / np.sqrt(1000)
  found = krr.shadows(key, *_problem(), num_shadows=7).member
  np.testing.assert_array_equal(found, krr.random_halves(key, N, 7))
  other = krr.random_halves(jax.random.key(1), N, 7)
  assert np.any(np.asarray(found) != np.asarray(other))


def test_a_failed_solve_is_flagged(key):
  k, y = _problem()
  found = krr.shadows(key, k - 9 * jnp.eye(N), y, num_shadows=7)
  assert not found.converged.any()


def test_lira_on_shadows_beats_a_threshold(key):
  """Random labels: the easy case, where each member is learned by heart."""
  k, _ = _problem()
  y = np.random.default_rng(1).integers(0, 2, N)
  found = krr.shadows(
      key, k, jnp.asarray(2.0 * y - 1)[:, None], num_shadows=160, ridge=1e-2)
  score, member = scores.margin(found.outputs, y), np.asarray(found.member)
  # Pairs do not straddle the two parts, so targets are independent.
  ratio = lira.lira(score[:120], member[:120], score[120:])

  def auc(values):
    curve = membership.roc(values.ravel(), member[120:].ravel())
    return np.trapezoid(curve.tpr, curve.fpr)

  assert auc(ratio) > max(0.75, auc(score[120:]) + 0.02)


def test_float32_stays_in_the_dtype_of_the_solve(key):
  k, y = jax.eval_shape(lambda: _problem(dtype=np.float32))
  for fit in (krr.in_out, functools.partial(krr.shadows, num_shadows=2)):
    args = (k, y) if fit is krr.in_out else (key, k, y)
    shapes = jax.eval_shape(fit, *args)
    assert shapes[0].dtype == jnp.float64


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda key, k, y: krr.in_out(k[:5], y), r'`gram` must have shape \(N, N'),
    (lambda key, k, y: krr.in_out(k, y[:5]), '`y` has 5 rows, expected 30'),
    (lambda key, k, y: krr.in_out(k, y, ridge=-1), '`ridge` must be finite a'),
    (lambda key, k, y: krr.shadows(key, k, y, num_shadows=0), '`num_shadows`'),
    (lambda key, k, y: krr.shadows(key, k, y, tile=0), '`tile` must be an in'),
    (lambda key, k, y: krr.shadows(key, k, y, ridge=-1), '`ridge` must be fi'),
    (lambda key, k, y: krr.random_halves(key, 1, 2), '`n` must be an integer'),
])
def test_bad_arguments_are_named(key, call, message):
  with pytest.raises(ValueError, match=message):
    call(key, *_problem())
