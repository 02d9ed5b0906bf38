r"""From a guess at an input to its row of the first layer's change.

The search of `first_layer` where there are few units for an image. Notation and
axes as there: z a place in the span of the inputs, t a row's coordinates, codes
V', |t V'| the row itself.
"""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import numerics
from dsr.attack import sparse_rows

_COPY = 0.8  # Approximate rows of a larger |cosine| are copies.


@functools.partial(jax.jit, static_argnames=('num_units', 'iterations'))
@numerics.exact
def alternate(
    starts: Float[Array, 'B N'], codes: Float[Array, 'N W'],
    maps: Float[Array, '2 N W'], free: Float[Array, 'N N'],
    rows: Float[Array, 'K N'], *, num_units: int, iterations: int
) -> Float[Array, 'B N']:
  """The t from each start after the alternation of the module text.

  Where it comes upon a row that is known, that direction is deflated and the
  next one on the same units taken.

  Args:
    starts: z to start from.
    codes: V'.
    maps: see `Span`.
    free: projector onto the z that are orthogonal to all known rows.
    rows: the known rows, of length 1 or 0.
    num_units: inactive units that a t is read from.
    iterations: of z -> t -> z; of all t the one of least energy is kept.
  """
  size = codes.shape[0]
  # Normal equations of the classifier within the free space.
  mean = free @ jnp.mean(maps, axis=0)
  inverse = jnp.linalg.pinv(mean @ mean.T, hermitian=True)
  solve = inverse.astype(mean.dtype) @ mean
  probe = sparse_rows.probe(codes)

  def one(z):
    def body(carry, i):
      z, best, t_best, shut = carry
      z = free @ z
      level = jnp.max(jnp.einsum('n,anw->aw', z, maps), axis=0)
      two, energy = _least_energy(level, codes, probe, num_units, shut)
      t = two[:, 0]
      known = rows[jnp.argmax(jnp.abs(rows @ t))]
      copy = jnp.abs(known @ t) > _COPY
      known -= shut.T @ (shut @ known)
      shut_more = shut.at[i].set(known / jnp.linalg.norm(known))
      better = (energy < best) & ~copy
      magnitude = jnp.abs(t @ codes)
      active = magnitude > 0.7 * jnp.median(magnitude)
      z_next = solve @ jnp.where(active, 1.0, -1.0).astype(codes.dtype)
      return (jnp.where(copy, z, z_next), jnp.where(better, energy, best),
              jnp.where(better, t, t_best),
              jnp.where(copy, shut_more, shut)), None

    shut = jnp.zeros((iterations, size), codes.dtype)
    start = (z, jnp.asarray(jnp.inf, codes.dtype), jnp.zeros_like(z), shut)
    (_, _, t, _), _ = jax.lax.scan(body, start, jnp.arange(iterations))
    return t

  return jax.lax.map(one, starts)


def _least_energy(level, codes, probe, num_units, shut=None):
  """(two least t (N, 2), the ratio of their energies) on units of low level.

  With orthonormal (or zero) rows `shut`, of energy over the squared length of
  what is orthogonal to them: t may then hold any part of the shut directions.
  """
  units = jax.lax.top_k(-level, num_units)[1]
  inactive = codes.T[units]
  energy = inactive.T @ inactive
  ridge = 1e-8 if codes.dtype == jnp.float64 else 1e-6
  factor = jax.scipy.linalg.cho_factor(
      energy + ridge * jnp.eye(len(energy), dtype=codes.dtype))

  def inverse_iteration(v, _):
    if shut is not None:
      v -= shut.T @ (shut @ v)
    return jnp.linalg.qr(jax.scipy.linalg.cho_solve(factor, v))[0], None

  v, _ = jax.lax.scan(inverse_iteration, probe, None, length=6)
  value = jnp.sum(v * (energy @ v), axis=0)
  return v, value[0] / value[1]
