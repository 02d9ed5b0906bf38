"""Every layer against neural-tangents and against arithmetic in 40 digits.

Between different inputs neural-tangents in float64 is good to rounding. With
x = x' it is not (the arccos of a rounded cosine: 1e-8), so diagonals are held
against the oracle instead, and the last test says who of the two errs.
"""
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from dsr import numerics
from dsr.kernels import convolutions, layers, network, nonlinearities
from tests.kernels import stacks
from tests.kernels.stacks import (
    ERF,
    FLATTEN,
    GLOBAL,
    RELU,
    avg_pool,
    conv,
    dense,
)
from tests.reference import covariance

VECTOR, IMAGE, ODD, WIDE = (6,), (4, 4, 2), (5, 3, 2), (8, 6, 1)
RTOL = 1e-13

# Every layer, where it can stand, at several scales: (stack, input shape).
FAST = {
    'erf': ([dense(0.7, 0.0), ERF, dense()], VECTOR),
    'conv': ([conv(0.8, 0.0, 5), RELU, FLATTEN], ODD),
    'pool': ([conv(), RELU, GLOBAL, dense()], ODD),
}
GRID = {
    'erf_twice': ([dense(), ERF, dense(0.7, 0), ERF, dense()], VECTOR),
    'dense': ([dense()], VECTOR),
    'dense_twice': ([dense(0.5, 0.0), dense(2.0, 1.0)], VECTOR),
    'relu_without_bias': ([dense(1.0, 0.0), RELU, dense(1.0, 0.0)], VECTOR),
    'relu_and_erf': ([dense(), RELU, dense(), ERF, dense()], VECTOR),
    'flatten': ([FLATTEN, dense(), RELU, dense()], IMAGE),
    'circular': ([conv(padding='CIRCULAR'), RELU,
                  conv(1.1, 0.0, 3, 'CIRCULAR'), RELU, FLATTEN, dense()], ODD),
    'conv_of_one_pixel': ([conv(kernel_size=1), RELU, FLATTEN], IMAGE),
    'conv_wider_than_image': ([conv(kernel_size=5), RELU, FLATTEN], (2, 3, 2)),
    'conv_twice': ([conv(), RELU, conv(0.8, 0.0, 5), ERF, FLATTEN, dense()],
                   ODD),
    'conv_after_pool': ([conv(), RELU, avg_pool(), conv(0.9, 0.0), RELU,
                         FLATTEN], ODD),
    'pool_first': ([avg_pool(), conv(), RELU, FLATTEN], WIDE),
    'pool_of_three': ([conv(), RELU, avg_pool(3), conv(), RELU, FLATTEN], WIDE),
    'pool_twice': ([conv(), RELU, avg_pool(), conv(), RELU, avg_pool(),
                    FLATTEN, dense()], WIDE),
    'pool_of_one': ([conv(), RELU, avg_pool(1), conv(), RELU, FLATTEN], IMAGE),
    'circular_joint': ([conv(padding='CIRCULAR'), RELU,
                        conv(1.0, 0.2, 3, 'CIRCULAR'), RELU, GLOBAL], ODD),
    'global_pool': ([conv(), RELU, conv(0.7, 0.0, 5), ERF, GLOBAL, dense(),
                     RELU, dense()], ODD),
    'global_after_pool': ([conv(), RELU, avg_pool(), GLOBAL, dense()], IMAGE),
    'global_first': ([GLOBAL, dense(), RELU, dense()], IMAGE),
}

# neural-tangents wants weights before every nonlinearity; the oracle does not.
UNUSUAL = {
    'relu_first': ([RELU, dense()], VECTOR),
    'relu_after_pool': ([conv(), avg_pool(), RELU, RELU, FLATTEN], IMAGE),
}


def each_stack(fast, slow):
  return pytest.mark.parametrize(
      ('stack', 'shape'),
      [*fast.values(), *(pytest.param(*case, marks=pytest.mark.slow)
                         for name, case in slow.items() if name not in fast)],
      ids={**fast, **slow})


