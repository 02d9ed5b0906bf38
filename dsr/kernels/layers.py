r"""Covariance rules of infinitely wide layers, carried as distances.

The rules are written for one pair of inputs; `network.serial` batches them.
A pair is described by

  q1, q2   variances k(x, x) and k(x', x') at the current depth,
  gap      (q1 + q2) / 2 - k(x, x'), half the squared RKHS distance,
  nngp     k(x, x') itself, \Sigma on paper,
  ntk      \Theta(x, x'), None before the first weights.

Every linear layer maps gap linearly and its bias drops out; the ReLU maps it
without cancellation (see `nonlinearities`). So x = x' gives exactly 0 at any
depth and near-duplicates keep their digits, which k(x, x') itself cannot do.

Shapes: without space q, gap and ntk are scalars. With space q is (H, W); gap
and ntk are (H, W) where both inputs are looked at in the same position
("diagonal"), or (H, W, H, W) where a later pooling layer mixes positions
("joint": position in x, then position in x').

NTK parameterisation: weights W_std w / sqrt(fan-in) and biases b_std b with
w, b ~ N(0, 1). Refs: arXiv:1806.07572; arXiv:1904.11955 (convolutions).
"""
from collections.abc import Callable
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks

Map = Float[Array, '...']


class Pair(NamedTuple):
  """What is known of two inputs at some depth; the module text has shapes."""

  gap: Map
  nngp: Map
  ntk: Map


class Layer(NamedTuple):
  """One layer's rules.

  Attributes:
    variance: (q, gap) -> (q after the layer, tape). `gap` is that of the
      input with itself; `tape` is what `pair` needs of this input.
    pair: (tape1, tape2, pair, joint_out) -> pair after the layer.
    name: for messages and records.
    pools: whether it mixes positions, and so needs a joint gap.
    spatial: whether it takes images; None where it takes both.
    rule: what a fused program reads: ('conv', size, padding, W_std^2 / size^2),
      ('relu',), ('pool', window); empty for all others.
  """

  variance: Callable
  pair: Callable
  name: str
  pools: bool = False
  spatial: bool | None = None
  rule: tuple = ()


def Dense(W_std: float = 1.0, b_std: float = 0.0) -> Layer:
  r"""k' = W_std^2 k + b_std^2;  \Theta' = k' + W_std^2 \Theta.

  Raises:
    ValueError: `W_std` is not positive, `b_std` negative, or either infinite.
  """
  checks.positive('W_std', W_std)
  checks.non_negative('b_std', b_std)

  def variance(q, gap):
    del gap
    return W_std**2 * q + b_std**2, ()

  def pair(tape1, tape2, at, joint_out):
    del tape1, tape2, joint_out
    nngp = W_std**2 * at.nngp + b_std**2
    ntk = nngp if at.ntk is None else nngp + W_std**2 * at.ntk
    return Pair(W_std**2 * at.gap, nngp, ntk)

  return Layer(variance, pair, f'Dense({W_std:g}, {b_std:g})', spatial=False)


def Conv(kernel_size: int = 3, W_std: float = 1.0, b_std: float = 0.0,
         padding: str = 'SAME') -> Layer:
  r"""k'(p, p') = W_std^2 / k^2 sum_o k(p + o, p' + o) + b_std^2, stride 1.

  o runs over the k x k offsets, the same in both inputs; \Theta' = k' + the
  same sum of \Theta. `padding` is 'SAME' (zeros outside) or 'CIRCULAR'.

  Raises:
    ValueError: an even or non-positive size, another padding, or bad scales.
  """
  checks.at_least('kernel_size', kernel_size, 1)
  if kernel_size % 2 == 0:
    raise ValueError(f'`kernel_size` must be odd, got {kernel_size}.')
  checks.positive('W_std', W_std)
  checks.non_negative('b_std', b_std)
  checks.one_of('padding', padding, ('SAME', 'CIRCULAR'))
  circular = padding == 'CIRCULAR'
  reach = kernel_size // 2
  scale = W_std**2 / kernel_size**2

  def extend(x, ends):
    """Zeros, or what comes round from the other side, all around x."""
    widths = [(end, end) for end in ends]
    return jnp.pad(x, widths, mode='wrap' if circular else 'constant')

  def window_sum(x):
    """Sums an (H, W) map over the offsets, one axis after the other."""
    for axis in range(2):
      ends = [reach if i == axis else 0 for i in range(2)]
      size = [2 * end + 1 for end in ends]
      x = lax.reduce_window(extend(x, ends), np.zeros((), x.dtype), lax.add,
                            size, (1, 1), 'VALID')
    return x

  def joint_sum(x, q1=None, q2=None):
    """Sums a joint map over the offsets, the same for both positions."""
    h, w = x.shape[:2]
    x = extend(x, [reach] * 4)
    if q1 is not None and not circular:
      # Where just one of the two positions is outside, its variance is 0 and
      # the gap is half the variance of the other one, not 0.
      outside = 1 - extend(jnp.ones((h, w), x.dtype), [reach] * 2)
      q1, q2 = (extend(q, [reach] * 2) for q in (q1, q2))
      x += 0.5 * (q1[:, :, None, None] * outside[None, None]
                  + outside[:, :, None, None] * q2[None, None])
    return sum(x[i:i + h, j:j + w, i:i + h, j:j + w]
               for i in range(kernel_size) for j in range(kernel_size))

  def variance(q, gap):
    del gap
    out = scale * window_sum(q) + b_std**2
    return out, (q, out)

  def pair(tape1, tape2, at, joint_out):
    del joint_out
    (q1, out1), (q2, out2) = tape1, tape2
    if at.gap.ndim == 2:
      gap = scale * window_sum(at.gap)
      ntk = None if at.ntk is None else window_sum(at.ntk)
    else:
      gap = scale * joint_sum(at.gap, q1, q2)
      ntk = None if at.ntk is None else joint_sum(at.ntk)
    nngp = _mean(out1, out2, gap) - gap
    return Pair(gap, nngp, nngp if ntk is None else nngp + scale * ntk)

  return Layer(variance, pair, f'Conv({kernel_size}, {W_std:g}, {b_std:g})',
               spatial=True, rule=('conv', kernel_size, padding, scale))


