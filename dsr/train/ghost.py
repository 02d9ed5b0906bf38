r"""Norms of the gradients of single examples, from one backward pass.

A layer's gradient at example n is an outer product of its inputs a_n and of the
cotangents d_n of its outputs, of which one backward pass to the activations has
those of all examples (arXiv:2009.03106, 2205.10683):

  dense        a_n d_n':            |.|^2 = |a_n|^2 |d_n|^2,
  convolution  P_n' D_n, patches P (T, K), cotangents D (T, O) at T places:
               |.|^2 = <P_n P_n', D_n D_n'> from (T, T) matrices, or by making
               the (K, O) gradient, whichever costs less,
  norm         sums of d_n and of d_n times what is scaled.

Sums of weighted gradients come from the same a_n and d_n (arXiv:2210.00038), so
that no second backward pass is needed. Examples go through in tiles.

Axes: B examples of a tile; T places; K entries of a patch; O outputs.
"""
from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn, traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dsr.nets import layers, mlp, norms

_KINDS = (layers.Conv, mlp.Dense, norms.Norm)
_WORTH = 8  # Products that cost as much as to keep a number of a gradient.


def covers(module: nn.Module, params: PyTree, x: Float[Array, 'B ...']) -> bool:
  """Whether all parameters are in layers that `backward` knows, used once."""
  try:
    shapes = jax.eval_shape(
        lambda params, x: _forward(module, params, x)[1], params, x)
  except _UsedTwiceError:
    return False
  own = {path[:-1] for path in traverse_util.flatten_dict(params)}
  return own == set(shapes)


def backward(
    module: nn.Module, params: PyTree, x: Float[Array, 'B ...'],
    cotangents_of: Callable) -> tuple[Any, Float[Array, 'B'], Callable]:
  """Outputs, squared norms of each example's gradient, and weighted sums.

  Args:
    module: of which `covers` is true.
    params: its parameters.
    x: a tile.
    cotangents_of: outputs (B, C) -> their cotangents (B, C), row by row.

  Returns:
    (outputs, (B,), weights (B,) -> sum_n weight_n gradient_n like `params`).
  """
  used: dict[tuple[str, ...], nn.Module] = {}
  shapes = jax.eval_shape(
      lambda params, x: _forward(module, params, x)[2], params, x)
  zeros = {path: jnp.zeros(s.shape, s.dtype) for path, s in shapes.items()}

  def forward(probes):
    out, seen, _ = _forward(module, params, x, probes, used)
    return out, seen

  out, pull, inputs = jax.vjp(forward, zeros, has_aux=True)
  cotangents, = pull(cotangents_of(out))
  squares, sums = 0.0, {}
  for path, layer in used.items():
    own = params
    for name in path:
      own = own[name]
    more, sums[path] = _RULES[type(layer)](
        layer, own, inputs[path], cotangents[path])
    squares = squares + more

  def weighted(weights):
    found = {}
    for path, total in sums.items():
      found |= {(*path, name): g for name, g in total(weights).items()}
    return traverse_util.unflatten_dict(found)

  return out, squares, weighted


class _UsedTwiceError(Exception):
  """One layer in two places: its gradient is no single product."""


def _forward(module, params, x, probes=None, used=None):
  """(outputs, what the rules need of each layer, outputs of each layer)."""
  inputs, outputs = {}, {}

  def around(call, args, kwargs, context):
    layer = context.module
    out = call(*args, **kwargs)
    if context.method_name != '__call__' or type(layer) not in _KINDS or (
        getattr(layer, 'kind', '') == 'none'):
      return out
    path = layer.path
    if path in inputs:
      raise _UsedTwiceError
    norm = isinstance(layer, norms.Norm)
    inputs[path] = layer.standardised(args[0]) if norm else args[0]
    outputs[path] = out
    if used is not None:
      used[path] = layer.clone(parent=None)
    return out if probes is None else out + probes[path]

  with nn.intercept_methods(around):
    out = module.apply({'params': params}, x)
  return out, inputs, outputs


def _dense(layer, params, a, d):
  ntk = layer.parameterisation == 'ntk'
  scale = layer.w_std / math.sqrt(a.shape[-1]) if ntk else 1.0
  shift = (layer.b_std if ntk else 1.0) if 'bias' in params else 0.0
  square = lambda v: jnp.sum(v**2, axis=1)
  squares = square(d) * (scale**2 * square(a) + shift**2)

  def total(weights):
    own = weights[:, None] * d
    found = {'kernel': scale * _einsum('bk,bo->ko', a, own)}
    return found | ({'bias': shift * own.sum(0)} if 'bias' in params else {})

  return squares, total


def _conv(layer, params, a, d):
  kernel = params['kernel']
  p, d = _patches(layer, a, kernel.shape), d.reshape(len(d), -1, d.shape[-1])
  (_, places, entries), outputs = p.shape, d.shape[-1]
  ghost = places**2 * (entries + outputs) < _WORTH * entries * outputs
  if ghost:
    squares = jnp.sum(_einsum('btk,bsk->bts', p, p)
                      * _einsum('bto,bso->bts', d, d), axis=(1, 2))
  else:
    each = _einsum('btk,bto->bko', p, d)
    squares = jnp.sum(each**2, axis=(1, 2))
  bias = d.sum(1)
  if 'bias' in params:
    squares = squares + jnp.sum(bias**2, axis=1)

  def total(weights):
    own = (_einsum('btk,bto->ko', p, weights[:, None, None] * d) if ghost
           else _einsum('b,bko->ko', weights, each))
    found = {'kernel': own.reshape(kernel.shape)}
    return found | ({'bias': _einsum('b,bo->o', weights, bias)}
                    if 'bias' in params else {})

  return squares, total


def _patches(layer, x, shape) -> Float[Array, 'B T K']:
  """What the kernel meets at each place, in the order of its entries."""
  rows, columns = shape[:2]
  pad = ((rows - 1) // 2, (columns - 1) // 2)
  if layer.padding is not None:
    pad = (layer.padding, layer.padding)
  x = jnp.pad(x, ((0, 0), (pad[0],) * 2, (pad[1],) * 2, (0, 0)))
  height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
  found = jnp.concatenate(
      [x[:, i:i + height, j:j + width] for i in range(rows)
       for j in range(columns)], axis=-1)
  return found.reshape(len(x), height * width, -1)


def _norm(layer, params, a, d):
  del layer
  own = params['scale'].ndim  # 1 of channels, 3 with `layer`.
  over = tuple(range(1, d.ndim - own))
  each = {'scale': jnp.sum(a * d, axis=over), 'bias': jnp.sum(d, axis=over)}
  squares = sum(jnp.sum(g.reshape(len(g), -1)**2, axis=1)
                for g in each.values())
  return squares, lambda weights: {
      name: jnp.tensordot(weights, g, 1, precision='highest')
      for name, g in each.items()}


def _einsum(*args):
  return jnp.einsum(*args, precision='highest')


_RULES = {layers.Conv: _conv, mlp.Dense: _dense, norms.Norm: _norm}
