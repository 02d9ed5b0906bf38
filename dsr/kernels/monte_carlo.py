r"""Kernels of wide networks by drawing finite ones: mean and standard error.

Over R independent draws of the parameters, K = (1/R) \sum_r K_r estimates the
expectation of the finite network's kernel, with the standard error

  s = sqrt( \sum_r (K_r - K)^2 / (R (R - 1)) )

of each entry. What the width adds to it, of the order of 1 / width for an NTK,
s does not contain. Axes: N, M examples; R draws. Ref: arXiv:1912.02803.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from dsr import checks
from dsr.kernels import empirical

_KERNELS = {'ntk': empirical.ntk, 'nngp': empirical.nngp}


class Estimate(NamedTuple):
  """A kernel (N, M) and the standard error of each of its entries."""

  mean: Float[Array, 'N M']
  standard_error: Float[Array, 'N M']


def monte_carlo(
    key: Key[Array, ''], init_fn: Callable, apply_fn: Callable, *,
    num: int = 16, get: str = 'ntk', **options) -> Callable:
  """The mean kernel over `num` draws of the parameters.

    monte_carlo(key, lambda key: module.init(key, x), module, num=64)

  Draws are taken one after the other, in the memory of one kernel more than
  the result. Parameters follow `init_fn`: for the limit of the analytic kernels
  it has to draw them as those do (variance W_std^2 / fan-in).

  Args:
    key: of the draws.
    init_fn: key -> parameters, or variables of a Linen module.
    apply_fn: a Linen module, or a function, as in `empirical.ntk`.
    num: R >= 2.
    get: 'ntk' or 'nngp', both averaged over outputs.
    **options: as in `empirical.ntk` or `empirical.nngp`.

  Returns:
    (x1 (N, ...), x2 (M, ...) = x1) -> `Estimate`. The same draws in each call.

  Raises:
    ValueError: `num` below 2, unknown `get`, or as `empirical.ntk`.
  """
  checks.at_least('num', num, 2)
  checks.one_of('get', get, _KERNELS)

  @jax.jit
  def estimate(x1, x2):

    def add(state, draw):
      """Welford's update of the mean and of the sum of squares."""
      count, key = draw
      kernel_fn = _KERNELS[get](apply_fn, init_fn(key), **options)
      k = kernel_fn(x1, x2)
      mean, squares = state
      change = k - mean
      mean = mean + change / count
      return (mean, squares + change * (k - mean)), None

    start = jax.eval_shape(lambda: _KERNELS[get](
        apply_fn, init_fn(key), **options)(x1, x2))
    zeros = jnp.zeros(start.shape, start.dtype)
    counts = jnp.arange(1, num + 1, dtype=start.dtype)
    (mean, squares), _ = lax.scan(
        add, (zeros, zeros), (counts, jax.random.split(key, num)))
    return Estimate(mean, jnp.sqrt(squares / (num * (num - 1))))

  def kernel(x1: PyTree, x2: PyTree = None) -> Estimate:
    return estimate(x1, x2)

  return kernel
