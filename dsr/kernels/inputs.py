r"""How far the angle between input vectors opens, to the last digit.

  gap(x, x') = r r' - <x, x'> / D = r r' (1 - cos theta),  r = |x| / sqrt D

A matrix product gives <x, x'>, whose rounding error is that of the norms: no
digit is left for a small angle, and the NTK, which grows like the angle
itself, inherits its square root (3e-4 in float32). Pairs closer than a
threshold are therefore computed again from differences: with u = x - x' r/r'

  gap = r'/r |u|^2 / (2 D),  (r - r') (r + r') = <x - x', x + x'> / D,

which sees neither the length nor the size of the inputs. Such pairs are few
(often none), so they are listed first; where they are not few the difference
form is used for all pairs, a row at a time.
"""
from collections.abc import Callable
import functools

import jax
from jax.custom_derivatives import SymbolicZero
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dsr import numerics

# A pair is close if gap < _CLOSE r r'. The product form then errs by at most
# eps / sqrt(2 _CLOSE) in the angle: under 2e-6.
_CLOSE = {'float32': 1e-3, 'float64': 1e-6}
_CACHE = 2**21  # Bytes of one block of rows on CPU.
_LISTED = 2**18  # Numbers in the differences of close pairs, for derivatives.
_FEW = 1024  # Of so few pairs all may be close.


def mean_square(x: Float[Array, '*N D']) -> Float[Array, '*N']:
  """|x|^2 / D."""
  return jnp.mean(x**2, axis=-1)


def angular_gap(
    x1: Float[Array, 'N D'], x2: Float[Array, 'M D'] | None = None
) -> Float[Array, 'N M']:
  """r r' - <x, x'> / D for all pairs; `x2=None` means x1.

  Exactly zero on the diagonal of the symmetric case, never negative. Relative
  error near 1e-6 in float32 at any angle; for derivatives see `_mend_jvp`.
  """
  symmetric = x2 is None
  x2 = x1 if symmetric else x2
  root1, root2 = _root(x1), _root(x2)
  gap = _plain(_product(x1, x2), root1, root2, x1.shape[1])
  diagonal = 0 if symmetric else None
  gap = _mend(gap, diagonal, (x1, root1), (x2, root2))
  return _zero_diagonal(gap, diagonal)


def on_angular_gap(
    fn: Callable, x1: Float[Array, 'N D'], x2: Float[Array, 'M D'] | None,
    rows: PyTree, cols: PyTree) -> Float[Array, 'N M']:
  """fn(angular_gap(x1, x2), rows, cols), faster if nothing is differentiated.

  `fn` is traced into both branches of "are there close pairs?", so that in the
  common case, none, it fuses with what is left of the gap: the product is read
  twice and the gap never written. On CPU this goes block by block of
  rows, so that the product is still in the cache when it is read.

  Args:
    fn: (gap (n, M), rows (n, ...), cols (M, ...)) -> (n, M), row by row; it
      closes over no traced value.
    x1: (N, D) inputs.
    x2: (M, D) inputs; None means x1.
    rows: pytree of (N, ...) arrays, handed to `fn` with the rows of gap.
    cols: pytree of (M, ...) arrays.
  """
  return _fused(fn, x1, x2, rows, cols)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _fused(fn, x1, x2, rows, cols):
  symmetric = x2 is None
  right = x1 if symmetric else x2
  root1, root2 = _root(x1), _root(right)

  def block(start, x1, root1, rows):
    product = _product(x1, right)
    diagonal = start if symmetric else None

    def plain(product):
      return _plain(product, root1, root2, x1.shape[1])

    def as_it_is(product):
      return fn(_zero_diagonal(plain(product), diagonal), rows, cols)

    def mended(product):
      gap = _mend(plain(product), diagonal, (x1, root1), (right, root2))
      return fn(_zero_diagonal(gap, diagonal), rows, cols)

    # gap - limit, in the fewest operations an entry.
    share = 1 - _CLOSE[x1.dtype.name]
    slack = _plain(product, share * root1, root2, x1.shape[1])
    if symmetric:
      slack = jnp.where(_eye(slack, start), 1, slack)
    return jax.lax.cond(jnp.min(slack) < 0, mended, as_it_is, product)

  size = _block_rows(x1.shape[0], right.shape[0] * x1.dtype.itemsize)
  if size == x1.shape[0]:
    return block(0, x1, root1, rows)
  blocks = jax.tree.map(
      lambda a: a.reshape(-1, size, *a.shape[1:]), (x1, root1, rows))
  starts = jnp.arange(0, x1.shape[0], size)
  out = jax.lax.map(lambda args: block(args[0], *args[1]), (starts, blocks))
  return out.reshape(x1.shape[0], -1)


@functools.partial(_fused.defjvp, symbolic_zeros=True)
def _fused_jvp(fn, primals, tangents):
  """Goes through `angular_gap`, with respect to what moves only."""
  leaves, tree = jax.tree.flatten(primals)
  slopes = jax.tree.leaves(tangents)
  moving = [i for i, t in enumerate(slopes) if not isinstance(t, SymbolicZero)]

  def split(*values):
    full = list(leaves)
    for i, value in zip(moving, values):
      full[i] = value
    x1, x2, rows, cols = jax.tree.unflatten(tree, full)
    return fn(angular_gap(x1, x2), rows, cols)

  return jax.jvp(split, [leaves[i] for i in moving],
                 [slopes[i] for i in moving])


