r"""`serial`: a stack of covariance layers as a kernel function.

Two passes. `tapes` runs once per input and keeps the variances that every
layer needs of it; then each pair of inputs runs through all layers at once,
so that an (H, W, H, W) map is alive for a few pairs only and never for the
whole matrix. Vector networks start from one matrix product.

Cost per pair: a few dozen flops a nonlinearity for vectors; for images that
times H W, and times (H W)^2 up to the last pooling layer.
"""
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from dsr import checks, numerics, types
from dsr.kernels import combinators, inputs, streams
from dsr.kernels.fused import kernel, stage
from dsr.kernels.layers import Layer, Pair, unlike

# Map entries worked on at once: what fits a core's cache, or fills a device.
_WORK = 2**18
_WORK_ACCELERATOR = 2**26


class Kernels(NamedTuple):
  """Both kernels of one pass: what `get=('nngp', 'ntk')` returns."""

  nngp: Array
  ntk: Array


def serial(*layers: Layer, get: str | tuple[str, str] = 'ntk', name: str = '',
           fused: bool = False) -> types.KernelFn:
  r"""The kernel of an infinitely wide network of `layers`.

  Args:
    *layers: values made by `layers.Dense` and its siblings, first layer first.
    get: 'ntk' for \Theta, 'nngp' for the covariance k of the outputs, or
      ('nngp', 'ntk') for both of one pass, as a `Kernels`.
    name: for records; by default the list of the layers.
    fused: run the leading (Conv 3 x 3, ReLU, AvgPool 2) stages of images with
      even sides of 8 to 32 pixels as one program each, see `kernels.fused`.
      It needs `nvcc` on a GPU or `g++` on a CPU, and has no forward-mode
      derivative (`jax.jvp`). Images of other sizes take the usual way.

  Returns:
    A `KernelFn` on (N, H, W, C) images, (N, L, C) sequences where a layer was
    given a window for them, or on (N, D) vectors if the first layer takes
    vectors (`Flatten` takes all). Inputs are float32 or float64, both the
    same: two dtypes raise, with or without x64. The kernel has that dtype, or
    float32 without x64. Input covariance: <x, x'> / D for vectors,
    <x(p), x'(p')> / C for images. Memory grows with N M (H W)^2 of a few
    pairs only; for matrices that do not fit, see `kernels.gram`.

  Raises:
    ValueError: no layers; space needed after it was flattened, or left at the
      end; a Dense layer on images; branches that do not fit; a width that the
      standard parameterisation lacks; `get` unknown, or 'ntk' without weights.
  """
  ndim = streams.check(layers)
  both = isinstance(get, (tuple, list))
  if not both or sorted(get) != ['nngp', 'ntk']:
    checks.one_of('get', get, ('ntk', 'nngp'))
  if get != 'nngp' and not streams.has_weights(layers):
    raise ValueError("`get='ntk'` needs a layer with weights, got none.")
  last_pool = max((i for i, l in enumerate(layers) if l.pools), default=-1)

  def read(pair):
    return Kernels(pair.nngp, pair.ntk) if both else getattr(pair, get)

  def finish(first, tapes1, tapes2, pair):
    """The kernel of one pair, from layer `first` on."""
    return read(combinators.along(layers[first:], tapes1, tapes2, pair))

  def finish_alone(first, q, pair):
    """One input from layer `first` on: tapes, and its kernel with itself."""
    _, tapes, own = combinators.alone(layers[first:], q, pair, False)
    return tapes, read(own)

  if ndim:
    make = _image_kernel(finish, finish_alone, joint=last_pool >= 0)
    if fused and not both:
      make = _fused_where_it_fits(
          layers, kernel.Rest(finish_alone, finish, last_pool), make)
  else:
    make = _vector_kernel(finish, finish_alone)
  cross, symmetric, diag = (jax.jit(f) for f in make)

  def checked(name, x):
    if ndim:
      checks.images(name, x) if ndim == 2 else checks.sequences(name, x)
    elif layers[0].name == 'Flatten':
      checks.inputs(name, x)
    else:
      checks.features(name, x)
    checks.precision(name, x)
    return x[:, :, None] if ndim == 1 else x  # As images of one column.

  def checked_cross(x1, x2):
    left = checked('x1', x1)
    checks.inputs('x2', x2, like=x1)
    return cross(left, checked('x2', x2))

  return types.KernelFn(
      checked_cross, lambda x: symmetric(checked('x1', x)),
      lambda x: diag(checked('x', x)),
      name or f'{get}[{", ".join(layer.name for layer in layers)}]')


