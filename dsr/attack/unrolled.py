r"""Training on candidates as a function of them: exponential steps, unrolled.

Gradient flow on (1/N) sum_n |y_n - f(x_n)|^2 / 2 from theta_0, by steps that
hold the Jacobian J (see `train.flow`): with K = J J' and r = y - f,

  a = g(K) r,   g(k) = (1 - e^{-k h / N}) / k,   \theta <- \theta + J' a.

Their lengths h are a geometric series, so that a few tens of steps lead from
the fastest decay to the slowest. Of second order: J is that of half a step.

g(K) is differentiated by divided differences of g at the eigenvalues (Daleckii
and Krein), which stay finite where two eigenvalues meet; the derivative of the
eigenvectors themselves would not. Masks of ReLUs are true, their slopes those
of a sigmoid (see `features`). Memory of a gradient is that of one step and the
parameters of all: each step is computed anew on the way back.

Axes: N candidates, C outputs, P parameters.
"""
import functools
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
import numpy as np

from dsr import numerics
from dsr.attack import features
from dsr.nets import MLP

_FIRST, _LAST = 0.3, 1e6  # Lengths of steps, in units of N / tr(K).
_LEAST, _MOST, _SAFETY = 0.3, 3.0, 0.9  # Of one step's length to the next.
CLOSING = 2  # Steps of the last length: Gauss and Newton's.
_MOST, _SPARE = 96, 1.25  # Steps at most, and those to have over those needed.
_REST = 1e-8  # Of the error at the start: the end is reached.
_SERIES = 1e-3  # Below this z, \phi and \phi' are three terms of their series.


def train(
    module: Any, theta_0: PyTree, x: Float[Array, 'N ...'],
    y: Float[Array, 'N C'], slope: float | Float[Array, ''], *, steps: int,
    path_tolerance: float) -> tuple[PyTree, Float[Array, '']]:
  """(theta_T of gradient flow on (x, y), the mean squared error that is left).

  Differentiable in x and y; lengths of steps count as given.

  Args:
    module: the architecture; no example depends on another.
    theta_0: parameters at the start.
    x: candidates.
    y: their targets.
    slope: of the smoothed ReLU, 1 / pre-activation.
    steps: exponential ones, of a kernel each; the last `CLOSING` of them are
      without end.
    path_tolerance: the error of f after a step, against f + K a before it, that
      lengths aim at, as a share of the largest |y - f| so far.
  """
  frozen = _frozen_mlp if isinstance(module, MLP) else _frozen
  tiny = jnp.finfo(x.dtype).tiny

  @jax.checkpoint
  def step(carry, closing):
    theta, length, foreseen, distance = carry
    out, kernel, pull = frozen(module, theta, x, slope)
    r = y - out
    still = jax.lax.stop_gradient
    distance = jnp.maximum(distance, _norm(still(r)))
    share = _norm(still(out) - foreseen) / (distance + tiny)
    factor = jnp.clip(_SAFETY * jnp.sqrt(
        path_tolerance / jnp.maximum(share, tiny)), _LEAST, _MOST)
    unit = 1 / still(jnp.trace(kernel))
    length = jnp.where(length > 0, factor * length, _FIRST * unit)
    length = jnp.where(closing, _LAST * unit, length)
    length = jnp.minimum(length, _LAST * unit)  # At rest it would overflow.
    a = decayed(kernel, r.reshape(-1), length)
    foreseen = still(out + numerics.matmul(kernel, a).reshape(out.shape))
    theta = jax.tree.map(jnp.add, theta, pull(a.reshape(out.shape)))
    return (theta, length, foreseen, distance), jnp.mean(r**2)

  zero = jnp.zeros((), x.dtype)
  carry = (theta_0, zero, jnp.zeros_like(y), zero)
  closing = jnp.arange(steps) >= steps - CLOSING
  (theta, *_), errors = jax.lax.scan(step, carry, closing)
  return theta, errors


def count(
    module: Any, theta_0: PyTree, x: Float[Array, 'N ...'],
    y: Float[Array, 'N C'], slope: float, *, path_tolerance: float) -> int:
  """The steps that `train` needs to fit (x, y), a quarter more, and the last.

  Arguments as in `train`.
  """
  _, errors = jax.jit(
      numerics.exact(train), static_argnums=0, static_argnames='steps')(
          module, theta_0, x, y, slope, steps=_MOST,
          path_tolerance=path_tolerance)
  rests = np.asarray(errors < _REST * errors[0])
  used = int(np.argmax(rests)) if rests.any() else _MOST
  return min(_MOST, math.ceil(_SPARE * used)) + CLOSING


def _norm(array):
  return jnp.sqrt(jnp.sum(array**2))


