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
import functools

import jax
from jax.custom_derivatives import SymbolicZero
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import numerics

# A pair is close if gap < _CLOSE * (|x|^2 + |x'|^2) / (2 D). The product form
# then errs by at most eps / (2 sqrt(_CLOSE)) in the angle: under 2e-6.
_CLOSE = {'float32': 1e-3, 'float64': 1e-6}


def mean_square(x: Float[Array, 'N D']) -> Float[Array, ' N']:
  """|x|^2 / D."""
  return jnp.mean(x**2, axis=-1)


def half_distance(
    x1: Float[Array, 'N D'], x2: Float[Array, 'M D'] | None = None
) -> Float[Array, 'N M']:
  """|x1 - x2|^2 / (2 D) for all pairs; `x2=None` means x1.

  Exactly zero on the diagonal of the symmetric case. Relative error near 1e-6
  in float32 at any distance, in value as in gradient.
  """
  symmetric = x2 is None
  x2 = x1 if symmetric else x2
  square1, square2 = mean_square(x1), mean_square(x2)
  gap = _plain(_product(x1, x2), square1, square2, x1.shape[1])
  limit = jax.lax.stop_gradient(_limit(gap, square1, square2, symmetric))
  gap = _mend(gap, limit, x1, x2)
  return jnp.where(_eye(gap), 0, gap) if symmetric else gap


def on_half_distance(
    fn: Callable, x1: Float[Array, 'N D'], x2: Float[Array, 'M D'] | None,
    *rest):
  """fn(half_distance(x1, x2), *rest), faster where nothing is differentiated.

  `fn` is traced into both branches of "are there close pairs?", so that in the
  common case, none, it fuses with what is left of the distance: the product is
  read twice and the distance never written. `fn` closes over no traced value.
  """
  return _fused(fn, x1, x2, rest)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _fused(fn, x1, x2, rest):
  symmetric = x2 is None
  right = x1 if symmetric else x2
  square1, square2 = mean_square(x1), mean_square(right)
  product = _product(x1, right)

  def plain(product):
    gap = _plain(product, square1, square2, x1.shape[1])
    return gap, _limit(gap, square1, square2, symmetric)

  def as_it_is(product, x1, right):
    del x1, right
    gap, _ = plain(product)
    return fn(jnp.where(_eye(gap), 0, gap) if symmetric else gap, *rest)

  def mended(product, x1, right):
    gap = _mend(*plain(product), x1, right)
    return fn(jnp.where(_eye(gap), 0, gap) if symmetric else gap, *rest)

  gap, limit = plain(product)
  return jax.lax.cond(
      jnp.min(gap - limit) < 0, mended, as_it_is, product, x1, right)


@functools.partial(_fused.defjvp, symbolic_zeros=True)
def _fused_jvp(fn, primals, tangents):
  """Goes through `half_distance`, with respect to what moves only."""
  leaves, tree = jax.tree.flatten(primals)
  slopes = jax.tree.leaves(tangents)
  moving = [i for i, t in enumerate(slopes) if not isinstance(t, SymbolicZero)]

  def split(*values):
    full = list(leaves)
    for i, value in zip(moving, values):
      full[i] = value
    x1, x2, rest = jax.tree.unflatten(tree, full)
    return fn(half_distance(x1, x2), *rest)

  return jax.jvp(split, [leaves[i] for i in moving],
                 [slopes[i] for i in moving])


def _product(x1, x2):
  return numerics.matmul(x1, x2.T)


def _plain(product, square1, square2, dim):
  return 0.5 * (square1[:, None] + square2[None, :]) - (1 / dim) * product


def _limit(gap, square1, square2, symmetric):
  """Below this gap a pair is close; below all gaps on the diagonal."""
  half = 0.5 * _CLOSE[gap.dtype.name]
  limit = half * square1[:, None] + half * square2[None, :]
  return jnp.where(_eye(gap), -jnp.inf, limit) if symmetric else limit


def _eye(like):
  rows, cols = (jax.lax.broadcasted_iota(jnp.int32, like.shape, i)
                for i in (0, 1))
  return rows == cols


@jax.custom_jvp
def _mend(gap, limit, x1, x2):
  """`gap` with the entries below `limit` computed again from x1 - x2."""
  return _where_close(gap, limit, gap, _pair_gap, x1, x2)


@functools.partial(_mend.defjvp, symbolic_zeros=True)
def _mend_jvp(primals, tangents):
  """<x1 - x2, dx1 - dx2> / D for close pairs, the tangent of `gap` for others.

  Written out, so that no branch has x1 or x2 among its residuals: they would
  be copied at each call.
  """
  gap, limit, x1, x2 = primals
  dgap, _, dx1, dx2 = tangents
  dgap, dx1, dx2 = (
      None if isinstance(d, SymbolicZero) else d for d in (dgap, dx1, dx2))
  out = _mend(gap, limit, x1, x2)
  base = jnp.zeros_like(gap) if dgap is None else dgap
  tangent = _where_close(gap, limit, base, _pair_slope, x1, x2, dx1, dx2)
  return out, tangent


def _pair_gap(a, b):
  return 0.5 * mean_square(a - b)


def _pair_slope(a, b, da, db):
  if da is None and db is None:
    return jnp.zeros(jnp.broadcast_shapes(a.shape, b.shape)[:-1], a.dtype)
  change = da if db is None else -db if da is None else da - db
  return jnp.mean((a - b) * change, axis=-1)


def _where_close(gap, limit, base, pair_fn, x1, x2, *more):
  """`base`, but pair_fn(x1_i, x2_j, ...) for the pairs with gap < limit.

  `more` are tangents of x1 and x2, or None. Up to N + M close pairs are
  listed; if there are more, all pairs are computed, a row at a time.
  """
  lefts, rights = (x1, *more[:1]), (x2, *more[1:])

  def call(left, right):
    return pair_fn(left[0], right[0], *left[1:], *right[1:])

  def few(base):
    rows, cols = jnp.nonzero(
        gap < limit, size=sum(gap.shape), fill_value=max(gap.shape))
    left = jax.tree.map(lambda a: a.at[rows].get(mode='clip'), lefts)
    right = jax.tree.map(lambda a: a.at[cols].get(mode='clip'), rights)
    unused = max(gap.shape) + jnp.arange(sum(gap.shape))  # All different.
    rows = jnp.where(rows < max(gap.shape), rows, unused)
    return base.at[rows, cols].set(
        call(left, right), mode='drop', unique_indices=True)

  @jax.checkpoint  # Else a derivative would keep all N x M x D differences.
  def row(left):
    return call(jax.tree.map(lambda a: a[None, :], left), rights)

  def many(base):
    every = jax.lax.map(row, lefts)
    return jnp.where(gap < limit, every, base)

  count = jnp.sum(gap < limit, dtype=jnp.int32)
  return jax.lax.cond(
      count == 0, lambda base: base,
      lambda base: jax.lax.cond(count <= sum(gap.shape), few, many, base),
      base)
