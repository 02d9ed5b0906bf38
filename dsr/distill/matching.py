r"""Gradients of classes, how far apart they are, and what closes the gap.

Gradient matching moves distilled images s until the gradient that they give a
network's parameters is that of training images x of the same class c:

  D(s) = d(g(x), g(s)),   g(z) = \nabla_\theta \sum_n w_n l(f(z_n; \theta), c),

with l the cross-entropy. D depends on s by g alone, so with v = \partial D /
\partial g, held fixed, the derivative in s is that of a directional derivative,

  \nabla_s D = d/d\epsilon \nabla_s L(\theta + \epsilon v, s) at \epsilon = 0:

forward mode over one reverse pass, which needs no second reverse pass through
the first, and so neither its memory nor its compile time.

Axes: B training images, n distilled images of a class; O outputs of a layer.
A gradient is a pytree in the shape of the parameters; kernels have O last.
"""
from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree
import optax

from dsr import numerics

# Of training images whose gradient is taken at a time, on CPUs: 8 of 28 x 28,
# whose activations stay in the cache. Elsewhere all of a class go at once.
_PIXELS = 8 * 28 * 28
_SMALL = 1e-6  # Beside a product of norms, as published.


def class_loss(module: nn.Module) -> Callable:
  """The loss (params, z (n, ...), c, weights (n,)) -> \\sum_n w_n l(f(z_n), c).

  Args:
    module: a network whose outputs are one for each class.
  """

  def loss(params, z, label: Int[Array, ''], weights: Float[Array, 'n']):
    out = module.apply({'params': params}, z)
    labels = jnp.full(z.shape[:1], label, jnp.int32)
    each = optax.softmax_cross_entropy_with_integer_labels(out, labels)
    return jnp.sum(weights * each)

  return loss


def class_gradient(
    loss: Callable, params: PyTree, x: Float[Array, 'B ...'],
    label: Int[Array, ''], weights: Float[Array, 'B'], *,
    block: int | None = None) -> PyTree:
  """The gradient of `loss` in the parameters, summed over blocks of x.

  Args:
    loss: of `class_loss`.
    params: where the gradient is taken.
    x: images of one class.
    label: that class.
    weights: of the images.
    block: images at a time; None or at least B: all at once.
  """
  gradient = jax.grad(loss)
  if block is None or block >= x.shape[0]:
    return gradient(params, x, label, weights)
  short = -x.shape[0] % block  # Filled up with images that weigh nothing.
  pad = lambda a: jnp.pad(a, ((0, short),) + ((0, 0),) * (a.ndim - 1))
  split = lambda a: pad(a).reshape(-1, block, *a.shape[1:])

  def add(total, part):
    images, weight = part
    more = gradient(params, images, label, weight)
    return jax.tree.map(jnp.add, total, more), None

  zeros = jax.tree.map(jnp.zeros_like, params)
  return jax.lax.scan(add, zeros, (split(x), split(weights)))[0]


def pick_block(module: nn.Module, shape: tuple[int, ...]) -> int | None:
  """Images of `shape` at a time for `class_gradient`, or None for all.

  Networks that normalise by the batch always get all at once.
  """
  if getattr(module, 'norm', None) == 'batch' or not numerics.on_cpu():
    return None
  return max(1, _PIXELS // math.prod(shape[:2]))


def matched(
    loss: Callable, distance: Callable, params: PyTree,
    z: Float[Array, 'n ...'], label: Int[Array, ''], want: PyTree
) -> tuple[Float[Array, ''], Float[Array, 'n ...']]:
  """D = `distance(want, g(z))` and its derivative in z, by forward mode.

  Args:
    loss: of `class_loss`.
    distance: of two gradients, e.g. `cosine`.
    params: of the network.
    z: distilled images of one class, weighed alike, as the network sees them.
    label: that class.
    want: the gradient that theirs should equal.
  """
  weights = jnp.full(z.shape[:1], 1 / z.shape[0], z.dtype)
  both = jax.grad(loss, argnums=(0, 1))
  (got, _), change = jax.linearize(lambda p: both(p, z, label, weights), params)
  value, towards = jax.value_and_grad(distance, argnums=1)(want, got)
  return value, change(towards)[1]


def cosine(want: PyTree, got: PyTree) -> Float[Array, '']:
  r"""\sum over layers and their outputs o of 1 - cos(want_o, got_o).

  Of parameters with two axes or more; biases and scales do not count. A row is
  what leads to one output; 1e-6 is added to the product of its norms
  (arXiv:2006.05929). A row that is 0 on one side counts 1.
  """
  def layer(a, b):
    a, b = (g.reshape(-1, g.shape[-1]) for g in (a, b))
    norms = [numerics.safe_sqrt(jnp.sum(g**2, axis=0)) for g in (a, b)]
    return jnp.sum(1 - jnp.sum(a * b, axis=0) / (norms[0] * norms[1] + _SMALL))

  return _total(layer, want, got, lambda path, leaf: leaf.ndim > 1)


def squared(want: PyTree, got: PyTree) -> Float[Array, '']:
  r"""\sum (want - got)^2 over kernels but the readout's (arXiv:2205.14959)."""
  return _total(lambda a, b: jnp.sum((a - b)**2), want, got, below_readout)


def absolute(want: PyTree, got: PyTree) -> Float[Array, '']:
  r"""\sum |want - got| over kernels but the readout's (arXiv:2205.14959)."""
  return _total(lambda a, b: jnp.sum(jnp.abs(a - b)), want, got, below_readout)


def below_readout(path: tuple[Any, ...], leaf: Float[Array, '...']) -> bool:
  """Whether parameters at `path` have two axes or more and feed no output."""
  return leaf.ndim > 1 and path[0].key != 'readout'


def _total(layer, want, got, counts):
  """`layer(a, b)` summed over the parameters that `counts` lets pass."""
  wanted = jax.tree_util.tree_leaves_with_path(want)
  return sum(layer(a, b) for (path, a), b in
             zip(wanted, jax.tree.leaves(got), strict=True) if counts(path, a))


def augmented(
    augment: Callable | None, keys: Key[Array, 'K'],
    x: Float[Array, 'K n ...']) -> Float[Array, 'K n ...']:
  """Each class by its own key; one after another, as `augment` may branch."""
  if augment is None:
    return x
  return jax.lax.map(lambda pair: augment(*pair), (keys, x))
