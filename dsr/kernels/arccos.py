r"""Arc-cosine maps of the ReLU, exact to the last digit near the diagonal.

For a cosine c = cos(theta) and the gap h = (1 - c) / 2 = sin^2(theta / 2):

  \kappa_0(c) = (\pi - theta) / \pi
  \kappa_1(c) = (sin(theta) + (\pi - theta) cos(theta)) / \pi
              = max(c, 0) + bend(h)

On paper everything is a function of c; in code of h, since 1 - c computed
from a rounded c has lost the digits that decide theta when c is near 1 (in
float32 an error of 6e-8 in c is one of 3e-4 in theta). `bend` is even in c, so
with w = min(h, 1 - h) in [0, 1/2] both maps are a square root of w times a
function that is smooth there:

  arcsin(\sqrt w)                     = \sqrt w   A(w)
  (\sqrt{1 - w} - A(w) (1 - 2w)) / w  = B(w)
  theta = 2 \sqrt w A(w) for h <= 1/2;  bend = (2 / \pi) w \sqrt w B(w)

A and B are replaced by the polynomials that interpolate them at the Chebyshev
nodes of [0, 1/2], of the degree that reaches the rounding error of the dtype.
So there is no cancellation anywhere, no call of arccos, and one square root.

Refs: Cho & Saul (2009), arc-cosine kernels; arXiv:1806.07572, the NTK.
"""
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Coefficients of w^0, w^1, ...; tests rebuild them with mpmath.
_ANGLE = {
    'float32': (
        1.00000008039303, 0.1666509787329774, 0.075490741717689,
        0.039013792142359796, 0.06012427757898252, -0.053542483714448565,
        0.09990710559890058),
    'float64': (
        1.0, 0.16666666666666616, 0.075000000000152, 0.04464285712523146,
        0.03038194552436468, 0.022372118687437575, 0.017353770558111315,
        0.01394720494599378, 0.011778012699157943, 0.00758177172566054,
        0.02446902457333711, -0.08458119964926274, 0.41616195625122965,
        -1.4218180318389972, 3.878312067627145, -8.097162378402428,
        12.830658050319302, -14.884387574231052, 11.99054929620933,
        -6.008042872156452, 1.4326072705765098),
}
_BEND = {
    'float32': (
        1.3333332039635166, 0.13335186546240943, 0.04243637094056695,
        0.023235001112506426, -0.0007188578898636121, 0.02354166409461532),
    'float64': (
        1.3333333333333333, 0.1333333333333333, 0.04285714285715296,
        0.019841269840097746, 0.01104797986981096, 0.006883738570433577,
        0.004627470818101312, 0.0032846708999487153, 0.0024470321435148055,
        0.0017139922845107, 0.002532301792821736, -0.004969240229927461,
        0.028359688456588355, -0.09482640911827522, 0.26052078346366503,
        -0.5440838271592339, 0.8648490294770869, -1.005945933231549,
        0.8138067162801442, -0.40980776852545414, 0.0986394028652248),
}


@jax.custom_jvp
def kappa0(h: Float[Array, '...']) -> Float[Array, '...']:
  r"""\kappa_0 = 1 - theta / \pi at the gap h in [0, 1].

  d\kappa_0 / dh = -2 / (\pi sin theta), replaced by 0 at h = 0 and h = 1: there
  the kernel has a kink in x, and 0 is the mean of its one-sided slopes.
  """
  angle = _acute(h)
  return jnp.where(h > 0.5, angle, 1 - angle)


@jax.custom_jvp
def turn(h: Float[Array, '...']) -> Float[Array, '...']:
  r"""theta / \pi = 1 - \kappa_0 at h, with the digits of small angles."""
  angle = _acute(h)
  return jnp.where(h > 0.5, 1 - angle, angle)


@jax.custom_jvp
def bend(h: Float[Array, '...']) -> Float[Array, '...']:
  r"""\kappa_1(c) - max(c, 0) at the gap h in [0, 1]; h^{3/2} near 0.

  d\kappa_1 / dc = \kappa_0, so d bend / dh = -2 (\kappa_0 - [c > 0]).
  """
  w, root = _fold(h)
  # In this order: XLA does not fuse a value into both a square root of it and
  # a product with that root, and the whole kernel is to be one fused loop.
  return root * (w * _horner(_BEND, w))


@kappa0.defjvp
def _kappa0_jvp(primals, tangents):
  (h,), (dh,) = primals, tangents
  square = h * (1 - h)  # (sin(theta) / 2)^2
  inside = square > 0
  slope = jnp.where(
      inside, (-1 / math.pi) * jax.lax.rsqrt(jnp.where(inside, square, 1)), 0)
  return kappa0(h), slope * dh


@turn.defjvp
def _turn_jvp(primals, tangents):
  (h,), (dh,) = primals, tangents
  return turn(h), -_kappa0_jvp(primals, (dh,))[1]


@bend.defjvp
def _bend_jvp(primals, tangents):
  (h,), (dh,) = primals, tangents
  return bend(h), 2 * (jnp.where(h > 0.5, 0, 1) - kappa0(h)) * dh


def _acute(h):
  r"""The smaller of theta / \pi and 1 - theta / \pi."""
  w, root = _fold(h)
  return root * _horner(_ANGLE, w)


def _fold(h):
  w = jnp.maximum(jnp.minimum(h, 1 - h), 0)  # Rounding may leave [0, 1].
  return w, jnp.sqrt(w)


def _horner(table, w):
  """2 / pi times the polynomial of `table` at w."""
  coefs = table['float64' if w.dtype == jnp.float64 else 'float32']
  *rest, last = ((2 / math.pi) * c for c in coefs)
  total = jnp.full_like(w, last)
  for c in reversed(rest):
    total = total * w + c
  return total
