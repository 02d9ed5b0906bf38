"""Finite networks against NumPy, lax.conv and Flax's own layers."""
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.nets import mlp

RTOL = {'float32': 2e-5, 'float64': 1e-12}
both_dtypes = pytest.mark.parametrize('dtype', ['float32', 'float64'])


def _random(*shape, dtype='float64', seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def _close(got, want, dtype):
  assert got.dtype == dtype
  scale = np.abs(want).max()
  np.testing.assert_allclose(got, want, rtol=0, atol=RTOL[dtype] * scale)


def _params(module, x, key):
  """Random parameters: biases and scales start as constants, and hide swaps."""
  leaves, treedef = jax.tree.flatten(
      jax.eval_shape(module.init, key, x)['params'])
  return jax.tree.unflatten(treedef, [
      _random(*a.shape, dtype=a.dtype, seed=i) for i, a in enumerate(leaves)])


def _numpy_conv(x, kernel):
  num, height, width, _ = x.shape
  padded = np.zeros((num, height + 2, width + 2, x.shape[3]))
  padded[:, 1:-1, 1:-1] = x
  out = np.zeros((num, height, width, kernel.shape[3]))
  for i in range(height):
    for j in range(width):
      out[:, i, j] = np.einsum(
          'nabc,abco->no', padded[:, i:i + 3, j:j + 3], kernel)
  return out


def _numpy_pool(x):
  out = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]))
  for i in range(out.shape[1]):
    for j in range(out.shape[2]):
      out[:, i, j] = x[:, 2 * i:2 * i + 2, 2 * j:2 * j + 2].mean((1, 2))
  return out


def _numpy_norm(x, scale, bias):
  mean, std = x.mean((1, 2), keepdims=True), x.std((1, 2), keepdims=True)
  return (x - mean) / np.sqrt(std**2 + 1e-5) * scale + bias


@pytest.mark.parametrize(('norm', 'dtype'), [
    ('instance', 'float32'), ('instance', 'float64'), ('none', 'float32')])
def test_convnet_equals_numpy(dtype, norm, key):
  module = nets.ConvNet(num_outputs=4, depth=2, width=6, norm=norm)
  x = jnp.asarray(_random(3, 9, 8, 2, dtype=dtype))
  params = _params(module, x, key)
  out = np.asarray(x, 'float64')
  for i in range(2):
    conv = params[f'conv_{i}']
    out = _numpy_conv(out, conv['kernel'])
    if norm == 'instance':
      assert 'bias' not in conv
      out = _numpy_norm(out, **params[f'norm_{i}'])
    else:
      out = out + conv['bias']
    out = _numpy_pool(np.maximum(out, 0))
  want = out.reshape(3, -1) @ params['readout']['kernel']
  _close(jax.jit(module.apply)({'params': params}, x),
         want + params['readout']['bias'], dtype)


@pytest.mark.parametrize(('shape', 'features'), [
    ((8, 8, 1), 1), ((28, 28, 1), 9), ((32, 32, 3), 16)])
def test_convnet3_has_the_sizes_of_the_family(shape, features, key):
  module = nets.build('convnet3', 10)
  x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  out, variables = jax.eval_shape(module.init_with_output, key, x)
  params = variables['params']
  assert out.shape == (2, 10)
  assert out.dtype == jnp.float32
  assert params['readout']['kernel'].shape == (128 * features, 10)
  assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  count = sum(a.size for a in jax.tree.leaves(params))
  assert count == (9 * 128 * (shape[2] + 256) + 3 * 256
                   + 1280 * features + 10)


@both_dtypes
@pytest.mark.parametrize('use_bias', [True, False])
@pytest.mark.parametrize('parameterisation', mlp.PARAMETERISATIONS)
def test_mlp_equals_numpy(dtype, use_bias, parameterisation, key):
  module = nets.MLP(3, (7, 5), parameterisation, w_std=1.5, b_std=0.3,
                    use_bias=use_bias)
  x = jnp.asarray(_random(4, 3, 2, 1, dtype=dtype))
  params = _params(module, x, key)
  out = np.asarray(x, 'float64').reshape(4, -1)
  for name in ('hidden_0', 'hidden_1', 'readout'):
    ntk = parameterisation == 'ntk'
    scale = 1.5 / np.sqrt(out.shape[1]) if ntk else 1
    out = out @ np.asarray(params[name]['kernel'], 'float64') * scale
    assert ('bias' in params[name]) == use_bias
    if use_bias:
      out = out + np.asarray(params[name]['bias']) * (0.3 if ntk else 1)
    out = np.maximum(out, 0) if name != 'readout' else out
  _close(jax.jit(module.apply)({'params': params}, x), out, dtype)


