r"""Rows with as many zeros as possible in a span: the heart of `first_layer`.

A row of the first layer's change is t' V' for some t on the unit sphere of R^N,
and is exactly zero at every unit that its image never made active: at 36 to 50
% of the units where training ran, while a vector of the span that is no row can
be zero at N - 1 units by chance. In units in which an entry has variance 1 over
the units, u = sqrt(W) t' V', two methods find such t without the weights:

  descend  the smoothed L1 norm, sum_w \mu log cosh(u_w / \mu), falls along the
           sphere from random t while \mu is lowered. Among 20 units or more for
           an image nearly every start ends in a row.
  polish   from a t that is nearly a row, the L_p norm with p = 1/2 by least
           squares with weights (u_w^2 + e^2)^{p / 2 - 1}, e lowered to the
           rounding noise: zeros become exact.

A combination of two rows is zero where both are, at a quarter of the units, or
at nearly half for images that look alike. Such a mixture is told by the space
of all t that vanish on its zeros, which has two dimensions and not one: polish
takes it apart, and what it cannot is reported by `second`. Minimising norms for
one vector of a span is dictionary learning on the sphere (arXiv:1504.06785) and
dual principal component pursuit (arXiv:1510.04390).

Axes: N rows, W units, B starts.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import numerics

_POWER = 0.5  # p.
_LEAST = 1e-3  # e at the end, in units of an entry's deviation.
ZERO = 1e-2  # |u| that counts as 0, unless rounding noise is larger.
MOST = 0.25  # |u| that counts as 0 at most, however large the noise is.
DEVIATIONS = 4.0  # Of the rounding noise, which count as 0 likewise.
_COMBINATIONS = 64
_STEPS = 30  # Of least squares; 12 after a mixture was taken apart.


class Rows(NamedTuple):
  """Candidates for rows.

  Attributes:
    t: of length 1.
    zeros: share of the units at which t V' is 0.
    second: sum of u^2 over these units for the next t that is small there, in
      entries of variance 1: a few for a mixture, a tenth of W for a row.
  """

  t: Float[Array, 'B N']
  zeros: Float[Array, 'B']
  second: Float[Array, 'B']


@functools.partial(jax.jit, static_argnames='iterations')
@numerics.exact
def descend(
    t: Float[Array, 'B N'], codes: Float[Array, 'N W'], *,
    iterations: int = 500) -> Float[Array, 'B N']:
  r"""Each t after descent of the smoothed L1 norm; see the module text.

  Args:
    t: starts, of length 1.
    codes: V', its rows orthonormal.
    iterations: during which \mu goes from 0.5 to 0.03 and the length of a step,
      an angle, from 0.2 to 0.005.
  """
  root = codes.shape[1] ** 0.5

  def body(i, t):
    share = (i / iterations).astype(t.dtype)
    mu = 0.5 * 0.06**share
    slope = numerics.matmul(jnp.tanh(root * numerics.matmul(t, codes) / mu),
                            codes.T)
    slope -= jnp.sum(slope * t, axis=1, keepdims=True) * t
    slope /= jnp.maximum(jnp.linalg.norm(slope, axis=1, keepdims=True), 1e-12)
    t = t - 0.2 * 0.025**share * slope
    return t / jnp.linalg.norm(t, axis=1, keepdims=True)

  return jax.lax.fori_loop(0, iterations, body, t)


@jax.jit
@numerics.exact
def polish(
    t: Float[Array, 'B N'], codes: Float[Array, 'N W'],
    spread: Float[Array, 'N']) -> Rows:
  """Each t as sparse as it gets; far from a row it stays as it is.

  Args:
    t: of length 1.
    codes: V'.
    spread: deviation of the rounding noise of an entry of V', times sqrt(W),
      for each direction: that of u is |t * spread|.
  """
  def all_of_it(t):
    t = _shrink(t, codes, spread, jnp.inf, _STEPS)
    return _shrink(_part(t, codes, spread), codes, spread, 0.05, 12)

  def one(t):
    low, high = jnp.quantile(
        jnp.abs(t @ codes), jnp.array([0.3, 0.9], t.dtype))
    # 0.23 for a normal vector; up to 90 % of a row may be 0.
    t = jax.lax.cond(low < 0.18 * high, all_of_it, lambda t: t, t)
    chosen = is_zero(t, codes, spread)
    return t, jnp.mean(chosen, dtype=t.dtype), _pair(
        chosen.astype(t.dtype), codes)[1]

  return Rows(*jax.lax.map(one, t))


def is_zero(
    t: Float[Array, 'N'], codes: Float[Array, 'N W'], spread: Float[Array, 'N']
) -> Float[Array, 'W']:
  """Whether an entry of t V' is 0, but for rounding."""
  limit = jnp.clip(DEVIATIONS * jnp.linalg.norm(t * spread), ZERO, MOST)
  return jnp.abs(t @ codes) * codes.shape[1] ** 0.5 < limit


