r"""Gradient flow: what gradient descent becomes as its rate tends to zero.

For the loss (1/N) sum_n |y_n - f(x_n)|^2 / 2, with residuals r = y - f and the
Jacobian J = df/d\theta of all examples and outputs,

  d\theta/dt = J' r / N,   d\alpha/dt = r / N.

Its fastest directions are thousands of times faster than its slowest, so steps
of a plain solver are tiny. A step here holds J, not r: then dr/dt = -K r / N
with the kernel K = J J', which its eigenvectors solve for any length h,

  a = (h / N) \phi(K h / N) r,   \phi(z) = (1 - e^{-z}) / z,
  \theta <- \theta + J' a,       \alpha <- \alpha + a.

As r tends to 0 the kernel stops moving, h may grow without bound, and the step
becomes that of Gauss and Newton: the end is reached in a few. A step h is
compared with two of h / 2; their difference chooses h, and twice the second
less the first is kept, which is of second order.

The published victims of arXiv:2302.01428 are of this kind: a rate of 4e-5 for a
million steps. Axes: N examples, C outputs, P parameters.
"""
import functools
import os
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
import numpy as np

from dsr import checks, loop, numerics
from dsr.kernels import empirical
from dsr.train import batches
from dsr.train.descent import Info
from dsr.train.recipe import loss_value, residual
from dsr.train.victim import Victim, checked_parameters, outputs
from dsr.types import Examples, Status

_CHUNK = 10  # Steps between two looks at the loss.
_LEAST, _MOST, _SAFETY = 0.2, 5.0, 0.9  # Of one step's length to the next.
_SERIES = 1e-6  # Below this z, \phi is its first two terms.


class State(NamedTuple):
  """On the way; `length` is the h to try next, 0 before the first."""

  params: PyTree
  duals: Float[Array, 'N C']
  length: Float[Array, '']


class Given(NamedTuple):
  """What a step reads and does not change."""

  data: Examples
  theta_0: PyTree
  tolerance: Float[Array, '']
  path_tolerance: Float[Array, '']


def fit_flow(
    module: nn.Module, theta_0: PyTree, data: Examples, *,
    tolerance: int | float = 1e-10, path_tolerance: float = 1e-3,
    max_steps: int = 100_000, workdir: str | os.PathLike | None = None,
    fingerprint: str = '', progress: bool = True) -> Victim:
  """Follows gradient flow from `theta_0` until the loss is below `tolerance`.

  A step costs two empirical kernels, of N^2 C^2 numbers, and their
  eigenvectors: meant for some hundred examples.

  Args:
    module: a Flax module without state besides its parameters.
    theta_0: its parameters, of the dtype of `data.x`.
    data: x (N, ...), y (N, C) targets.
    tolerance: of the mean squared error over N and C; 0 makes all steps.
    path_tolerance: largest difference between a step and its two halves, as a
      share of |theta_t - theta_0|.
    max_steps: trials at most; a step that is refused is one.
    workdir: where the run is saved and from where it goes on; None: nowhere.
    fingerprint: names the run there.
    progress: see `loop.run`.

  Returns:
    A victim with its duals and the loss before each trial and at the end; its
    `learning_rate` is None.

  Raises:
    ValueError: an argument out of range, data or parameters that do not fit,
      or a checkpoint of another run.
    FloatingPointError: the loss became infinite or NaN.
  """
  checks.non_negative('tolerance', tolerance)
  checks.positive('path_tolerance', path_tolerance)
  checks.at_least('max_steps', max_steps, 1)
  data = batches.checked_examples(module, data, 'mse')
  checks.precision('data.x', data.x)
  theta_0 = checked_parameters('theta_0', theta_0, module, data)
  dtype = data.x.dtype
  given = Given(data, theta_0, *(
      jnp.asarray(a, dtype) for a in (tolerance, path_tolerance)))
  state = State(theta_0, jnp.zeros_like(data.y), jnp.zeros((), dtype))

  def converged(step, state, info):
    del step, state
    return bool(info.loss[-1] < tolerance)

  result = loop.run(
      _step_of(module), state, given, num_steps=max_steps, chunk=_CHUNK,
      workdir=workdir, fingerprint=fingerprint, progress=progress,
      on_chunk=converged, description='gradient flow')
  if result.status == Status.NOT_FINITE:
    raise FloatingPointError(
        f'The loss of {type(module).__name__} is not finite after '
        f'{result.steps_done} steps of gradient flow: rescale the inputs.')
  losses = np.asarray(result.infos.loss)
  if (below := losses < tolerance).any():  # It rests from there on.
    losses = losses[:int(np.argmax(below))]
  victim = Victim(
      module, theta_0, result.state.params, False, result.state.duals, losses,
      (), None, result.status)
  last = loss_value('mse', outputs(victim, data.x), data.y)
  return victim._replace(curve=np.append(losses, last).astype(dtype))


