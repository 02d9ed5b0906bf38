r"""The attack's loss with its duals eliminated (variable projection).

For candidates with features \phi_j, and \Delta the released change,
  L(a) = |\Delta - sum_j a_j \phi_j|^2 = |\Delta|^2 - 2 a' v + a' K a,
  K_ij = <\phi_i, \phi_j>,  v_j = <\phi_j, \Delta>,
is quadratic in the duals. At the best ones, K a = v,
  L = |\Delta|^2 - v' K^{-1} v,
the squared MMD between two signed measures (arXiv:2302.01428), and only the
candidates are left to move. Leaving candidate j out would raise it by its
  gain_j = a_j^2 / [K^{-1}]_jj.

Axes: M candidates, C outputs.
"""
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import linalg


class Projection(NamedTuple):
  """The best duals and what they explain.

  Attributes:
    explained: v' K^{-1} v, summed over outputs.
    duals: (M, C) a.
    factor: of K with its jitter.
  """

  explained: Float[Array, '']
  duals: Float[Array, 'M C']
  factor: linalg.Factor


def project(
    k: Float[Array, 'M M'], v: Float[Array, 'M C'], *, jitter: float
) -> Projection:
  """Eliminates the duals; differentiable, in float64 where x64 is on.

  Args:
    k: the candidates' kernel, one for all outputs.
    v: the released change at the candidates.
    jitter: added to the diagonal of k, relative to its mean.
  """
  factor = linalg.factorise(k, ridge=jitter)
  v = v.astype(factor.k.dtype)
  duals = linalg.solve(factor, v)
  return Projection(jnp.vdot(v, duals, precision='highest'), duals, factor)


def project_full(
    k: Float[Array, 'M M C C'], v: Float[Array, 'M C'], *, jitter: float
) -> Projection:
  """As `project`, for a kernel between all outputs."""
  size = v.size
  flat = jnp.swapaxes(k, 1, 2).reshape(size, size)
  out = project(flat, v.reshape(size, 1), jitter=jitter)
  return out._replace(duals=out.duals.reshape(v.shape))


def gains(projection: Projection) -> Float[Array, 'M']:
  """What each candidate is worth, summed over outputs; see `project`."""
  inverse = linalg.diag_inverse(projection.factor)
  return jnp.sum(projection.duals**2, axis=1) / inverse
