r"""Neural tangent kernel of a finite network, at given parameters.

  \Theta(x, x')_{cd} = < df_c(x)/d\theta, df_d(x')/d\theta >,  (N, M, C, C);
  ntk: its mean diagonal (1/C) \sum_c \Theta(x, x')_{cc},      (N, M).

The mean (not the sum) over outputs is that of neural-tangents' `trace_axes`,
and the one that tends to the analytic kernel as the network gets wide.

Three methods, equal up to rounding. With P parameters, C outputs and F
operations in a forward pass, a pair of examples costs about
  jacobian    2 P C^k           contracts the two Jacobians, leaf by leaf;
  structured  2 (I + O C^k)     for a weight (I, O) that meets one vector, once:
                                its Jacobian is input a times cotangent d, so
                                \Theta = (a a') (d d'), without expanding it;
                                other leaves as `jacobian`;
  ntvp        2 C F             a vjp for each output on the right, then a jvp;
k is 1 for the mean and 2 for the full kernel. 'auto' takes the least, known
from shapes alone. Shared weights (convolutions) make F much larger than P,
which favours `jacobian`; a full kernel of many outputs favours `ntvp`.
Refs: arXiv:1806.07572 (NTK), 2206.08720 (the methods).
"""
from collections.abc import Callable
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
import numpy as np

from dsr import checks, numerics
from dsr.kernels import graphs
from dsr.types import KernelFn

METHODS = ('auto', 'jacobian', 'structured', 'ntvp')
_TILE_BYTES = 2**28  # What a method may hold of one tile of examples.
_MAX_TILE = 256


def ntk(
    apply_fn: Callable, params: PyTree, *, method: str = 'auto',
    batch_size: int | None = None, name: str = 'empirical_ntk',
) -> KernelFn:
  r"""Empirical NTK, averaged over outputs: (1/C) \sum_c \Theta_{cc}.

  For a Flax module: `ntk(module.apply, variables)`. The kernel is safe under
  `jit`, `vmap` and `grad` with respect to inputs. The memory of a call and of
  its gradient is that of two tiles of examples, besides the result.

  Args:
    apply_fn: (params, x (N, ...)) -> outputs (N, C). It is evaluated on one
      example at a time, so rows must not depend on each other: batch norm has
      to use its running statistics.
    params: pytree of floating arrays, all of them differentiated; close over
      what is not to be.
    method: one of `METHODS`.
    batch_size: examples in a tile; by default as many, up to 256, as keep
      what is stored of one tile within 256 MiB.
    name: how records and messages call the kernel.

  Raises:
    ValueError: unknown `method`, `batch_size` below 1, a parameter that is not
      floating; when called, bad inputs, or outputs that are not (N, C).
  """
  _check(params, method, batch_size)
  plan = lambda params, x: _plan(
      apply_fn, params, x, method=method, batch_size=batch_size, mean=True)

  # Jitted here, as each call would otherwise compile its loops anew; `params`
  # is an argument, as constants would be folded and compiled in.
  cross = _jit(lambda params, x1, x2: _cross(plan(params, x1), x1, x2))
  symmetric = _jit(lambda params, x: _symmetric(plan(params, x), x))
  diag = _jit(lambda params, x: _diag(plan(params, x), x))

  def cross_fn(
      x1: Float[Array, 'N ...'], x2: Float[Array, 'M ...']
  ) -> Float[Array, 'N M']:
    checks.inputs('x1', x1)
    checks.inputs('x2', x2, like=x1)
    return cross(params, x1, x2)

  def symmetric_fn(x: Float[Array, 'N ...']) -> Float[Array, 'N N']:
    checks.inputs('x', x)
    return symmetric(params, x)

  def diag_fn(x: Float[Array, 'N ...']) -> Float[Array, 'N']:
    checks.inputs('x', x)
    return diag(params, x)

  return KernelFn(cross_fn, symmetric_fn, diag_fn, name)


