r"""The KKT conditions that an attack on theta_T alone inverts.

  \theta = \sum_j \lambda_j d/d\theta \Phi_j(x_j),

see `attack.kkt` for where they hold. What they miss is measured with given
\lambda (`joint`) or with the best (`eliminated`).
Axes: M candidates, C outputs.
"""
from collections.abc import Callable
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree
import numpy as np

from dsr import numerics
from dsr.attack import projection
from dsr.attack.release import Released
from dsr.attack.result import noise
from dsr.kernels import empirical

FORMS = ('margin', 'decay')
_JITTER = 1e-6  # Relative, of the Gram matrix in the form 'decay'.
_PROBES = 8  # Random inputs at which homogeneity is looked at.


def labels(num: int, num_outputs: int) -> Int[np.ndarray, 'M']:
  """The classes of candidates: as many of each, class after class."""
  return np.arange(num) * max(2, num_outputs) // num


def directions(
    out: Float[Array, 'M C'], label: Int[Array, 'M']) -> Float[Array, 'M C']:
  r"""u with \Phi = u . f: +-1 for one output, e_y - e_runner-up for more."""
  if out.shape[1] == 1:
    return (2 * label - 1).astype(out.dtype)[:, None]
  own = jax.nn.one_hot(label, out.shape[1], dtype=out.dtype)
  rival = jnp.argmax(jnp.where(own > 0, -jnp.inf, out), axis=1)
  return own - jax.nn.one_hot(rival, out.shape[1], dtype=out.dtype)


@functools.lru_cache(maxsize=32)  # One function, hence one module and program.
def smooth_relu(slope: float, straight: bool) -> Callable:
  """ReLU with the derivative sigmoid(slope z), or with that of the 0/1 mask."""
  @jax.custom_jvp
  def mask(z):
    return (z > 0).astype(z.dtype) if straight else jax.nn.sigmoid(slope * z)

  @mask.defjvp
  def _(primals, tangents):
    s = jax.nn.sigmoid(slope * primals[0])
    return mask(*primals), slope * s * (1 - s) * tangents[0]

  @jax.custom_jvp
  def relu(z):
    return jnp.maximum(z, 0)

  @relu.defjvp
  def _(primals, tangents):
    return relu(*primals), mask(*primals) * tangents[0]

  return relu


@numerics.exact
def nonnegative(
    k: Float[Array, 'M M'], v: Float[Array, 'M'], start: Float[Array, 'M'], *,
    sweeps: int) -> Float[Array, 'M']:
  """min_{a >= 0} a' K a - 2 a' v, by coordinate descent from `start`."""
  diagonal = jnp.diag(k)

  def one(i, a):
    step = numerics.safe_divide(v[i] - jnp.vdot(k[i], a), diagonal[i])
    return a.at[i].set(jnp.maximum(a[i] + step, 0))

  sweep = lambda _, a: jax.lax.fori_loop(0, len(v), one, a)
  return jax.lax.fori_loop(0, sweeps, sweep, start)


@numerics.exact
def eliminated(
    module: nn.Module, form: str, theta: PyTree, x: Float[Array, 'M ...'],
    label: Int[Array, 'M'], start: Float[Array, 'M ...'], *, sweeps: int = 5
) -> tuple[Float[Array, ''], Float[Array, 'M ...']]:
  r"""(min_\lambda |theta - sum_j \lambda_j dPhi_j|^2 / |theta|^2, \lambda).

  With K_ij = <dPhi_i, dPhi_j> and v_i = <dPhi_i, theta> it is quadratic in
  \lambda. Being optimal, \lambda needs no derivative with respect to x.

  Args:
    module: with a smoothed activation.
    form: one of `FORMS`.
    theta: parameters after training.
    x: candidates.
    label: their classes; only `form='margin'` asks.
    start: of \lambda, from which `sweeps` are made in that form.
    sweeps: see `nonnegative`.
  """
  out, along = jax.jvp(lambda p: _apply(module, p, x), (theta,), (theta,))
  kernel = empirical.full(lambda p, x: _apply(module, p, x), theta)(x)
  total = numerics.tree_dot(theta, theta)
  if form == 'decay':
    at = projection.project_full(kernel, along, jitter=_JITTER)
    return (1 - at.explained / total).astype(x.dtype), at.duals.astype(x.dtype)
  u = directions(out, label)
  k = jnp.einsum('ic,ijcd,jd->ij', u, kernel, u, precision='highest')
  v = jnp.sum(u * along, axis=1)
  a = jax.lax.stop_gradient(nonnegative(
      *jax.lax.stop_gradient((k, v)), start, sweeps=sweeps))
  explained = 2 * jnp.vdot(a, v) - jnp.vdot(a, numerics.matmul(k, a))
  return 1 - explained / total, a


@numerics.exact
def joint(
    module: nn.Module, form: str, theta: PyTree, x: Float[Array, 'M ...'],
    label: Int[Array, 'M'], duals: Float[Array, 'M ...']
) -> Float[Array, '']:
  r"""|theta - 1/M sum_j \lambda_j dPhi_j|^2, by one backward pass.

  Args:
    module: with a smoothed activation.
    form: one of `FORMS`.
    theta: parameters after training.
    x: candidates.
    label: their classes; only `form='margin'` asks.
    duals: \lambda, (M,) or, with `form='decay'`, (M, C).
  """
  out, vjp = jax.vjp(lambda p: _apply(module, p, x), theta)
  weights = duals
  if form == 'margin':
    weights = duals[:, None] * directions(out, label)
  left = jax.tree.map(jnp.subtract, theta, vjp(weights / len(x))[0])
  return numerics.tree_dot(left, left)


@numerics.exact
def is_homogeneous(released: Released) -> bool:
  r"""Whether <df/d\theta, \theta> = L f for one L (Euler), at random x."""
  def outputs(theta, x):
    return jax.jvp(lambda p: _apply(released.module, p, x), (theta,), (theta,))

  f, slope = jax.jit(outputs)(released.theta_T, _probes(released))
  degree = jnp.vdot(f, slope) / jnp.maximum(jnp.vdot(f, f), 1e-30)
  return bool(jnp.linalg.norm(slope - degree * f)
              <= 1e-3 * jnp.linalg.norm(slope))


@numerics.exact
def is_scale_free(released: Released) -> bool:
  """Whether f(2 x) = 2 f(x): then (1) holds for any scale of candidates."""
  x = _probes(released)
  once, twice = (_apply(released.module, released.theta_T, c * x)
                 for c in (1, 2))
  return bool(jnp.linalg.norm(twice - 2 * once) <= 1e-3 * jnp.linalg.norm(once))


def _probes(released):
  dtype = jax.tree.leaves(released.theta_T)[0].dtype
  return noise(jax.random.key(0), released, _PROBES, scale=1.0, dtype=dtype)


def _apply(module, theta, x):
  return module.apply({'params': theta}, x)
