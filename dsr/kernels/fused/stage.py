r"""Convolutional stages of a kernel as one program each; see `stage.h`.

A stage is one to three times (Conv 3 x 3, ReLU), then AvgPool 2. The pooled
maps come back in shift order: entry [s][p] belongs to (p, p - s), positions
and shifts modulo the size, shape (B, h, w, h, w) for B pairs of images.

Refs: arXiv:1904.11955 (the convolutional NTK; its CUDA kernel writes each
layer's joint map to memory, which this one does not).
"""
from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from dsr import numerics
from dsr.kernels.fused import build
from dsr.kernels.layers import Layer

_MOST_CONVS, _WIDEST, _NARROWEST = 3, 32, 8
_LANES = 32

Maps = Float[Array, 'B H W H W']


class Plan(NamedTuple):
  """Leading layers of a stack that run as fused stages.

  Attributes:
    starts: index of each stage's first layer, and of the first layer after.
    scales: for each stage, (W_std^2 / 9, b_std^2) of its convolutions.
  """

  starts: tuple[int, ...]
  scales: tuple[tuple[tuple[float, float], ...], ...]


class Variances(NamedTuple):
  """Of N images at one stage.

  Attributes:
    before: (N, H, W) variance that enters the stage.
    after: (N, L, H, W) variance after each of its L convolutions.
  """

  before: Float[Array, 'N H W']
  after: Float[Array, 'N L H W']


