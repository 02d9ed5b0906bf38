r"""`serial`: a stack of covariance layers as a kernel function.

Two passes. `tapes` runs once per input and keeps the variances that every
layer needs of it; then each pair of inputs runs through all layers at once,
so that an (H, W, H, W) map is alive for a few pairs only and never for the
whole matrix. Vector networks start from one matrix product.

Cost per pair: a few dozen flops a nonlinearity for vectors; for images that
times H W, and times (H W)^2 up to the last pooling layer.
"""
import math

import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks, numerics, types
from dsr.kernels import inputs
from dsr.kernels.fused import kernel, stage
from dsr.kernels.layers import Layer, Pair

# Map entries worked on at once: what fits a core's cache, or fills a device.
_WORK = 2**18
_WORK_ACCELERATOR = 2**26


def serial(*layers: Layer, get: str = 'ntk', name: str = '',
           fused: bool = False) -> types.KernelFn:
  r"""The kernel of an infinitely wide network of `layers`.

  Args:
    *layers: values made by `layers.Dense` and its siblings, first layer first.
    get: 'ntk' for \Theta, 'nngp' for the covariance k of the outputs.
    name: for records; by default the list of the layers.
    fused: run the leading (Conv 3 x 3, ReLU, AvgPool 2) stages of images with
      even sides of 8 to 32 pixels as one program each, see `kernels.fused`.
      It needs `nvcc` on a GPU or `g++` on a CPU, and has no forward-mode
      derivative (`jax.jvp`). Images of other sizes take the usual way.

  Returns:
    A `KernelFn` on (N, H, W, C) images, or on (N, D) vectors if the first
    layer takes vectors (`Flatten` takes both). Inputs are float32 or float64,
    and the kernel has their dtype. Input covariance: <x, x'> / D for vectors,
    <x(p), x'(p')> / C for images.

  Raises:
    ValueError: no layers; space needed after it was flattened, or left at the
      end; a Dense layer on images; `get` unknown, or 'ntk' without weights.
  """
  spatial = _check_stack(layers)
  checks.one_of('get', get, ('ntk', 'nngp'))
  check_input = (
      checks.images if spatial else
      checks.inputs if layers[0].name == 'Flatten' else checks.features)
  if get == 'ntk' and not any(
      layer.name.startswith(('Dense', 'Conv')) for layer in layers):
    raise ValueError("`get='ntk'` needs a layer with weights, got none.")
  last_pool = max((i for i, l in enumerate(layers) if l.pools), default=-1)
  joint_after = [i < last_pool for i in range(len(layers))]

  def start(q1, q2, gap):
    if gap.ndim == 4:
      q1, q2 = q1[:, :, None, None], q2[None, None, :, :]
    return Pair(gap, (0.5 * q1 + 0.5 * q2) - gap, None)

  def advance(layer, tape1, tape2, pair, joint, true):
    step = lambda pair: layer.pair(tape1, tape2, pair, joint)
    if true is None or pair.gap.ndim == 0 or layer.spatial is not None:
      return step(pair)
    # XLA on CPU would fuse a nonlinearity into the windows that read it, and
    # compute it once for every reader and entry, not vectorised. A branch,
    # though always taken, keeps it apart: Myrtle-5 is 7 times faster for it.
    nothing = lambda pair: jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(step, pair))
    return jax.lax.cond(true, step, nothing, pair)

  def finish(first, tapes1, tapes2, pair, true=None):
    """The kernel of one pair, from layer `first` on."""
    for layer, tape1, tape2, joint in zip(
        layers[first:], tapes1, tapes2, joint_after[first:]):
      pair = advance(layer, tape1, tape2, pair, joint, true)
    return getattr(pair, get)

  def finish_alone(first, q, pair, true=None):
    """One input from layer `first` on: tapes, and its kernel with itself."""
    tapes = []
    for layer, joint in zip(layers[first:], joint_after[first:]):
      q, tape = layer.variance(q, pair.gap)
      pair = advance(layer, tape, tape, pair, joint, true)
      tapes.append(tape)
    return tuple(tapes), getattr(pair, get)

  def value(one, two, gap, true=None):
    """The kernel of one pair from their tapes."""
    return finish(0, one[1], two[1], start(one[0], two[0], gap), true)

  def alone(q, gap, true=None):
    """One input: (input variance, tapes), and its kernel with itself."""
    tapes, own = finish_alone(0, q, start(q, q, gap), true)
    return (q, tapes), own

  if spatial:
    make = _image_kernel(alone, value, joint=last_pool >= 0)
    if fused:
      make = _fused_where_it_fits(
          layers, kernel.Rest(finish_alone, finish, last_pool), make)
  else:
    make = _vector_kernel(alone, value)
  cross, symmetric, diag = (jax.jit(f) for f in make)

  def checked_cross(x1, x2):
    check_input('x1', x1)
    checks.precision('x1', x1)
    checks.inputs('x2', x2, like=x1)
    return cross(x1, x2)

  def checked_symmetric(x):
    check_input('x1', x)
    checks.precision('x1', x)
    return symmetric(x)

  def checked_diag(x):
    check_input('x', x)
    checks.precision('x', x)
    return diag(x)

  return types.KernelFn(
      checked_cross, checked_symmetric, checked_diag,
      name or f'{get}[{", ".join(layer.name for layer in layers)}]')


