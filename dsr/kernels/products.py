r"""Products with the empirical NTK, without the matrix: for CG and Lanczos.

\Theta V = J (J' V): a backward pass over all examples, then a forward one. Time
is that of some three passes of the network, memory that of one tile.
Axes: N examples. Ref: arXiv:2206.08720.
"""
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dsr import checks, numerics
from dsr.kernels import graphs, jacobians, models, tiles


def matvec(
    model: Any, params: PyTree, x: PyTree, *, batch_size: int | None = None,
    trainable: Callable | None = None, **options: Any) -> Callable:
  r"""V -> \Theta V, V and the result shaped as the outputs (N, ...).

  (\Theta V)_{ic} = \sum_{jd} \Theta(x_i, x_j)_{cd} V_{jd}, not averaged over
  outputs. Compiled; `jax.linearize` of it needs no more memory.

  Args:
    model: as in `empirical.ntk`.
    params: as in `empirical.ntk`.
    x: (N, ...) inputs, or a pytree of them.
    batch_size: examples that go through the network at a time; by default as
      many, up to 256, as keep their activations within 64 MiB.
    trainable: as in `empirical.ntk`.
    **options: as in `empirical.ntk`.

  Raises:
    ValueError: as `empirical.ntk`; when called, a `v` of another shape.
  """
  net = models.network(model, params, trainable=trainable, **options)
  tiles.check('x', x)
  if batch_size is not None:
    checks.at_least('batch_size', batch_size, 1)
  shape = tiles.num_rows(x), *jacobians.output_shape(
      net, net.leaves, net.rest, x)
  product = jax.jit(numerics.exact(
      lambda p, x, v: _product(net, batch_size, *p, x, v)))

  def apply(v: Float[Array, 'N ...']) -> Float[Array, 'N ...']:
    if tuple(v.shape) != shape:
      raise ValueError(f'`v` must have shape {shape}, got {tuple(v.shape)}.')
    return product((net.leaves, net.rest), x, v)

  return apply


def _product(net, batch_size, leaves, rest, x, v):
  forward = jacobians.flat_forward(net)
  n = v.shape[0]
  if batch_size is None:
    graph = jax.make_jaxpr(forward)(
        leaves, rest, jax.tree.map(lambda a: a[0], x))
    _, floats = graphs.cost(graph.jaxpr)
    batch_size = min(max(jacobians.TILE_BYTES // (
        max(floats, 1) * v.dtype.itemsize), 1), jacobians.MAX_TILE)
  rows = tiles.split(x, batch_size)
  size = jax.tree.leaves(rows)[0].shape[1]
  # What fills up the last tile counts for nothing.
  filled = jnp.pad(v.reshape(n, -1), [(0, -n % size), (0, 0)])
  parts = filled.reshape(-1, size, filled.shape[1])
  of = lambda p, x: jax.vmap(forward, (None, None, 0))(p, rest, x)[:, 0]

  def back(total, at):
    x, v = at
    out, vjp = jax.vjp(lambda p: of(p, x), leaves)
    change, = vjp(v.astype(out.dtype))
    return jax.tree.map(jnp.add, total, change), None

  zeros = [jnp.zeros_like(leaf) for leaf in leaves]
  total, _ = lax.scan(back, zeros, (rows, parts))
  ahead = lax.map(
      lambda x: jax.jvp(lambda p: of(p, x), (leaves,), (total,))[1], rows)
  return ahead.reshape(-1, ahead.shape[-1])[:n].reshape(v.shape)
