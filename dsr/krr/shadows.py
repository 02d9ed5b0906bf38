r"""Ridge regression with and without each example: exact, from one kernel.

What membership inference by shadow models (arXiv:2112.03570) needs, without
training: `in_out` gives the model with and without each single example, from
one factorisation; `shadows` fits many random halves, each a solve on a part
of one kernel matrix.

On paper -> code: K -> gram, \lambda -> ridge, A^{-1} Y -> dual.
Axes: N examples; C outputs; R shadows; H = N // 2 examples of a shadow.
"""
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from dsr import checks, linalg, numerics

_TILE_ENTRIES = 2**25  # Of the kernel matrices solved at a time: 256 MB.


class InOut(NamedTuple):
  """Outputs at x_i of the fits with and without example i, each (N, C)."""

  inside: Float[Array, 'N C']
  outside: Float[Array, 'N C']


class Shadows(NamedTuple):
  """R fits to random halves, as membership inference wants them.

  Attributes:
    outputs: (R, N, C) on all examples, in the dtype of the solve.
    member: (R, N) whether shadow r was fitted to example i.
    converged: (R,) whether the solve succeeded; traced code cannot raise.
    others: (R, Z, C) outputs on further examples, that no shadow was fitted
      to; None without any.
  """

  outputs: Float[Array, 'R N C']
  member: Bool[Array, 'R N']
  converged: Bool[Array, 'R']
  others: Float[Array, 'R Z C'] | None = None


def in_out(
    gram: Float[Array, 'N N'], y: Float[Array, 'N C'], *,
    ridge: float | Float[Array, ''] = 1e-6) -> InOut:
  r"""Outputs at each example with it and without it, from one factorisation.

  With A = K + s I, s = \lambda tr(K)/N, and \alpha = A^{-1} Y,

    f(x_i) = y_i - s \alpha_i,    f_{-i}(x_i) = y_i - \alpha_i / [A^{-1}]_{ii}.

  The N fits without an example keep the absolute ridge s of the whole set.
  Ref: Rasmussen & Williams (2006), section 5.4.2. `krr.leave_one_out` is the
  second alone, from a kernel function.

  Args:
    gram: (N, N) the kernel at the examples.
    y: (N, C) encoded targets.
    ridge: \lambda >= 0, relative to tr(K)/N.

  Raises:
    ValueError: misshapen arguments or a negative ridge.
  """
  checks.square('gram', gram)
  checks.targets('y', y, rows=gram.shape[0])
  factor = linalg.factorise(gram, ridge=ridge)
  dual = linalg.solve(factor, y)
  y = y.astype(dual.dtype)
  return InOut(y - factor.shift * dual,
               y - dual / linalg.diag_inverse(factor)[:, None])


def random_halves(
    key: Key[Array, ''], n: int, num_shadows: int) -> Bool[Array, 'R N']:
  """Masks of n // 2 examples each; consecutive pairs do not overlap.

  Each mask alone is a uniformly random half; with `n` and `num_shadows` even
  every example is in exactly half of them, as LiRA's fits like best.

  Raises:
    ValueError: `n` below 2 or `num_shadows` below 1.
  """
  checks.at_least('n', n, 2)
  checks.at_least('num_shadows', num_shadows, 1)
  rows = random_rows(key, n, num_shadows)
  return jax.vmap(lambda r: jnp.zeros(n, bool).at[r].set(True))(rows)


@functools.partial(jax.jit, static_argnames=('n', 'num_shadows'))
def random_rows(key, n, num_shadows):
  """(R, H) the rows of each half of `random_halves`, in no order."""
  keys = jax.random.split(key, (num_shadows + 1) // 2)
  orders = jax.vmap(lambda k: jax.random.permutation(k, n))(keys)
  half = n // 2
  pairs = jnp.stack([orders[:, :half], orders[:, n - half:]], 1)
  return pairs.reshape(-1, half)[:num_shadows]


def shadows(
    key: Key[Array, ''], gram: Float[Array, 'N N'], y: Float[Array, 'N C'], *,
    num_shadows: int = 256, ridge: float | Float[Array, ''] = 1e-6,
    others: Float[Array, 'Z N'] | None = None,
    tile: int | None = None) -> Shadows:
  r"""Fits ridge regression to random halves and evaluates each on all N.

  Shadow r on rows S is f(x) = K(x, S) (K_SS + \lambda tr(K_SS)/H I)^{-1} Y_S,
  which is `krr.fit` on these examples, ridge and all. The halves are those of
  `random_halves` with the same key. Each costs H^3/3 + 2 N H C operations.

  Args:
    key: of the halves.
    gram: (N, N) the kernel at the examples.
    y: (N, C) encoded targets.
    num_shadows: R, best even.
    ridge: \lambda >= 0, relative to the mean diagonal of each half.
    others: (Z, N) the kernel between further examples and these, to evaluate
      the fits at them as well.
    tile: shadows solved at a time, hence `tile` H^2 entries of memory; None
      takes up to 2^25 entries.

  Raises:
    ValueError: misshapen arguments or an option out of range.
  """
  checks.square('gram', gram)
  n = gram.shape[0]
  checks.targets('y', y, rows=n)
  if not isinstance(ridge, jax.Array):  # Traced values cannot be looked at.
    checks.non_negative('ridge', ridge)
  checks.at_least('n', n, 2)
  checks.at_least('num_shadows', num_shadows, 1)
  if tile is None:
    tile = max(1, min(num_shadows, _TILE_ENTRIES // (n // 2) ** 2))
  checks.at_least('tile', tile, 1)
  rows = random_rows(key, n, num_shadows)
  if others is not None:
    checks.features('others', others, dim=n)
  return _fit_halves(gram, y, rows, ridge, others, tile=tile)


@functools.partial(jax.jit, static_argnames='tile')
def _fit_halves(gram, y, rows, ridge, others, *, tile):
  dtype = numerics.solve_dtype(gram.dtype)
  gram, y = gram.astype(dtype), y.astype(dtype)

  def fit(part):
    columns = gram[:, part]
    factor = linalg.factorise(columns[part], ridge=ridge)
    dual = linalg.solve(factor, y[part])
    info = linalg.residual_info(factor, dual, y[part])
    member = jnp.zeros(gram.shape[0], bool).at[part].set(True)
    elsewhere = None if others is None else numerics.matmul(
        others[:, part].astype(dtype), dual)
    return Shadows(
        numerics.matmul(columns, dual), member, info.converged, elsewhere)

  return lax.map(fit, rows, batch_size=tile)