def _frozen(module, theta, x, slope):
  """(f (N, C), K (N C, N C), a (N, C) -> J' a) by the Jacobian."""
  network = module.clone(activation=features.smoothed_relu(slope))

  def one(theta, x):
    out = network.apply({'params': theta}, x[None])[0]
    return out, out

  jacobian, out = jax.vmap(
      jax.jacrev(one, has_aux=True), (None, 0))(theta, x)
  rows = [a.reshape(out.size, -1) for a in jax.tree.leaves(jacobian)]
  kernel = sum(numerics.matmul(a, a.T) for a in rows)
  return out, kernel, lambda a: jax.tree.map(
      lambda leaf: jnp.tensordot(a, leaf, 2, precision='highest'), jacobian)


def _frozen_mlp(module, theta, x, slope):
  """As `_frozen`, from inputs and signals of layers, without the Jacobian."""
  part = features.of_mlp(module, theta, theta, x, slope)
  names = [f'hidden_{i}' for i in range(len(module.widths))] + ['readout']
  last = theta['readout']
  out = numerics.matmul(part.inputs[-1], last['kernel'])
  if part.biases[-1]:
    out += part.biases[-1] * last['bias'][None]
  kernel = jnp.swapaxes(features.gram(part), 1, 2).reshape(out.size, -1)

  def pull(a):
    change = {}
    for name, h, bias, signal in zip(
        names, part.inputs, part.biases, part.signals):
      signal = jnp.einsum('nc,ncw->nw', a, signal, precision='highest')
      change[name] = {'kernel': numerics.matmul(h.T, signal)}
      if bias:
        change[name]['bias'] = bias * jnp.sum(signal, axis=0)
    return change

  return out, kernel, pull


@jax.custom_jvp
def decayed(
    k: Float[Array, 'R R'], r: Float[Array, 'R'], length: Float[Array, '']
) -> Float[Array, 'R']:
  """g(k) r of the module text, with h / N = `length`; k is symmetric."""
  values, vectors, _ = _spectrum(k, length)
  along = numerics.matmul(vectors.T, r.astype(values.dtype))
  return numerics.matmul(vectors, values * along).astype(r.dtype)


@decayed.defjvp
def _decayed_jvp(primals, tangents):
  k, r, length = primals
  dk, dr, _ = tangents  # Lengths are given, not differentiated.
  values, vectors, slopes = _spectrum(k, length)
  exact = values.dtype
  along = numerics.matmul(vectors.T, r.astype(exact))
  turned = numerics.matmul(
      numerics.matmul(vectors.T, dk.astype(exact)), vectors)
  change = numerics.matmul(slopes * turned, along)
  change += values * numerics.matmul(vectors.T, dr.astype(exact))
  out = numerics.matmul(vectors, values * along)
  return (out.astype(r.dtype),
          numerics.matmul(vectors, change).astype(r.dtype))


def _spectrum(k, length):
  """(g at the eigenvalues, eigenvectors, divided differences of g)."""
  exact = numerics.solve_dtype(k.dtype)
  k, length = k.astype(exact), length.astype(exact)
  values, vectors = jnp.linalg.eigh((k + k.T) / 2)
  values = jnp.maximum(values, 0)
  g, _ = _phi(values * length)
  g *= length
  left, right = values[:, None], values[None]
  gap = left - right
  near = jnp.abs(gap) <= jnp.finfo(exact).eps ** (1 / 3) * (left + right)
  _, slope = _phi((left + right) / 2 * length)
  slopes = jnp.where(near, length**2 * slope,
                     (g[:, None] - g[None]) / jnp.where(near, 1, gap))
  return g, vectors, slopes


def _phi(z):
  """((1 - e^{-z}) / z, its derivative), z >= 0."""
  small = z < _SERIES
  safe = jnp.where(small, 1, z)
  value = jnp.where(small, 1 - z / 2 + z**2 / 6, -jnp.expm1(-safe) / safe)
  slope = jnp.where(small, -1 / 2 + z / 3 - z**2 / 8,
                    (jnp.exp(-safe) - value) / safe)
  return value, slope


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
@numerics.exact
def mismatch(
    module: nn.Module, data: Any, x: Float[Array, 'M ...'],
    labels: Float[Array, 'M C'], slope: float, steps: int,
    path_tolerance: float) -> tuple[Float[Array, ''], Float[Array, '']]:
  """(relative loss, error of fit) of candidates, without a gradient.

  `data` has `theta_0`, `theta_T` and `norm_squared`; else see `train`.
  """
  theta, errors = train(
      module, data.theta_0, x, labels, slope, steps=steps,
      path_tolerance=path_tolerance)
  gap = jax.tree.map(jnp.subtract, theta, data.theta_T)
  return numerics.tree_dot(gap, gap) / data.norm_squared, errors[-1]
