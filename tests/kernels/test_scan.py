"""Every nonlinearity at every scale of its inputs, against 120 digits.

One batch holds all: norms from 1e-20 to 1e15 times one direction and others,
zero, antipodes, near-duplicates. An error is relative to the root of both
entries on the diagonal.
"""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels
from tests.kernels import stacks
from tests.kernels.stacks import dense
from tests.reference import covariance

_TINY_TO_HUGE = [1e-20, 1e-10, 1e-5, 1e-2, 1.0, 255.0, 1e4, 1e10, 1e15]
_SMALL = [scale for scale in _TINY_TO_HUGE if scale <= 1]
# name: (arguments, scales of the inputs at which nothing overflows).
LAYERS = {
    'Relu': ({}, _TINY_TO_HUGE),
    'ABRelu': ({'a': 0.2, 'b': -1.5}, _TINY_TO_HUGE),
    'Erf': ({}, _TINY_TO_HUGE),
    'Sign': ({}, _TINY_TO_HUGE),
    'Gelu': ({}, _TINY_TO_HUGE),
    'LayerNorm': ({}, _TINY_TO_HUGE),
    'Sin': ({'a': 1.2, 'b': 0.8, 'c': 0.3}, _TINY_TO_HUGE),
    'Cos': ({}, _TINY_TO_HUGE),
    'Rbf': ({'gamma': 0.3}, _TINY_TO_HUGE),
    'Gaussian': ({'a': 1.3, 'b': 0.4}, _TINY_TO_HUGE),
    'Exp': ({'a': 0.5, 'b': 0.3}, _SMALL),
    'Polynomial': ({'coefs': (0.3, -1.0, 0.5)}, _SMALL + [255.0]),
}


def stack(name, b_std):
  layer = name, LAYERS[name][0]
  return [dense(1.4, b_std), layer, dense(1.2, b_std), layer, dense(1.1, b_std)]


def batch(name, dtype):
  """(N, 10) rows; the last two are zero and a near-duplicate of norm 1."""
  x, other, step = (stacks.normal(i, 10) for i in range(3))
  rows = [scale * v for scale in LAYERS[name][1] for v in (x, other)]
  rows += [-x, x, 3 * x, -0.1 * x, x * (1 + 1e-3), x * (1 + 1e-6),
           x + 1e-3 * step, x + 1e-6 * step, 0 * x, -x + 1e-4 * step]
  return np.array(rows).astype(dtype)


def errors(got, want):
  """|got - want| over the root of both diagonal entries; NaN is infinite."""
  want = want.astype(float)
  own = np.sqrt(np.diag(want))
  scale = np.outer(own, own)
  error = np.abs(np.asarray(got, float) - want) / np.where(scale > 0, scale, 1)
  return np.where(np.isnan(error), np.inf, error)


def worst(name, b_std, dtype, build):
  """The largest error, and where it is, of a kernel made by `build`."""
  x = batch(name, dtype)
  network = stack(name, b_std)
  want = covariance.kernel(network, x, digits=120)
  # What squares to less than the dtype holds is lost in the norm.
  seen = np.square(x.astype(dtype)).max(1) > np.finfo(dtype).tiny
  seen |= (x == 0).all(1) | (b_std > 0)
  error = errors(build(network)(x), want)[np.ix_(seen, seen)]
  return error.max(), np.unravel_index(error.argmax(), error.shape)


# As measured, rounded up. Antipodes without a bias cost half the digits of a
# ReLU, and Sign of Sign takes two roots; see BUILD_NOTES for the rest.
BOUNDS = {'float32': 2e-6, 'float64': 1e-13}
ROUGHER = {
    ('Relu', 0.0): (1e-4, 4e-9), ('ABRelu', 0.0): (1e-4, 4e-9),
    ('Erf', 0.3): (2e-5, 1e-13), ('Erf', 0.0): (2e-5, 1e-13),
    ('Gelu', 0.3): (3e-4, 1e-8), ('Gelu', 0.0): (3e-4, 1e-8),
    ('Sign', 0.3): (2e-4, 1e-9), ('Sign', 0.0): (5e-2, 5e-4)}
_FAST = 'Relu', 'Erf'


@pytest.mark.parametrize(('name', 'b_std', 'dtype'), [
    pytest.param(name, b_std, dtype, marks=() if name in _FAST and (
        b_std, dtype) == (0.3, 'float32') else pytest.mark.slow)
    for name in LAYERS for b_std in (0.3, 0.0)
    for dtype in ('float32', 'float64')])
def test_no_scale_costs_digits(name, b_std, dtype):
  error, at = worst(name, b_std, dtype, stacks.ours)
  rough = ROUGHER.get((name, b_std))
  assert error < (rough[dtype == 'float64'] if rough else BOUNDS[dtype]), at


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name == 'Sin' else pytest.mark.slow)
    for name in LAYERS])
def test_gradients_match_the_oracle(name):
  """Of unequal lengths, a copy and a zero vector; the mean at a kink."""
  x = stacks.normal(3, 5, 4)
  x[1], x[2], x[3] = 30 * x[1], x[0], 0 * x[3]
  if name in ('Exp', 'Polynomial'):
    x[1] /= 30
  weights, direction = stacks.normal(4, 5, 5), stacks.normal(5, 5, 4)
  direction[2] = direction[0]  # So that the copy stays one.
  network = stack(name, 0.3)
  kernel = stacks.ours(network)
  value, (grad,) = stacks.value_and_grads(kernel.symmetric, weights)(x)
  if name in ('Sign', 'LayerNorm'):  # They jump at zero.
    direction[3] = 0
  want = covariance.slope(network, x, direction, weights)
  np.testing.assert_allclose(np.vdot(grad, direction), want, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(('fn', 'same'), [
    (jax.scipy.special.erf, 'Erf'), (jnp.sin, 'Sin'),
    (lambda x: jax.nn.gelu(x, approximate=False), 'Gelu')])
def test_series_of_a_function_match_its_closed_form(fn, same):
  """Value and gradient, with a copy, a near-duplicate and a zero vector."""
  x = stacks.normal(3, 5, 4)
  x[1], x[2], x[3] = x[0], x[0] + 1e-6 * x[4], 0
  x /= np.abs(x).max()
  weights = stacks.normal(4, 5, 5)
  series = kernels.Elementwise(fn, tolerance=1e-12, largest=1.7)
  closed = getattr(kernels, same)()
  ours, theirs = (kernels.serial(
      kernels.Dense(), layer, kernels.Dense(b_std=0.1), layer, kernels.Dense())
                  for layer in (series, closed))
  (value, (grad,)), (want, (want_grad,)) = (
      stacks.value_and_grads(kernel.symmetric, weights)(x)
      for kernel in (ours, theirs))
  np.testing.assert_allclose(value, want, rtol=1e-10, atol=1e-12)
  np.testing.assert_allclose(
      grad, want_grad, rtol=0, atol=1e-8 * np.abs(want_grad).max())
  # Beyond `largest` there is no answer rather than a wrong one.
  assert np.isnan(np.diag(ours(10 * x))).any()


@pytest.mark.slow
@pytest.mark.parametrize('degree', [1, 2, 5])
def test_hermite_of_unit_variance_is_a_power(degree):
  x = stacks.normal(3, 5, 4)
  x /= np.sqrt(np.mean(x**2, axis=1, keepdims=True))
  kernel = kernels.serial(kernels.Dense(), kernels.Hermite(degree), get='nngp')
  np.testing.assert_allclose(
      kernel(x), (x @ x.T / 4) ** degree, rtol=1e-12, atol=1e-14)
