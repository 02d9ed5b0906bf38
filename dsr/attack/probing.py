r"""Slopes of a function that is known by its values, measured around a place.

A finite ReLU network's change f_T - f_0 has jumps, or ramps as thin as the
change of a weight, wherever a unit switches: to leading order it is
sum_j K_W(., x_j) a_j, and K_W has the units' masks in it. Its derivative, by
autodiff or by small differences, misses them. But it is they that become the
slope of the smooth kernel K as the width grows. So the slope at x is measured
on a scale s that many units' boundaries cross, of r = f_T - f_0 - m with
any smooth model m of it,

  slope = dm/dx + mean_p (r(x + s u_p) - r(x - s u_p)) u_p / (2 s),

with u_p ~ N(0, 1): that of r blurred by N(0, s^2), unbiased, from 2 P values
(arXiv:1703.03864 has the estimate). Its variance is D / P times the square of
the slope of r alone, so that a good model is worth many probes.

Axes: M places, P pairs of probes, C outputs, D numbers in an input.
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dsr import checks


def linear_near(
    key: Key[Array, ''], query: Callable, x: Float[Array, 'M ...'], *,
    probes: int, scale: float | Float[Array, ''], model: Callable) -> Callable:
  """A stand-in for `query` near `x`: its values there, and measured slopes.

  Args:
    key: of the probes.
    query: (Q, ...) -> (Q, C), of which values only are used.
    x: the places.
    probes: P, pairs of values for each place.
    scale: s, deviation of the probes, in the unit of `x`.
    model: m, (Q, ...) -> (Q, C), smooth.

  Returns:
    (M, ...) -> (M, C), for places near `x` in the same order: query(x) +
    model(z) - model(x) + <slope of r, z - x>.

  Raises:
    ValueError: `probes` is below 1.
  """
  checks.at_least('probes', probes, 1)
  x = jax.lax.stop_gradient(x)
  flat = x.reshape(len(x), -1)
  u = jax.random.normal(key, (probes, *flat.shape), x.dtype)
  step = scale * u
  ends = jnp.concatenate([flat[None] + step, flat[None] - step])
  ends = ends.reshape(2 * probes * len(x), *x.shape[1:])
  rest = query(ends) - model(ends)
  high, low = rest.reshape(2, probes, len(x), -1)
  slope = jnp.einsum('pmc,pmd->mcd', (high - low) / (2 * scale), u,
                     precision='highest') / probes
  slope = jax.lax.stop_gradient(slope)
  start = jax.lax.stop_gradient(query(x) - model(x))

  def near(z):
    shift = (z - x).reshape(flat.shape)
    return start + model(z) + jnp.einsum(
        'mcd,md->mc', slope, shift, precision='highest')

  return near