@functools.lru_cache(maxsize=64)  # One step function, hence one compilation.
def _step_of(module):
  """(State, Given) -> (State, Info)."""

  @numerics.exact  # Attacks read theta_T - theta_0 to its last digits.
  def step(state, given):
    x, y = given.data
    advance, loss, fastest = _frozen(module, state.params, x, y)
    length = jnp.where(
        state.length > 0, state.length, 1 / fastest).astype(loss.dtype)
    # Changes are compared, not parameters: they have digits of their own.
    half = length / 2
    whole, first = advance(length), advance(half)
    advance, _, _ = _frozen(module, _add(state.params, first[0]), x, y)
    fine = _add(first, advance(half))
    best = jax.tree.map(lambda a, b: 2 * a - b, fine, whole)
    params = _add(state.params, best[0])
    error = _distance(fine[0], whole[0]) / jnp.maximum(
        _distance(params, given.theta_0), jnp.finfo(loss.dtype).tiny)
    factor = jnp.clip(
        _SAFETY * jnp.sqrt(given.path_tolerance / error), _LEAST, _MOST)
    factor = jnp.where(jnp.isnan(factor), _LEAST, factor)
    rests = loss < given.tolerance
    takes = (error <= given.path_tolerance) & ~rests
    take = lambda new, old: jnp.where(takes, new, old)
    params = jax.tree.map(take, params, state.params)
    duals = take(state.duals + best[1], state.duals)
    length = jnp.where(rests, length, factor * length)
    return State(params, duals, length), Info(loss, jnp.isfinite(loss))

  return step


def _frozen(module, params, x, y):
  """(h -> (J' a, a) with J of `params`, the loss, the fastest decay)."""
  apply_fn = lambda p, x: module.apply({'params': p}, x)
  out, vjp = jax.vjp(lambda p: apply_fn(p, x), params)
  r = residual('mse', out, y)
  size, exact = r.size, numerics.solve_dtype(r.dtype)
  kernel = empirical.full(apply_fn, params)(x).astype(exact)
  kernel = jnp.swapaxes(kernel, 1, 2).reshape(size, size)
  values, vectors = jnp.linalg.eigh((kernel + kernel.T) / 2)
  rates = jnp.maximum(values, 0) / len(y)
  along = vectors.T @ r.reshape(-1).astype(exact)

  def advance(length):
    length = length.astype(exact)
    z = rates * length
    phi = jnp.where(z < _SERIES, 1 - z / 2,
                    -jnp.expm1(-z) / jnp.maximum(z, _SERIES))
    a = vectors @ (length / len(y) * phi * along)
    a = a.reshape(r.shape).astype(r.dtype)
    return vjp(a)[0], a

  return advance, loss_value('mse', out, y), rates[-1]


def _add(left, right):
  return jax.tree.map(jnp.add, left, right)


def _distance(left, right) -> Float[Array, '']:
  return numerics.tree_norm(jax.tree.map(jnp.subtract, left, right))