def full(
    apply_fn: Callable, params: PyTree, *, method: str = 'auto',
    batch_size: int | None = None,
) -> Callable:
  r"""Empirical NTK between all outputs: \Theta(x, x')_{cd}.

  Arguments and errors are those of `ntk`.

  Returns:
    (x1 (N, ...), x2 (M, ...) = x1) -> (N, M, C, C), axis 2 of x1's outputs.
  """
  _check(params, method, batch_size)
  plan = lambda params, x: _plan(
      apply_fn, params, x, method=method, batch_size=batch_size, mean=False)
  cross = _jit(lambda params, x1, x2: _cross(plan(params, x1), x1, x2))
  symmetric = _jit(lambda params, x: _symmetric(plan(params, x), x))

  def kernel(
      x1: Float[Array, 'N ...'], x2: Float[Array, 'M ...'] | None = None
  ) -> Float[Array, 'N M C C']:
    checks.inputs('x1', x1)
    if x2 is None:
      return symmetric(params, x1)
    checks.inputs('x2', x2, like=x1)
    return cross(params, x1, x2)

  return kernel


def _jit(fn):
  """Compiled, and at full precision whatever the network's layers say."""
  return jax.jit(numerics.exact(fn))


class _Method(NamedTuple):
  """How the kernel of two tiles of examples is had."""

  features: Callable  # x (n, ...) -> what is stored of a tile.
  contract: Callable  # Features of n, of m examples -> (n, m) or (n, m, C, C)
  tile: int  # Examples that may be handled at once.


def _check(params, method, batch_size):
  checks.one_of('method', method, METHODS)
  if batch_size is not None:
    checks.at_least('batch_size', batch_size, 1)
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
      raise ValueError(
          f'`params{jax.tree_util.keystr(path)}` must be floating point, '
          f'got {jnp.result_type(leaf)}.')


def _plan(apply_fn, params, x, *, method, batch_size, mean) -> _Method:
  """Chooses the method, and the tile that its memory allows."""
  leaves, tree = jax.tree.flatten(params)
  forward = lambda leaves, x: apply_fn(tree.unflatten(leaves), x[None])
  graph, out = jax.make_jaxpr(forward, return_shape=True)(leaves, x[0])
  shape = getattr(out, 'shape', None)
  if shape is None or len(shape) != 2 or shape[0] != 1:
    raise ValueError(
        f'`apply_fn` must map x (1, ...) to outputs (1, C), got {out}.')
  num_outputs = shape[1]
  flops, activations = graphs.cost(graph.jaxpr)
  dense = graphs.dense_leaves(graph, leaves, x[0])

  total = sum(leaf.size for leaf in leaves)
  plain = total - sum(leaves[i].size for i in dense)
  rows, columns = (sum(leaves[i].shape[a] for i in dense) for a in (0, 1))
  blocks = num_outputs if mean else num_outputs**2
  if method == 'auto':
    cost = {'jacobian': 2 * total * blocks,
            'structured': 2 * (rows + (plain + columns) * blocks),
            'ntvp': 2 * num_outputs * flops}
    method = min(cost, key=cost.get)
  stored = {'jacobian': total, 'structured': plain + columns, 'ntvp': 0}
  if batch_size is None:
    floats = num_outputs * (stored[method] + activations) + rows
    batch_size = _TILE_BYTES // (floats * out.dtype.itemsize)
    batch_size = min(max(batch_size, 1), _MAX_TILE)
  if method == 'ntvp':
    return _ntvp(forward, leaves, num_outputs, batch_size, mean)
  dense = dense if method == 'structured' else ()
  return _jacobian(forward, graph, leaves, dense, batch_size, mean)


def _jacobian(forward, graph, leaves, dense, tile, mean) -> _Method:
  """Contraction of Jacobians; those of `dense` leaves stay outer products."""
  varied = {i: a for i, a in enumerate(leaves) if i not in dense}
  taps = {i: jnp.zeros(leaves[i].shape[1:], leaves[i].dtype) for i in dense}

  def one(x):
    def outputs(varied, taps):
      merged = [varied.get(i, a) for i, a in enumerate(leaves)]
      if not dense:
        return forward(merged, x)[0], {}
      out, rows, _ = graphs.evaluate(graph, merged, x, taps)
      return out[0], {i: rows[i] for i in dense}
    jacobians, rows = jax.jacrev(outputs, (0, 1), has_aux=True)(varied, taps)
    return *jacobians, rows

  def contract(left, right):
    (plain1, deltas1, rows1), (plain2, deltas2, rows2) = left, right
    terms = [_dot(plain1[i], plain2[i], mean) for i in plain1]
    for i in dense:
      scale = jnp.matmul(rows1[i], rows2[i].T, precision='highest')
      scale = scale if mean else scale[..., None, None]
      terms.append(scale * _dot(deltas1[i], deltas2[i], mean))
    return sum(terms)

  return _Method(jax.vmap(one), contract, tile)


