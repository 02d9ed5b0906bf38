r"""Three ways to contract the Jacobians of two tiles of examples.

With P parameters, C outputs and F operations in a forward pass, a pair of
examples costs about
  jacobian    2 P C^k           contracts the two Jacobians, leaf by leaf;
  structured  2 (I + O C^k)     for a weight (I, O) that meets one vector, once:
                                its Jacobian is input a times cotangent d, so
                                \Theta = (a a') (d d'), without expanding it;
                                other leaves as `jacobian`;
  ntvp        2 C F             a vjp for each output on the right, then a jvp;
k is 1 where all outputs are averaged and 2 for the full kernel. 'auto' takes
the least, known from shapes alone. Shared weights (convolutions) make F much
larger than P, which favours `jacobian`; a full kernel of many outputs favours
`ntvp`. Ref: arXiv:2206.08720.
"""
from collections.abc import Callable
import math
import string
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from dsr.kernels import graphs, tiles
from dsr.kernels.models import Network

METHODS = ('auto', 'jacobian', 'structured', 'ntvp')
TILE_BYTES = 2**26  # Of what is stored of a tile, and of its activations.
MAX_TILE = 256


class Outputs(NamedTuple):
  """The outputs of one example, and what the kernel makes of their axes.

  Attributes:
    shape: O, of one example.
    trace: axes of O over which the kernel is averaged.
    diagonal: axes of O of which the kernel has the diagonal alone.
  """

  shape: tuple[int, ...]
  trace: tuple[int, ...] = ()
  diagonal: tuple[int, ...] = ()

  def letters(self) -> tuple[str, str, str]:
    """Subscripts of `einsum`: axes on the left, on the right, of the kernel."""
    names = iter(string.ascii_uppercase + string.ascii_lowercase[:13])
    left, right, out = '', '', ''
    for axis in range(len(self.shape)):
      one = next(names)
      same = axis in self.trace or axis in self.diagonal
      other = one if same else next(names)
      left, right = left + one, right + other
      out += '' if axis in self.trace else one if same else one + other
    return left, right, out

  def averaged(self) -> int:
    """How many outputs each entry of the kernel is the mean of."""
    return math.prod(self.shape[axis] for axis in self.trace)

  def swapped(self) -> list[int]:
    """The order of the kernel's axes with left and right exchanged."""
    order = [1, 0]
    for axis in range(len(self.shape)):
      if axis not in self.trace:
        last = len(order)
        order += [last] if axis in self.diagonal else [last + 1, last]
    return order


class Method(NamedTuple):
  """How the kernel of two tiles of examples is had."""

  name: str  # One of `METHODS`.
  features: Callable  # x (n, ...) -> what is stored of a tile.
  contract: Callable  # Features of n, of m examples -> (n, m, ...).
  tile: int  # Examples that may be handled at once.
  tile_bytes: int  # What such a tile takes.
  outputs: Outputs


def flat_forward(net: Network) -> Callable:
  """(leaves, rest, x of one example) -> its outputs in one row (1, Q)."""

  def forward(leaves, rest, x):
    out = net.forward(leaves, rest, jax.tree.map(lambda a: a[None], x))
    rows = [a.reshape(1, -1) for a in jax.tree.leaves(out)]
    return rows[0] if len(rows) == 1 else jnp.concatenate(rows, 1)

  return forward


def output_shape(net: Network, leaves, rest, x) -> tuple[int, ...]:
  """O of one array of outputs; (Q,) of several, laid end to end.

  Raises:
    ValueError: an output has not one row for each example.
  """
  one = jax.tree.map(lambda a: a[:1], x)
  out = jax.tree.leaves(jax.eval_shape(net.forward, leaves, rest, one))
  for a in out:
    if not a.shape or a.shape[0] != 1 or not a.size:
      raise ValueError(
          '`model` must map x (1, ...) to outputs (1, ...), got '
          f'{tuple(a.shape)}.')
  if not out:
    raise ValueError('`model` must have outputs, got none.')
  shapes = [a.shape[1:] for a in out]
  if len(shapes) == 1:
    return shapes[0]
  return (sum(math.prod(s) for s in shapes),)


