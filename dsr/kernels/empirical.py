r"""Neural tangent kernels of a finite network, at given parameters.

  \Theta(x, x')_{cd} = < df_c(x)/d\theta, df_d(x')/d\theta >
  ntk          its mean diagonal, (1/C) \sum_c \Theta(x, x')_{cc}     (N, M)
  full         all of it, or its trace or diagonal by axes    (N, M, C, C)
  pair         \Theta_{cd} of one pair of outputs                     (N, M)
  pseudo_ntk   (1/C) \sum_{cd} \Theta_{cd}, that of the summed outputs (N, M)
  nngp         (1/C) \sum_c f_c(x) f_c(x')                             (N, M)
  matvec       V -> \Theta V, without \Theta                    in `products`

The mean (not the sum) over outputs is that of neural-tangents' `trace_axes`,
and the one that tends to the analytic kernel as the network gets wide.

The first argument is a Flax Linen module with its variables, a Flax NNX or an
equinox module, or a function with its parameters: see `models.network`, which
`trainable` and further keywords go to. Inputs may be integers, and pytrees of
arrays (N, ...); outputs (N, ...) of any rank, and pytrees, whose arrays are
laid end to end. A network is evaluated on one example at a time, so rows must
not depend on each other: batch norm uses its running statistics.

Memory: two tiles of Jacobians and the activations of a part of a tile, each
within 64 MiB if one example is, besides the result; `plan` counts it
beforehand. The methods are in `jacobians`.
Refs: arXiv:1806.07572 (NTK), 2206.08720 (methods), 2206.12543 (pseudo-NTK).
"""
from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dsr import checks, numerics
from dsr.kernels import graphs, jacobians, models, tiles
from dsr.kernels.jacobians import METHODS, Method, Outputs
from dsr.kernels.models import Network
from dsr.types import KernelFn


class Plan(NamedTuple):
  """How a kernel will be computed.

  Attributes:
    method: one of `METHODS`.
    batch_size: examples in a tile.
    num_bytes: of two tiles and the result, by count of what is stored.
  """

  method: str
  batch_size: int
  num_bytes: int


def ntk(
    model: Any, params: PyTree = None, *, method: str = 'auto',
    batch_size: int | None = None, name: str = 'empirical_ntk',
    trainable: Callable | None = None, **options: Any) -> KernelFn:
  r"""Empirical NTK, averaged over outputs: (1/C) \sum_c \Theta_{cc}.

    ntk(module, variables)               # Linen; or ntk(module.apply, ...)
    ntk(nnx_module), ntk(equinox_module)
    ntk(lambda p, x: ..., params, trainable=lambda path: 'head' in path)

  The kernel is safe under `jit`, `vmap` and `grad` with respect to inputs.

  Args:
    model: a module, or a function; see above.
    params: of Linen modules and functions.
    method: one of `METHODS`.
    batch_size: examples in a tile; by default as many, up to 256, as keep
      what is stored of one tile within 64 MiB.
    name: how records and messages call the kernel.
    trainable: path -> bool, which parameters count; None is all of them.
    **options: of the module's call, such as `train=False`.

  Raises:
    ValueError: unknown `method`, `batch_size` below 1, no parameters; when
      called, bad inputs, outputs that are not (N, ...), or batch norm in
      training mode.
  """
  net = models.network(model, params, trainable=trainable, **options)
  _check(method, batch_size)
  return _kernel(net, _planner(net, method, batch_size), name)


def pseudo_ntk(
    model: Any, params: PyTree = None, *, method: str = 'auto',
    batch_size: int | None = None, name: str = 'pseudo_ntk',
    trainable: Callable | None = None, **options: Any) -> KernelFn:
  r"""The NTK of the summed outputs, \sum_c f_c / sqrt(C): C times cheaper.

  It has the limit of `ntk` where the last layer is random, and its error at
  finite width is larger. Arguments and errors are those of `ntk`.
  Ref: arXiv:2206.12543.
  """
  net = models.network(model, params, trainable=trainable, **options)
  _check(method, batch_size)

  def total(out):
    rows = [a.reshape(a.shape[0], -1) for a in jax.tree.leaves(out)]
    count = sum(a.shape[1] for a in rows)
    return sum(a.sum(1, keepdims=True) for a in rows) / math.sqrt(count)

  net = _then(net, total)
  return _kernel(net, _planner(net, method, batch_size), name)


