"""Precision: what is computed in which dtype, how exact, and for which device.

The library never sets `jax_enable_x64`; binaries and tests do. Kernels keep
the dtype of their inputs. Small solves go to float64 where x64 is on, since a
relative ridge of 1e-6 sits at the edge of what float32 resolves.

A product says its precision: `matmul` here, or `exact` around code of others.
Where CPUs and accelerators need different programs, `on_cpu` decides.
"""
from collections.abc import Callable
import contextlib
import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

# 'highest': the default may round float32 products to TF32 or bfloat16.
matmul = functools.partial(jnp.matmul, precision='highest')

# Relative error that a kernel value may have against an exact oracle.
KERNEL_RTOL = {'float32': 1e-5, 'float64': 1e-12}


# What programs are made for, if not for JAX's default device. It belongs to
# what JAX's caches of traced and compiled functions are keyed by.
_target = jax.make_user_context(default_value=None)


def on_cpu() -> bool:
  """Whether programs are to be made for CPUs, not for an accelerator."""
  return (_target.value or jax.default_backend()) == 'cpu'


def pretend_accelerator() -> contextlib.AbstractContextManager:
  """Within it the programs are those for accelerators; on CPUs they run too.

  For tests. Nothing that was compiled outside is used inside, or the other
  way round, since JAX keys its caches by this switch. What is decided in
  Python alone, such as the size of a block, follows the switch as well, as
  long as it is not kept from one call to the next.
  """
  return _target('accelerator')


def working_memory() -> int:
  """Bytes that temporaries may take: a quarter of the device's memory.

  Of a device that does not tell its memory, 4 GiB.
  """
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('bytes_limit', 2**34) // 4


def exact(fn: Callable) -> Callable:
  """`fn`, with all matrix products and convolutions in it at full precision.

  For functions that call networks, whose layers may not say their precision.
  The gradient of what `fn` computes inherits it.
  """
  @functools.wraps(fn)
  def precise(*args, **kwargs):
    with jax.default_matmul_precision('highest'):
      return fn(*args, **kwargs)
  return precise


def solve_dtype(dtype) -> jnp.dtype:
  """float64 where x64 is enabled, else `dtype`: for n x n factorisations."""
  if not jax.config.jax_enable_x64:
    return dtype
  return jnp.promote_types(dtype, jnp.float64)


def safe_sqrt(x: Float[Array, '...']) -> Float[Array, '...']:
  """sqrt(max(x, 0)) with gradient 0, not infinite, where x <= 0; NaN stays."""
  dead = x <= 0
  return jnp.where(dead, 0, jnp.sqrt(jnp.where(dead, 1, x)))


def safe_divide(
    x: Float[Array, '...'], y: Float[Array, '...']) -> Float[Array, '...']:
  """x / y, and 0 (with gradient 0) where y = 0."""
  zero = y == 0
  return jnp.where(zero, 0, x / jnp.where(zero, 1, y))


def not_negative(x: Float[Array, '...']) -> Float[Array, '...']:
  """x, and 0 (with gradient 0) where rounding left it below; NaN stays."""
  return jnp.where(x < 0, 0, x)


def tree_dot(a: PyTree, b: PyTree) -> Float[Array, '']:
  """<a, b> summed over all leaves; the leaves' own dtype accumulates."""
  dots = jax.tree.map(
      lambda u, v: jnp.vdot(u, v, precision='highest'), a, b)
  return jax.tree.reduce(operator.add, dots)


def tree_norm(a: PyTree) -> Float[Array, '']:
  """|a|_2 over all leaves."""
  return safe_sqrt(tree_dot(a, a))