def plan(net: Network, leaves, rest, x, outputs: Outputs, *, method: str,
         batch_size: int | None) -> Method:
  """Chooses the method, and the tile that its memory allows."""
  forward = flat_forward(net)
  example = jax.tree.map(lambda a: a[0], x)
  graph, out = jax.make_jaxpr(forward, return_shape=True)(
      leaves, rest, example)
  num = out.shape[1]
  flops, activations = graphs.cost(graph.jaxpr)
  others = [*rest, *jax.tree.leaves(example)]
  dense = graphs.dense_leaves(graph, leaves, others)

  total = sum(leaf.size for leaf in leaves)
  plain = total - sum(leaves[i].size for i in dense)
  rows, columns = (sum(leaves[i].shape[a] for i in dense) for a in (0, 1))
  blocks = num**2 // math.prod(
      outputs.shape[axis] for axis in (*outputs.trace, *outputs.diagonal))
  if method == 'auto':
    cost = {'jacobian': 2 * total * blocks,
            'structured': 2 * (rows + (plain + columns) * blocks),
            'ntvp': 2 * num * flops}
    method = min(cost, key=cost.get)
  item = out.dtype.itemsize
  passing = max(num * activations * item, 1)  # Bytes while it is computed.
  stored = {'jacobian': num * total,
            'structured': num * (plain + columns) + rows,
            'ntvp': num * activations}[method] * item
  at_once = min(max(TILE_BYTES // passing, 1), MAX_TILE)
  if batch_size is None:
    batch_size = min(max(TILE_BYTES // max(stored, 1), 1), MAX_TILE)
  if method == 'ntvp':
    parts, at_once = _ntvp(forward, leaves, rest, num, outputs), 0
  else:
    parts = _jacobian(forward, graph, leaves, rest,
                      dense if method == 'structured' else (), outputs, at_once)
  tile_bytes = batch_size * stored + min(at_once, batch_size) * passing
  return Method(method, *parts, batch_size, tile_bytes, outputs)


def _jacobian(forward, graph, leaves, rest, dense, outputs, at_once):
  """Contraction of Jacobians; those of `dense` leaves stay outer products.

  Of a tile, `at_once` examples go through the network together.
  """
  varied = {i: a for i, a in enumerate(leaves) if i not in dense}
  taps = {i: jnp.zeros(leaves[i].shape[1:], leaves[i].dtype) for i in dense}

  def one(x):
    def of(varied, taps):
      merged = [varied.get(i, a) for i, a in enumerate(leaves)]
      if not dense:
        return forward(merged, rest, x)[0], {}
      out, rows, _ = graphs.evaluate(
          graph, merged, [*rest, *jax.tree.leaves(x)], taps)
      return out[0], {i: rows[i] for i in dense}
    jacobians, rows = jax.jacrev(of, (0, 1), has_aux=True)(varied, taps)
    return *jacobians, rows

  def contract(left, right):
    (plain1, deltas1, rows1), (plain2, deltas2, rows2) = left, right
    terms = [_dot(plain1[i], plain2[i], outputs) for i in plain1]
    for i in dense:
      scale = jnp.matmul(rows1[i], rows2[i].T, precision='highest')
      product = _dot(deltas1[i], deltas2[i], outputs)
      scale = scale.reshape(*scale.shape, *(1,) * (product.ndim - 2))
      terms.append(scale * product)
    return sum(terms)

  def features(x):
    n = tiles.num_rows(x)
    parts = -(-n // at_once)
    if parts == 1:
      return jax.vmap(one)(x)
    rows = tiles.split(x, -(-n // parts))
    found = lax.map(jax.checkpoint(jax.vmap(one)), rows)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], found)

  return features, contract


def _dot(a, b, outputs):
  """<a, b> over parameters, of (n, Q, ...) and (m, Q, ...)."""
  a, b = (j.reshape(j.shape[0], *outputs.shape, -1) for j in (a, b))
  left, right, out = outputs.letters()
  product = jnp.einsum(
      f'n{left}z,m{right}z->nm{out}', a, b, precision='highest')
  return product / outputs.averaged()


def _ntvp(forward, leaves, rest, num, outputs):
  """Columns of the kernel as J_1 (J_2' e_d), for each example and output d."""
  left, right, kept = outputs.letters()

  def contract(x1, x2):
    of = lambda p: jax.vmap(forward, (None, None, 0))(p, rest, x1)[:, 0]
    out, jvp = jax.linearize(of, leaves)

    def column(x):
      _, vjp = jax.vjp(lambda p: forward(p, rest, x)[0], leaves)
      grads, = jax.vmap(vjp)(jnp.eye(num, dtype=out.dtype))
      tangents = jax.vmap(jvp)(grads)  # (d, n, c)
      tangents = tangents.reshape(*outputs.shape, -1, *outputs.shape)
      return jnp.einsum(
          f'{right}n{left}->n{kept}', tangents) / outputs.averaged()

    return jnp.swapaxes(lax.map(column, x2), 0, 1)

  return lambda x: x, contract
