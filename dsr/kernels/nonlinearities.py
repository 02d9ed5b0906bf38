r"""Nonlinearities with a kink, and the error function; see `layers`.

Each maps gap = sqrt(q1 q2) - k = s (1 - c) of the pre-activations to that of
the activations, entry by entry. The gap keeps its digits: where x' is near x
no number is the difference of two that are large against it. Notation here:
r = sqrt q of one input, s = r1 r2, c = cos theta, h = (1 - c) / 2 = gap / 2 s.
"""
import math

import jax
import jax.numpy as jnp

from dsr import checks, numerics
from dsr.kernels import arccos
from dsr.kernels.layers import Layer, gap_after, nonlinear


def Relu() -> Layer:
  r"""max(x, 0): k' = s \kappa_1(c) / 2;  \Theta' = \Theta \kappa_0(c) / 2.

  gap' = (min(gap, s) - s bend(h)) / 2. A zero vector has k' = 0 with
  everything. Refs: Cho & Saul (2009), Kernel methods for deep learning.
  """
  return _bent('Relu', 0.0, 1.0, fused=('relu',))


def ABRelu(a: float, b: float) -> Layer:
  r"""a min(x, 0) + b max(x, 0) = (b + a)/2 x + (b - a)/2 |x|.

  k' = ab k + (b - a)^2 k_relu, with k_relu that of `Relu`. Refs:
  arXiv:1711.09090.

  Raises:
    ValueError: `a` or `b` is not finite, or both are 0.
  """
  checks.number('a', a)
  checks.number('b', b)
  if a == b == 0:
    raise ValueError('`a` and `b` must not both be 0.')
  return _bent(f'ABRelu({a:g}, {b:g})', a, b)


def LeakyRelu(alpha: float) -> Layer:
  """max(x, 0) + alpha min(x, 0); see `ABRelu`."""
  checks.number('alpha', alpha)
  return _bent(f'LeakyRelu({alpha:g})', alpha, 1.0)


def Abs() -> Layer:
  """|x|; see `ABRelu`."""
  return _bent('Abs', -1.0, 1.0)


def Sign() -> Layer:
  r"""sign(x): k' = 1 - 2 theta / \pi, 0 with a zero vector;  \Theta' = 0.

  Its derivative is 0 almost everywhere, and that is what the NTK takes.
  Refs: Williams (1997), Computing with infinite networks.
  """

  def moments(q):
    root = numerics.safe_sqrt(q)
    on = (q > 0).astype(q.dtype)
    return on, (_inverse(root), on)

  def rule(own1, own2, gap, ntk):
    (_, (inv1, on1)), (_, (inv2, on2)) = own1, own2
    turned = 2 * arccos.turn(gap * (inv1 * (0.5 * inv2)))
    on = on1 * on2
    return (on * turned, on * (1 - turned),
            None if ntk is None else jnp.zeros_like(ntk))

  return nonlinear('Sign', moments, rule)


def _bent(name, a, b, fused=()):
  """`ABRelu` by its slopes."""
  straight, bent = a * b, 0.5 * (b - a) ** 2
  gain = straight + bent

  def moments(q):
    return gain * q, _inverse(numerics.safe_sqrt(q))

  def rule(own1, own2, gap, ntk):
    out_gap, nngp, out_ntk = _rectified(*own1, *own2, gap, ntk)
    if not straight:
      return (bent * out_gap, bent * nngp,
              None if ntk is None else bent * out_ntk)
    (root1, _), (root2, _) = own1, own2
    return (straight * gap + bent * out_gap,
            straight * (root1 * root2 - gap) + bent * nngp,
            None if ntk is None else straight * ntk + bent * out_ntk)

  return nonlinear(name, moments, rule, gain=gain, fused=fused)


@jax.custom_jvp
def _rectified(root1, inv1, root2, inv2, gap, ntk):
  """Twice what a ReLU makes of (gap, nngp, ntk)."""
  s = root1 * root2
  h = gap * (inv1 * (0.5 * inv2))
  bend = s * arccos.bend(h)
  return (jnp.minimum(gap, s) - bend, jnp.maximum(s - gap, 0) + bend,
          None if ntk is None else ntk * arccos.kappa0(h))


