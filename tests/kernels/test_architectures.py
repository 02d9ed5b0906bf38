"""Ready kernels: against neural-tangents, and exact at near-duplicates."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import types
from dsr.kernels import architectures
from tests.kernels import stacks
from tests.reference import covariance

HE = math.sqrt(2)
VECTOR, IMAGE, SMALL = (20,), (4, 4, 2), (3, 2, 2)
SCALES = [(HE, 0.1), (HE, 0.0), (1.1, 0.5)]  # (W_std, b_std)
slow = pytest.mark.slow


def _flat(scales):
  return {'W_std': scales[0], 'b_std': scales[1]}


def _architectures():
  """(ours, the same written out, input shape)."""
  he = SCALES[0]
  yield architectures.fcn(2), stacks.fcn(2, *he), IMAGE
  for scales in SCALES:
    kwargs = _flat(scales)
    for depth in (1, 2, 3, 4, 5):
      yield architectures.fcn(depth, **kwargs), stacks.fcn(depth, *scales), (6,)
    for pooling in (False, True):
      yield (architectures.convnet(2, pooling=pooling, **kwargs),
             stacks.convnet(2, *scales, pooling=pooling), (8, 6, 2))
    yield architectures.myrtle(5, **kwargs), stacks.myrtle5(*scales), (8, 8, 2)


@pytest.mark.parametrize(('kernel', 'stack', 'shape'), [
    pytest.param(*case, marks=slow, id=f'{i}-{case[0].name}')
    for i, case in enumerate(_architectures())])
def test_value_and_gradient_match_neural_tangents(kernel, stack, shape):
  x1, x2 = stacks.normal(0, 3, *shape), stacks.normal(1, 2, *shape)
  weights = stacks.normal(2, 3, 2)
  value, grads = stacks.value_and_grads(kernel.cross, weights, 2)(x1, x2)
  want, want_grads = stacks.value_and_grads(
      stacks.theirs(stack).cross, weights, 2)(x1, x2)
  np.testing.assert_allclose(value, want, rtol=1e-12)
  for grad, want_grad in zip(grads, want_grads):
    # 1e-10: deep pools leave pairs of positions with nearly equal patches.
    atol = 1e-10 * np.abs(want_grad).max()
    np.testing.assert_allclose(grad, want_grad, atol=atol, rtol=0)


def _family(shape, dtype):
  """(8, ...): one input, twins and near twins of it, zero and a stranger.

  In the order: itself, its copy, scaled by 1 + 1e-3 and 1 + 1e-6, moved by
  1e-3 and 1e-6 in a random direction, zero, another.
  """
  x, direction = stacks.normal(0, *shape), stacks.normal(1, *shape)
  return np.stack([
      x, x, x * (1 + 1e-3), x * (1 + 1e-6), x + 1e-3 * direction,
      x + 1e-6 * direction, 0 * x, stacks.normal(2, *shape)]).astype(dtype)


def _errors(k, want):
  """Worst error of k(x, x') and of k(x, x) - k(x, x'), over k(x, x)."""
  k, own = np.asarray(k, float), np.diag(want)[:, None]
  ours, exact = np.diag(k)[:, None] - k, (own - want).astype(float)
  scale = np.sqrt(own * np.diag(want)).astype(float)
  scale = np.where(scale > 0, scale, 1)
  value = np.abs(k - want.astype(float)) / scale
  return max(value.max(), (np.abs(ours - exact) / own.max()).max())


VECTORS = [(f'fcn{depth}-{b:g}', stacks.fcn(depth, HE, b), VECTOR)
           for depth in (2, 1, 3, 4, 5) for b in (0.0, 0.1)]
IMAGES = [('convnet2', stacks.convnet(2, HE, 0.0, pooling=False), SMALL),
          ('convnet1-pooled', stacks.convnet(1, HE, 0.1), SMALL)]
NEAR = [(dtype, *case) for case in VECTORS + IMAGES
        for dtype in ('float32', 'float64')]
NEAR_FAST = 'float64-fcn2-0', 'float32-fcn5-0', 'float32-convnet1-pooled'


@pytest.mark.parametrize(('dtype', 'stack', 'shape'), [
    pytest.param(dtype, stack, shape, id=f'{dtype}-{name}',
                 marks=() if f'{dtype}-{name}' in NEAR_FAST else slow)
    for dtype, name, stack, shape in NEAR])
def test_near_duplicates_are_exact(dtype, stack, shape):
  x = _family(shape, dtype)
  want = covariance.kernel(stack, x)
  kernel = stacks.ours(stack)
  # Without a bias, x and (1 + 1e-3) x have an angle of 0, of which the rounded
  # norms leave 1e-5 (float32) or 1e-10; it counts once a layer.
  straight = stack[1][1].get('b_std') == 0
  if dtype == 'float64':
    rtol = 1e-9
  else:
    rtol = 3e-5 if straight and len(stack) > 10 else 1e-5
  own = np.diag(want).astype(float)
  np.testing.assert_allclose(kernel.diag(x), own, rtol=rtol)
  for k in (kernel(x), kernel(x, x.copy())):
    assert k.dtype == dtype
    assert _errors(k, want) < rtol


def _naive_fcn1(x):
  """NTK of Dense(sqrt 2), ReLU, Dense(sqrt 2), by clipped float32 cosines."""
  k = np.float32(2) * x @ x.T / np.float32(x.shape[1])
  root = np.sqrt(np.diag(k))
  s = np.maximum(np.outer(root, root), np.float32(1e-30))
  c = np.clip(k / s, -1, 1)
  away = (np.float32(np.pi) - np.arccos(c)) / np.float32(np.pi)
  nngp = s * np.sqrt(1 - c**2) / np.float32(np.pi) + k * away
  return nngp + k * away


def test_a_clipped_cosine_would_fail_the_bound():
  """So the bound above tells the two formulas apart."""
  worst = 0
  for seed in range(4):
    x = _family(VECTOR, 'float32') + np.float32(1e-3 * seed)
    want = covariance.kernel(stacks.fcn(1, HE, 0.0), x)
    naive = _naive_fcn1(x)
    assert naive.dtype == np.float32
    worst = max(worst, _errors(naive, want))
  assert 4e-5 < worst < 1e-2


@slow
@pytest.mark.parametrize(('stack', 'shape'), [
    (stacks.convnet(2, HE, 0.1), IMAGE), (stacks.myrtle5(HE, 0.1), IMAGE)])
def test_near_duplicates_behind_pools(stack, shape):
  """A ReLU behind a pool sees a gap rounded like the variance: to 1e-4.

  As a sharp bit, not as a promise: the bound of all others is 1e-5.
  """
  x = _family(shape, 'float32')
  want = covariance.kernel(stack, x)
  kernel = stacks.ours(stack)
  np.testing.assert_allclose(
      kernel.diag(x), np.diag(want).astype(float), rtol=1e-5)
  for k in (kernel(x), kernel(x, x.copy())):
    assert _errors(k, want) < 1e-4


@pytest.mark.parametrize(('stack', 'shape'), [
    pytest.param(stacks.fcn(2, HE, 0.1), VECTOR, id='fcn2'),
    pytest.param(stacks.fcn(5, HE, 0.1), VECTOR, id='fcn5', marks=slow),
    pytest.param(stacks.convnet(2, HE, 0.1, pooling=False), SMALL,
                 id='convnet2', marks=slow),
    pytest.param(stacks.convnet(1, HE, 0.1), SMALL, id='convnet1-pooled',
                 marks=slow)])
def test_gradient_is_right_at_near_duplicates(stack, shape):
  """Along a random direction, for each pair (x_0, x_j) by itself.

  At a distance of 1e-6 the norms' own rounding turns the kink's slope in
  float32, by up to a fifth of the gradient; a sharp bit.
  """
  direction = stacks.normal(5, *shape)
  kernel = stacks.ours(stack)
  jacobian = jax.jit(
      jax.jacrev(lambda one, x: kernel(one, x)[0]),
      compiler_options={'xla_backend_optimization_level': 0})
  for dtype, rtol in (('float32', 1e-4), ('float64', 1e-7)):
    x = _family(shape, dtype)
    slopes = jacobian(x[:1], x)
    assert slopes.dtype == dtype
    got = np.tensordot(slopes[:, 0], direction, direction.ndim)
    # The oracle moves a copy of x_0, so that x_0 itself stays.
    both = np.concatenate([x[:1], x])
    moved = np.zeros(both.shape)
    moved[0] = direction
    want = np.array([
        covariance.slope(stack, both[[0, j + 1]], moved[[0, j + 1]],
                         np.array([[0, 1], [0, 0]])) for j in range(8)])
    limit = np.full(8, rtol)
    if dtype == 'float32':
      limit[[3, 5]] = 0.2
    limit *= np.abs(want).max()
    assert (np.abs(got - want) < limit).all()


def test_gradient_of_the_symmetric_kernel():
  """All rows equal, some equal, none equal: three paths, one answer."""
  kernel = stacks.ours(stacks.fcn(1, HE, 0.0))
  weights = stacks.normal(3, 8, 8)
  f = stacks.value_and_grads(kernel.symmetric, weights)
  family = _family(VECTOR, 'float32')
  batches = {'some': family[[0, 1, 4, 7, 7, 0, 4, 7]],
             'all': np.repeat(family[:1], 8, axis=0),
             'none': stacks.normal(4, 8, *VECTOR, dtype='float32')}
  for x in batches.values():
    value, (grad,) = f(x)
    want, (want_grad,) = f(x.astype(float))
    assert grad.dtype == np.float32
    np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-6)
    atol = 1e-4 * np.abs(want_grad).max()
    np.testing.assert_allclose(grad, want_grad, rtol=0, atol=atol)
  # At zero the kernel has a kink in every direction: any slope, but finite.
  value, (grad,) = f(family)
  assert np.isfinite(value).all()
  assert np.isfinite(grad).all()


def test_vmap_gives_the_same():
  kernel = architectures.fcn(1)
  family = _family(VECTOR, 'float32')
  x = np.stack([family, stacks.normal(4, 8, *VECTOR, dtype='float32')])
  got = jax.jit(jax.vmap(kernel.symmetric))(x)
  for k, one in zip(got, x):
    np.testing.assert_allclose(k, kernel(one), rtol=1e-6)


def test_parts_and_names():
  kernel = architectures.fcn(1)
  assert isinstance(kernel, types.KernelFn)
  assert kernel.name == 'fcn1'
  hash(kernel)  # A static argument of `jit`.
  x = stacks.normal(0, 3, 2, 2, 1)
  # Images are flattened, and numpy is as good as jax.
  np.testing.assert_array_equal(kernel(x), kernel(jnp.asarray(x.reshape(3, 4))))


@pytest.mark.parametrize(('name', 'layers'), [
    ('fcn3', 3), ('convnet2', 3), ('convnet3_nopool', 3), ('myrtle5', 4),
    ('myrtle7', 6), ('myrtle10', 9)])
def test_by_name(monkeypatch, name, layers):
  """The stack behind a name, by its number of ReLUs and its scales."""
  seen = []

  def serial(*stack, get, name, fused=False):
    seen.append((stack, get, name, fused))

  monkeypatch.setattr(architectures.network, 'serial', serial)
  architectures.by_name(name, get='nngp', W_std=1.25)
  (stack, get, got, fused), = seen
  names = [layer.name for layer in stack]
  assert (get, got, fused) == ('nngp', name, False)
  depth = {'convnet2': 2}.get(name, layers)
  assert names.count('Relu') == depth
  assert names[-1] == 'Dense(1.25, 0.1)'
  pools = {'fcn3': 0, 'convnet2': 2, 'convnet3_nopool': 0}.get(name, 3)
  assert sum('Pool' in n for n in names) == pools


@pytest.mark.errors
@pytest.mark.parametrize(('build', 'message'), [
    (lambda: architectures.fcn(0), '`depth` must be an integer of at least 1'),
    (lambda: architectures.fcn(2.0), '`depth` must be an integer of at least'),
    (lambda: architectures.convnet(0), '`depth` must be an integer of at leas'),
    (lambda: architectures.myrtle(6), '`depth` must be one of 5, 7, 10; got 6'),
    (lambda: architectures.fcn(1, nonlinearity='tanh'),
     '`nonlinearity` must be one of relu, erf'),
    (lambda: architectures.fcn(1, W_std=-1), '`W_std` must be positive'),
    (lambda: architectures.convnet(1, padding='FULL'),
     '`padding` must be one of SAME, VALID, CIRCULAR'),
    (lambda: architectures.fcn(1, get='both'), '`get` must be one of ntk, nn'),
    (lambda: architectures.by_name('resnet18'),
     "`kernel` must be a family and a depth .* got 'resnet18'"),
    (lambda: architectures.by_name('fcn'), "`kernel` must be .* got 'fcn'"),
    (lambda: architectures.by_name('fcn2_nopool'), '`kernel` must be a family'),
    (lambda: architectures.by_name('myrtle6'), '`depth` must be one of 5, 7'),
    (lambda: architectures.by_name('fcn0'), '`depth` must be an integer'),
])
def test_bad_arguments_are_named(build, message):
  with pytest.raises(ValueError, match=message):
    build()


@pytest.mark.errors
def test_bad_input_is_named():
  with pytest.raises(ValueError, match=r'`x1` must have shape \(N, H, W, C\)'):
    architectures.convnet(1)(stacks.normal(0, 3, 6))
  with pytest.raises(ValueError, match=r'`x1` must not be empty'):
    architectures.fcn(1)(stacks.normal(0, 0, 6))
