"""The bridge: neural-tangents works, jax is left alone, solvers are served."""
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import types
from dsr.kernels import stax

X64 = pytest.mark.parametrize('x64', [False, True], ids=['float32', 'float64'])
RTOL = {False: 1e-4, True: 1e-10}


@pytest.fixture
def x64(request):
  with jax.enable_x64(request.param):
    yield request.param


def _fcn(nt):
  return nt.stax.serial(
      nt.stax.Dense(1, W_std=1.4, b_std=0.3), nt.stax.Relu(),
      nt.stax.Dense(1, W_std=1.1))


def _conv(nt):
  return nt.stax.serial(
      nt.stax.Conv(1, (3, 3), padding='SAME'), nt.stax.Relu(),
      nt.stax.AvgPool((2, 2), (2, 2)), nt.stax.Flatten(), nt.stax.Dense(1))


def _layer_norm(nt):
  return nt.stax.serial(
      nt.stax.Conv(1, (3, 3), padding='CIRCULAR'), nt.stax.LayerNorm((1, 2, 3)),
      nt.stax.Erf(), nt.stax.GlobalAvgPool(), nt.stax.Dense(1))


def _inputs(shape):
  rng = np.random.default_rng(0)
  return (jnp.asarray(rng.normal(size=(4, *shape)), float),
          jnp.asarray(rng.normal(size=(3, *shape)), float))


ARCHITECTURES = [(_fcn, (6,)), (_conv, (4, 4, 2)), (_layer_norm, (4, 4, 2))]
each_architecture = pytest.mark.parametrize(
    ('build', 'shape'), ARCHITECTURES, ids=['fcn', 'conv', 'layer_norm'])


def _run(code):
  return subprocess.run(
      [sys.executable, '-W', 'error', '-c', code], check=True,
      capture_output=True, text=True).stdout.split()


def test_load_leaves_jax_and_tensorflow_alone():
  before, after = _run('''
import sys
import jax.extend.core, jax.interpreters.ad, jax.core
from dsr.kernels import stax
modules = jax.core, jax.interpreters.ad, jax.extend.core
names = [sorted(vars(m)) for m in modules]
print('neural_tangents' in sys.modules)
nt = stax.load()
assert names == [sorted(vars(m)) for m in modules]
assert stax.load() is nt is sys.modules['neural_tangents']
assert not hasattr(nt, 'experimental')
print(sorted({'jax.util', 'neural_tangents.experimental', 'tensorflow',
              'tf2jax'} & set(sys.modules)))
''')
  assert before == 'False'
  assert after == '[]'


@pytest.mark.errors
def test_missing_package_says_how_to_get_it():
  message = ' '.join(_run('''
import sys
from dsr.kernels import stax
sys.modules['neural_tangents'] = None
try:
  stax.load()
except ImportError as e:
  print(e)
'''))
  assert "pip install -e '.[stax]'" in message


def _relu_ntk(x1, x2, w0, b0, w1):
  """NTK of Dense - ReLU - Dense in NumPy, by the arc-cosine formulas."""
  dim = x1.shape[1]
  dot = lambda a, b: w0**2 * a @ b.T / dim + b0**2
  norm = lambda a: np.sqrt(w0**2 * (a**2).sum(1) / dim + b0**2)
  k, s = dot(x1, x2), np.outer(norm(x1), norm(x2))
  angle = np.arccos(np.clip(k / s, -1, 1))
  nngp = s * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
  derivative = (np.pi - angle) / (2 * np.pi)
  return w1**2 * (nngp + k * derivative), w1**2 * nngp


@X64
def test_fcn_matches_the_closed_form(x64):
  x1, x2 = _inputs((6,))
  _, _, kernel_fn = _fcn(stax.load())
  want = _relu_ntk(*(np.asarray(x, np.float64) for x in (x1, x2)), 1.4, 0.3,
                   1.1)
  for get, expected in zip(('ntk', 'nngp'), want):
    kernel = stax.kernel(kernel_fn, get=get)
    assert isinstance(kernel, types.KernelFn)
    got = kernel(x1, x2)
    assert got.dtype == x1.dtype
    np.testing.assert_allclose(got, expected, rtol=RTOL[x64])


