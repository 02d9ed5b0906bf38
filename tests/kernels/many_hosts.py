"""What `test_many_hosts.py` runs in several processes."""
import jax
import numpy as np
import pytest

from dsr import hosts, kernels
from dsr.types import KernelFn


def whole(*shape):
  return np.random.default_rng(0).integers(-4, 5, shape).astype('float32')


def square(a, b):
  return (jax.numpy.matmul(a, b.T) + 1) ** 2


EXACT = KernelFn(square, lambda a: square(a, a), None, 'square')


def check(kernel_fn, x1, x2, tile_bytes):
  one = kernels.gram(kernel_fn, x1, x2, tile_bytes=tile_bytes,
                     devices=jax.local_devices()[:1])
  found = kernels.gram(kernel_fn, x1, x2, tile_bytes=tile_bytes)
  assert found.shape == one.shape
  num = jax.device_count()
  assert len(found.sharding.device_set) == num
  for shard in found.addressable_shards:
    assert shard.data.shape == (len(x1) // num, one.shape[1])
    np.testing.assert_array_equal(shard.data, np.asarray(one)[shard.index])
  np.testing.assert_array_equal(hosts.gathered(found), one)


def gram(kernel):
  num = jax.device_count()
  if kernel == 'fcn1':
    # Sums of rounded numbers: in tiles that are those of one device.
    x = np.random.default_rng(1).normal(size=(32, 16)).astype('float32')
    check(kernels.fcn(1), x, None, 6 * 4 * (32 // num) ** 2)
    return
  for rows in (2 * num, 7 * num):  # One tile of a part, or three that overlap.
    check(EXACT, whole(rows, 4), None, 6 * 4 * 9)
  check(EXACT, whole(4 * num, 4), whole(5, 4), 6 * 4 * 9)
  with pytest.raises(ValueError, match=f'got {num + 1}: {num} would do'):
    kernels.gram(EXACT, whole(num + 1, 4))
