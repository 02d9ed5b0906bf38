r"""From a guess at an input to its row of the first layer's change.

`alternate` is the search of `first_layer`, `sharpen` makes its results exact.
Notation and axes as there: z a place in the span of the inputs, t a row's
coordinates, codes V', |t V'| the row itself.
"""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import numerics

SPARSE = 0.43  # A row of G has half its entries 0, less what training changes.
_COMBINATIONS = 64
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
  probe = _probe(codes)

  def one(z):
    def body(carry, i):
      z, best, t_best, shut = carry
      z = free @ z
      level = jnp.max(jnp.einsum('n,anw->aw', z, maps), axis=0)
      two, energy = least_energy(level, codes, probe, num_units, shut)
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


@functools.partial(jax.jit, static_argnames='at_least')
@numerics.exact
def sharpen(
    t: Float[Array, 'B N'], codes: Float[Array, 'N W'], *, at_least: int
) -> Float[Array, 'B N']:
  """Each t from the units on which it is smallest, as sparse as can be.

  On the units at which two images are inactive all combinations of their rows
  vanish. So the two directions of least energy are kept, and of their
  combinations that vanish at a further unit the sparsest is taken. Rows that
  are far from sparse are left alone.
  """
  width = codes.shape[1]
  probe = _probe(codes)
  places = np.linspace(SPARSE * width, width - 1, _COMBINATIONS).astype(int)

  def from_least(t, share):
    units = min(width, max(at_least, int(share * width)))
    return least_energy(jnp.abs(t @ codes), codes, probe, units)[0]

  def again(t):
    two = from_least(t, 0.35)
    rows = two.T @ codes
    units = jnp.argsort(jnp.sum(rows**2, axis=0))[places]
    turn = jnp.stack([rows[1, units], -rows[0, units]], axis=1)
    turn /= jnp.linalg.norm(turn, axis=1, keepdims=True)
    found = jnp.concatenate([two[:, :1].T, turn @ two.T])
    t = found[jnp.argmin(sparsity_of(found, codes, 0.44))]
    for _ in range(3):
      t = from_least(t, 0.44)[:, 0]
    return t

  def one(t):
    promising = sparsity_of(t[None], codes, 0.3)[0] < 0.25
    return jax.lax.cond(promising, again, lambda t: t, t)

  return jax.lax.map(one, t)


def _probe(codes):
  """Where inverse iterations start: any two fixed directions will do."""
  angles = jnp.arange(len(codes), dtype=codes.dtype)
  return jnp.stack([jnp.cos(angles), jnp.sin(1.7 * angles + 0.5)], axis=1)


def least_energy(level, codes, probe, num_units, shut=None):
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


def sparsity_of(
    t: Float[Array, 'B N'], codes: Float[Array, 'N W'], share: float = SPARSE
) -> Float[Array, 'B']:
  """The `share` quantile of a row's magnitudes over their 75th percentile."""
  shares = jnp.array([share, 0.75], codes.dtype)
  low, high = jnp.quantile(jnp.abs(t @ codes), shares, axis=1)
  return low / high
