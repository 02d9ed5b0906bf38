"""What a solve reports, and how the host turns a failure into an error."""
from typing import Any, NamedTuple
import warnings

import jax
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from dsr import numerics
from dsr.linalg import rows


class Info(NamedTuple):
  """The outcome of a linear solve; traced code cannot raise, so it is a flag.

  Attributes:
    residual: (C,) true relative residuals |y - A x| / |y|, 0 where y = 0.
    steps: iterations made; 0 for a direct solve.
    converged: the solution is finite and its residuals are small.
    dropped: directions that rounding hides and that were left out of a direct
      solve, see `linalg.factorise`; 0 as a rule.
  """

  residual: Float[Array, 'C']
  steps: Int[Array, '']
  converged: Bool[Array, '']
  dropped: int | Int[Array, ''] = 0


def relative_residual(
    r: Float[Array, 'N C'], y: Float[Array, 'N C'], *, axis: rows.Axis = None
) -> Float[Array, 'C']:
  """|r| / |y| of each column, and 0 where y = 0 (and r with it)."""
  sums = rows.totals(r, r * r, y * y, axis=axis)
  # NaN must survive: `safe_sqrt` maps it to 0, the first term does not.
  return 0 * sums[0] + numerics.safe_divide(*map(numerics.safe_sqrt, sums[1:]))


def is_known(x: Any) -> bool:
  """Whether `x` has a value, which it has not while JAX traces."""
  return not isinstance(x, jax.core.Tracer)


def report(info: Info) -> None:
  """Raises or warns where a direct solve is known to have fallen short.

  Does nothing inside of a trace, where `info` is the flag, or for conjugate
  gradients, whose last iterate is finite and of use.

  Raises:
    FloatingPointError: as `raise_if_failed`.
  """
  if not is_known(info.converged) or np.any(np.asarray(info.steps) > 0):
    return
  raise_if_failed(info)
  dropped = int(np.max(np.asarray(info.dropped)))
  if dropped:
    warnings.warn(
        'The kernel plus its ridge is not positive definite, as its float32 '
        f'entries are rounded: {dropped} directions that rounding hides were '
        'left out. Give a larger `ridge`, or float64 data with x64 enabled.',
        RuntimeWarning, stacklevel=3)


def raise_if_failed(info: Info, *, ridge: float | None = None) -> None:
  """Host only: turns a failure flag into an error that says what to do.

  Args:
    info: as returned by a solver or held by a `krr` predictor; waits for it.
    ridge: the relative ridge in use, to be named in the message.

  Raises:
    FloatingPointError: `info.converged` is false.
  """
  info = jax.device_get(info)
  if np.all(info.converged):
    return
  worst = float(np.max(info.residual))
  got = '' if ridge is None else f' (got {ridge:g})'
  if np.all(info.steps == 0):
    precision = '' if jax.config.jax_enable_x64 else ' or enable x64'
    raise FloatingPointError(
        'The direct solve failed: the kernel plus its ridge is not positive '
        'definite at this precision, or is not finite (relative residual '
        f'{worst:.3g}). Raise `ridge`{got}{precision}.')
  raise FloatingPointError(
      f'Conjugate gradients stopped after {int(np.max(info.steps))} steps at '
      f'relative residual {worst:.3g}, above `tol`. Raise `max_steps`, `tol`, '
      f'the rank of the preconditioner or `ridge`{got}.')