@pytest.mark.parametrize('parameterisation', mlp.PARAMETERISATIONS)
def test_mlp_starts_with_the_stated_deviations(parameterisation, key):
  module = nets.MLP(200, (400,), parameterisation, w_std=1.5, b_std=0.3)
  params = jax.jit(module.init)(key, jnp.zeros((1, 300)))['params']
  ntk = parameterisation == 'ntk'
  for name, fan_in in (('hidden_0', 300), ('readout', 400)):
    kernel, bias = params[name]['kernel'], params[name]['bias']
    for leaf, want in ((kernel, 1.0 if ntk else 1.5 / np.sqrt(fan_in)),
                       (bias, 1.0 if ntk else 0.3)):
      error = 4 / np.sqrt(2 * leaf.size)  # Four standard errors of a deviation.
      assert float(leaf.std()) == pytest.approx(want, rel=error)


def test_standard_mlp_starts_as_flax_does(key):
  class Reference(nn.Module):

    @nn.compact
    def __call__(self, x):
      x = nn.relu(nn.Dense(6, param_dtype=x.dtype, name='hidden_0')(x))
      return nn.Dense(3, param_dtype=x.dtype, name='readout')(x)

  x = jnp.asarray(_random(2, 5))
  ours = jax.jit(nets.MLP(3, (6,)).init)(key, x)
  theirs = jax.jit(Reference().init)(key, x)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_ntk_mlp_without_bias_deviation_has_no_biases(key):
  module = nets.MLP(3, (4,), 'ntk')
  params = jax.eval_shape(module.init, key, jnp.zeros((1, 5)))['params']
  assert all(set(layer) == {'kernel'} for layer in params.values())


def test_mlp_without_biases_is_homogeneous(key):
  module = nets.MLP(2, (8, 8), use_bias=False)
  x = jnp.asarray(_random(3, 4))
  params = {'params': _params(module, x, key)}
  apply = jax.jit(module.apply)
  np.testing.assert_allclose(
      apply(params, 2.5 * x), 2.5 * apply(params, x), rtol=1e-12)


def test_equal_networks_hash_alike_so_that_jit_caches():
  assert hash(nets.MLP(3, [4, 5])) == hash(nets.MLP(3, (4, 5)))
  assert nets.build('convnet3', 10) == nets.build('convnet3', 10)


@pytest.mark.parametrize('name', [
    'mlp', 'convnet1', 'convnet3', 'convnet3_batch', 'lenet', 'alexnet',
    'vgg11', 'vgg11_none', 'resnet18', 'resnet18_layer', 'resnet'])
def test_registered_networks_give_outputs_or_what_enters_the_readout(name, key):
  module = nets.build(name, 3)
  for shape in ((28, 28, 1), (32, 32, 3)):
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    out, whole = jax.eval_shape(module.init_with_output, key, x)
    assert out.shape == (2, 3)
    assert set(whole) == {'params'}
    rest = {k: v for k, v in whole['params'].items() if k != 'readout'}
    inner, trunk = jax.eval_shape(
        lambda k, x: module.init_with_output(k, x, features=True), key, x)
    assert inner.shape == (2, whole['params']['readout']['kernel'].shape[0])
    assert trunk['params'] == rest  # No readout, and all else as before.


@pytest.mark.parametrize('module', [
    nets.MLP(3, (6,)), nets.ConvNet(3, depth=1, width=4, norm='none')])
def test_features_enter_the_readout(module, key):
  x = jnp.asarray(_random(2, 4, 4, 1))
  params = _params(module, x, key)
  trunk = {k: v for k, v in params.items() if k != 'readout'}
  inner = jax.jit(lambda p: module.apply({'params': p}, x, features=True))(
      trunk)
  readout = params['readout']
  np.testing.assert_allclose(
      jax.jit(module.apply)({'params': params}, x),
      np.asarray(inner) @ readout['kernel'] + readout['bias'], rtol=1e-12)