@_rectified.defjvp
def _rectified_jvp(primals, tangents):
  r"""Closed form: a backward pass sums one (N, M) array for each root.

  With t = (theta - sin theta) / \pi: dgap' = t ds + \kappa_0 dgap, and
  dk' = (1 - t) ds - \kappa_0 dgap. The inverses count as functions of r.
  """
  root1, inv1, root2, inv2, gap, ntk = primals
  droot1, _, droot2, _, dgap, dntk = tangents
  inv = inv1 * (0.5 * inv2)
  h = gap * inv
  ds = root2 * droot1 + root1 * droot2
  k0, half_sine = arccos.kappa0(h), numerics.safe_sqrt(h * (1 - h))
  lost = (arccos.turn(h) - (2 / math.pi) * half_sine) * ds + k0 * dgap
  if ntk is not None:
    # d kappa_0 = -2 / (pi sin theta) dh; 0 at the kinks, see `arccos.kappa0`.
    dh = inv * (dgap - 2 * h * ds)
    dk0 = (-1 / math.pi) * numerics.safe_divide(dh, half_sine)
    dntk = k0 * dntk + ntk * dk0
  return _rectified(*primals), (lost, ds - lost, dntk)


def _inverse(root):
  """1 / r, and 0 for a zero vector."""
  return numerics.safe_divide(jnp.ones_like(root), root)


def Erf() -> Layer:
  r"""erf(x): k' = (2 / \pi) arcsin z, z = 2 k / sqrt((1 + 2 q1) (1 + 2 q2)).

  \Theta' = \Theta (4 / \pi) / sqrt((1 + 2 q1) (1 + 2 q2) - 4 k^2).

  In code d = 1 / (1 + 2 q), which keeps its digits for large q, and w^2 =
  1 - d; z = w1 w2 - e with e = 2 gap sqrt(d1 d2); and 1 - z^2 = sqrt(d1 d2) R,
  R = sqrt(d1 / d2) + sqrt(d2 / d1) - sqrt(d1 d2) + 2 gap (2 w1 w2 - e), where
  nothing cancels but near the antipode, and no slope is too large. Refs:
  Williams (1997), Computing with infinite networks.
  """

  def moments(q):
    up = jnp.sqrt(1 + 2 * q)
    inv = 1 / up  # Not sqrt d, whose slope is too large where d is small.
    d = inv * inv
    w = math.sqrt(2) * numerics.safe_sqrt(q) * inv
    square = 2 * q * d
    c = jnp.sqrt(d * (2 - d))
    out = (2 / math.pi) * jnp.arctan2(square, c)
    return out, (d, inv, up, jnp.sqrt(inv), w, square, c,
                 numerics.safe_sqrt(out))

  def rule(own1, own2, gap, ntk):
    _, (d1, inv1, up1, fourth1, w1, square1, c1, out1) = own1
    _, (d2, inv2, up2, fourth2, w2, square2, c2, out2) = own2
    excess, largest = (2 * gap * inv1) * inv2, w1 * w2
    z = largest - excess
    fourth = fourth1 * fourth2
    grown = jnp.sqrt((inv1 * up2 + inv2 * (up1 - inv1)) + numerics.not_negative(
        2 * gap * (2 * largest - excess)))
    c = fourth * grown
    nngp = (2 / math.pi) * jnp.arctan2(z, c)
    # w1 - w2 from what is small.
    apart = jnp.where(d1 + d2 < 1, (d2 - d1) / jnp.maximum(w1 + w2, 0.5),
                      w1 - w2)

    def arc(square, c_own, over):
      """arcsin(w^2) - arcsin(z), from w^2 - z = over."""
      sine = over * (c + z * (square + z) / (c + c_own))
      return jnp.arctan2(sine, c_own * c + square * z)

    half_distance = (arc(square1, c1, w1 * apart + excess)
                     + arc(square2, c2, excess - w2 * apart)) / math.pi
    slope = (4 / math.pi) * (fourth / grown)
    return (gap_after(half_distance, out1, out2, nngp), nngp,
            None if ntk is None else ntk * slope)

  return nonlinear('Erf', moments, rule)