@each_stack(FAST, GRID)
def test_value_and_gradient_match_neural_tangents(stack, shape):
  x1, x2 = stacks.normal(0, 3, *shape), stacks.normal(1, 2, *shape)
  weights = stacks.normal(2, 3, 2)
  value, grads = stacks.value_and_grads(
      stacks.ours(stack).cross, weights, 2)(x1, x2)
  want, want_grads = stacks.value_and_grads(
      stacks.theirs(stack).cross, weights, 2)(x1, x2)
  assert value.dtype == np.float64
  np.testing.assert_allclose(value, want, rtol=RTOL)
  for grad, want_grad in zip(grads, want_grads):
    atol = 1e-12 * np.abs(want_grad).max()
    np.testing.assert_allclose(grad, want_grad, atol=atol, rtol=0)


@each_stack({'erf': FAST['erf']}, {**FAST, **GRID, **UNUSUAL})
def test_covariance_matches_the_oracle(stack, shape):
  x = stacks.normal(3, 3, *shape)
  x[1] = x[0]
  want = covariance.kernel(stack, x, 'nngp').astype(float)
  kernel = stacks.ours(stack, 'nngp')
  np.testing.assert_allclose(kernel(x), want, rtol=RTOL)
  np.testing.assert_allclose(kernel.diag(x), np.diag(want), rtol=RTOL)
  np.testing.assert_allclose(kernel(x, x[:2]), want[:, :2], rtol=RTOL)


@each_stack({'conv_after_pool': GRID['conv_after_pool']},
            {**FAST, **GRID, **UNUSUAL})
def test_float32_matches_the_oracle(stack, shape):
  x = stacks.normal(3, 3, *shape, dtype='float32')
  x[1] = x[0]
  want = covariance.kernel(stack, x).astype(float)
  kernel = stacks.ours(stack)
  k, diag = kernel(x), kernel.diag(x)
  assert k.dtype == diag.dtype == np.float32
  rtol = numerics.KERNEL_RTOL['float32']
  scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
  assert (np.abs(k - want) / scale).max() < rtol
  np.testing.assert_allclose(diag, np.diag(want), rtol=rtol)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('stack', 'shape'), [*FAST.values(), *GRID.values()], ids=[*FAST, *GRID])
def test_float32_is_near_float64(stack, shape):
  x1, x2 = stacks.normal(0, 3, *shape), stacks.normal(1, 2, *shape)
  weights = stacks.normal(2, 3, 2)
  kernel = stacks.ours(stack)
  f = stacks.value_and_grads(kernel.cross, weights, 2)
  value, grads = f(x1.astype('float32'), x2.astype('float32'))
  want, want_grads = f(x1, x2)
  assert value.dtype == np.float32
  scale = np.sqrt(np.outer(kernel.diag(x1), kernel.diag(x2)))
  rtol = numerics.KERNEL_RTOL['float32']
  assert (np.abs(value - want) / scale).max() < rtol
  for grad, want_grad in zip(grads, want_grads):
    atol = 10 * rtol * np.abs(want_grad).max()
    np.testing.assert_allclose(grad, want_grad, atol=atol, rtol=0)


def test_who_errs_on_the_diagonal():
  """Here k(x, x) of neural-tangents in float64 is off by 1e-9; ours by none."""
  stack = stacks.fcn(1)
  x = stacks.normal(5, 20, 6)
  want = np.diag(covariance.kernel(stack, x)).astype(float)
  ours = np.diag(stacks.ours(stack)(x))
  theirs = np.diag(stacks.theirs(stack)(x))
  np.testing.assert_allclose(ours, want, rtol=1e-15)
  assert np.abs(theirs / want - 1).max() > 1e-10
  np.testing.assert_allclose(theirs, want, rtol=1e-6)


def test_first_layer_by_hand():
  """Dense: k = 2^2 <x, x'> / D + 3^2, and the NTK of one layer is k itself."""
  x1, x2 = stacks.normal(0, 3, 5), stacks.normal(1, 2, 5)
  want = 4 * x1 @ x2.T / 5 + 9
  for get in ('ntk', 'nngp'):
    kernel = network.serial(layers.Dense(W_std=2.0, b_std=3.0), get=get)
    np.testing.assert_allclose(kernel(x1, x2), want, rtol=1e-14)