def test_names_may_tell_depth_and_norm():
  assert nets.build('convnet5', 2).depth == 5
  assert nets.build('convnet3', 2) == nets.ConvNet(2)
  for norm in nets.NORMS:
    assert nets.build(f'convnet4_{norm}', 2) == nets.ConvNet(
        2, depth=4, norm=norm)
    assert nets.build(f'vgg11_{norm}', 2) == nets.VGG11(2, norm=norm)
  assert nets.build('convnet3_none', 2, depth=2, norm='batch') == nets.ConvNet(
      2, depth=2, norm='batch')  # Options win.


def test_build_takes_overrides():
  assert nets.build('convnet3', 2, width=32).width == 32
  assert nets.build('mlp', 2, widths=(7,)).widths == (7,)


@pytest.mark.errors
def test_bad_networks_are_refused(key):
  with pytest.raises(ValueError, match='one of .* resnet, .*; got .vit'):
    nets.build('vit', 10)
  for name in ('convnet', 'convnet-1', 'convnet3x', '', '_batch'):
    with pytest.raises(ValueError, match='`name` must be one of mlp, convnet3'):
      nets.check_name(name)
  with pytest.raises(ValueError, match='mlp, which has no norm; got mlp_batch'):
    nets.check_name('mlp_batch')
  for norm in ('', 'weight', 'batch_none'):
    with pytest.raises(ValueError, match=f"`norm of vgg11` .* got '{norm}'"):
      nets.check_name(f'vgg11_{norm}')
  with pytest.raises(ValueError, match='`option of mlp` .* widths; got .depth'):
    nets.build('mlp', 10, depth=3)
  with pytest.raises(ValueError, match='`num_outputs` .* at least 1, got 0'):
    nets.build('convnet3', 0)
  with pytest.raises(ValueError, match='`widths` .* at least 1, got 0'):
    nets.MLP(10, (4, 0))
  with pytest.raises(ValueError, match='`parameterisation` .* got .mup'):
    nets.MLP(10, parameterisation='mup')
  with pytest.raises(ValueError, match='`w_std` must be positive'):
    nets.MLP(10, w_std=0.0)
  with pytest.raises(ValueError, match='`norm` must be one of instance, group'):
    nets.ConvNet(10, norm='weight')
  with pytest.raises(ValueError, match="`pool` .* average, max; got 'sum'"):
    nets.ConvNet(10, pool='sum')
  with pytest.raises(ValueError, match='4 x 9 pixels.*depth 3.*at least 8'):
    nets.build('convnet3', 10).init(key, jnp.zeros((1, 4, 9, 1)))
  with pytest.raises(ValueError, match=r'`x` must have shape \(N, H, W, C\)'):
    nets.build('convnet3', 10).init(key, jnp.zeros((1, 64)))
  with pytest.raises(ValueError, match='`x` must be floating point, got int'):
    nets.build('mlp', 10).init(key, jnp.zeros((1, 64), int))


@pytest.mark.parametrize(('name', 'shape'), [
    ('mlp', (3, 5)), ('convnet3', (3, 8, 8, 1)),
    pytest.param('resnet', (3, 8, 8, 1), marks=pytest.mark.slow)])
def test_every_nonlinearity_can_be_exchanged(name, shape, key):
  sizes = {'widths': (6,)} if name == 'mlp' else {'width': 4}
  norm = {} if name == 'mlp' else {'norm': 'none'}
  plain = nets.build(name, 2, **sizes, **norm)
  linear = plain.clone(activation=lambda z: z)
  assert plain != linear
  assert hash(plain) == hash(nets.build(name, 2, **sizes, **norm))
  x, z = _random(*shape), _random(*shape, seed=1)
  params = {'params': _params(plain, jnp.asarray(x), key)}

  def gap(module):
    out = jax.jit(module.apply)(params, np.concatenate([x + z, 0 * x, x, z]))
    both, none, one, other = np.split(np.asarray(out), 4)
    return abs(both + none - one - other).max() / abs(both).max()

  assert gap(linear) < 1e-12 < 1e-3 < gap(plain)
