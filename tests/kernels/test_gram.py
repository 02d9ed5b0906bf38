"""Tiles, symmetry and devices must not show in the matrix."""
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import numerics, types
from dsr.kernels import architectures, gram
from tests.kernels import stacks


def _tile_bytes(side, itemsize=8):
  """The least budget whose tiles are `side` wide: six temporaries a tile."""
  return 6 * itemsize * side**2


def _whole(seed, *shape, dtype='float64'):
  """Small whole numbers: sums of their products are exact in any order."""
  x = np.random.default_rng(seed).integers(-4, 5, shape)
  return x.astype(dtype)


def _counting_kernel():
  """(k = (x . x' + 1)^2, the shapes of all calls so far)."""
  calls = []

  def square(a, b):
    flat = [np.asarray(x).reshape(len(x), -1) for x in (a, b)]
    return jnp.asarray((flat[0] @ flat[1].T + 1) ** 2)

  def cross(a, b):
    calls.append((len(a), len(b)))
    return square(a, b)

  def symmetric(a):
    calls.append((len(a),))
    return square(a, a)

  return types.KernelFn(
      cross, symmetric, lambda a: jnp.diag(square(a, a)), 'square'), calls


@pytest.mark.parametrize('side', [1, 3, 5, 1000])
def test_cross_equals_the_kernel(side):
  kernel, calls = _counting_kernel()
  x1, x2 = _whole(0, 5, 4), _whole(1, 7, 4)
  got = gram(kernel, x1, x2, tile_bytes=_tile_bytes(side))
  assert isinstance(got, jax.Array)
  # In tiles within the budget, the last ones less than a tile too many.
  tiles = -(-5 // side) * -(-7 // side)
  assert len(calls) == tiles
  assert sum(rows * cols for rows, cols in calls) < 35 + tiles * (5 + 7)
  assert max(map(max, calls)) <= side
  np.testing.assert_array_equal(got, (x1 @ x2.T + 1) ** 2)


@pytest.mark.parametrize('side', [1, 3, 1000])
def test_symmetric_equals_the_kernel_and_is_computed_once(side):
  kernel, calls = _counting_kernel()
  x = _whole(0, 7, 4)
  got = gram(kernel, x, tile_bytes=_tile_bytes(side))
  tiles = -(-7 // side)
  on, above = (sum(len(c) == n for c in calls) for n in (1, 2))
  assert (on, above) == (tiles, tiles * (tiles - 1) // 2)
  np.testing.assert_array_equal(got, (x @ x.T + 1) ** 2)


def test_tiles_have_few_shapes():
  """They have one size, so that one program is compiled for them all."""
  kernel, calls = _counting_kernel()
  gram(kernel, _whole(0, 11, 4), _whole(1, 13, 4), tile_bytes=_tile_bytes(3))
  assert len(calls) == 20
  assert set(calls) == {(3, 3)}


def test_on_accelerators_tiles_grow_with_the_memory(monkeypatch):
  monkeypatch.setattr(
      numerics, 'working_memory', lambda: 2 * _tile_bytes(3))
  kernel, calls = _counting_kernel()
  with numerics.pretend_accelerator():
    gram(kernel, _whole(0, 6, 4), _whole(1, 6, 4))
  assert calls == 4 * [(3, 3)]


def test_an_ntk_in_tiles():
  """On images, in float32; only rounding may differ, the diagonal not even."""
  kernel = architectures.fcn(1)
  x = stacks.normal(0, 6, 2, 2, 1, dtype='float32')
  got = gram(kernel, x, tile_bytes=_tile_bytes(3, 4))
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, kernel(x), rtol=0, atol=1e-6)
  np.testing.assert_array_equal(got, got.T)


DEVICES = '''
import sys
import jax
import jax.numpy as jnp
import numpy as np
from dsr.kernels import architectures, gram
from dsr.types import KernelFn

assert jax.device_count() == 8
square = lambda a, b: (jnp.matmul(a, b.T) + 1) ** 2
exact = KernelFn(square, lambda a: square(a, a), None, 'square')
fcn = architectures.fcn(1)
rng = np.random.default_rng(0)

def check(kernel, x1, x2, atol):
  want = np.asarray(kernel(x1, x2))
  one = gram(kernel, x1, x2, tile_bytes=150, devices=jax.devices()[:1])
  eight = gram(kernel, x1, x2, tile_bytes=150)
  assert one.devices() == {jax.devices()[0]}
  np.testing.assert_allclose(eight, one, rtol=0, atol=atol)
  np.testing.assert_allclose(eight, want, rtol=0, atol=atol)
  if x2 is None:
    np.testing.assert_array_equal(eight, eight.T)
  if len(x1) % 8 == 0:
    assert eight.sharding.spec == jax.sharding.PartitionSpec('rows', None)
    shards = eight.addressable_shards
    assert [s.data.shape for s in shards] == [(len(x1) // 8, want.shape[1])] * 8
    assert len({s.device for s in shards}) == 8
  else:
    assert eight.devices() == {jax.devices()[0]}

def whole(*shape):
  return rng.integers(-4, 5, shape).astype('float32')

if sys.argv[1] == 'square':  # Bit by bit: its sums are exact in any order.
  check(exact, whole(16, 4), None, 0)
  check(exact, whole(13, 4), whole(3, 4), 0)
  check(exact, whole(6, 4), None, 0)
else:  # To rounding: the shape of a tile decides how sums are ordered.
  x1, x2 = (rng.normal(size=(n, 4)).astype('float32') for n in (16, 9))
  check(fcn, x1, x2, 1e-6)
  check(fcn, x1, None, 1e-6)
print('done')
'''


def _run(code, *args, **flags):
  done = subprocess.run(
      [sys.executable, '-c', code, *args], capture_output=True, text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu', **flags})
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.parametrize(
    'kernel', ['square', pytest.param('fcn', marks=pytest.mark.slow)])
def test_one_and_eight_devices_agree(kernel):
  flags = '--xla_force_host_platform_device_count=8'
  out = _run(DEVICES, kernel, XLA_FLAGS=flags)
  assert out.split() == ['done']


PEAK = '''
import resource
import jax
import numpy as np
from dsr.kernels import architectures, gram

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

kernel = architectures.fcn(1)
x = np.random.default_rng(0).normal(size=(20_000, 8)).astype('float32')
gram(kernel, x[:4000]).block_until_ready()  # Compiles most that is needed.
before = peak()
k = gram(kernel, x).block_until_ready()
assert k.nbytes == 1_600_000_000
print((peak() - before) / k.nbytes)
'''


@pytest.mark.slow
def test_peak_memory_is_little_more_than_the_result():
  assert float(_run(PEAK)) < 1.3


@pytest.mark.errors
def test_bad_input_is_named():
  kernel = architectures.fcn(1)
  x = stacks.normal(0, 3, 4)
  with pytest.raises(ValueError, match='`tile_bytes` must be an integer of at'):
    gram(kernel, x, tile_bytes=0)
  with pytest.raises(ValueError, match=r'`x2` has examples of shape \(3,\)'):
    gram(kernel, x, x[:, :3])
  with pytest.raises(ValueError, match='`x2` has dtype float32, expected flo'):
    gram(kernel, x, x.astype('float32'))
  with pytest.raises(ValueError, match='`x1` must not be empty'):
    gram(kernel, x[:0])
  with pytest.raises(ValueError, match='`x1` must be floating point, got int'):
    gram(kernel, np.ones((3, 4), int))
