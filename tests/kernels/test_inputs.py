"""Angular gaps: every path, to the last digit of the angle.

The oracle is r r' |u - u'|^2 / 2 of the normalised inputs, in 40 digits of
the float32 or float64 numbers.
"""
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from dsr.kernels import inputs
from tests.kernels import stacks

DTYPES = ['float32', 'float64']
# Where the product form is used it may err by eps / sqrt(2 _CLOSE) ~ 2e-6 of
# the angle, which is twice that of the gap.
RTOL = {'float32': 1e-4, 'float64': 1e-9}
RTOL_CLOSE = {'float32': 1e-6, 'float64': 1e-14}


def _gap(x1, x2):
  """r r' (1 - cos theta) from the definition."""
  with mpmath.workdps(40):
    exact = [[[mpmath.mpf(float(v)) for v in row] for row in x]
             for x in (x1, x2)]
    dot = lambda a, b: mpmath.fdot(a, b) / len(a)
    return np.array([[
        float(mpmath.sqrt(dot(a, a) * dot(b, b)) - dot(a, b))
        for b in exact[1]] for a in exact[0]])


def _slopes(x1, x2, weights):
  """Gradients of sum(weights * gap), 0 at a zero vector's kink: float64."""
  x1, x2 = np.float64(x1), np.float64(x2)
  root = lambda x: np.sqrt(np.mean(x**2, 1))
  inv = lambda r: np.divide(1, r, out=np.zeros_like(r), where=r > 0)
  r1, r2 = root(x1), root(x2)
  one = (weights * r2 * inv(r1)[:, None]).sum(1)[:, None] * x1 - weights @ x2
  two = (weights * r1[:, None] * inv(r2)).sum(0)[:, None] * x2 - weights.T @ x1
  return one / 5, two / 5


def _batches(dtype):
  """(x1 (6, 5), x2 (4, 5)) by the path that they take."""
  x1, x2 = stacks.normal(0, 6, 5), stacks.normal(1, 4, 5)
  direction = stacks.normal(2, 5)
  few = x2.copy()
  few[0], few[1] = x1[2], x1[3] * (1 + 1e-3)
  few[2] = x1[4] + 1e-6 * direction
  few[3] = 100 * x1[5]
  everything = x1[:1] + 1e-3 * stacks.normal(3, 6, 5)
  one_row = np.repeat(x1[:1], 6, axis=0)
  batches = {'plain': (x1, x2), 'few': (x1, few),
             'all': (everything, everything[:4]), 'equal': (one_row, x1[:4]),
             'zero': (np.zeros((6, 5)), np.zeros((4, 5))),
             'some_zero': (x1 * (np.arange(6) % 2)[:, None], few)}
  return {k: (a.astype(dtype), b.astype(dtype))
          for k, (a, b) in batches.items()}


@pytest.fixture(scope='module', params=DTYPES)
def functions(request):
  """(dtype, gap, gradients of its weighted sum), compiled once."""
  def total(x1, x2):
    gap = inputs.angular_gap(x1, x2)
    return jnp.sum(jnp.asarray(_weights, gap.dtype) * gap)

  return (request.param, jax.jit(inputs.angular_gap),
          jax.jit(jax.grad(total, (0, 1))))


_weights = stacks.normal(7, 6, 4)


def _limit(dtype, x1, x2):
  root1, root2 = (np.sqrt(np.mean(np.float64(x)**2, 1)) for x in (x1, x2))
  return inputs._CLOSE[dtype] * np.multiply.outer(root1, root2)


def _check(dtype, got, want, x1, x2):
  close = want < _limit(dtype, x1, x2) / 2
  rtol = np.where(close, RTOL_CLOSE[dtype], RTOL[dtype])
  # Of inputs in the same direction the difference has a rounding, too: an
  # angle of a few eps.
  atol = _limit(dtype, x1, x2) / inputs._CLOSE[dtype] * (
      4 * np.finfo(dtype).eps) ** 2
  assert (np.abs(got - want) <= rtol * want + atol).all()


def test_every_path_keeps_the_digits(functions):
  dtype, gap, grad = functions
  for x1, x2 in _batches(dtype).values():
    got, want = np.asarray(gap(x1, x2)), _gap(x1, x2)
    assert got.dtype == dtype
    assert got.min() >= 0
    _check(dtype, got, want, x1, x2)
    for g, slope in zip(grad(x1, x2), _slopes(x1, x2, _weights)):
      np.testing.assert_allclose(
          g, slope, atol=20 * np.finfo(dtype).eps * max(1, np.abs(slope).max()))


