r"""Gaussian process regression: posterior, and log marginal likelihood.

Outputs are drawn from a Gaussian process of covariance K, as those of an
infinitely wide network are (K is its NNGP), and targets are outputs plus noise
of variance s^2. With A = K(X, X) + s^2 I the posterior has

  mean           K(x, X) A^{-1} Y
  covariance     K(x, x') - K(x, X) A^{-1} K(X, x')
  log evidence   -1/2 tr(Y' A^{-1} Y) - C/2 log det A - N C / 2 log(2 pi).

Outputs are independent and share the covariance. It is that of outputs: a new
target has s^2 more variance.
Axes: N training and M test examples; C outputs.
Refs: Rasmussen & Williams (2006), equations 2.23 to 2.30; arXiv:1711.00165.
"""
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import checks, linalg, numerics
from dsr.krr.ensemble import COVARIANCES, Gaussian, positive_part
from dsr.types import Examples, KernelFn


# A dataclass for the reasons given at `krr.Regressor`.
@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('support', 'factor', 'dual', 'info'),
    meta_fields=('kernel_fn',))
@dataclasses.dataclass(frozen=True)
class Posterior:
  """The posterior as a function of inputs.

  Attributes:
    kernel_fn: the `KernelFn`.
    support: (N, ...) the training inputs X.
    factor: `linalg.Factor` of A.
    dual: (N, C) A^{-1} Y.
    info: `linalg.Info` of that solve, as in `krr.Regressor`.
  """

  kernel_fn: KernelFn
  support: Any
  factor: Any
  dual: Any
  info: Any

  def __call__(self, x: Float[Array, 'M ...'], *,
               covariance: str = 'full') -> Gaussian:
    """The posterior at `x`, in the kernel's dtype.

    Args:
      x: (M, ...) inputs.
      covariance: 'full', (M, M), with one eigh of it; or 'diagonal', (M,).

    Raises:
      ValueError: `x` is not shaped as the support; an unknown `covariance`.
      FloatingPointError: outside of a trace, the solve failed.
    """
    checks.inputs('x', x, like=self.support)
    checks.one_of('covariance', covariance, COVARIANCES)
    linalg.report(self.info)
    k = self.kernel_fn(x, self.support)
    out, k = k.dtype, k.astype(self.dual.dtype)
    mean = numerics.matmul(k, self.dual)
    solved = linalg.solve(self.factor, k.T)
    if covariance == 'diagonal':
      spread = self.kernel_fn.diag(x).astype(k.dtype) - (k.T * solved).sum(0)
      spread = jnp.maximum(spread, 0)
    else:
      spread = self.kernel_fn(x).astype(k.dtype) - numerics.matmul(k, solved)
      spread = positive_part((spread + spread.T) / 2)
    return Gaussian(mean.astype(out), spread.astype(out))


def posterior(
    kernel_fn: KernelFn, data: Examples, *, noise: float | Float[Array, '']
) -> Posterior:
  """The posterior of Gaussian process regression.

  Pure: safe under `jit`, `vmap` and `grad`. Its mean is that of `krr.fit` at
  the ridge `noise` N / tr(K).

  Args:
    kernel_fn: the covariance of the prior, e.g. an NNGP.
    data: inputs (N, ...) and targets (N, C), of mean 0 as the prior has it.
    noise: s^2 >= 0, the variance of the targets' noise, in squared units of
      the targets.

  Raises:
    ValueError: `data` is misshapen or `noise` is negative.
    FloatingPointError: outside of a trace, A is not positive definite or not
      finite: give a larger `noise`.
  """
  factor = _factorise(kernel_fn, data, noise)
  dual = linalg.solve(factor, data.y)
  info = linalg.residual_info(factor, dual, data.y)
  return Posterior(kernel_fn, data.x, factor, dual, info)


def log_marginal_likelihood(
    kernel_fn: KernelFn, data: Examples, *, noise: float | Float[Array, '']
) -> Float[Array, '']:
  """log p(Y | X), summed over outputs; in nats.

  Differentiable in `data`, in `noise` and in whatever `kernel_fn` closes over,
  by one more solve and A^{-1}. Arguments and errors are those of `posterior`.
  """
  factor = _factorise(kernel_fn, data, noise)
  y = data.y.astype(factor.k.dtype)
  n, c = y.shape
  fit = jnp.vdot(y, linalg.solve(factor, y), precision='highest')
  return -0.5 * (fit + c * linalg.log_det(factor)
                 + n * c * math.log(2 * math.pi))


def _factorise(kernel_fn, data, noise):
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  if not isinstance(noise, jax.Array):  # Traced values cannot be looked at.
    checks.non_negative('noise', noise)
  k = kernel_fn(data.x)
  mean = jnp.trace(k) / k.shape[0]
  # Ridges are relative to the mean of the diagonal.
  return linalg.factorise(k, ridge=jnp.asarray(noise, k.dtype) / mean)
