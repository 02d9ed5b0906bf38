"""Releases in fewer numbers and bits, against NumPy."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import compression, release

_PUBLIC = dict(num_train=3, input_shape=(4, 4, 1), num_outputs=1, low=-0.2,
               high=0.8)


def _released(dtype='float32', factor=1.0):
  module = nets.MLP(1, widths=(5,), b_std=0.3)
  before, after = (module.init(key, jnp.zeros((1, 4, 4, 1), dtype))['params']
                   for key in jax.random.split(jax.random.key(0)))
  after = jax.tree.map(lambda a: factor * a + 0.01, after)
  return release.parameters(module, before, after, **_PUBLIC)


def test_pruning_takes_the_smallest_of_each_matrix():
  whole = _released()
  found = compression.pruned(whole, 0.3)
  for name, count in (('hidden_0', 24), ('readout', 2)):  # Of 80, and of 5.
    old, new = whole.theta_T[name], found.theta_T[name]
    gone = np.asarray(new['kernel'] == 0)
    assert gone.sum() == count
    sizes = np.abs(np.asarray(old['kernel']))
    assert sizes[gone].max() < sizes[~gone].min()
    np.testing.assert_array_equal(new['kernel'][~gone], old['kernel'][~gone])
    np.testing.assert_array_equal(new['bias'], old['bias'])
  assert found.theta_0 is whole.theta_0
  none = compression.pruned(whole, 0.0)
  assert jax.tree.all(jax.tree.map(
      jnp.array_equal, none.theta_T, whole.theta_T))


@pytest.mark.parametrize(('dtype', 'bits'), [('float16', 11), ('bfloat16', 8)])
def test_rounding_keeps_the_leading_bits(dtype, bits):
  whole = _released('float64')
  found = compression.rounded(whole, dtype)
  for old, new in zip(*map(jax.tree.leaves, (whole.theta_T, found.theta_T))):
    assert new.dtype == 'float64'
    mantissa, exponent = np.frexp(np.asarray(old))
    want = np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent)
    np.testing.assert_array_equal(new, want)
  assert found.theta_0 is whole.theta_0


@pytest.mark.errors
def test_what_cannot_be_compressed_is_refused():
  whole = _released()
  for share in (-0.1, 1.0):
    with pytest.raises(ValueError, match=r'`share` must be in \[0, 0.99\]'):
      compression.pruned(whole, share)
  with pytest.raises(ValueError, match='`dtype` must be one of'):
    compression.rounded(whole, 'int8')
  with pytest.raises(ValueError, match=r"`theta_T\['hidden_0'\].* be finite"):
    compression.rounded(_released(factor=1e6), 'float16')
  for change in (lambda r: compression.pruned(r, 0.1),
                 lambda r: compression.rounded(r, 'float16')):
    with pytest.raises(ValueError, match='`released` must hold `theta_T`'):
      change(whole._replace(theta_T=None))
