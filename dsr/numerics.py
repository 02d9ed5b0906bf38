"""Precision: what is computed in which dtype, and how exact it must be.

The library never sets `jax_enable_x64`; binaries and tests do. Kernels keep
the dtype of their inputs. Small solves go to float64 where x64 is on, since a
relative ridge of 1e-6 sits at the edge of what float32 resolves.
"""
import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

# 'highest': the default may round float32 products to TF32 or bfloat16.
matmul = functools.partial(jnp.matmul, precision='highest')

# Relative error that a kernel value may have against an exact oracle.
KERNEL_RTOL = {'float32': 1e-5, 'float64': 1e-12}


def solve_dtype(dtype) -> jnp.dtype:
  """float64 where x64 is enabled, else `dtype`: for n x n factorisations."""
  if not jax.config.jax_enable_x64:
    return dtype
  return jnp.promote_types(dtype, jnp.float64)


def safe_sqrt(x: Float[Array, '...']) -> Float[Array, '...']:
  """sqrt(max(x, 0)) with gradient 0, not infinite, where x <= 0."""
  positive = x > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def safe_divide(
    x: Float[Array, '...'], y: Float[Array, '...']) -> Float[Array, '...']:
  """x / y, and 0 (with gradient 0) where y = 0."""
  zero = y == 0
  return jnp.where(zero, 0, x / jnp.where(zero, 1, y))


def tree_dot(a: PyTree, b: PyTree) -> Float[Array, '']:
  """<a, b> summed over all leaves; the leaves' own dtype accumulates."""
  dots = jax.tree.map(
      lambda u, v: jnp.vdot(u, v, precision='highest'), a, b)
  return jax.tree.reduce(operator.add, dots)


def tree_norm(a: PyTree) -> Float[Array, '']:
  """|a|_2 over all leaves."""
  return safe_sqrt(tree_dot(a, a))