def _dot(a, b, mean):
  """<a, b> over parameters, of (n, C, ...) and (m, C, ...)."""
  a, b = (j.reshape(*j.shape[:2], -1) for j in (a, b))
  if mean:
    return jnp.einsum('ncp,mcp->nm', a, b, precision='highest') / a.shape[1]
  return jnp.einsum('ncp,mdp->nmcd', a, b, precision='highest')


def _ntvp(forward, leaves, num_outputs, tile, mean) -> _Method:
  """Columns of the kernel as J_1 (J_2' e_d), for each example and output d."""

  def contract(x1, x2):
    outputs = lambda p: jax.vmap(forward, (None, 0))(p, x1)[:, 0]
    out, jvp = jax.linearize(outputs, leaves)

    def column(x):
      _, vjp = jax.vjp(lambda p: forward(p, x)[0], leaves)
      grads, = jax.vmap(vjp)(jnp.eye(num_outputs, dtype=out.dtype))
      tangents = jax.vmap(jvp)(grads)  # (d, n, c)
      if mean:
        return jnp.einsum('dnd->n', tangents) / num_outputs
      return jnp.moveaxis(tangents, 0, -1)

    return jnp.swapaxes(lax.map(column, x2), 0, 1)

  return _Method(lambda x: x, contract, tile)


def _cross(method, x1, x2):
  """The kernel of all pairs, one pair of tiles after the other."""
  tiles1, tiles2 = (_tiles(x, method.tile) for x in (x1, x2))
  grid = tiles1.shape[0], tiles2.shape[0]
  i, j = np.divmod(np.arange(math.prod(grid)), grid[1])
  blocks = _blocks(method, tiles1, tiles2, i, j)
  return _assemble(blocks.reshape(*grid, *blocks.shape[1:]), x1, x2)


def _symmetric(method, x):
  """As `_cross`, from the upper triangle of tiles, and exactly symmetric."""
  tiles = _tiles(x, method.tile)
  i, j = np.triu_indices(tiles.shape[0])
  if tiles.shape[0] == 1:
    features = method.features(x)
    blocks = method.contract(features, features)[None]
  else:
    blocks = _blocks(method, tiles, tiles, i, j)
  grid = jnp.zeros((*2 * tiles.shape[:1], *blocks.shape[1:]), blocks.dtype)
  grid = grid.at[j, i].set(jax.vmap(_transpose)(blocks)).at[i, j].set(blocks)
  k = _assemble(grid, x, x)
  return (k + _transpose(k)) / 2


def _diag(method, x):
  """k(x_i, x_i), an example at a time within each tile."""
  def one(example):
    features = method.features(example[None])
    return method.contract(features, features)[0, 0]
  return lax.map(one, x, batch_size=min(method.tile, x.shape[0]))


def _blocks(method, tiles1, tiles2, i, j):
  # Checkpointed: a gradient keeps the tiles of inputs, not their features.
  block = jax.checkpoint(lambda ij: method.contract(
      method.features(tiles1[ij[0]]), method.features(tiles2[ij[1]])))
  return lax.map(block, (jnp.asarray(i), jnp.asarray(j)))


def _tiles(x, size):
  """(N, ...) -> (tiles, size, ...), the last row repeated to fill up."""
  size = min(size, x.shape[0])
  spare = -x.shape[0] % size
  x = jnp.pad(x, [(0, spare)] + [(0, 0)] * (x.ndim - 1), mode='edge')
  return x.reshape(-1, size, *x.shape[1:])


def _assemble(grid, x1, x2):
  """Blocks (tiles, tiles, n, m, ...) -> (N, M, ...), without the filling."""
  k = jnp.swapaxes(grid, 1, 2)
  k = k.reshape(k.shape[0] * k.shape[1], -1, *k.shape[4:])
  return k[:x1.shape[0], :x2.shape[0]]


def _transpose(k):
  return jnp.transpose(k, (1, 0, 3, 2)[:k.ndim])