def plan(layers: Sequence[Layer], shape: tuple[int, int]) -> Plan:
  """The stages at the start of `layers` that this program can run.

  Args:
    layers: a stack, see `network.serial`.
    shape: (H, W) of the images. A stage needs even sides of 8 to 32 pixels.
  """
  starts, scales, at = [0], [], 0
  rules = [layer.rule for layer in layers]
  while all(_NARROWEST <= side <= _WIDEST and side % 2 == 0 for side in shape):
    convs = []
    while (len(convs) < _MOST_CONVS and rules[at:at + 2]
           and rules[at][:3] == ('conv', 3, 'SAME')
           and rules[at + 1:at + 2] == [('relu',)]):
      convs.append(rules[at][3:])
      at += 2
    if not convs or rules[at:at + 1] != [('pool', 2)]:
      break
    at += 1
    starts.append(at)
    scales.append(tuple(convs))
    shape = tuple(side // 2 for side in shape)
  return Plan(tuple(starts), tuple(scales))


def variances(tapes: Sequence) -> Variances:
  """From the tapes of a stage's layers, the pool's last."""
  return Variances(tapes[0][0], jnp.stack(
      [tape[1] for tape in tapes[:-1:2]], axis=1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(scales: tuple[tuple[float, float], ...], lefts: Int[Array, ' B'],
        rights: Int[Array, ' B'], alike: Int[Array, ' B'],
        inputs: tuple[Array, Array], one: Variances, two: Variances
        ) -> tuple[Maps, Maps]:
  r"""(gap, ntk) after the stage, in shift order.

  The pool's own term, gap' = mean of gap - v1 - v2 of pairs that are alike, is
  left to the caller.
  Derivatives go to `inputs`, `one.after` and `two.after`, and for a later
  stage to `before`; they hold along variances that belong together, that is
  if `after` is what `layers.Conv` makes of what is before it.

  Args:
    scales: (W_std^2 / 9, b_std^2) of the convolutions.
    lefts: the left image of each pair, as an index into `one`.
    rights: the right image, as an index into `two`.
    alike: 1 where gap is half the squared distance, a share of 1/2; 0 where it
      is -k, a share of 0: see `kernels.layers`.
    inputs: images (N, C, H, W) and (M, C, H, W) for a first stage; for a
      later one gap and ntk (B, H, W, H, W) in shift order.
    one: of the N left images.
    two: of the M right images.

  Raises:
    RuntimeError: the program cannot be compiled here; see `build.register`.
  """
  arrays = (lefts, rights, alike, *inputs, _planes(one), _planes(two))
  h, w = one.before.shape[1:]
  shape = lefts.shape[0], h // 2, w // 2, h // 2, w
  gap, ntk = _call('forward', arrays, (shape, shape), scales)
  return _joined(gap), _joined(ntk)


def _run_forward(scales, *args):
  return run(scales, *args), args


def _run_backward(scales, args, slopes):
  lefts, rights, alike, inputs, one, two = args
  arrays = (lefts, rights, alike, *inputs, _planes(one), _planes(two),
            *(slope / 16 for slope in slopes))
  pairs, (h, w) = lefts.shape[0], one.before.shape[1:]
  first = inputs[0].ndim == 4
  count = len(scales) + (inputs[0].shape[1] if first else 1)
  group = 32 if w > 16 else 16 if w > 8 else 8
  units = -(-(w // 2) // (_LANES // group))
  maps = (pairs, *((1,) * 4 if first else (h, w, h, w)))
  sums = pairs, units, count, h, _LANES
  gap, ntk, sums1, sums2 = _call(
      'backward', arrays, (maps, maps, sums, sums), scales)

  def of_images(sums, at, like):
    """Sums over the pairs of each image: (N, count, H, W)."""
    sums = sums.reshape(pairs, units, count, h, _LANES // group, group)
    sums = jnp.sum(sums, axis=(1, 4))[..., :w].reshape(pairs, -1)
    # A product, not a scatter, whose order of additions may change.
    hot = jax.nn.one_hot(at, like.shape[0], axis=0, dtype=sums.dtype)
    return numerics.matmul(hot, sums).reshape(-1, count, h, w)

  back1 = of_images(sums1, lefts, one.before)
  back2 = of_images(sums2, rights, two.before)
  split = lambda x: (x[:, :len(scales)], x[:, len(scales):])
  (after1, rest1), (after2, rest2) = split(back1), split(back2)
  if first:
    zeros = jnp.zeros_like(one.before), jnp.zeros_like(two.before)
    slopes, before = (rest1, rest2), zeros
  else:
    slopes, before = (gap, ntk), (rest1[:, 0], rest2[:, 0])
  return (None, None, None, slopes, Variances(before[0], after1),
          Variances(before[1], after2))


run.defvjp(_run_forward, _run_backward)


def _call(way, arrays, shapes, scales):
  indices, arrays = arrays[:3], arrays[3:]
  dtype = arrays[0].dtype
  build.register('cpu' if jax.default_backend() == 'cpu' else 'cuda')
  out = jax.ffi.ffi_call(
      f'dsr_stage_{way}_{dtype.name}',
      tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))
  weights, biases = np.asarray(scales, np.float64).T.copy()
  return out(*(i.astype(jnp.int32) for i in indices), *arrays,
             images=arrays[0].ndim == 4, scales=weights, biases=biases)


def _planes(one):
  """(N, L, 3, H + 2, W + 2): q / 2 before, sqrt q after, its inverse."""
  before = jnp.concatenate(
      [one.before[:, None], 0.5 * one.after[:, :-1]], axis=1)
  root = numerics.safe_sqrt(one.after)
  inverse = numerics.safe_divide(jnp.ones_like(root), root)
  planes = jnp.stack([0.5 * before, root, inverse], axis=2)
  return jnp.pad(planes, ((0, 0),) * 3 + ((1, 1),) * 2)


def _joined(x):
  """Both parts of the pooled columns, see `stage.h`, as a mean."""
  own, sent = x[..., 1::2], x[..., 0::2]
  return (own + jnp.roll(sent, 1, axis=2)) / 16


def at_right(values: Float[Array, 'M H W']) -> Float[Array, 'M H W H W']:
  """values[p - s] at [s][p], e.g. a variance of the right image."""
  h, w = values.shape[1:]
  rows, cols = ((np.arange(n)[None, :] - np.arange(n)[:, None]) % n
                for n in (h, w))  # [s, p]
  return values[:, rows[:, None, :, None], cols[None, :, None, :]]


def to_joint(maps: Maps) -> Maps:
  """[p][p'] from [s][p]."""
  h, w = maps.shape[1:3]
  rows, cols = ((np.arange(n)[:, None] - np.arange(n)[None, :]) % n
                for n in (h, w))  # [p, p']
  at = np.arange(h)[:, None, None, None], np.arange(w)[None, :, None, None]
  return maps[:, rows[:, None, :, None], cols[None, :, None, :], *at]