@X64
@each_architecture
def test_parts_agree_under_jit(build, shape, x64):
  x1, x2 = _inputs(shape)
  kernel = stax.kernel(build(stax.load())[2], name='nt')
  assert kernel.name == 'nt'
  cross, symmetric, diag = map(jax.jit, kernel[:3])
  k = symmetric(x1)
  assert k.shape == (4, 4)
  assert k.dtype == x1.dtype
  # Its values on the diagonal are good to a root of rounding only.
  rtol = 1e-6 if x64 else 1e-3
  np.testing.assert_allclose(diag(x1), jnp.diag(k), rtol=rtol)
  np.testing.assert_allclose(cross(x1, x1), k, rtol=rtol)
  assert cross(x1, x2).shape == (4, 3)


def test_diag_by_chunks(monkeypatch):
  x, _ = _inputs((6,))
  _, _, kernel_fn = _fcn(stax.load())
  want = [kernel_fn(a[None], None, 'ntk')[0, 0] for a in x]
  for images in (1, 3):  # Three in a chunk leave one over.
    monkeypatch.setattr(stax, '_CHUNK_SIZE', images)
    got = jax.jit(stax.kernel(kernel_fn).diag)(x)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
    ('build', 'shape'), ARCHITECTURES[:2], ids=['fcn', 'conv'])
def test_gradients_match_difference_quotients(build, shape):
  x1, x2 = _inputs(shape)
  kernel = stax.kernel(build(stax.load())[2])
  direction = jnp.asarray(np.random.default_rng(1).normal(size=x1.shape))
  # On the diagonal neural-tangents is flat only to a root of rounding.
  for f, step, rtol in [(lambda x: kernel(x, x2).sum(), 1e-5, 1e-7),
                        (lambda x: kernel.diag(x).sum(), 1e-4, 1e-4)]:
    f = jax.jit(f)
    slope = (f(x1 + step * direction) - f(x1 - step * direction)) / (2 * step)
    got = jnp.vdot(jax.grad(f)(x1), direction)
    np.testing.assert_allclose(got, slope, rtol=rtol)


def test_vmap():
  x1, x2 = _inputs((6,))
  kernel = stax.kernel(_fcn(stax.load())[2])
  stack = jnp.stack([x1, 2 * x1])
  got = jax.vmap(kernel.cross, (0, None))(stack, x2)
  np.testing.assert_allclose(got[1], kernel(2 * x1, x2), rtol=1e-12)


@pytest.mark.errors
def test_bad_input_is_named():
  x1, x2 = _inputs((6,))
  kernel_fn = _fcn(stax.load())[2]
  with pytest.raises(ValueError, match='`get` must be one of ntk, nngp'):
    stax.kernel(kernel_fn, get='both')
  kernel = stax.kernel(kernel_fn)
  with pytest.raises(ValueError, match=r'`x2` has examples of shape \(5,\)'):
    kernel(x1, x2[:, :5])
  with pytest.raises(ValueError, match='`x2` has dtype float32'):
    kernel(x1, x2.astype('float32'))


@pytest.mark.errors
@pytest.mark.parametrize('implementation', [0, 3])
def test_what_cannot_run_is_refused(implementation):
  nt = stax.load()
  with pytest.raises(ValueError, match='`implementation` must be JACOBI'):
    nt.empirical_ntk_fn(lambda params, x: x * params,
                        implementation=implementation)


def test_kernels_import_with_jax_and_numpy_alone():
  """And jaxtyping, with its printer, for the annotations of signatures."""
  needed, = _run('''
import sys
import jax.numpy, jaxtyping
before = {name.partition('.')[0] for name in sys.modules}

class Refuse:
  def find_spec(self, name, path=None, target=None):
    top = name.partition('.')[0]
    known = before | set(sys.stdlib_module_names) | {'dsr', 'wadler_lindig'}
    if top not in known:
      raise ImportError(name)

sys.meta_path.insert(0, Refuse())
from dsr import kernels
kernels.fcn(1), kernels.resnet(8), kernels.empirical.ntk, kernels.stax.kernel
kernels.fcn(1)(jax.numpy.ones((2, 3)))
print('flax' in sys.modules)
''')
  assert needed == 'False'
