r"""The largest stable learning rate of full-batch gradient descent.

For L = 1/(2N) sum_n |y_n - f(x_n)|^2 the curvature in function space is
J J' / N, with J the (N C, P) Jacobian at \theta_0: the empirical NTK over N.
Gradient descent on a quadratic is stable below

  2 (1 + m) / \lambda_max        with heavy-ball momentum m (0: none),

Polyak, USSR Comp. Math. 4 (1964). Cross-entropy has at most half that
curvature, so the rate is safe there too. Only products with J and J' are
needed, never the kernel matrix. Axes: N examples, C outputs, P parameters.
"""
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from dsr import checks, numerics

# Of the stable rate. What is trained is not linear: its curvature grows on the
# way, most where the width is small against N.
FRACTION = 0.25


def max_eigenvalue(
    key: Key[Array, ''], module: nn.Module, theta_0: PyTree,
    x: Float[Array, 'N ...'], *, tolerance: float = 1e-3,
    max_iterations: int = 100) -> Float[Array, '']:
  r"""\lambda_max(J J' / N) by power iteration, from below.

  Args:
    key: of the first vector.
    module: a Flax module without state besides its parameters.
    theta_0: its parameters.
    x: inputs of training.
    tolerance: relative change of the estimate in an iteration that ends it.
    max_iterations: each costs a forward and a backward pass.
  """
  checks.inputs('x', x)
  checks.positive('tolerance', tolerance)
  checks.at_least('max_iterations', max_iterations, 1)
  return _max_eigenvalue(key, module, theta_0, x, tolerance, max_iterations)


@functools.partial(jax.jit, static_argnames=('module', 'max_iterations'))
@numerics.exact
def _max_eigenvalue(key, module, theta_0, x, tolerance, max_iterations):
  forward = lambda params: module.apply({'params': params}, x)
  out, jvp = jax.linearize(forward, theta_0)
  vjp = jax.linear_transpose(jvp, theta_0)

  def more(carry):
    _, value, before, i = carry
    moved = jnp.abs(value - before) > tolerance * value
    return (i < max_iterations) & (moved | (i < 2))

  def iterate(carry):
    v, value, _, i = carry
    norm = jnp.linalg.norm(v)
    v = jnp.where(norm > 0, v / norm, 0)
    w = jvp(*vjp(v)) / x.shape[0]
    return w, jnp.vdot(v, w), value, i + 1

  start = jax.random.normal(key, out.shape, out.dtype)
  zero = jnp.zeros((), out.dtype)
  return jax.lax.while_loop(more, iterate, (start, zero, zero, 0))[1]


def automatic_rate(
    key: Key[Array, ''], module: nn.Module, theta_0: PyTree,
    x: Float[Array, 'N ...'], *, momentum: int | float = 0.9,
    fraction: float = FRACTION) -> float:
  r"""`fraction` of the largest stable rate, 2 (1 + m) / \lambda_max.

  Args:
    key: of the power iteration.
    module: a Flax module without state besides its parameters.
    theta_0: parameters before training.
    x: inputs of training.
    momentum: m, in [0, 1].
    fraction: in (0, 1].

  Raises:
    ValueError: an argument out of range, or outputs that do not depend on the
      parameters.
  """
  checks.within('momentum', momentum, 0, 1)
  checks.positive('fraction', fraction)
  checks.within('fraction', fraction, 0, 1)
  largest = float(max_eigenvalue(key, module, theta_0, x))
  if not largest > 0:
    raise ValueError('`theta_0` must be where the outputs depend on the '
                     f'parameters; the largest eigenvalue is {largest}.')
  return fraction * 2 * (1 + momentum) / largest
