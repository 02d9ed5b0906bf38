"""Strides, paddings, sequences and branches against neural-tangents."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels, nets
from tests.kernels import stacks
from tests.kernels.stacks import ERF, FLATTEN, GLOBAL, RELU, conv, dense, pool

slow = pytest.mark.slow
# What neural-tangents says of every FanIn; ours checks it.
pytestmark = pytest.mark.filterwarnings('ignore:`FanIn` layers assume')
IMAGE, SEQUENCE, VECTOR = (7, 6, 2), (9, 2), (6,)
FAN_OUT, FAN_IN = ('FanOut', (2,)), ('FanInSum', {})


def branches(*stacks):
  return 'parallel', stacks


def layer_norm(*axis):
  return 'LayerNorm', {'axis': axis}


def standard(layer, width, b_std=0.3, **kwargs):
  return layer(0.9, b_std, width=width, parameterisation='standard', **kwargs)


def _residual(main, shortcut):
  return [FAN_OUT, branches(main, shortcut), FAN_IN]


_STRIDED = conv(strides=2)
RESNET = [
    conv(), *_residual([RELU, _STRIDED, RELU, conv()],
                       [conv(kernel_size=1, strides=2)]),
    *_residual([RELU, conv(padding='VALID', kernel_size=1)], []), RELU, GLOBAL,
    dense()]

STACKS = {
    'resnet': (RESNET, IMAGE),
    'strides': ([conv(strides=2), RELU, FLATTEN, dense()], IMAGE),
    'strides_joint': ([conv(strides=2), RELU, GLOBAL, dense()], IMAGE),
    'valid': ([conv(padding='VALID', strides=2), RELU, conv(kernel_size=2),
               RELU, FLATTEN], IMAGE),
    'valid_joint': ([conv(padding='VALID', kernel_size=(2, 3)), RELU,
                     pool((3, 2), strides=(1, 2)), conv(0.7, 0.0), RELU,
                     GLOBAL], IMAGE),
    'even': ([conv(kernel_size=4), RELU, conv(kernel_size=2), ERF, GLOBAL,
              dense()], IMAGE),
    'circular': ([conv(padding='CIRCULAR', kernel_size=(3, 5)), RELU, GLOBAL],
                 IMAGE),
    'sum_pool': ([conv(0.4, 0.1), RELU, pool(2, 'SumPool'), conv(0.4, 0.1),
                  RELU, ('GlobalSumPool', {}), dense()], IMAGE),
    'overlapping': ([conv(), RELU, pool(3, strides=2), FLATTEN], IMAGE),
    'sequence': ([conv(kernel_size=(3,), strides=(2,)), RELU,
                  conv(kernel_size=(2,), padding='VALID'), ERF, FLATTEN,
                  dense()], SEQUENCE),
    'sequence_pools': ([conv(kernel_size=(3,)), RELU, pool((2,)),
                        conv(kernel_size=(3,)), RELU, GLOBAL], SEQUENCE),
    'vectors': ([dense(), *_residual([RELU, dense()], []), RELU, dense()],
                VECTOR),
    'deeper': ([dense(), *_residual([RELU, dense(), RELU, dense()], []), RELU,
                 *_residual([dense(0.7, 0.0)], [dense(2.0, 0.4)]), ERF,
                 dense()], VECTOR),
    'vectors_without_bias': (
        [dense(1, 0), *_residual([RELU, dense(1.2, 0)], []), RELU,
         dense(1, 0)], VECTOR),
    'product': ([dense(), FAN_OUT, branches([dense()], [RELU, dense()]),
                 ('FanInProd', {}), dense()], VECTOR),
    'concat': ([dense(), FAN_OUT, branches([RELU], [dense(), ERF]),
                ('FanInConcat', ()), dense()], VECTOR),
    'norm_of_images': ([conv(), layer_norm(1, 2, 3), RELU, conv(strides=2),
                        layer_norm(1, 3), ERF, GLOBAL, dense()], IMAGE),
    'norm_of_rows': ([conv(), layer_norm(2, 3), RELU, FLATTEN, dense(),
                      layer_norm(1), RELU], IMAGE),
    'norm_of_sequences': ([conv(kernel_size=(3,)), layer_norm(1, 2), RELU,
                           GLOBAL], SEQUENCE),
    # None is no bias; 0 is one that starts at 0.
    'standard': ([standard(dense, 5), RELU, standard(dense, 7, None), ERF,
                  standard(dense, 1, 0.0)], VECTOR),
    'standard_after_ntk': ([dense(width=4), RELU, standard(dense, None)],
                           VECTOR),
    'standard_images': ([standard(conv, 5, strides=2), RELU,
                         standard(conv, 7, None, padding='VALID',
                                  kernel_size=(2, 3)), RELU, pool((2, 1)),
                         standard(conv, 3), GLOBAL, standard(dense, 1)], IMAGE),
    'standard_flatten': ([standard(conv, 5), RELU, FLATTEN,
                          standard(dense, 1)], IMAGE),
    'standard_sequence': ([standard(conv, 3, kernel_size=(3,)), RELU, FLATTEN,
                           standard(dense, 1)], SEQUENCE),
    'standard_branches': ([
        standard(dense, 4), *_residual([RELU, standard(dense, 4)], []), RELU,
        FAN_OUT, branches([standard(dense, 3)], [dense(width=4)]),
        ('FanInConcat', (3, 4)),
        standard(dense, 1)], VECTOR),
}
FAST = 'vectors', 'standard'


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name in FAST else slow) for name in STACKS])
def test_value_and_gradient_match_neural_tangents(name):
  stack, shape = STACKS[name]
  x1, x2 = stacks.normal(0, 2, *shape), stacks.normal(1, 2, *shape)
  weights = stacks.normal(2, 2, 2)
  (value, grads), (want, want_grads) = (
      stacks.value_and_grads(build(stack).cross, weights, 2)(x1, x2)
      for build in (stacks.ours, stacks.theirs))
  np.testing.assert_allclose(value, want, rtol=1e-12)
  for grad, want_grad in zip(grads, want_grads):
    np.testing.assert_allclose(
        grad, want_grad, rtol=0, atol=1e-11 * np.abs(want_grad).max())


@slow
def test_standard_parameterisation_is_that_of_a_wide_network(key):
  """Mean over finite networks of the same widths, within its standard error."""
  x, width = jnp.asarray(stacks.normal(0, 3, 5)), 1024
  module = nets.MLP(1, (width, width), 'standard', w_std=1.3, b_std=0.0)
  found = kernels.monte_carlo(
      key, lambda key: module.init(key, x), module, num=24)(x)
  dense = functools.partial(
      kernels.Dense, W_std=1.3, b_std=0.0, parameterisation='standard')
  kernel = kernels.serial(
      dense(width=width), kernels.Relu(), dense(width=width), kernels.Relu(),
      dense())
  assert (found.standard_error / found.mean).max() < 0.03
  apart = np.abs(found.mean - kernel(x)) / found.standard_error
  assert apart.max() < 4


@slow
def test_both_kernels_of_one_pass():
  for name in ('deeper', 'resnet'):
    stack, shape = STACKS[name]
    x = stacks.normal(0, 3, *shape)
    both = stacks.ours(stack, ('nngp', 'ntk'))
    for get in ('nngp', 'ntk'):
      alone = stacks.ours(stack, get)
      for got, want in ((both(x), alone(x)), (both(x, x[:2]), alone(x, x[:2])),
                        (both.diag(x), alone.diag(x))):
        np.testing.assert_allclose(getattr(got, get), want, rtol=1e-14)


@slow
def test_unequal_images_keep_their_digits():
  """Norms of 1 and 1,000, zero among them, in float32."""
  x = stacks.normal(0, 4, *IMAGE)
  x *= np.array([1, 1e3, 0, 1e-3])[:, None, None, None]
  for name in ('resnet', 'strides'):
    kernel = stacks.ours(STACKS[name][0])
    want = kernel(x)
    own = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    error = np.abs(kernel(x.astype('float32')) - want) / own
    assert error.max() < 3e-6


@pytest.mark.slow
def test_ready_networks():
  x = stacks.normal(0, 2, 8, 8, 2)
  for kernel in (kernels.resnet(8), kernels.wide_resnet(10)):
    k = kernel(x)
    np.testing.assert_allclose(k, k.T)
    assert np.linalg.eigvalsh(k).min() > 0
  assert kernels.wide_resnet(16, 8).name == 'wrn16_8'


@pytest.mark.parametrize('shape', [
    (3, 4), pytest.param((2, 3, 3, 1), marks=slow)])
def test_scales_may_be_traced(shape):
  """Derivatives in W_std and b_std, as of a marginal likelihood."""
  x = jnp.asarray(stacks.normal(0, *shape))

  def total(scales):
    W_std, b_std = scales
    layer = kernels.Dense if x.ndim == 2 else kernels.Conv
    weights = layer(W_std=W_std, b_std=b_std)
    k = kernels.serial(weights, kernels.Relu(), weights,
                       *([] if x.ndim == 2 else [kernels.GlobalAvgPool()]))
    return jnp.sum(jnp.sin(k(x, 2 * x)))

  at = jnp.array([1.3, 0.2])
  f = jax.jit(jax.value_and_grad(total))
  value, grad = f(at)
  np.testing.assert_allclose(value, total((1.3, 0.2)), rtol=1e-12)
  for i in range(2):
    step = 1e-6 * jnp.eye(2)[i]
    slope = (f(at + step)[0] - f(at - step)[0]) / 2e-6
    np.testing.assert_allclose(grad[i], slope, rtol=1e-7)


@pytest.mark.errors
@pytest.mark.parametrize(('stack', 'message'), [
    ([dense(), FAN_OUT], 'leaves branches: add `FanInSum'),
    ([dense(), FAN_OUT, RELU], '`Relu` needs one stream, but there are branc'),
    ([dense(), FAN_IN], '`FanInSum` needs branches: add `FanOut'),
    ([dense(), ('FanOut', (3,)), branches([], [dense()]), FAN_IN],
     'has 2 branches, but there are 3'),
    ([dense(), *_residual([], [])], 'at most one may be without weights'),
    ([dense(), RELU, *_residual([dense()], [])], 'needs Gaussian branches'),
    ([conv(), *_residual([GLOBAL, dense()], []), FLATTEN],
     'branches that all have space, or none'),
    ([conv(kernel_size=(3,)), RELU, pool(2), FLATTEN],
     'for images and for sequences do not fit'),
    ([dense(), RELU, standard(dense, 1)],
     'needs the width of the layer with weights before'),
    ([standard(dense, 4), *_residual([RELU, standard(dense, None)], []),
      standard(dense, 1)], 'needs the width of the layer'),
    ([dense(), RELU, layer_norm(-1), dense()], 'needs Gaussian inputs'),
    ([conv(), layer_norm(1, 2), FLATTEN], 'the channels among its axes'),
    ([dense(), layer_norm(1, 2, 3)], '`LayerNorm` needs images'),
    ([dense(), ('Nothing', {})], None),
])
def test_branches_that_do_not_fit_are_named(stack, message):
  if message is None:
    with pytest.raises(ValueError, match='must be `Layer` values'):
      kernels.serial(kernels.Dense(), kernels.Dense)
    return
  with pytest.raises(ValueError, match=message):
    stacks.ours(stack)


@pytest.mark.errors
@pytest.mark.parametrize(('build', 'message'), [
    (lambda: kernels.FanOut(1), '`num` must be an integer of at least 2'),
    (lambda: kernels.Conv((3, 3, 3)), '`kernel_size` must be a number or hold'),
    (lambda: kernels.Conv((3, 3), strides=(2,)), '`strides` must be a number'),
    (lambda: kernels.LayerNorm((0, 1)), '`axis` must be -1, the channels, or'),
    (lambda: kernels.LayerNorm(-2), '`axis` must be -1, the channels, or'),
    (lambda: kernels.Dense(width=0), '`width` must be an integer of at least'),
    (lambda: kernels.Conv(parameterisation='mup'), '`parameterisation` must'),
    (lambda: kernels.resnet(9), r'`depth` must be 6 n \+ 2, got 9'),
    (lambda: kernels.wide_resnet(10, 0), '`width_factor` must be an integer'),
    (lambda: kernels.ABRelu(0, 0), '`a` and `b` must not both be 0'),
    (lambda: kernels.Sin(b=0), '`b` must not be 0'),
    (lambda: kernels.Rbf(-1.0), '`gamma` must be positive'),
    (lambda: kernels.Hermite(0), '`degree` must be an integer of at least 1'),
    (lambda: kernels.Polynomial([0.0]), '`coefs` must hold a number'),
    (lambda: kernels.Elementwise(jnp.abs), '`tolerance` 1e-06 is not reached'),
])
def test_bad_arguments_are_named(build, message):
  with pytest.raises(ValueError, match=message):
    build()


@pytest.mark.errors
def test_a_width_is_refused():
  """Scales are keyword-only: `Dense(512)` would have been W_std = 512."""
  with pytest.raises(TypeError, match='positional'):
    kernels.Dense(512)
  with pytest.raises(TypeError, match='positional'):
    kernels.Conv(64, (3, 3))
