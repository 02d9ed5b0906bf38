"""LeNet, AlexNet, VGG-11, ResNet-18 and other ConvNets against NumPy."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.nets import layers


def _normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def _params(module, x):
  """Random parameters: biases and scales start as constants, and hide swaps."""
  shapes = jax.eval_shape(
      module.init, jax.random.key(0), jnp.asarray(x))['params']
  leaves, treedef = jax.tree.flatten(shapes)
  return treedef.unflatten(
      [_normal(*a.shape, seed=i) / 2 for i, a in enumerate(leaves)])


def _conv(p, suffix, x, padding=1):
  """Convolution by its definition, then the instance norm if there is one."""
  kernel, norm = p[f'conv_{suffix}']['kernel'], p.get(f'norm_{suffix}')
  size = kernel.shape[0]
  x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
  height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
  out = sum(x[:, i:i + height, j:j + width] @ kernel[i, j]
            for i in range(size) for j in range(size))
  return out + p[f'conv_{suffix}']['bias'] if norm is None else _norm(norm, out)


def _norm(p, x):
  x = x - x.mean((1, 2), keepdims=True)
  x = x / np.sqrt((x**2).mean((1, 2), keepdims=True) + 1e-5)
  return x * p['scale'] + p['bias']


def _pool(x, reduce):
  out = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]))
  for i in range(out.shape[1]):
    for j in range(out.shape[2]):
      out[:, i, j] = reduce(x[:, 2 * i:2 * i + 2, 2 * j:2 * j + 2], (1, 2))
  return out


def _relu(x):
  return np.maximum(x, 0)


def _flat(x):
  return x.reshape(len(x), -1)


def _lenet(p, x):
  padding = 2 if x.shape[1] < 32 else 0
  x = _pool(_relu(_conv(p, 0, x, padding)), np.max)
  x = _flat(_pool(_relu(_conv(p, 1, x, 0)), np.max))
  for name in ('hidden_0', 'hidden_1'):
    x = _relu(x @ p[name]['kernel'] + p[name]['bias'])
  return x


def _alexnet(p, x):
  if x.shape[1] == 28:
    x = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
  x = _pool(_relu(_conv(p, 0, x, 2)), np.max)
  x = _pool(_relu(_conv(p, 1, x, 2)), np.max)
  for i in (2, 3, 4):
    x = _relu(_conv(p, i, x))
  return _flat(_pool(x, np.max))


def _vgg11(p, x):
  if x.shape[1] == 28:
    x = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
  for names in (['0_0'], ['1_0'], ['2_0', '2_1'], ['3_0', '3_1'],
                ['4_0', '4_1']):
    for name in names:
      x = _relu(_conv(p, name, x))
    x = _pool(x, np.max)
  return _flat(x)


def _resnet18(p, x):
  x = _relu(_conv(p, 'in', x))
  for stage in range(4):
    for i in range(2):
      b = p[f'stage_{stage}_block_{i}']
      h, skip = _relu(_conv(b, '1', x)), x
      if stage and not i:
        h = _pool(h, np.mean)
        skip = _norm(b['norm_shortcut'],
                     _pool(x @ b['shortcut']['kernel'], np.mean))
      x = _relu(skip + _conv(b, '2', h))
  return _flat(x)


def _max_convnet(p, x):
  for i in range(2):
    x = _pool(_relu(_conv(p, i, x)), np.max)
  return _flat(x)


def _frepo_convnet(p, x):
  if x.shape[-1] == 1:
    x = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
  for i in range(2):
    x = _norm(p[f'norm_{i}'], x) if i else x
    conv = {'conv_0': p[f'conv_{i}']}  # The norm is in front.
    x = _pool(_relu(_conv(conv, 0, x)), np.mean)
  return _flat(x)


@pytest.mark.parametrize(('module', 'oracle', 'shape'), [
    (nets.LeNet(3, (2, 3), (5, 4)), _lenet, (28, 28, 1)),
    (nets.LeNet(3, (2, 3), (5, 4)), _lenet, (32, 32, 3)),
    (nets.AlexNet(3, width=1), _alexnet, (28, 28, 1)),
    (nets.VGG11(3, width=1), _vgg11, (28, 28, 1)),
    pytest.param(nets.ResNet18(3, width=1), _resnet18, (20, 16, 3),
                 marks=pytest.mark.slow),
    (nets.ConvNet(3, depth=2, width=2, pool='max'), _max_convnet, (9, 8, 1)),
    (nets.FRePoConvNet(3, depth=2, width=2, norm='instance'), _frepo_convnet,
     (9, 8, 1)),
], ids=['lenet28', 'lenet32', 'alexnet', 'vgg11', 'resnet18', 'convnet',
        'frepo_convnet'])
def test_equals_numpy_with_features_in_front_of_the_readout(
    module, oracle, shape):
  x = _normal(2, *shape)
  params = _params(module, x)
  got, inner = jax.jit(lambda p, x: (
      module.apply({'params': p}, x),
      module.apply({'params': p}, x, features=True)))(params, x)
  want = oracle(params, x)
  np.testing.assert_allclose(inner, want, rtol=1e-8, atol=1e-10)
  want = want @ params['readout']['kernel'] + params['readout']['bias']
  np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def _size_lenet(c, features):
  return (25 * c * 6 + 6 + 25 * 6 * 16 + 16 + 400 * 120 + 120 + 120 * 84 + 84,
          84)


def _size_alexnet(c, features):
  return (25 * (c * 128 + 128 * 192) + 9 * (192 * 256 + 256 * 192 + 192 * 192)
          + 128 + 192 + 256 + 192 + 192, 16 * 192)


def _size_vgg11(c, features):
  widths = [c, 64, 128, 256, 256, 512, 512, 512, 512]
  return (sum(9 * a * b + 2 * b for a, b in zip(widths, widths[1:])), 512)


def _size_resnet18(c, features):
  total, before = 9 * c * 64 + 2 * 64, 64
  for width in (64, 128, 256, 512):
    total += 9 * before * width + 3 * 9 * width**2 + 4 * 2 * width
    total += 0 if before == width else before * width + 2 * width
    before = width
  return total, 512 * features


@pytest.mark.parametrize(('name', 'size'), [
    ('lenet', _size_lenet), ('alexnet', _size_alexnet), ('vgg11', _size_vgg11),
    ('resnet18', _size_resnet18)])
@pytest.mark.parametrize(
    ('shape', 'last'), [((28, 28, 1), 9), ((32, 32, 3), 16)])
def test_published_sizes(name, size, shape, last, key):
  x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  params = jax.eval_shape(nets.build(name, 10).init, key, x)['params']
  trunk, features = size(shape[-1], last)
  count = sum(a.size for a in jax.tree.leaves(params))
  assert count == trunk + 10 * features + 10
  assert {a.dtype.name for a in jax.tree.leaves(params)} == {'float32'}


@pytest.mark.parametrize(('height', 'width'), [(4, 6), (5, 7), (3, 2)])
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_pools_equal_numpy_and_drop_odd_edges(dtype, height, width):
  x = _normal(2, height, width, 3).astype(dtype)
  for kind, reduce in (('average', np.mean), ('max', np.max)):
    got = layers.pool2x2(jnp.asarray(x), kind)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, _pool(x, reduce), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('shape', 'multiple', 'rows', 'columns'), [
    ((28, 28), 32, (2, 2), (2, 2)), ((7, 16), 8, (0, 1), (0, 0)),
    ((32, 8), 8, (0, 0), (0, 0))])
def test_zeros_are_put_around(shape, multiple, rows, columns):
  x = _normal(2, *shape, 3)
  want = np.pad(x, [(0, 0), rows, columns, (0, 0)])
  got = layers.pad_to_multiple(jnp.asarray(x), multiple)
  np.testing.assert_array_equal(got, want)


@pytest.mark.errors
@pytest.mark.parametrize(('module', 'side', 'message'), [
    (nets.LeNet(1), 11, '11 x 11 pixels, LeNet needs at least 12 a side'),
    (nets.AlexNet(1), 3, 'AlexNet needs at least 4 a side'),
    (nets.VGG11(1), 8, 'VGG-11 needs at least 16 a side'),
    (nets.ResNet18(1), 8, "'instance' needs at least 16 a side"),
    (nets.ResNet18(1, norm='batch'), 7, "'batch' needs at least 8 a side")])
def test_small_images_are_refused(module, side, message, key):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(module.init, key, jnp.zeros((1, side, side, 1)))
  out = jax.eval_shape(
      module.init_with_output, key, jnp.zeros((1, 16, 16, 1)))[0]
  assert out.shape == (1, 1)


@pytest.mark.errors
def test_bad_sizes_are_refused():
  for build in (nets.AlexNet, nets.VGG11, nets.ResNet18):
    with pytest.raises(ValueError, match='`num_outputs` .* at least 1, got 0'):
      build(0)
    with pytest.raises(ValueError, match='`width` .* at least 1, got 0'):
      build(1, width=0)
  with pytest.raises(ValueError, match='`channels` .* at least 1, got 0'):
    nets.LeNet(1, channels=(6, 0))
  with pytest.raises(ValueError, match='`widths` .* at least 1, got 0'):
    nets.LeNet(1, widths=(0, 84))
  for build in (nets.VGG11, nets.ResNet18):
    with pytest.raises(ValueError, match='`norm` must be one of instance, gr'):
      build(1, norm='weight')
