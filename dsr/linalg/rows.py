"""Tall arrays of which each device has a block of rows: what needs the others.

For code inside of `shard_map`, where `axis` names the axis of its mesh; None is
all rows here. What is exchanged is a number, a row or a square of the width.
Axes: N rows, n of them here; R columns.
"""
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from dsr import numerics

Axis = str | None


def total(a: Float[Array, 'n ...'], axis: Axis) -> Float[Array, '...']:
  """The sum of all N rows."""
  return a.sum(0) if axis is None else lax.psum(a.sum(0), axis)


def totals(*arrays: Float[Array, 'n ...'], axis: Axis) -> list[Array]:
  """`total` of each, of one shape, in one exchange."""
  sums = [a.sum(0) for a in arrays]
  return sums if axis is None else list(lax.psum(jnp.stack(sums), axis))


def inner(
    a: Float[Array, 'n R'], b: Float[Array, 'n C'], axis: Axis
) -> Float[Array, 'R C']:
  """A^T B over all N rows."""
  product = numerics.matmul(a.T, b)
  return product if axis is None else lax.psum(product, axis)


def number(n: int, axis: Axis) -> int:
  """N, for n rows here."""
  return n if axis is None else n * lax.psum(1, axis)


def index(n: int, axis: Axis) -> Int[Array, 'n']:
  """Which of the N rows are here."""
  first = 0 if axis is None else n * lax.axis_index(axis)
  return first + jnp.arange(n)


def largest(a: Float[Array, 'n'], axis: Axis) -> Float[Array, '']:
  """The largest of all N entries."""
  return a.max() if axis is None else lax.pmax(a.max(), axis)


def argmax(a: Float[Array, 'n'], axis: Axis) -> Int[Array, '']:
  """Where it is, of N; the first place of several."""
  if axis is None:
    return jnp.argmax(a)
  tops, at = (lax.all_gather(one, axis) for one in (a.max(), jnp.argmax(a)))
  block = jnp.argmax(tops)
  return block * a.shape[0] + at[block]


def pick(
    a: Float[Array, 'n ...'], i: Int[Array, ''], axis: Axis
) -> Float[Array, '...']:
  """Row i of N, on every device."""
  if axis is None:
    return a[i]
  n = a.shape[0]
  at = i - n * lax.axis_index(axis)
  row = a[jnp.clip(at, 0, n - 1)]
  return lax.psum(jnp.where((at >= 0) & (at < n), row, 0), axis)


def qr(
    a: Float[Array, 'n R'], axis: Axis
) -> tuple[Float[Array, 'n R'], Float[Array, 'R R']]:
  """Q R = A, Q with orthonormal columns; of the R factors of the blocks.

  Ref: Demmel, Grigori, Hoemmen & Langou (2012), one level.
  """
  if axis is None:
    return jnp.linalg.qr(a)
  own, r = jnp.linalg.qr(a)
  q, r = jnp.linalg.qr(lax.all_gather(r, axis, tiled=True))
  block = lax.dynamic_slice_in_dim(
      q, own.shape[1] * lax.axis_index(axis), own.shape[1])
  return numerics.matmul(own, block), r


def svd(
    a: Float[Array, 'n R'], axis: Axis
) -> tuple[Float[Array, 'n R'], Float[Array, 'R']]:
  """Left singular vectors and values, descending."""
  if axis is None:
    left, values, _ = jnp.linalg.svd(a, full_matrices=False)
    return left, values
  q, r = qr(a, axis)
  left, values, _ = jnp.linalg.svd(r)
  return numerics.matmul(q, left), values


def normal(
    key: Key[Array, ''], shape: tuple[int, int], dtype, axis: Axis
) -> Float[Array, 'n R']:
  """Independent N(0, 1); with an axis, whatever its number of devices."""
  if axis is None:
    return jax.random.normal(key, shape, dtype)
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index(shape[0], axis))
  return jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(keys)
