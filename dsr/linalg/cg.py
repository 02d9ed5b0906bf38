r"""Preconditioned conjugate gradients for many right-hand sides at once.

Needs the matrix only through products, so kernels beyond memory are solved
from tiles of their rows. Axes: N examples; C right-hand sides.
Refs: Hestenes & Stiefel (1952); arXiv:1809.11165 (blocked, on kernels).
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dsr import checks, numerics
from dsr.linalg.info import Info, relative_residual

# The recurrence's residual may drift this far below the true one.
_DRIFT = 10


class State(NamedTuple):
  """One iterate; each column has its own step lengths."""

  x: Float[Array, 'N C']
  r: Float[Array, 'N C']  # Residual by recurrence.
  p: Float[Array, 'N C']  # Search direction.
  rz: Float[Array, 'C']  # <r, P^-1 r>
  active: Bool[Array, 'C']  # Columns not yet solved (nor broken down).
  steps: Int[Array, '']


def conjugate_gradient(
    matvec: Callable, y: Float[Array, 'N C'], *,
    preconditioner: Callable | None = None, tol: float = 1e-6,
    max_steps: int, on_step: Callable | None = None
) -> tuple[Float[Array, 'N C'], Info]:
  r"""Solves A X = Y for a symmetric positive definite A.

  For each column: \alpha = <r, z> / <p, A p>, x += \alpha p, r -= \alpha A p,
  z = P^-1 r, \beta = <r, z>_new / <r, z>, p = z + \beta p. Columns that are
  solved rest; the loop ends when all are, or when p^T A p <= 0 shows that
  rounding has used up the matrix's definiteness.

  Args:
    matvec: (N, C) -> (N, C), V -> A V; the loop calls it once a step.
    y: (N, C) right-hand sides; the iteration runs in their dtype.
    preconditioner: (N, C) -> (N, C), V -> P^-1 V; None means the identity.
    tol: stop at |r| / |y| <= tol in every column, r by recurrence.
    max_steps: upper bound on the steps.
    on_step: host function (steps, worst residual) called after each step, for
      progress; values come in order but may be late.

  Returns:
    X (N, C), and `Info` with the true residuals, from one last product;
    `converged` if they are within 10 `tol`, the factor being for rounding.
    Not differentiable in reverse mode: the number of steps is not static.

  Raises:
    ValueError: `y` is not a floating (N, C), or an option is out of range.
  """
  checks.features('y', y)
  checks.positive('tol', tol)
  checks.at_least('max_steps', max_steps, 1)
  precondition = preconditioner or (lambda r: r)

  def unsolved(r):
    return relative_residual(r, y) > tol  # False for NaN: the loop ends.

  def keep_going(state):
    return jnp.any(state.active) & (state.steps < max_steps)

  def step(state):
    ap = matvec(state.p)
    curvature = (state.p * ap).sum(0)
    active = state.active & (curvature > 0)
    alpha = jnp.where(
        active, numerics.safe_divide(state.rz, curvature), 0)
    x = state.x + alpha[None] * state.p
    r = state.r - alpha[None] * ap
    z = precondition(r)
    rz = (r * z).sum(0)
    p = z + numerics.safe_divide(rz, state.rz)[None] * state.p
    new = State(x, r, p, rz, active & unsolved(r), state.steps + 1)
    if on_step is not None:
      jax.debug.callback(
          on_step, new.steps, relative_residual(r, y).max(), ordered=True)
    return new

  z = precondition(y)
  start = State(jnp.zeros_like(y), y, z, (y * z).sum(0), unsolved(y),
                jnp.zeros((), int))
  end = lax.while_loop(keep_going, step, start)
  residual = relative_residual(y - matvec(end.x), y)
  return end.x, Info(residual, end.steps, jnp.all(residual <= _DRIFT * tol))