def nngp(
    model: Any, params: PyTree = None, *, batch_size: int | None = None,
    name: str = 'empirical_nngp', **options: Any) -> KernelFn:
  r"""Empirical NNGP: (1/C) \sum_c f_c(x) f_c(x'), of rank C at most.

  Its mean over draws of the parameters is the covariance of the outputs.
  Arguments and errors are those of `ntk`.
  """
  net = models.network(model, params, **options)
  _check('auto', batch_size)
  forward = jacobians.flat_forward(net)

  def planned(leaves, rest, x):
    shape = jacobians.output_shape(net, leaves, rest, x)
    outputs = Outputs(shape, tuple(range(len(shape))))
    graph = jax.make_jaxpr(forward)(
        leaves, rest, jax.tree.map(lambda a: a[0], x))
    _, floats = graphs.cost(graph.jaxpr)
    size = max(floats, 1) * graph.out_avals[0].dtype.itemsize
    tile = batch_size or min(
        max(jacobians.TILE_BYTES // size, 1), jacobians.MAX_TILE)
    features = jax.vmap(lambda x: forward(leaves, rest, x)[0])
    contract = lambda a, b: numerics.matmul(a, b.T) / a.shape[1]
    return Method('nngp', features, contract, tile, tile * size, outputs)

  return _kernel(net, planned, name)


def full(
    model: Any, params: PyTree = None, *, method: str = 'auto',
    batch_size: int | None = None, trace_axes: tuple[int, ...] = (),
    diagonal_axes: tuple[int, ...] = (), trainable: Callable | None = None,
    **options: Any) -> Callable:
  r"""Empirical NTK between all outputs: \Theta(x, x')_{cd}.

  For outputs (N, C) it is (N, M, C, C), the axis 2 that of x1's outputs; for
  (N, H, W) it is (N, M, H, H, W, W), and for (N,) it is (N, M). With
  `diagonal_axes=(-1,)` the last axis occurs once, (N, M, C), and with
  `trace_axes=(-1,)` it is averaged over.

  Args:
    model: a module, or a function; see above.
    params: of Linen modules and functions.
    method: one of `METHODS`.
    batch_size: as in `ntk`.
    trace_axes: axes of the outputs (N, ...) over which \Theta is averaged.
    diagonal_axes: axes of which it has the diagonal.
    trainable: as in `ntk`.
    **options: as in `ntk`.

  Returns:
    (x1 (N, ...), x2 (M, ...) = x1) -> (N, M, ...).

  Raises:
    ValueError: as `ntk`; when called, axes that the outputs do not have.
  """
  net = models.network(model, params, trainable=trainable, **options)
  _check(method, batch_size)
  kernel = _kernel(net, _planner(
      net, method, batch_size, tuple(trace_axes), tuple(diagonal_axes)), 'full')
  return lambda x1, x2=None: kernel(x1, x2)


def pair(
    model: Any, params: PyTree = None, *, left: int, right: int,
    method: str = 'auto', batch_size: int | None = None,
    trainable: Callable | None = None, **options: Any) -> Callable:
  r"""\Theta_{cd} of two outputs, c = `left` of x1 and d = `right` of x2.

  Outputs are counted row by row as in `reshape(N, -1)`. Other arguments and
  errors are those of `ntk`.

  Returns:
    (x1 (N, ...), x2 (M, ...) = x1) -> (N, M).
  """
  checks.at_least('left', left, 0)
  checks.at_least('right', right, 0)
  net = models.network(model, params, trainable=trainable, **options)
  _check(method, batch_size)

  def pick(out):
    flat = [a.reshape(a.shape[0], -1) for a in jax.tree.leaves(out)]
    flat = jnp.concatenate(flat, 1)
    if max(left, right) >= flat.shape[1]:
      raise ValueError(f'`left` and `right` must be below {flat.shape[1]}, the '
                       f'number of outputs; got {left} and {right}.')
    return jnp.stack([flat[:, left], flat[:, right]], 1)

  net = _then(net, pick)
  kernel = _kernel(net, _planner(net, method, batch_size, (), ()), 'pair')
  return lambda x1, x2=None: kernel(x1, x2)[..., 0, 1]


def plan(
    model: Any, params: PyTree, x1: PyTree, x2: PyTree = None, *,
    method: str = 'auto', batch_size: int | None = None,
    trace_axes: tuple[int, ...] | None = None,
    diagonal_axes: tuple[int, ...] = (), trainable: Callable | None = None,
    **options: Any) -> Plan:
  """What `full`, or without `trace_axes` `ntk`, will do: from shapes alone.

  Arguments and errors are those of `full`; `x1` and `x2` may be
  `jax.ShapeDtypeStruct`.
  """
  net = models.network(model, params, trainable=trainable, **options)
  _check(method, batch_size)
  planned = _planner(net, method, batch_size, trace_axes, diagonal_axes)
  found = []

  def trace(leaves, rest, x1, x2):
    found.append(planned(leaves, rest, x1))
    return tiles.cross(found[0], x1, x2)

  kernel = jax.eval_shape(
      trace, net.leaves, net.rest, x1, x1 if x2 is None else x2)
  num_bytes = 2 * found[0].tile_bytes + kernel.size * kernel.dtype.itemsize
  return Plan(found[0].name, found[0].tile, num_bytes)


def _check(method, batch_size):
  checks.one_of('method', method, METHODS)
  if batch_size is not None:
    checks.at_least('batch_size', batch_size, 1)


def _then(net: Network, fn: Callable) -> Network:
  return net._replace(forward=lambda *args: fn(net.forward(*args)))


def _planner(net, method, batch_size, trace=None, diagonal=()):
  """(leaves, rest, x) -> `Method`; `trace` None averages over all outputs."""

  def planned(leaves, rest, x):
    shape = jacobians.output_shape(net, leaves, rest, x)
    axes = range(len(shape)) if trace is None else _axes(
        'trace_axes', trace, shape)
    outputs = Outputs(shape, tuple(axes),
                      _axes('diagonal_axes', diagonal, shape))
    return jacobians.plan(net, leaves, rest, x, outputs, method=method,
                          batch_size=batch_size)

  return planned


def _axes(name, axes, shape):
  """Axes of outputs (N, ...) as those of one example."""
  rank = len(shape) + 1
  found = tuple(axis % rank - 1 if -rank < axis < rank else -1 for axis in axes)
  if min(found, default=0) < 0 or len(set(found)) < len(found):
    raise ValueError(f'`{name}` must be axes of the outputs {("N", *shape)} '
                     f'but the first, each once; got {axes}.')
  return found


def _kernel(net: Network, planned: Callable, name: str) -> KernelFn:
  """The kernel whose method is `planned(leaves, rest, x)`."""
  # Jitted here, as each call would otherwise compile its loops anew; `leaves`
  # are an argument, as constants would be folded and compiled in. Exact,
  # whatever the network's layers say.
  jit = lambda fn: jax.jit(numerics.exact(fn))
  cross = jit(lambda p, x1, x2: tiles.cross(planned(*p, x1), x1, x2))
  symmetric = jit(lambda p, x: tiles.symmetric(planned(*p, x), x))
  diag = jit(lambda p, x: tiles.diag(planned(*p, x), x))
  p = net.leaves, net.rest

  def cross_fn(x1: PyTree, x2: PyTree) -> Float[Array, 'N M ...']:
    tiles.check('x1', x1)
    tiles.check('x2', x2, like=x1)
    return cross(p, x1, x2)

  def symmetric_fn(x: PyTree) -> Float[Array, 'N N ...']:
    tiles.check('x', x)
    return symmetric(p, x)

  def diag_fn(x: PyTree) -> Float[Array, 'N ...']:
    tiles.check('x', x)
    return diag(p, x)

  return KernelFn(cross_fn, symmetric_fn, diag_fn, name)