def test_gap_keeps_the_digits_that_the_kernel_loses():
  """Through Dense and ReLU, at an angle of 1e-6, to 1e-5 of the gap."""
  q, gap = np.float32(1.3), np.float32(1e-12)
  dense = layers.Dense(W_std=1.5, b_std=0.2)
  q1, q2 = q, q * np.float32(1 + 1e-4)  # Near each other in length, too.
  pair = layers.Pair(gap, np.sqrt(q1 * q2) - gap)
  for layer in (dense, nonlinearities.Relu()) * 2:
    q1, tape1 = layer.variance(q1, None)
    q2, tape2 = layer.variance(q2, None)
    pair = layer.pair(tape1, tape2, pair, False)

  def exact(gap, q1, q2):
    for _ in range(2):
      k = 2.25 * (mpmath.sqrt(q1 * q2) - gap) + mpmath.mpf(0.2) ** 2
      q1, q2 = (2.25 * q + mpmath.mpf(0.2) ** 2 for q in (q1, q2))
      s = mpmath.sqrt(q1 * q2)
      theta = mpmath.acos(k / s)
      k = s * (mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta))
      gap, q1, q2 = 0.5 * (s - k / mpmath.pi), q1 / 2, q2 / 2
    return gap

  with mpmath.workdps(40):
    want = float(exact(mpmath.mpf(1e-12), *map(
        mpmath.mpf, (float(q), float(q * np.float32(1 + 1e-4))))))
  assert pair.gap.dtype == np.float32
  np.testing.assert_allclose(pair.gap, want, rtol=2e-3)
  # While sqrt(q1 q2) - k(x, x') has no digit at all.
  assert abs(float(np.sqrt(q1 * q2) - pair.nngp) - want) > 0.9 * want


def test_pooling_less_than_everything_leaves_the_rest_out():
  """AvgPool(2) of 5 x 3 uses 4 x 2: the last row and column do not matter."""
  x1, x2 = stacks.normal(0, 2, *ODD), stacks.normal(1, 2, *ODD)
  kernel = stacks.ours([avg_pool(), FLATTEN, dense()])
  moved = x1.copy()
  moved[:, 4:], moved[:, :, 2:] = 1, -1
  np.testing.assert_array_equal(kernel(x1, x2), kernel(moved, x2))
  np.testing.assert_allclose(
      kernel(x1, x2), kernel(x1[:, :4, :2], x2[:, :4, :2]), rtol=1e-14)


def test_blocks_do_not_show(monkeypatch):
  """Images are worked through in blocks; one that does not divide N or M."""
  x1, x2 = stacks.normal(0, 3, *IMAGE), stacks.normal(1, 5, *IMAGE)
  stack = [conv(), FLATTEN]
  want = stacks.ours(stack)(x1, x2)
  want_symmetric = stacks.ours(stack)(x1)
  monkeypatch.setattr(network, '_WORK', 2 * 16)
  kernel = stacks.ours(stack)
  np.testing.assert_allclose(kernel(x1, x2), want, rtol=1e-14)
  np.testing.assert_allclose(kernel(x1), want_symmetric, rtol=1e-14)


@pytest.mark.errors
@pytest.mark.parametrize(('build', 'message'), [
    (lambda: layers.Dense(W_std=0), '`W_std` must be positive and finite, g'),
    (lambda: layers.Dense(W_std=float('inf')), '`W_std` must be positive and'),
    (lambda: layers.Dense(b_std=-1), '`b_std` must be finite and not negative'),
    (lambda: convolutions.Conv(0), '`kernel_size` must be an integer of at'),
    (lambda: convolutions.Conv(W_std=-1.0), '`W_std` must be positive and f'),
    (lambda: convolutions.Conv(padding='FULL'),
     '`padding` must be one of SAME, VALID, CIRCULAR; got .FULL'),
    (lambda: convolutions.AvgPool(0), '`window` must be an integer of at le'),
    (lambda: convolutions.AvgPool(2.0), '`window` must be an integer of at l'),
])
def test_bad_arguments_are_named(build, message):
  with pytest.raises(ValueError, match=message):
    build()


