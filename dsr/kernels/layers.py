r"""Covariance rules of infinitely wide layers, carried as distances.

The rules are written for one pair of inputs; `network.serial` batches them.
A pair is described by

  q1, q2   variances k(x, x) and k(x', x') at the current depth,
  gap      (q1 + q2) / 2 - k(x, x'), half the squared RKHS distance,
  nngp     k(x, x') itself, \Sigma on paper,
  ntk      \Theta(x, x'), None before the first weights.

Every linear layer maps gap linearly and its bias drops out; the ReLU maps it
without cancellation (see `arccos`). So x = x' gives exactly 0 at any depth and
near-duplicates keep their digits, which k(x, x') itself cannot do.

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

from dsr import checks, numerics
from dsr.kernels import arccos

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
  """

  variance: Callable
  pair: Callable
  name: str
  pools: bool = False
  spatial: bool | None = None


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
               spatial=True)


def Relu() -> Layer:
  r"""k' = sqrt(q1 q2) \kappa_1(c) / 2;  \Theta' = \Theta \kappa_0(c) / 2.

  With e = (sqrt q1 - sqrt q2)^2 / 2 and s = sqrt(q1 q2) the angle comes from
  h = (1 - c) / 2 = (gap - e) / (2 s), and
  gap' = (gap - s bend(h)) / 2 for c >= 0, a difference that keeps its digits.
  A zero vector has k' = 0 with everything.
  """

  def variance(q, gap):
    del gap
    return 0.5 * q, q

  def pair(tape1, tape2, at, joint_out):
    del joint_out
    return _relu(*_spread(tape1, tape2, at.gap), at.gap, at.ntk)

  return Layer(variance, pair, 'Relu')


@jax.custom_jvp
def _relu(q1, q2, gap, ntk):
  root1, root2, inv1, inv2 = _roots(q1, q2)
  s = root1 * root2
  excess = gap - 0.5 * (root1 - root2) ** 2  # s (1 - c)
  h = excess * (inv1 * (0.5 * inv2))
  bend = s * arccos.bend(h)
  rest = s - excess  # s c
  return Pair(
      0.5 * (gap - (jnp.maximum(-rest, 0) + bend)),
      0.5 * (jnp.maximum(rest, 0) + bend),
      None if ntk is None else 0.5 * ntk * arccos.kappa0(h))


@_relu.defjvp
def _relu_jvp(primals, tangents):
  r"""Closed form: a backward pass sums one (N, M) array for each variance.

  dk' = (\kappa_0 dk + (s sin \theta / \pi) d log(q1 q2) / 2) / 2, and
  dh = (dgap - de) / (2 s) - h d log(q1 q2) / 2.
  """
  q1, q2, gap, ntk = primals
  dq1, dq2, dgap, dntk = tangents
  root1, root2, inv1, inv2 = _roots(q1, q2)
  inv = inv1 * (0.5 * inv2)
  h = (gap - 0.5 * (root1 - root2) ** 2) * inv
  slope1, slope2 = dq1 * inv1, dq2 * inv2  # dq / sqrt q
  dlog = 0.5 * (slope1 * inv1 + slope2 * inv2)  # d log s
  k0, dmean = arccos.kappa0(h), 0.5 * (dq1 + dq2)
  half_sine = numerics.safe_sqrt(h * (1 - h))
  turn = (2 / math.pi) * root1 * root2 * half_sine * dlog
  dgap_out = 0.5 * ((1 - k0) * dmean + k0 * dgap - turn)
  dnngp = 0.5 * (k0 * (dmean - dgap) + turn)
  if ntk is not None:
    dh = inv * (dgap - 0.5 * (root1 - root2) * (slope1 - slope2)) - h * dlog
    # d kappa_0 = -2 / (pi sin theta) dh; 0 at the kinks, see `arccos.kappa0`.
    dk0 = (-1 / math.pi) * numerics.safe_divide(dh, half_sine)
    dntk = 0.5 * (k0 * dntk + ntk * dk0)
  return _relu(*primals), Pair(dgap_out, dnngp, dntk)


