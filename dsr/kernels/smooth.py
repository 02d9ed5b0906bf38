r"""Smooth nonlinearities by closed form; notation as in `nonlinearities`.

Each is written so that gap' = s' - k' comes from differences of the inputs:
the exponentials through `expm1`, with half the squared distance of the
pre-activations, d = gap + (r1 - r2)^2 / 2 = (q1 + q2) / 2 - k.
"""
from collections.abc import Sequence
import math

import jax.numpy as jnp

from dsr import checks, numerics
from dsr.kernels.layers import Layer, gap_after, nonlinear


def Sin(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
  r"""a sin(b x + c): k' = a^2/2 (exp(-b^2 d) - cos(2 c) exp(-b^2 (d + 2 k))).

  \Theta' = \Theta a^2 b^2 / 2 (exp(-b^2 d) + cos(2 c) exp(-b^2 (d + 2 k))).
  Refs: Louart, Liao & Couillet, arXiv:1702.05419.

  Raises:
    ValueError: a number is not finite, or `a` or `b` is 0.
  """
  for name, value in (('a', a), ('b', b)):
    checks.number(name, value)
    if value == 0:
      raise ValueError(f'`{name}` must not be 0.')
  checks.number('c', c)
  # Exactly 0 or 1 where it is meant to be.
  turned = round(math.cos(2 * c), 15)
  half = 0.5 * a * a

  def moments(q):
    decay = jnp.exp(-b * b * q)
    out = half * ((1 - turned) - turned * jnp.expm1(-2 * b * b * q))
    return out, (decay, numerics.safe_sqrt(out))

  def rule(one, two, gap, ntk):
    (root1, (decay1, out1)), (root2, (decay2, out2)) = one, two
    near = b * b * (gap + 0.5 * (root1 - root2) ** 2)
    # The same distance of x and -x': (q1 + q2) / 2 + k.
    far = b * b * jnp.maximum(0.5 * (root1 + root2) ** 2 - gap, 0)
    k = b * b * (root1 * root2 - gap)
    e_near, e_far = jnp.exp(-near), jnp.exp(-far)
    # e_near - turned e_far from the larger exponential, by expm1.
    lost = jnp.expm1(-2 * jnp.where(k >= 0, k, -k))
    nngp = half * jnp.where(
        k >= 0, e_near * ((1 - turned) - turned * lost),
        e_far * ((1 - turned) + lost))
    apart = -jnp.expm1(-near)
    half_distance = half * (apart + turned * (
        e_far * apart - 0.5 * (decay1 - decay2) ** 2))
    return (gap_after(half_distance, out1, out2, nngp), nngp,
            None if ntk is None else
            ntk * (half * b * b * (e_near + turned * e_far)))

  return nonlinear(f'Sin({a:g}, {b:g}, {c:g})', moments, rule)


def Cos(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
  """a cos(b x + c); see `Sin`."""
  return Sin(a, b, c + math.pi / 2)._replace(name=f'Cos({a:g}, {b:g}, {c:g})')


def Rbf(gamma: float = 1.0) -> Layer:
  r"""k' = exp(-2 gamma d), the kernel of a Gaussian process in x.

  Of the nonlinearity sqrt 2 sin(sqrt(2 gamma) x + \pi / 4), see `Sin`;
  \Theta' = 2 gamma k' \Theta.

  Raises:
    ValueError: `gamma` is not positive.
  """
  checks.positive('gamma', gamma)

  def rule(one, two, gap, ntk):
    near = 2 * gamma * (gap + 0.5 * (one[0] - two[0]) ** 2)
    nngp = jnp.exp(-near)
    return (-jnp.expm1(-near), nngp,
            None if ntk is None else 2 * gamma * nngp * ntk)

  return nonlinear(f'Rbf({gamma:g})', lambda q: (jnp.ones_like(q), ()), rule)


def Exp(a: float = 1.0, b: float = 1.0) -> Layer:
  r"""a exp(b x): k' = a^2 exp(b^2 (q1 + q2) / 2 + b^2 k).

  gap' = -s' expm1(-b^2 d), s' = a^2 exp(b^2 (q1 + q2)); \Theta' = b^2 k'
  \Theta. It overflows where b^2 q is above 44 in float32, 354 in float64.

  Raises:
    ValueError: a number is not finite, or 0.
  """
  for name, value in (('a', a), ('b', b)):
    checks.number(name, value)
    if value == 0:
      raise ValueError(f'`{name}` must not be 0.')

  def moments(q):
    own = jnp.exp(b * b * q)
    return (a * own) ** 2, own

  def rule(one, two, gap, ntk):
    (root1, own1), (root2, own2) = one, two
    near = b * b * (gap + 0.5 * (root1 - root2) ** 2)
    size = (a * own1) * (a * own2)
    nngp = size * jnp.exp(-near)
    return (-size * jnp.expm1(-near), nngp,
            None if ntk is None else b * b * nngp * ntk)

  return nonlinear(f'Exp({a:g}, {b:g})', moments, rule)


def Gaussian(a: float = 1.0, b: float = 1.0) -> Layer:
  r"""a exp(-b x^2): k' = a^2 / sqrt D, of D below.

  D = (1 + 2 b q1) (1 + 2 b q2) - 4 b^2 k^2;  \Theta' = 4 a^2 b^2 k D^{-3/2}
  \Theta. With w = sqrt(1 + 4 b q) of each input and D_0 = w1 w2, s' = a^2 /
  sqrt D_0 and D - D_0 = 4 b^2 gap (2 s - gap) + (w1 - w2)^2 / 2, where nothing
  is negative. Refs: Williams (1997), Computing with infinite networks.

  Raises:
    ValueError: `a` is 0 or `b` not positive.
  """
  checks.number('a', a)
  if a == 0:
    raise ValueError('`a` must not be 0.')
  checks.positive('b', b)

  def moments(q):
    wide = jnp.sqrt(1 + 4 * b * q)
    return a * a / wide, wide

  def rule(one, two, gap, ntk):
    # Divided by sqrt(1 + 4 b q) of both, so that no product overflows.
    (root1, wide1), (root2, wide2) = one, two
    inv = 1 / jnp.sqrt(wide1) / jnp.sqrt(wide2)  # D_0^{-1/2}
    s = root1 * root2
    over = (4 * b * b * (gap * inv) * ((2 * s - gap) * inv)
            + 0.5 * ((wide1 - wide2) * inv) ** 2)  # D / D_0 - 1
    grown = jnp.sqrt(1 + numerics.not_negative(over))
    nngp = a * a * inv / grown
    slope = 4 * b * b * nngp * ((s - gap) * inv) * inv / grown**2
    return (nngp * (over / (1 + grown)), nngp,
            None if ntk is None else ntk * slope)

  return nonlinear(f'Gaussian({a:g}, {b:g})', moments, rule)


def Gelu() -> Layer:
  r"""x Phi(x): k' = k/4 + (k arctan(k/D) + (k^2 + s^2 D^2) / (P D)) / (2 \pi).

  P = (1 + q1)(1 + q2), D^2 = P - k^2 = 1 + q1 + q2 + gap (2 s - gap).
  \Theta' = \Theta dk'/dk. gap' is the difference s' - k', rounded like k', so
  that a layer with a kink behind it sees small angles to 3e-4 in float32
  only. Refs: arXiv:2002.08517.
  """

  def moments(q):
    # With x = x': D^2 = 1 + 2 q.
    d = jnp.sqrt(1 + 2 * q)
    out = q * (0.25 + (q / (1 + q) / d + 0.5 * jnp.arctan2(q, d)) / math.pi)
    up = jnp.sqrt(1 + q)
    inv = 1 / up
    return out, (inv, up, jnp.sqrt(inv), numerics.safe_sqrt(out))

  def rule(one, two, gap, ntk):
    root1, (inv1, up1, fourth1, out1) = one
    root2, (inv2, up2, fourth2, out2) = two
    s = root1 * root2
    # All over sqrt P, so that no product overflows; D^2 = sqrt P r.
    inv, fourth = inv1 * inv2, fourth1 * fourth2
    size = (root1 * inv1) * (root2 * inv2)
    lost = (gap * inv1) * inv2
    k = size - lost
    least = inv1 * up2 + inv2 * (up1 - inv1)  # sqrt P - s^2 / sqrt P
    r = least + numerics.not_negative(gap * (2 * size - lost))
    d = fourth * jnp.sqrt(r)  # D^2 / P = 1 - k^2 / P
    angle = jnp.arctan2(k, d)
    turned = 0.25 + angle / (2 * math.pi)
    # (k^2 + s^2 D^2) / (P D) with k = sqrt P k, s = sqrt P size, D = sqrt P d.
    nngp = (s - gap) * turned + (
        inv * k * k + size * s * d * d) / (d * 2 * math.pi)
    slope = turned + k * (1 / r + least + inv) * (
        fourth / jnp.sqrt(r)) / (2 * math.pi)
    same = (gap == 0) & (root1 == root2)
    out = jnp.where(same, 0, numerics.not_negative(out1 * out2 - nngp))
    return out, nngp, None if ntk is None else ntk * slope

  return nonlinear('Gelu', moments, rule)


def LayerNorm(axis: int | Sequence[int] = -1) -> Layer:
  r"""x over its standard deviation m: k' = k / (m1 m2), likewise \Theta'.

  m^2 is the mean of q over the positions that are normalised together. The mean
  of the activations is 0, so they must be Gaussian, and channels must be among
  the axes: at each position they alone give a limit. What is zero everywhere
  stays zero. Refs: arXiv:1607.06450.

  Args:
    axis: of the inputs, batch at 0: -1 for channels alone, each position by
      itself; (1, 2, 3) for whole images (N, H, W, C), (1, 3) and (2, 3) for
      columns and rows; (1, 2) for whole sequences (N, L, C).

  Raises:
    ValueError: `axis` is none of these, such as that of the batch; in `serial`,
      it does not fit the inputs, or they are not Gaussian.
  """
  axes, ndim = _positions(axis)

  def moments(q):
    mean = jnp.mean(q, axes, keepdims=True) if axes else q
    root = jnp.broadcast_to(numerics.safe_sqrt(mean), q.shape)
    inv = numerics.safe_divide(jnp.ones_like(q), root)
    return ((q * inv) * inv if axes else (q > 0).astype(q.dtype)), inv

  def rule(one, two, gap, ntk):
    (root1, inv1), (root2, inv2) = one, two
    nngp = (root1 * inv1) * (root2 * inv2) - gap * inv1 * inv2
    return (gap * inv1 * inv2, nngp,
            None if ntk is None else ntk * inv1 * inv2)

  return nonlinear('LayerNorm', moments, rule)._replace(
      nonlinear=False, centred=True, ndim=ndim or None,
      spatial=None if ndim is None else ndim > 0)


def _positions(axis):
  """(axes of a map of positions, spatial axes of the data or None for any)."""
  axes = sorted(axis) if isinstance(axis, (tuple, list)) else [axis]
  if axes == [-1]:
    return (), None
  if not axes or len(set(axes)) < len(axes) or not set(axes) <= {1, 2, 3}:
    raise ValueError(
        '`axis` must be -1, the channels, or hold some of 1, 2 and 3, of which '
        f'the largest is the channels; got {axis!r}.')
  return tuple(a - 1 for a in axes[:-1]), axes[-1] - 1