def _block_rows(rows, row_bytes):
  """A divisor of `rows`, so many rows as fit the cache; all off the CPU."""
  if not numerics.on_cpu() or rows * row_bytes < 2 * _CACHE:
    return rows
  most = max(1, _CACHE // row_bytes)
  best = max(size for size in range(1, most + 1) if rows % size == 0)
  return best if 4 * best >= most else rows  # Thin blocks would be slower.


def _product(x1, x2):
  return numerics.matmul(x1, x2.T)


def _root(x):
  return numerics.safe_sqrt(mean_square(x))


def _plain(product, root1, root2, dim):
  return root1[:, None] * root2[None, :] - (1 / dim) * product


def _close(gap, diagonal, one, two):
  """Whether a pair is close; not on the diagonal. Made anew by each reader."""
  (_, root1), (_, root2) = one, two
  close = gap < (_CLOSE[gap.dtype.name] * root1)[:, None] * root2[None, :]
  return close if diagonal is None else close & ~_eye(gap, diagonal)


def _zero_diagonal(gap, diagonal):
  return gap if diagonal is None else jnp.where(_eye(gap, diagonal), 0, gap)


def _eye(like, start):
  """Where row start + i meets column i."""
  rows, cols = (jax.lax.broadcasted_iota(jnp.int32, like.shape, i)
                for i in (0, 1))
  return rows + start == cols


@jax.custom_jvp
def _mend(gap, diagonal, one, two):
  """`gap` with the entries of close pairs computed again from differences.

  Up to N + M close pairs are listed; if there are more, all pairs are computed
  again, a row at a time.
  """
  def few(gap):
    rows, cols = _listed(_close(gap, diagonal, one, two), sum(gap.shape))
    return _put(gap, rows, cols, _from_differences(
        _take(one, rows), _take(two, cols)))

  def many(gap):
    exact = jax.lax.map(lambda row: _from_differences(
        (row[0][None, :], row[1]), two), one)
    return jnp.where(_close(gap, diagonal, one, two), exact, gap)

  count = jnp.sum(_close(gap, diagonal, one, two), dtype=jnp.int32)
  return jax.lax.cond(
      count == 0, lambda gap: gap,
      lambda gap: jax.lax.cond(count <= sum(gap.shape), few, many, gap), gap)


@functools.partial(_mend.defjvp, symbolic_zeros=True)
def _mend_jvp(primals, tangents):
  """(<u, dx> r'/r - <u, dx'>) / D of close pairs, others as the product.

  No branch stands between the tangents: it would copy its residuals, which
  are as large as the inputs, at every call. So the list of close pairs has a
  fixed length, here as many as fit 2^18 numbers. Should there be more, the
  others keep the tangent of the product form, with its rounding error of
  eps / theta.
  """
  gap, diagonal, one, two = primals
  dgap, _, (dx1, _), (dx2, _) = jax.tree.map(
      lambda d: None if isinstance(d, SymbolicZero) else d, tangents)
  most = gap.size if gap.size <= _FEW else sum(gap.shape)
  size = min(most, max(64, _LISTED // one[0].shape[1]))
  close = _close(gap, diagonal, one, two)
  rows, cols = jax.lax.cond(
      jnp.any(close),
      lambda: _listed(_close(gap, diagonal, one, two), size),
      lambda: (max(gap.shape) + jnp.arange(size),) * 2)
  u, ratio = _apart(_take(one, rows), _take(two, cols))
  slope = jnp.zeros(size, gap.dtype)
  if dx1 is not None:
    slope += ratio * jnp.mean(u * _take(dx1, rows), axis=-1)
  if dx2 is not None:
    slope -= jnp.mean(u * _take(dx2, cols), axis=-1)
  base = jnp.zeros_like(gap) if dgap is None else dgap
  return _mend(*primals), _put(base, rows, cols, slope)


def _from_differences(one, two):
  """The gap of vectors and roots `one` with `two`, row by row."""
  u, ratio = _apart(one, two)
  size = _root(u)
  return (0.5 * ratio * size) * size  # In this order, lest it overflows.


def _apart(one, two):
  """u = x1 - x2 r1 / r2, from differences where that helps, and r2 / r1."""
  (x1, root1), (x2, root2) = one, two
  diff = x1 - x2
  alike = (root1 < 2 * root2) & (root2 < 2 * root1)
  longer = numerics.safe_divide(
      jnp.mean(diff * (x1 + x2), axis=-1), (root1 + root2) * root2)
  share = jnp.where(alike, longer, numerics.safe_divide(root1, root2))
  u = jnp.where(alike[..., None], diff, x1) - share[..., None] * x2
  return u, numerics.safe_divide(root2, root1)


def _listed(close, size):
  """(rows, cols) of the first `size` True entries, then indices outside."""
  outside = max(close.shape)
  rows, cols = jnp.nonzero(close, size=size, fill_value=outside)
  rows = jnp.where(rows < outside, rows, outside + jnp.arange(size))
  return rows, cols.astype(rows.dtype)


def _take(arrays, rows):
  return jax.tree.map(lambda a: a.at[rows].get(mode='clip'), arrays)


def _put(gap, rows, cols, values):
  return gap.at[rows, cols].set(values, mode='drop', unique_indices=True)
