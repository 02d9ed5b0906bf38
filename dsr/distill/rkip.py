r"""Reconstruction KIP (arXiv:2302.01428): distil by matching interpolants.

The two regressors f_t = sum_i a_i k(x_i, .) of the training set and
f_s = sum_j b_j k(x_j, .) of the support are points of one Hilbert space, and

  L = |f_s - f_t|^2 / 2 = (b' K_ss b - 2 b' K_st a + a' K_tt a) / 2
  a = (K_tt + \lambda tr(K_tt)/T I)^{-1} y_t,  b the same of the support.

This is the loss of the reconstruction attack with S < T images: zero if and
only if the support reproduces f_t everywhere, not on the training set alone.

a and the last term do not depend on the support. They are computed once, all
of K_tt in one factorisation; a step then costs S x T kernel values.

Axes: S support, T training set, C classes; sums run over classes.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np
import optax

from dsr import checks, krr, linalg, numerics
from dsr.distill import support as support_lib
from dsr.distill.kip import Info
from dsr.distill.support import Support
from dsr.kernels.gram import gram
from dsr.types import Examples, KernelFn, Solver


class Interpolant(NamedTuple):
  """f_t, the regressor of the training set: data of every step.

  Attributes:
    x: (T, ...) training inputs.
    dual: (T, C) a, in the dtype of the solve.
    norm: a' K_tt a, summed over classes.
  """

  x: Float[Array, 'T ...']
  dual: Float[Array, 'T C']
  norm: Float[Array, '']


class State(NamedTuple):
  """The support, the optimizer's state, and a key (unused: no batches)."""

  support: Support
  opt_state: optax.OptState
  key: Key[Array, '']


def interpolant(
    kernel_fn: KernelFn, data: Examples, *, ridge: float = 1e-6,
    progress: bool = False) -> Interpolant:
  """Factorises K_tt on the host, in float64: T^3 / 3 operations, 8 T^2 bytes.

  Raises:
    ValueError: misshapen data, or `ridge` not positive.
    FloatingPointError: K_tt is not positive definite at this ridge.
  """
  checks.positive('ridge', ridge)
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  k = np.asarray(gram(kernel_fn, data.x, progress=progress))
  shift = ridge * float(np.mean(k.diagonal(), dtype=np.float64))
  fitted = krr.fit_gram(k, kernel_fn, data, ridge=ridge)
  # K_tt a = y - shift a, so the norm needs no further product with K_tt.
  dual, y = np.asarray(fitted.dual), np.asarray(data.y, np.float64)
  dtype = numerics.solve_dtype(data.x.dtype)
  return Interpolant(
      jnp.asarray(data.x), jnp.asarray(dual, dtype),
      jnp.asarray(np.sum(dual * (y - shift * dual)), dtype))


def rkip(
    kernel_fn: KernelFn, optimizer: optax.GradientTransformation, *,
    ridge: float = 1e-6, learn_labels: bool = False) -> Solver:
  r"""Builds the solver: `init(key, support)`, `step(state, Interpolant)`.

  Args:
    kernel_fn: the kernel that `interpolant` was made with.
    optimizer: of images and labels together.
    ridge: \lambda > 0, relative to tr(K_ss)/S.
    learn_labels: whether y_s is learned too.

  Raises:
    ValueError: `ridge` is not positive.
  """
  checks.positive('ridge', ridge)

  def init(key: Key[Array, ''], start: Support) -> State:
    start = support_lib.support(*start)
    opt_state = optimizer.init(start._replace(frozen=None))
    return State(start, opt_state, key)

  def loss_fn(free: Support, data: Interpolant):
    return distance(kernel_fn, free.examples(), data, ridge=ridge)

  def step(state: State, data: Interpolant) -> tuple[State, Info]:
    free = state.support._replace(frozen=None)
    value, gradient = jax.value_and_grad(loss_fn)(free, data)
    gradient = support_lib.learned(state.support, gradient, learn_labels)
    updates, opt_state = optimizer.update(gradient, state.opt_state, free)
    moved = support_lib.restore(
        state.support, optax.apply_updates(free, updates), learn_labels)
    finite = support_lib.all_finite(value, moved.x, moved.y)
    return State(moved, opt_state, state.key), Info(value, finite)

  return Solver(init, step)


def distance(
    kernel_fn: KernelFn, support: Examples, data: Interpolant, *,
    ridge: float = 1e-6) -> Float[Array, '']:
  """|f_s - f_t|^2 / 2, the loss of the module text; differentiable.

  Sums are in the dtype of the solve, kernel values in that of the inputs: near
  zero the loss is the difference of terms of the size of `data.norm`.

  Raises:
    ValueError: `support` and `data` differ in image shape, dtype or classes.
  """
  checks.inputs('support.x', support.x, like=data.x)
  checks.targets('support.y', support.y, rows=support.x.shape[0])
  checks.features('support.y', support.y, dim=data.dual.shape[1])
  factor = linalg.factorise(kernel_fn(support.x), ridge=ridge)
  dual = linalg.solve(factor, support.y.astype(factor.k.dtype))
  own = jnp.sum(dual * numerics.matmul(factor.k, dual))
  k_ts = kernel_fn(data.x, support.x)
  pulled = numerics.matmul(k_ts.T, data.dual.astype(k_ts.dtype))
  cross = jnp.sum(dual * pulled.astype(dual.dtype))
  return 0.5 * (own - 2 * cross + data.norm.astype(own.dtype))
