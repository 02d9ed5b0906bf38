"""The arc-cosine maps against mpmath, up to both ends of the range."""
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from dsr.kernels import arccos

DTYPES = ['float32', 'float64']
# Relative errors: a handful of roundings of one polynomial and one root.
RTOL = {'float32': 5e-7, 'float64': 2e-15}
DEGREES = {'float32': (6, 5), 'float64': (20, 20)}  # Of the angle, the bend.


def _gaps(dtype):
  """h in [0, 1]: both ends, the middle, tiny values and a fine grid."""
  tiny = 10.0 ** -np.arange(2, 15)
  near_one = 1 - 2.0 ** -np.arange(2, 20)
  middle = 0.5 + np.array([-1e-3, -1e-6, 0, 1e-6, 1e-3])
  h = np.concatenate([[0, 1], tiny, near_one, middle, np.linspace(0, 1, 101)])
  return h.astype(dtype)


def _exact(h):
  """(theta, kappa_0, kappa_1, bend) in 60 digits, by the papers' formulas."""
  with mpmath.workdps(60):
    h = mpmath.mpf(float(h))
    c = 1 - 2 * h
    theta = mpmath.acos(c)
    kappa0 = (mpmath.pi - theta) / mpmath.pi
    kappa1 = (mpmath.sin(theta) + (mpmath.pi - theta) * c) / mpmath.pi
    exact = theta, kappa0, kappa1, kappa1 - max(c, 0)
    return [mpmath.chop(value, 1e-50) for value in exact]


def _slope(f):
  return jax.jit(jax.vmap(jax.grad(f)))


def _relative(got, want):
  errors = [abs((mpmath.mpf(float(g)) - w) / w) if w else abs(float(g))
            for g, w in zip(got, want)]
  return float(max(errors))


@pytest.mark.parametrize('dtype', DTYPES)
def test_maps_match_mpmath(dtype):
  h = _gaps(dtype)
  theta, kappa0, kappa1, bend = zip(*map(_exact, h))
  got0, got_bend = jax.jit(arccos.kappa0)(h), jax.jit(arccos.bend)(h)
  assert got0.dtype == got_bend.dtype == dtype
  assert _relative(got0, kappa0) < RTOL[dtype]
  # Down to h = 1e-14 in relative terms: this is what carries near-duplicates.
  assert _relative(got_bend, bend) < RTOL[dtype]
  eps = float(np.finfo(dtype).eps)
  got1 = np.maximum(1 - 2 * h, 0) + np.asarray(got_bend)
  assert _relative(got1, kappa1) < RTOL[dtype]
  # 1 - kappa_0 rounds to eps / 2, so theta is as good as that and no better.
  got_theta = math.pi * (1 - np.asarray(got0, np.float64))
  assert np.abs(got_theta - np.array(theta, float)).max() < 4 * eps


def test_a_rounded_cosine_would_lose_the_angle():
  """What the gap is for: theta from c = 1 - 2 h in float32 is off by 1e-4."""
  h = np.float32(1e-9)
  want = float(_exact(h)[0])
  naive = np.arccos(np.clip(np.float32(1 - 2 * h), -1, 1))
  assert abs(naive - want) > 6e-5
  ours = np.float32(arccos.kappa0(jnp.asarray(h)))
  assert abs(math.pi * (1 - np.float64(ours)) - want) < 4e-7


def _chebyshev_coefficients(f, degree):
  """Monomials of the interpolant of f at the Chebyshev nodes of [0, 1/2]."""
  with mpmath.workdps(60):
    n = degree + 1
    nodes = [(1 + mpmath.cos(mpmath.pi * (2 * i + 1) / (2 * n))) / 4
             for i in range(n)]
    matrix = mpmath.matrix([[w**j for j in range(n)] for w in nodes])
    return [float(c) for c in mpmath.lu_solve(
        matrix, mpmath.matrix([f(w) for w in nodes]))]


def _angle(w):
  return mpmath.asin(mpmath.sqrt(w)) / mpmath.sqrt(w)


def _bend(w):
  return (mpmath.sqrt(1 - w) - _angle(w) * (1 - 2 * w)) / w


@pytest.mark.parametrize('dtype', DTYPES)
def test_tables_are_the_interpolants(dtype):
  for table, f, degree in zip(
      (arccos._ANGLE, arccos._BEND), (_angle, _bend), DEGREES[dtype]):
    np.testing.assert_allclose(
        table[dtype], _chebyshev_coefficients(f, degree), rtol=1e-13)


@pytest.mark.parametrize('dtype', DTYPES)
def test_slopes_match_the_closed_forms(dtype):
  h = _gaps(dtype)
  h = h[(h > 0) & (h < 1)]
  exact = np.float64(h)
  slope0 = _slope(arccos.kappa0)(jnp.asarray(h))
  np.testing.assert_allclose(
      slope0, -1 / (np.pi * np.sqrt(exact * (1 - exact))), rtol=RTOL[dtype])
  # d kappa_1 / dc = kappa_0, in units of h and without the max.
  slope1 = _slope(arccos.bend)(jnp.asarray(h))
  kappa0 = np.array([_exact(x)[1] for x in h], float)
  np.testing.assert_allclose(
      slope1, 2 * (np.where(exact > 0.5, 0, 1) - kappa0), atol=2 * RTOL[dtype])


def test_slopes_match_difference_quotients():
  h, step = np.array([0.01, 0.2, 0.49, 0.51, 0.9]), 1e-6
  for f in (arccos.kappa0, arccos.bend):
    f = jax.jit(f)
    quotient = (f(h + step) - f(h - step)) / (2 * step)
    for slope in (_slope(f), jax.jit(jax.vmap(jax.jacfwd(f)))):
      np.testing.assert_allclose(slope(h), quotient, rtol=1e-7)


@pytest.mark.parametrize('dtype', DTYPES)
def test_ends_are_exact_and_flat(dtype):
  ends = jnp.asarray([0, 1], dtype)
  np.testing.assert_array_equal(arccos.kappa0(ends), [1, 0])
  np.testing.assert_array_equal(arccos.bend(ends), [0, 0])
  # 0 is bend's own slope, and in x the mean of the one-sided slopes of kappa_0.
  np.testing.assert_array_equal(_slope(arccos.kappa0)(ends), [0, 0])
  np.testing.assert_array_equal(_slope(arccos.bend)(ends), [0, 0])
