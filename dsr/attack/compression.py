r"""Releases in fewer numbers or fewer bits: pruned, or in another format.

  pruned   theta_T with the smallest weights of each matrix at 0;
  rounded  theta_T with every number at the nearest one of float16 or bfloat16.

Both are done to ship a network rather than to protect its data, and both leave
theta_0 alone: it is what the attacker knew before, the public start of the
training. Owners may do both, `pruned` first; `release.with_noise` comes before.
"""
import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks
from dsr.attack.release import Released

DTYPES = ('float32', 'float16', 'bfloat16')


def pruned(released: Released, share: float) -> Released:
  """theta_T with the smallest weights of each matrix set to zero.

  Of a kernel with n weights, the round(share n) of the least magnitude become
  exactly 0; vectors, which are biases, stay as they are.

  Args:
    released: with parameters.
    share: in [0, 0.99].

  Raises:
    ValueError: no parameters were released, or `share` is out of range.
  """
  checks.within('share', share, 0, 0.99)
  _check(released)

  def prune(a):
    count = round(share * a.size)
    if a.ndim < 2 or not count:
      return a
    flat = np.array(a).reshape(-1)
    flat[np.argsort(np.abs(flat), kind='stable')[:count]] = 0
    return jnp.asarray(flat.reshape(a.shape))

  return released._replace(theta_T=jax.tree.map(prune, released.theta_T))


def rounded(released: Released, dtype: str) -> Released:
  """theta_T rounded to the nearest numbers of `dtype`, in its own dtype again.

  Mantissas have 11 bits in float16 and 8 in bfloat16, the leading one counted,
  so that a number changes by 2^-11 or 2^-8 of itself at most; float16 rounds
  numbers below 6e-5 to multiples of 6e-8.

  Args:
    released: with parameters.
    dtype: one of `DTYPES`.

  Raises:
    ValueError: no parameters were released, `dtype` is not known, or a number
      is beyond its range.
  """
  checks.one_of('dtype', dtype, DTYPES)
  _check(released)

  def cast(path, a):
    found = jnp.asarray(a).astype(dtype).astype(a.dtype)
    checks.finite(f'theta_T{jax.tree_util.keystr(path)}', found)
    return found

  return released._replace(
      theta_T=jax.tree_util.tree_map_with_path(cast, released.theta_T))


def _check(released):
  if released.theta_T is None:
    raise ValueError('`released` must hold `theta_T` to be compressed, got '
                     f'threat {released.threat!r}.')