@pytest.mark.errors
@pytest.mark.parametrize(('stack', 'message'), [
    ([], '`layers` must hold at least one layer'),
    ([conv(), RELU], 'leaves space: add `Flatten'),
    ([conv(), avg_pool()], 'leaves space: add `Flatten'),
    ([FLATTEN, conv()], r'`Conv\(3, 1.4, 0.3\)` needs images'),
    ([conv(), FLATTEN, avg_pool()], r'`AvgPool\(2\)` needs images, but space'),
    ([conv(), GLOBAL, GLOBAL], '`GlobalAvgPool` needs images, but space'),
    ([conv(), RELU, dense()], r'`Dense\(1.4, 0.3\)` needs vectors: add `Fl'),
    ([RELU, ERF], "`get='ntk'` needs a layer with weights"),
])
def test_stacks_that_do_not_fit_are_named(stack, message):
  with pytest.raises(ValueError, match=message):
    stacks.ours(stack)


@pytest.mark.errors
def test_bad_input_is_named():
  vectors = stacks.ours([dense(), RELU, dense()])
  images = stacks.ours([conv(), RELU, FLATTEN])
  x, image = stacks.normal(0, 3, 6), stacks.normal(0, 3, *IMAGE)
  with pytest.raises(ValueError, match="`get` must be one of ntk, nngp; got"):
    stacks.ours([dense()], get='both')
  with pytest.raises(ValueError, match='`layers` must be `Layer` values'):
    network.serial(layers.Dense)
  with pytest.raises(ValueError, match=r'`x2` has examples of shape \(5,\)'):
    vectors(x, x[:, :5])
  with pytest.raises(ValueError, match='`x2` has dtype float32, expected flo'):
    vectors(x, x.astype('float32'))
  with pytest.raises(ValueError, match='`x1` must be floating point, got int'):
    vectors(np.ones((3, 6), int))
  for call in (vectors.symmetric, images.diag):
    low = (x if call is vectors.symmetric else image).astype(jnp.bfloat16)
    with pytest.raises(ValueError, match='must be float32 or float64, got bfl'):
      call(low)
  with pytest.raises(ValueError, match=r'`x1` must not be empty, got .*\(0, 6'):
    vectors(x[:0], x)
  with pytest.raises(ValueError, match='`x2` must not be empty'):
    vectors(x, x[:0])
  with pytest.raises(ValueError, match=r'`x` must have shape \(N, D\), got'):
    vectors.diag(x[0])
  for call in (images, images.diag):
    with pytest.raises(ValueError, match=r'must have shape \(N, H, W, C\), go'):
      call(x)
  with pytest.raises(ValueError, match=r'`x2` has examples of shape \(4, 3,'):
    images(image, image[:, :, :3])


@pytest.mark.errors
def test_images_go_through_flatten_first():
  with pytest.raises(ValueError, match=r'`x1` must have shape \(N, D\), got'):
    stacks.ours([dense()])(stacks.normal(0, 3, *IMAGE))


@pytest.mark.errors
def test_window_beyond_the_image_is_named():
  with pytest.raises(ValueError, match=r'`AvgPool\(5\)` needs at least 5 x'):
    stacks.ours([avg_pool(5), FLATTEN, dense()])(stacks.normal(0, 3, *IMAGE))


def test_same_shapes_are_traced_once():
  """Counted where tracing passes: in the rule of a layer of our own."""
  traces = []
  weights = layers.Dense()

  def pair(*args):
    traces.append(args)
    return weights.pair(*args)

  kernel = network.serial(weights._replace(pair=pair))
  x = stacks.normal(0, 3, 6)
  kernel(x, x)
  first = len(traces)
  assert first > 0
  kernel(x + 1, x - 1)
  assert len(traces) == first
  kernel(x, x[:2])
  assert len(traces) > first  # The counter does count.
