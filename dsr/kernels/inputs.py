r"""Half squared distances of input vectors, right to the last digit.

  gap(x, x') = |x - x'|^2 / (2 D)

A matrix product gives |x|^2 + |x'|^2 - 2 <x, x'>, whose rounding error is that
of the norms: no digit is left for a near-duplicate, and the NTK, which grows
like the distance itself, inherits its square root (3e-4 in float32). Pairs
closer than a threshold are therefore computed again from x - x'. They are few
(often none), so they are listed first; where they are not few the difference
form is used for all pairs, a row at a time.
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import numerics

# A pair is close if gap < _CLOSE * (|x|^2 + |x'|^2) / (2 D). The product form
# then errs by at most eps / (2 sqrt(_CLOSE)) in the angle: under 2e-6.
_CLOSE = {'float32': 1e-3, 'float64': 1e-6}


def mean_square(x: Float[Array, 'N D']) -> Float[Array, ' N']:
  """|x|^2 / D."""
  return jnp.mean(x**2, axis=-1)


def on_half_distance(
    fn: Callable, x1: Float[Array, 'N D'], x2: Float[Array, 'M D'] | None = None
):
  """fn(gap), with gap the (N, M) half squared distances of all pairs.

  `x2=None` means x1 and gives an exactly zero diagonal. `fn` is traced once
  for the case without close pairs, where it fuses with the product, and once
  for the case with some. Relative error of gap: near 1e-6 in float32 at any
  distance, in value as in gradient.
  """
  symmetric = x2 is None
  x2 = x1 if symmetric else x2
  square1, square2 = mean_square(x1), mean_square(x2)
  product = numerics.matmul(x1, x2.T)
  scale = 1 / x1.shape[1]
  threshold = _CLOSE[x1.dtype.name]

  def mean():
    return 0.5 * (square1[:, None] + square2[None, :])

  def excess(product):  # Negative for close pairs.
    slack = (1 - threshold) * mean() - scale * product
    return jnp.where(_eye(slack), 1, slack) if symmetric else slack

  def finish(gap):
    return fn(jnp.where(_eye(gap), 0, gap) if symmetric else gap)

  @jax.checkpoint
  def mended(product, x1, x2):
    gap, close = mean() - scale * product, excess(product) < 0
    few = jnp.sum(close, dtype=jnp.int32) <= sum(close.shape)
    return finish(jax.lax.cond(few, _mend_few, _mend_all, gap, close, x1, x2))

  def plain(product, x1, x2):
    del x1, x2
    return finish(mean() - scale * product)

  return jax.lax.cond(
      jnp.min(excess(product)) < 0, mended, plain, product, x1, x2)


def _eye(like):
  rows, cols = (jax.lax.broadcasted_iota(jnp.int32, like.shape, i)
                for i in (0, 1))
  return rows == cols


def _mend_few(gap, close, x1, x2):
  """Replaces up to N + M close entries."""
  rows, cols = jnp.nonzero(
      close, size=sum(gap.shape), fill_value=max(gap.shape))
  diff = x1.at[rows].get(mode='clip') - x2.at[cols].get(mode='clip')
  return gap.at[rows, cols].set(0.5 * mean_square(diff), mode='drop')


def _mend_all(gap, close, x1, x2):
  exact = jax.lax.map(
      jax.checkpoint(lambda row: 0.5 * mean_square(row[None, :] - x2)), x1)
  return jnp.where(close, exact, gap)