def test_the_batches_take_every_path():
  """No close pair, up to N + M of them (which are listed), or more."""
  count = {}
  for name, (x1, x2) in _batches('float32').items():
    count[name] = int(np.sum(_gap(x1, x2) < _limit('float32', x1, x2)))
  assert count['plain'] == count['zero'] == 0  # A gap of 0 is right as it is.
  assert 0 < count['few'] <= 10
  assert 0 < count['some_zero'] <= 10
  assert count['all'] == 24
  assert count['equal'] == 6


@pytest.mark.parametrize('dtype', DTYPES)
def test_symmetric_is_zero_on_its_diagonal(dtype):
  gap = jax.jit(lambda x: inputs.angular_gap(x))
  for x, _ in _batches(dtype).values():
    got = np.asarray(gap(x))
    np.testing.assert_array_equal(np.diag(got), 0)
    _check(dtype, got, _gap(x, x), x, x)


def test_vmap_over_batches_of_each_path():
  """Under vmap a condition becomes a choice between all branches."""
  batches = list(_batches('float32').values())
  x1, x2 = (np.stack(x) for x in zip(*batches))
  gap = jax.jit(jax.vmap(inputs.angular_gap))
  for got, a, b in zip(gap(x1, x2), x1, x2):
    _check('float32', np.asarray(got), _gap(a, b), a, b)


def _loop(gap, scale, shift):
  return scale[:, None] * gap**2 + shift


@pytest.mark.parametrize('symmetric', [False, True])
def test_fused_is_the_same(symmetric):
  """fn(gap, ...) in one loop: value, and gradients in inputs and the rest."""
  scale, shift = stacks.normal(5, 6), np.array(0.3)
  fused = lambda x1, x2, scale, shift: inputs.on_angular_gap(
      _loop, x1, None if symmetric else x2, scale, shift)
  apart = lambda x1, x2, scale, shift: _loop(
      inputs.angular_gap(x1, None if symmetric else x2), scale, shift)
  fused, apart = (
      (jax.jit(f), stacks.value_and_grads(f, 1.0, 4)) for f in (fused, apart))
  for x1, x2 in _batches('float64').values():
    want, want_grads = apart[1](x1, x2, scale, shift)
    np.testing.assert_allclose(
        fused[0](x1, x2, scale, shift), want, rtol=1e-9)
    got, grads = fused[1](x1, x2, scale, shift)
    np.testing.assert_allclose(got, want, rtol=1e-14)
    for grad, want_grad in zip(grads, want_grads):
      np.testing.assert_allclose(grad, want_grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('frozen', [0, 1])
def test_one_side_may_stand_still(frozen):
  """As the data does in distillation: the gradient in the other is the same."""
  moving = 1 - frozen
  total = lambda *x: jnp.sum(jnp.asarray(_weights) * inputs.angular_gap(*x))
  grad = jax.jit(jax.grad(total, moving))
  for x in _batches('float64').values():
    want = _slopes(*x, _weights)[moving]
    np.testing.assert_allclose(
        grad(*x), want, atol=1e-14 * max(1, np.abs(want).max()))


def test_second_derivatives():
  """Of close pairs and others, against difference quotients."""
  step = stacks.normal(9, 6, 5)
  total = lambda x1, x2: jnp.sum(
      jnp.asarray(_weights) * inputs.angular_gap(x1, x2))
  slope = jax.jit(jax.grad(total, 1))
  mixed = jax.jit(lambda x1, x2: jax.jvp(
      lambda x1: jax.grad(total, 1)(x1, x2), (x1,), (jnp.asarray(step),))[1])
  for name, (x1, x2) in _batches('float64').items():
    if 'zero' in name:
      continue  # A kink.
    want = (slope(x1 + 1e-5 * step, x2) - slope(x1 - 1e-5 * step, x2)) / 2e-5
    np.testing.assert_allclose(
        mixed(x1, x2), want, atol=1e-6 * np.abs(want).max())


def test_the_product_alone_would_not_do():
  """r r' - <x, x'> / D in float32 leaves no digit of a near pair."""
  x, _ = _batches('float32')['all']
  root = np.sqrt(np.mean(x**2, axis=1))
  naive = root[:, None] * root - x @ x.T / np.float32(5)
  want = _gap(x, x)
  off = ~np.eye(6, dtype=bool)
  assert np.abs(naive / np.where(off, want, 1) - 1)[off].max() > 1e-2


def test_mean_square():
  np.testing.assert_allclose(
      inputs.mean_square(jnp.asarray([[3.0, 4.0], [0, 0]])), [12.5, 0])