def _vector_kernel(finish, finish_alone):
  """(cross, symmetric, diag) on vectors: everything elementwise in (N, M)."""

  def flat(x):
    return x.reshape(x.shape[0], -1)

  def stats(x):
    """((root of the input's variance, tapes), the kernel with itself)."""
    q = inputs.mean_square(x)

    def single(q):
      return finish_alone(0, q, Pair(jnp.zeros_like(q), q, width=x.shape[1]))

    tapes, own = jax.vmap(single)(q)
    return (numerics.safe_sqrt(q), tapes), own

  def pairs(width, gap, one, two):
    def value(one, two, gap):
      return finish(0, one[1], two[1],
                    Pair(gap, one[0] * two[0] - gap, width=width))

    along = jax.vmap(value, (None, 0, 0))
    return jax.vmap(along, (0, None, 0))(one, two, gap)

  def cross(x1, x2):
    x1, x2 = flat(x1), flat(x2)
    (one, _), (two, _) = stats(x1), stats(x2)
    return inputs.on_angular_gap(
        functools.partial(pairs, x1.shape[1]), x1, x2, one, two)

  def symmetric(x):
    x = flat(x)
    one, _ = stats(x)
    return inputs.on_angular_gap(
        functools.partial(pairs, x.shape[1]), x, None, one, one)

  def diag(x):
    return stats(flat(x))[1]

  return cross, symmetric, diag


def _image_kernel(finish, finish_alone, joint):
  """(cross, symmetric, diag) on images: pairs in blocks that fit the cache."""

  def start(q1, q2, image1, image2, share, true):
    """The pair of the inputs: all pairs of positions if `joint`."""
    if joint:  # (H, W, H, W).
      image1, image2 = image1[:, :, None, None], image2[None, None]
      q1, q2 = q1[:, :, None, None], q2[None, None]
    term = lambda a, b: _first_gap(share, a, b)
    channels = image1.shape[-1]
    if channels > 4:
      gap = jnp.mean(term(image1, image2), axis=-1)
    else:
      # Unrolled, it is one vectorised loop instead of many short reductions.
      gap = 1 / channels * sum(
          term(image1[..., c], image2[..., c]) for c in range(channels))
    return Pair(gap, share * q1 + share * q2 - gap, None, share, true, channels)

  def single(image, true):
    q = inputs.mean_square(image)
    tapes, own = finish_alone(0, q, start(q, q, image, image, 0.5, true))
    return (q, tapes), own

  @jax.checkpoint
  def entry(image1, one, image2, two, true):
    size1, size2 = jnp.mean(one[0]), jnp.mean(two[0])
    share = jnp.where(unlike(size1, size2), 0, 0.5).astype(image1.dtype)
    pair = start(one[0], two[0], image1, image2, share, true)
    return finish(0, one[1], two[1], pair)

  def block(x):
    size = math.prod(x.shape[1:3]) ** (2 if joint else 1)
    work = _WORK if numerics.on_cpu() else _WORK_ACCELERATOR
    return max(1, work // size)

  def stats(x):
    true = _true(x)
    return jax.lax.map(lambda image: single(image, true), x,
                       batch_size=min(block(x), x.shape[0]))

  def cross(x1, x2):
    (one, _), (two, _) = stats(x1), stats(x2)
    size, true = min(block(x1), x2.shape[0]), _true(x1)

    def row(left):
      return jax.lax.map(lambda right: entry(*left, *right, true), (x2, two),
                         batch_size=size)

    return jax.lax.map(row, (x1, one))

  def symmetric(x):
    one, diag = stats(x)
    n, true = x.shape[0], _true(x)
    rows, cols = np.triu_indices(n)

    def pick(index):
      return jax.tree.map(lambda a: a[index], (x, one))

    upper = jax.lax.map(
        lambda at: entry(*pick(at[0]), *pick(at[1]), true),
        (jnp.asarray(rows), jnp.asarray(cols)),
        batch_size=min(block(x), rows.size))

    def whole(upper, diag):
      out = jnp.zeros((n, n), upper.dtype)
      out = out.at[rows, cols].set(upper).at[cols, rows].set(upper)
      return out.at[np.arange(n), np.arange(n)].set(diag)

    return jax.tree.map(whole, upper, diag)

  def diag(x):
    return stats(x)[1]

  return cross, symmetric, diag


@jax.custom_jvp
def _first_gap(share, a, b):
  """share (a^2 + b^2) - a b with share 1/2 or 0, without cancellation."""
  near = 0.5 * (a - b) ** 2
  return near if isinstance(share, float) else jnp.where(
      share > 0, near, -a * b)


@_first_gap.defjvp
def _first_gap_jvp(primals, tangents):
  share, a, b = primals
  _, da, db = tangents
  return _first_gap(*primals), (
      (2 * share * a - b) * da + (2 * share * b - a) * db)


def _fused_where_it_fits(layers, rest, usual):
  """`usual` for images that no fused stage takes."""

  def choose(i):
    def fn(x, *others):
      plan = stage.plan(layers, x.shape[1:3])
      made = kernel.make(layers, plan, rest) if plan.scales else usual
      return made[i](x, *others)
    return fn

  return tuple(choose(i) for i in range(3))


def _true(x):
  """A True that the compiler cannot foresee; None where it would not help."""
  if not numerics.on_cpu():
    return None  # Elsewhere a branch costs a transfer to the host.
  return x.ravel()[0] * 0 != 1  # NaN and infinity included.
