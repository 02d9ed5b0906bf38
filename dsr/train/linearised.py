r"""Linearised networks trained to the end, in closed form.

  \theta_T = \theta_0 + J' \alpha,   (K + \lambda tr(K)/(N C)) \alpha = y - f_0

with f_0 and J, (N C, P), the outputs and their Jacobian at \theta_0, K = J J'.
Without ridge this is where gradient descent on the mean squared error of
f_0 + J (\theta - \theta_0) ends, and the least |\theta - \theta_0| that fits y.
Ref: arXiv:1902.06720. Axes: N examples, C outputs, P parameters.
"""
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
import numpy as np

from dsr import checks, linalg, numerics
from dsr.kernels import empirical
from dsr.train import batches
from dsr.train.victim import Victim, checked_parameters
from dsr.types import Examples, Status

_TILE = 128  # Examples in a backward pass; bounds the memory.


def solve_linearised(
    module: nn.Module, theta_0: PyTree, data: Examples, *, ridge: float = 0.0
) -> Victim:
  r"""The linearised `module` at the end of training; see the module's text.

  Everything is computed in float64 where x64 is on, and theta_T and the duals
  are cast to the dtype of `theta_0` at the end.

  Args:
    module: a Flax module without state besides its parameters.
    theta_0: its parameters, of the dtype of `data.x`.
    data: x (N, ...), y (N, C).
    ridge: \lambda, relative to the mean of the kernel's diagonal.

  Returns:
    A victim with its duals (N, C) and a curve of two values, the mean squared
    error before and after.

  Raises:
    ValueError: an argument out of range, or data and parameters that do not
      fit.
    FloatingPointError: the kernel is singular, e.g. for an image that occurs
      twice: give a ridge.
  """
  checks.non_negative('ridge', ridge)
  data = batches.checked_examples(module, data, 'mse')
  checks.precision('data.x', data.x)
  theta_0 = checked_parameters('theta_0', theta_0, module, data)
  dtype = data.x.dtype
  high = lambda tree: jax.tree.map(
      lambda a: a.astype(numerics.solve_dtype(dtype)), tree)
  start, (x, y) = high(theta_0), high(data)
  out = _outputs(module, start, x)
  num, count = y.shape
  apply_fn = lambda params, x: module.apply({'params': params}, x)
  kernel = jnp.swapaxes(empirical.full(apply_fn, start)(x), 1, 2)
  factor = linalg.factorise(
      kernel.reshape(num * count, num * count), ridge=ridge)
  targets = (y - out).reshape(-1, 1)
  alpha = linalg.solve(factor, targets)
  info = linalg.residual_info(factor, alpha, targets)
  linalg.raise_if_failed(info, ridge=ridge)
  alpha = alpha.reshape(num, count)
  change = _pull_back(module, start, x, alpha)
  theta_T = jax.tree.map(lambda a, b: (a + b).astype(dtype), start, change)
  change = jax.tree.map(jnp.subtract, high(theta_T), start)  # As rounded.
  fitted = out + _push_forward(module, start, x, change)
  curve = [float(jnp.mean((f - y)**2)) for f in (out, fitted)]
  return Victim(module, theta_0, theta_T, True, alpha.astype(dtype),
                np.asarray(curve, dtype), (), None, Status.CONVERGED)


def _tiled(fn, *arrays):
  """[fn(rows of each array)], tile after tile."""
  return [fn(*(a[i:i + _TILE] for a in arrays))
          for i in range(0, len(arrays[0]), _TILE)]


def _outputs(module, params, x) -> Float[Array, 'N C']:
  return jnp.concatenate(
      _tiled(lambda x: _apply(module, params, x), x))


def _pull_back(module, params, x, alpha) -> PyTree:
  """J' alpha, shaped as `params`."""
  parts = _tiled(lambda x, a: _vjp(module, params, x, a), x, alpha)
  return jax.tree.map(lambda *leaves: sum(leaves), *parts)


def _push_forward(module, params, x, change) -> Float[Array, 'N C']:
  """J change."""
  return jnp.concatenate(
      _tiled(lambda x: _jvp(module, params, x, change), x))


@functools.partial(jax.jit, static_argnames='module')
@numerics.exact
def _apply(module, params, x):
  return module.apply({'params': params}, x)


@functools.partial(jax.jit, static_argnames='module')
@numerics.exact
def _vjp(module, params, x, alpha):
  _, vjp = jax.vjp(lambda p: module.apply({'params': p}, x), params)
  return vjp(alpha)[0]


@functools.partial(jax.jit, static_argnames='module')
@numerics.exact
def _jvp(module, params, x, change):
  forward = lambda p: module.apply({'params': p}, x)
  return jax.jvp(forward, (params,), (change,))[1]