def _roots(q1, q2):
  """sqrt q1, sqrt q2 and their inverses, 0 for a zero vector."""
  root1, root2 = numerics.safe_sqrt(q1), numerics.safe_sqrt(q2)
  return (root1, root2, numerics.safe_divide(jnp.ones_like(root1), root1),
          numerics.safe_divide(jnp.ones_like(root2), root2))


def Erf() -> Layer:
  r"""k' = (2 / \pi) arcsin z, with z = 2 k / sqrt((1 + 2 q1) (1 + 2 q2)).

  \Theta' = \Theta (4 / \pi) / sqrt((1 + 2 q1) (1 + 2 q2) - 4 k^2). Refs:
  Williams (1997), Computing with infinite networks.
  """

  def variance(q, gap):
    del gap
    return (2 / math.pi) * jnp.arcsin(2 * q / (1 + 2 * q)), q

  def pair(tape1, tape2, at, joint_out):
    del joint_out
    gap = at.gap
    q1, q2 = _spread(tape1, tape2, gap)
    a1, a2 = 1 + 2 * q1, 1 + 2 * q2
    root1, root2 = jnp.sqrt(a1), jnp.sqrt(a2)
    k = 0.5 * (q1 + q2) - gap
    z = 2 * k / (root1 * root2)
    # 1 - z^2 without the difference of two numbers near 1:
    # q1 q2 - k^2 = gap (mean + k) - (q1 - q2)^2 / 4.
    rest = (1 + 2 * (q1 + q2) + 4 * gap * (0.5 * (q1 + q2) + k)
            - (q1 - q2) ** 2) / (a1 * a2)

    def arc(q, q_other, root, root_other):
      """arcsin(2 q / (1 + 2 q)) - arcsin(z), from differences of inputs."""
      own = 2 * q / root**2
      half_diff = 0.5 * (q - q_other)  # q - k = half_diff + gap
      excess = 2 / (root**2 * root_other) * (
          root * (half_diff + gap)
          - q * (4 * half_diff) / (root + root_other))
      c, c_own = jnp.sqrt(rest), jnp.sqrt(1 + 4 * q) / root**2
      sine = excess * (c + z * (own + z) / (c + c_own))
      return jnp.arctan2(sine, c_own * c + own * z)

    gap = (arc(q1, q2, root1, root2) + arc(q2, q1, root2, root1)) / math.pi
    slope = (4 / math.pi) / (root1 * root2 * jnp.sqrt(rest))
    return Pair(gap, (2 / math.pi) * jnp.arcsin(z),
                None if at.ntk is None else at.ntk * slope)

  return Layer(variance, pair, 'Erf')


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
  return _pool(lambda shape: (window, window), f'AvgPool({window})')


def GlobalAvgPool() -> Layer:
  """Mean over all positions; the output has no space left. See `AvgPool`."""
  return _pool(lambda shape: shape, 'GlobalAvgPool', squeeze=True)


def _pool(window_of, name, squeeze=False):

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
    inner1, inner2 = _spread(tape1[0], tape2[0], gap)
    gap = gap - inner1 - inner2
    nngp = _mean(tape1[1], tape2[1], gap) - gap
    return Pair(gap, nngp, None if at.ntk is None else pool(at.ntk))

  return Layer(variance, pair, name, pools=True, spatial=True)


def Flatten() -> Layer:
  """Mean over positions, the same position in both; vectors pass unchanged."""

  def variance(q, gap):
    del gap
    return jnp.mean(q), ()

  def pair(tape1, tape2, at, joint_out):
    del tape1, tape2, joint_out
    return jax.tree.map(jnp.mean, at)

  return Layer(variance, pair, 'Flatten')


def _spread(a1, a2, gap):
  """The two inputs' maps, shaped to broadcast against gap."""
  if gap.ndim == 4:
    return a1[:, :, None, None], a2[None, None, :, :]
  return a1, a2


def _mean(q1, q2, gap):
  q1, q2 = _spread(q1, q2, gap)
  return 0.5 * (q1 + q2)


def _diagonal(x, scalar):
  """The entries at equal positions of a joint (H, W, H, W) map."""
  if scalar:
    return x
  h, w = x.shape[:2]
  return jnp.diagonal(x.reshape(h * w, h * w)).reshape(h, w)