def AvgPool(window: int = 2) -> Layer:
  r"""Mean over window x window tiles, as many as fit (stride = window).

  k'(P, P') = mean of k(p, p') over p in P, p' in P'; the same for \Theta.
  gap' = mean of gap - v1(P) - v2(P'), v = half the mean of the input's gap
  with itself within the tile.

  Raises:
    ValueError: `window` is not a positive integer; later, if it is larger than
      the image.
  """
  checks.at_least('window', window, 1)
  return _pool(lambda shape: (window, window), f'AvgPool({window})',
               rule=('pool', window))


def GlobalAvgPool() -> Layer:
  """Mean over all positions; the output has no space left. See `AvgPool`."""
  return _pool(lambda shape: shape, 'GlobalAvgPool', squeeze=True)


def _pool(window_of, name, squeeze=False, rule=()):

  def means(x, window):
    for first in range(0, x.ndim, 2):  # One position, then the other.
      size = [1] * x.ndim
      size[first:first + 2] = window
      x = lax.reduce_window(x, np.zeros((), x.dtype), lax.add, size, size,
                            'VALID') / math.prod(window)
    return jnp.squeeze(x) if squeeze else x

  def variance(q, gap):
    window = window_of(q.shape)
    if any(size < w for size, w in zip(q.shape, window)):
      raise ValueError(f'`{name}` needs at least {window[0]} x {window[1]} '
                       f'pixels, got {q.shape[0]} x {q.shape[1]}.')
    inner = _diagonal(0.5 * means(gap, window), squeeze)
    out = means(q, window) - 2 * inner
    return out, (inner, out)

  def pair(tape1, tape2, at, joint_out):
    window = window_of(at.gap.shape[:2])

    def pool(x):
      x = means(x, window)
      return x if joint_out else _diagonal(x, squeeze)

    gap = pool(at.gap)
    inner1, inner2 = spread(tape1[0], tape2[0], gap)
    gap = gap - inner1 - inner2
    nngp = _mean(tape1[1], tape2[1], gap) - gap
    return Pair(gap, nngp, None if at.ntk is None else pool(at.ntk))

  return Layer(variance, pair, name, pools=True, spatial=True, rule=rule)


def Flatten() -> Layer:
  """Mean over positions, the same position in both; vectors pass unchanged."""

  def variance(q, gap):
    del gap
    return jnp.mean(q), ()

  def pair(tape1, tape2, at, joint_out):
    del tape1, tape2, joint_out
    return jax.tree.map(jnp.mean, at)

  return Layer(variance, pair, 'Flatten')


def spread(a1: Map, a2: Map, gap: Map) -> tuple[Map, Map]:
  """The two inputs' maps, shaped to broadcast against gap."""
  if gap.ndim == 4:
    return a1[:, :, None, None], a2[None, None, :, :]
  return a1, a2


def _mean(q1, q2, gap):
  q1, q2 = spread(q1, q2, gap)
  return 0.5 * (q1 + q2)


def _diagonal(x, scalar):
  """The entries at equal positions of a joint (H, W, H, W) map."""
  if scalar:
    return x
  h, w = x.shape[:2]
  return jnp.diagonal(x.reshape(h * w, h * w)).reshape(h, w)
