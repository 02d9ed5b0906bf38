r"""Training of a linear model on the squared error, by eigenvalue.

With L(f) = sum_i |f(x_i) - y_i|^2 / (2N) and A = K + \lambda tr(K)/N I = V a V'
the residual f - y of each eigenvector of A shrinks on its own, by

  flow to time t             exp(-t a / N)
  n steps at rate \eta       c_n,  c_0 = 1,  c_{-1} = 1,
    with momentum \beta      c_{n+1} = (1 + \beta - \eta a / N) c_n
                                       - \beta c_{n-1}

so that f_t(x) = f_0(x) + K(x, X) V \phi V' (Y - f_0(X)), \phi = (1 - c) / a.
Descent is stable for \eta < 2 (1 + \beta) N / max(a). Time is in units of the
learning rate. Axes: N examples. Refs: arXiv:1902.06720; Polyak (1964).
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, linalg, numerics
from dsr.types import KernelFn


class Descent(NamedTuple):
  """`steps` steps of full-batch gradient descent, in place of a time.

  Attributes:
    steps: how many, 0 or more.
    rate: \\eta > 0, of the loss sum_i |f(x_i) - y_i|^2 / (2N).
    momentum: \\beta in [0, 1), of Polyak's heavy ball, as in `optax.sgd`.
  """

  steps: int
  rate: float
  momentum: float = 0.0


class Spectrum(NamedTuple):
  """The eigendecomposition of K(X, X), in the dtype of the solve.

  Attributes:
    values: (N,) ascending eigenvalues of K.
    vectors: (N, N) its eigenvectors.
    shift: the ridge in absolute terms.
    known: (N,) whether a = values + shift is above rounding. Where it is not,
      a is unknown, and the direction is not learned.
  """

  values: Float[Array, 'N']
  vectors: Float[Array, 'N N']
  shift: Float[Array, '']
  known: Float[Array, 'N']


def decompose(k: Float[Array, 'N N'], ridge: float) -> Spectrum:
  """The `Spectrum` of a kernel matrix, differentiable in it.

  Rounding is 8 eps |K|, with eps that of the dtype of `k`, and at least the
  size of the most negative eigenvalue.

  Raises:
    FloatingPointError: outside of a trace, `k` is not finite. Inside it makes
      all results NaN.
  """
  dtype = k.dtype
  k = k.astype(numerics.solve_dtype(dtype))
  # Not `linalg.factorise`, whose eigenvectors carry no derivative.
  values, vectors = jnp.linalg.eigh(k)
  shift = ridge * jnp.trace(k) / k.shape[0]
  if linalg.is_known(values) and not np.isfinite(values).all():
    raise FloatingPointError(
        'The kernel of the training inputs is not finite: are they?')
  limit = jnp.maximum(8 * jnp.finfo(dtype).eps * values[-1], -values[0])
  return Spectrum(values, vectors, shift, ~(values + shift <= limit))


def learned(
    spectrum: Spectrum,
    when: float | Descent | Float[np.ndarray | Array, '*T'] | None
) -> Float[Array, '*T N']:
  """phi = (1 - c) / a by eigenvalue, at a time, times, or after a `Descent`.

  Args:
    spectrum: of K(X, X).
    when: time >= 0, or an array of times; infinity, which None means; or a
      `Descent`.

  Raises:
    ValueError: a negative time, or values of a `Descent` out of range.
  """
  values, _, shift, known = spectrum
  n = values.shape[0]
  a = jnp.where(known, values + shift, 1)
  if isinstance(when, Descent):
    return jnp.where(known, (1 - _descended(a / n, when)) / a, 0)
  t = jnp.inf if when is None else when
  if not isinstance(t, jax.Array) and not np.all(np.asarray(t) >= 0):
    raise ValueError(f'`t` must not be negative, got {t!r}.')
  # Times come first: an axis of their own, whatever their number.
  t = jnp.asarray(t, a.dtype)[..., None]
  a, known = (v.reshape((1,) * (t.ndim - 1) + (n,)) for v in (a, known))
  # Infinity apart, where the derivative would be 0 times infinity.
  end = jnp.isinf(t)
  done = jnp.where(end, 1, -jnp.expm1(-a * (jnp.where(end, 0, t) / n)))
  return jnp.where(known, done / a, 0)


def check(descent: Descent) -> None:
  """Raises a ValueError if one of its values is out of range."""
  checks.at_least('steps', descent.steps, 0)
  checks.positive('rate', descent.rate)
  checks.below_one('momentum', descent.momentum)


def _descended(a, descent):
  """c_n of each eigenvalue, by repeated squaring of its 2 x 2 recurrence."""
  check(descent)
  if descent.momentum == 0:
    return (1 - descent.rate * a) ** descent.steps
  first = 1 + descent.momentum - descent.rate * a
  full = jnp.full_like(a, -descent.momentum)
  one, zero = jnp.ones_like(a), jnp.zeros_like(a)
  step = jnp.stack([first, full, one, zero], -1).reshape(*a.shape, 2, 2)
  with jax.default_matmul_precision('highest'):
    return jnp.linalg.matrix_power(step, descent.steps)[..., 0, :].sum(-1)


def max_learning_rate(
    kernel_fn: KernelFn, x: Float[Array, 'N ...'], *, momentum: float = 0.0
) -> Float[Array, '']:
  r"""The rate above which descent diverges: 2 (1 + \beta) N / max eig K(X, X).

  For the loss sum_i |f(x_i) - y_i|^2 / (2N): a mean over examples, a sum over
  outputs, one half. For a mean over C outputs as well it is C times as large.

  Args:
    kernel_fn: as a rule an NTK.
    x: (N, ...) training inputs.
    momentum: \beta in [0, 1) of the heavy ball.

  Raises:
    ValueError: `momentum` out of range.
  """
  checks.inputs('x', x)
  checks.below_one('momentum', momentum)
  k = kernel_fn(x)
  largest = jnp.linalg.eigvalsh(k.astype(numerics.solve_dtype(k.dtype)))[-1]
  return 2 * (1 + momentum) * x.shape[0] / largest
