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
from dsr.linalg import rows
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


class Iteration(NamedTuple):
  """A solve in steps: `init` starts it, `step` makes one of them.

  Attributes:
    init: () -> State.
    step: State -> State; a column that is solved stays as it is.
    result: State -> X (N, C) and `Info` with true residuals, from one product.
  """

  init: Callable
  step: Callable
  result: Callable


def iteration(
    matvec: Callable, y: Float[Array, 'N C'], *, preconditioner: Callable,
    tol: float, axis: rows.Axis = None) -> Iteration:
  """The steps of `conjugate_gradient`, whose arguments these are.

  Args:
    matvec: (N, C) -> (N, C).
    y: (N, C).
    preconditioner: (N, C) -> (N, C).
    tol: relative residual of a solved column.
    axis: of a `shard_map`, whose devices have a block of the N rows each.
  """

  def unsolved(r):  # False for NaN: the loop ends.
    return relative_residual(r, y, axis=axis) > tol

  def init():
    z = preconditioner(y)
    return State(jnp.zeros_like(y), y, z, rows.total(y * z, axis), unsolved(y),
                 jnp.zeros((), int))

  def step(state):
    ap = matvec(state.p)
    curvature = rows.total(state.p * ap, axis)
    active = state.active & (curvature > 0)
    alpha = jnp.where(
        active, numerics.safe_divide(state.rz, curvature), 0)
    x = state.x + alpha[None] * state.p
    r = state.r - alpha[None] * ap
    z = preconditioner(r)
    rz = rows.total(r * z, axis)
    p = z + numerics.safe_divide(rz, state.rz)[None] * state.p
    return State(x, r, p, rz, active & unsolved(r), state.steps + 1)

  def result(state):
    residual = relative_residual(y - matvec(state.x), y, axis=axis)
    converged = jnp.all(residual <= _DRIFT * tol)
    return state.x, Info(residual, state.steps, converged)

  return Iteration(init, step, result)


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
  steps = iteration(matvec, y, preconditioner=preconditioner or (lambda r: r),
                    tol=tol)

  def keep_going(state):
    return jnp.any(state.active) & (state.steps < max_steps)

  def step(state):
    new = steps.step(state)
    if on_step is not None:
      jax.debug.callback(
          on_step, new.steps, relative_residual(new.r, y).max(), ordered=True)
    return new

  return steps.result(lax.while_loop(keep_going, step, steps.init()))
