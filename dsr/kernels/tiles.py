"""The kernel of all pairs from tiles of examples, for `empirical`.

Inputs are pytrees of arrays (N, ...); a tile of them fits the memory that its
`jacobians.Method` was planned for. Axes: N, M examples.
"""
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dsr import checks


def num_rows(x) -> int:
  """N, of the first array."""
  return jax.tree.leaves(x)[0].shape[0]


def cross(method, x1, x2):
  """The kernel of all pairs, one pair of tiles after the other."""
  tiles1, tiles2 = (split(x, method.tile) for x in (x1, x2))
  grid = num_rows(tiles1), num_rows(tiles2)
  i, j = np.divmod(np.arange(math.prod(grid)), grid[1])
  blocks = _blocks(method, tiles1, tiles2, i, j)
  return _assemble(blocks.reshape(*grid, *blocks.shape[1:]), x1, x2)


def symmetric(method, x):
  """As `cross`, from the upper triangle of tiles, and exactly symmetric."""
  transpose = lambda k: jnp.transpose(k, method.outputs.swapped())
  tiles = split(x, method.tile)
  num = num_rows(tiles)
  i, j = np.triu_indices(num)
  if num == 1:
    features = method.features(x)
    blocks = method.contract(features, features)[None]
  else:
    blocks = _blocks(method, tiles, tiles, i, j)
  grid = jnp.zeros((num, num, *blocks.shape[1:]), blocks.dtype)
  grid = grid.at[j, i].set(jax.vmap(transpose)(blocks)).at[i, j].set(blocks)
  k = _assemble(grid, x, x)
  return (k + transpose(k)) / 2


def diag(method, x):
  """k(x_i, x_i), an example at a time within each tile."""
  def one(example):
    features = method.features(jax.tree.map(lambda a: a[None], example))
    return method.contract(features, features)[0, 0]
  return lax.map(one, x, batch_size=min(method.tile, num_rows(x)))


def split(x, size):
  """(N, ...) -> (tiles, size, ...), the last row repeated to fill up."""
  n = num_rows(x)
  size = min(size, n)

  def tiled(a):
    a = jnp.pad(a, [(0, -n % size)] + [(0, 0)] * (a.ndim - 1), mode='edge')
    return a.reshape(-1, size, *a.shape[1:])

  return jax.tree.map(tiled, x)


def _blocks(method, tiles1, tiles2, i, j):
  pick = lambda tiles, i: jax.tree.map(lambda a: a[i], tiles)
  # Checkpointed: a gradient keeps the tiles of inputs, not their features.
  block = jax.checkpoint(lambda ij: method.contract(
      method.features(pick(tiles1, ij[0])),
      method.features(pick(tiles2, ij[1]))))
  return lax.map(block, (jnp.asarray(i), jnp.asarray(j)))


def _assemble(grid, x1, x2):
  """Blocks (tiles, tiles, n, m, ...) -> (N, M, ...), without the filling."""
  k = jnp.swapaxes(grid, 1, 2)
  k = k.reshape(k.shape[0] * k.shape[1], -1, *k.shape[4:])
  return k[:num_rows(x1), :num_rows(x2)]


def check(name, x, *, like=None):
  """`x` is an array (N, ...), or a pytree of such, shaped as `like`.

  Raises:
    ValueError: it is not.
  """
  rows = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(x):
    label = name + jax.tree_util.keystr(path)
    shape = getattr(leaf, 'shape', None)
    if not shape or not leaf.size:
      got = type(leaf).__name__ if shape is None else f'shape {tuple(shape)}'
      raise ValueError(
          f'`{label}` must be a non-empty array (N, ...), got {got}.')
    rows[label] = leaf
  if not rows:
    raise ValueError(f'`{name}` must hold an array (N, ...), got none.')
  checks.same_rows(**rows)
  if like is None:
    return
  if jax.tree.structure(x) != jax.tree.structure(like):
    raise ValueError(
        f'`{name}` must be the pytree {jax.tree.structure(like)}, got '
        f'{jax.tree.structure(x)}.')
  for (label, leaf), other in zip(rows.items(), jax.tree.leaves(like)):
    if leaf.shape[1:] != other.shape[1:]:
      raise ValueError(
          f'`{label}` has examples of shape {tuple(leaf.shape[1:])}, expected '
          f'{tuple(other.shape[1:])}.')
    if leaf.dtype != other.dtype:
      raise ValueError(
          f'`{label}` has dtype {leaf.dtype}, expected {other.dtype}.')
