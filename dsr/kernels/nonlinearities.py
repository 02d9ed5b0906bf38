r"""Covariance rules of nonlinearities, for one pair; see `layers`.

Each maps (q1, q2, gap, nngp, ntk) of the pre-activations to those of the
activations, entry by entry. The gap keeps its digits: where x' is near x no
number is the difference of two that are large against it.
"""
import math

import jax
import jax.numpy as jnp

from dsr import numerics
from dsr.kernels import arccos
from dsr.kernels.layers import Layer, Pair, spread


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
    return _relu(*spread(tape1, tape2, at.gap), at.gap, at.ntk)

  return Layer(variance, pair, 'Relu', rule=('relu',))


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
    q1, q2 = spread(tape1, tape2, gap)
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