def _shrink(t, codes, spread, start, steps):
  """Least squares with weights that make small entries smaller."""
  root = codes.shape[1] ** 0.5
  start = jnp.clip(root * jnp.quantile(jnp.abs(t @ codes), 0.3), _LEAST, start)

  def body(i, t):
    u = root * (t @ codes)
    e = start * (_LEAST / start) ** ((i + 1) / steps).astype(t.dtype)
    e = jnp.maximum(e, jnp.linalg.norm(t * spread))
    weights = (u**2 + e**2) ** (_POWER / 2 - 1)
    factor = _factor(weights, codes)
    for _ in range(3):
      t = jax.scipy.linalg.cho_solve(factor, t)
      t /= jnp.linalg.norm(t)
    return t

  return jax.lax.fori_loop(0, steps, body, t)


def _factor(weights, codes):
  energy = (codes * weights[None]) @ codes.T
  # On a row's zeros it is singular, but for rounding, 1e-7 and less by float32.
  ridge = 1e-12 if codes.dtype == jnp.float64 else 1e-6
  ridge *= jnp.trace(energy) / len(energy)
  return jax.scipy.linalg.cho_factor(
      energy + ridge * jnp.eye(len(energy), dtype=codes.dtype), lower=True)


def probe(codes: Float[Array, 'N W']) -> Float[Array, 'N 2']:
  """Where inverse iterations start: any two fixed directions will do."""
  angles = jnp.arange(len(codes), dtype=codes.dtype)
  return jnp.stack([jnp.cos(angles), jnp.sin(1.7 * angles + 0.5)], axis=1)


def _pair(weights, codes):
  """(the two t of least weighted energy (N, 2), W times the second energy)."""
  factor = _factor(weights, codes)
  v = jax.lax.fori_loop(0, 6, lambda _, v: jnp.linalg.qr(
      jax.scipy.linalg.cho_solve(factor, v))[0], probe(codes))
  energy = jnp.sum(weights[:, None] * (codes.T @ v) ** 2, axis=0)
  return v, codes.shape[1] * jnp.max(energy)


def _part(t, codes, spread):
  """Of a mixture of two rows the one with more zeros; else t.

  On the common zeros of two rows all their combinations vanish; of those that
  vanish at a further unit, the one with most zeros is a row.
  """
  width = codes.shape[1]
  v, _ = _pair(is_zero(t, codes, spread).astype(t.dtype), codes)
  rows = v.T @ codes
  places = np.linspace(0.25 * width, width - 1, _COMBINATIONS).astype(int)
  units = jnp.argsort(jnp.sum(rows**2, axis=0))[places]
  turn = jnp.stack([rows[1, units], -rows[0, units]], axis=1)
  length = jnp.linalg.norm(turn, axis=1, keepdims=True)
  tells = length > 1e-3 * jnp.max(length)  # Where both vanish, all do.
  turn /= jnp.where(tells, length, 1)
  found = jnp.concatenate([t[None], turn @ v.T])
  share = jax.vmap(lambda t: jnp.mean(
      is_zero(t, codes, spread), dtype=t.dtype))(found)
  share = share * jnp.append(True, tells)
  return found[jnp.argmax(share)]
