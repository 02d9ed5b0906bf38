"""Kernel distances: in exact arithmetic, down to the tiniest change."""
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from dsr.kernels import distance


@pytest.fixture
def kernel():
  root = np.random.default_rng(0).normal(size=(6, 8))
  return root @ root.T


def _exactly(k0, k1):
  """Both distances in 60 digits, from the definition."""
  a, b = ([Fraction(float(v)) for v in k.ravel()] for k in (k0, k1))
  dot = lambda u, v: sum(p * q for p, q in zip(u, v))
  with mpmath.workdps(60):
    mpf = lambda f: mpmath.mpf(f.numerator) / f.denominator
    cosine = mpf(dot(a, b)) / mpmath.sqrt(mpf(dot(a, a)) * mpf(dot(b, b)))
    gap = [q - p for p, q in zip(a, b)]
    frobenius = mpmath.sqrt(mpf(dot(gap, gap)) / mpf(dot(a, a)))
    return float(1 - cosine), float(frobenius)


@pytest.mark.parametrize('size', [1.0, 1e-3, 1e-7, 1e-10])
def test_both_keep_their_digits(kernel, size):
  """The last cosine is some 1e-21, far below what 1 - cos could resolve."""
  changed = kernel + size * np.random.default_rng(1).normal(size=kernel.shape)
  cosine, frobenius = _exactly(kernel, changed)
  rtol = 1e-12 + 1e-14 / size
  assert distance.cosine_distance(kernel, changed) == pytest.approx(
      cosine, rel=rtol)
  assert distance.relative_frobenius(kernel, changed) == pytest.approx(
      frobenius, rel=rtol)


def test_what_each_is_blind_to(kernel):
  assert distance.cosine_distance(kernel, 3 * kernel) < 1e-30
  assert distance.relative_frobenius(kernel, 3 * kernel) == pytest.approx(2)
  assert distance.cosine_distance(kernel, -kernel) == pytest.approx(2)
  assert distance.cosine_distance(kernel, kernel) == 0
  assert distance.relative_frobenius(kernel, 0 * kernel) == 1
  full = kernel[:, :, None, None] * np.eye(2)[None, None]
  assert distance.cosine_distance(full, full + 1) > 0


class _Linear:
  """f(x) = x w: its NTK is x x', whatever w is; with w^2, x (2 w)^2 x'."""

  def __init__(self, power):
    self.power = power

  def apply(self, variables, x):
    return x @ variables['params']['w'] ** self.power


def test_kernel_change_of_networks_with_a_known_kernel(key):
  x = jax.random.normal(key, (5, 3))
  theta_0 = {'w': jnp.ones((3, 1))}
  theta_T = {'w': jnp.array([[2.0], [1.0], [1.0]])}
  fixed = distance.kernel_change(_Linear(1), theta_0, theta_T, x)
  assert fixed == (0, 0)
  moved = distance.kernel_change(_Linear(2), theta_0, theta_T, x, batch_size=2)
  x = np.asarray(x)
  k0, k1 = 4 * x @ x.T, (x * [16, 4, 4]) @ x.T
  np.testing.assert_allclose(moved, _exactly(k0, k1), rtol=1e-10)


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda k: distance.cosine_distance(k, k[:2]), r'shape \(6, 6\) as `k0`, '),
    (lambda k: distance.cosine_distance(0 * k, k), '`k0` must not be zero'),
    (lambda k: distance.cosine_distance(k, 0 * k), '`k1` must not be zero'),
    (lambda k: distance.relative_frobenius(k * np.nan, k), '`k0` must be fini'),
])
def test_bad_arguments_are_named(kernel, call, message):
  with pytest.raises(ValueError, match=message):
    call(kernel)