def _vector_kernel(alone, value):
  """(cross, symmetric, diag) on vectors: everything elementwise in (N, M)."""

  def flat(x):
    return x.reshape(x.shape[0], -1)

  def stats(x):
    q = inputs.mean_square(x)
    return jax.vmap(alone)(q, jnp.zeros_like(q))

  def pairs(gap, one, two):
    along = jax.vmap(value, (None, 0, 0))
    return jax.vmap(along, (0, None, 0))(one, two, gap)

  def cross(x1, x2):
    x1, x2 = flat(x1), flat(x2)
    (one, _), (two, _) = stats(x1), stats(x2)
    return inputs.on_half_distance(pairs, x1, x2, one, two)

  def symmetric(x):
    x = flat(x)
    one, _ = stats(x)
    return inputs.on_half_distance(pairs, x, None, one, one)

  def diag(x):
    return stats(flat(x))[1]

  return cross, symmetric, diag


def _image_kernel(alone, value, joint):
  """(cross, symmetric, diag) on images: pairs in blocks that fit the cache."""

  def gap_of(image1, image2):
    if joint:  # All pairs of positions: (H, W, H, W).
      image1, image2 = image1[:, :, None, None], image2[None, None]
    channels = image1.shape[-1]
    if channels > 4:
      return 0.5 * jnp.mean((image1 - image2) ** 2, axis=-1)
    # Unrolled, it is one vectorised loop instead of many short reductions.
    return 0.5 / channels * sum(
        (image1[..., c] - image2[..., c]) ** 2 for c in range(channels))

  def single(image, true):
    return alone(inputs.mean_square(image), gap_of(image, image), true)

  @jax.checkpoint
  def entry(image1, one, image2, two, true):
    return value(one, two, gap_of(image1, image2), true)

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
    out = jnp.zeros((n, n), upper.dtype)
    out = out.at[rows, cols].set(upper).at[cols, rows].set(upper)
    return out.at[np.arange(n), np.arange(n)].set(diag)

  def diag(x):
    return stats(x)[1]

  return cross, symmetric, diag


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


def _check_stack(layers) -> bool:
  """Whether the stack takes images; raises where it does not fit together."""
  if not layers:
    raise ValueError('`layers` must hold at least one layer, got none.')
  for layer in layers:
    if not isinstance(layer, Layer):
      raise ValueError(f'`layers` must be `Layer` values, got {layer!r}.')
  known = [layer.spatial for layer in layers if layer.spatial is not None]
  space = bool(known) and known[0] and layers[0].name != 'Flatten'
  spatial = space
  for layer in layers:
    if layer.spatial and not space:
      raise ValueError(f'`{layer.name}` needs images, but space was flattened.')
    if layer.spatial is False and space:
      raise ValueError(f'`{layer.name}` needs vectors: add `Flatten()` before.')
    if layer.name in ('Flatten', 'GlobalAvgPool'):
      space = False
  if space:
    raise ValueError('The last layer leaves space: add `Flatten()`.')
  return spatial
