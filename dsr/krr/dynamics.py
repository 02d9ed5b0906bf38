r"""Gradient flow of the mean-squared error, in closed form.

The loss is L(f) = sum_i |f(x_i) - y_i|^2 / (2N): a mean over the N examples, a
sum over the C outputs, and one half. Under d\theta/dt = -grad L the outputs of
a network in its kernel regime obey df_t/dt = -K(., X) (f_t(X) - Y) / N, so

  f_t(x) = f_0(x) + K(x, X) A^{-1} (I - exp(-t A / N)) (Y - f_0(X)).

Time t is in units of the learning rate: n steps of gradient descent at rate
\eta, small against 2N / |K|, are t = n \eta. A = K + \lambda tr(K)/N I; with
\lambda > 0 the loss gains the penalty \lambda tr(K)/N |f - f_0|^2 / (2N) in
the kernel's Hilbert space, and t = inf is ridge regression.

On paper -> code: K -> k, f_0(x) -> f0_x, f_0(X) -> f0_train.
Axes: N training and M test examples; C outputs.
Refs: arXiv:1806.07572; arXiv:1902.06720, equations 10 and 11.
"""
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, numerics
from dsr.types import Examples, KernelFn


# A dataclass for the reasons given at `krr.Regressor`.
@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('support', 'y', 'values', 'vectors', 'shift'),
    meta_fields=('kernel_fn',))
@dataclasses.dataclass(frozen=True)
class GradientFlow:
  """Mean predictions at any time, from one eigendecomposition.

  Attributes:
    kernel_fn: the `KernelFn`.
    support: (N, ...) the training inputs X.
    y: (N, C) their targets.
    values: (N,) ascending eigenvalues of K(X, X), in the dtype of the solve.
    vectors: (N, N) its eigenvectors.
    shift: the ridge in absolute terms.
  """

  kernel_fn: KernelFn
  support: Any
  y: Any
  values: Any
  vectors: Any
  shift: Any

  def __call__(
      self, x: Float[Array, 'M ...'],
      t: float | Float[np.ndarray | Array, '*T'] | None = None, *,
      f0_x: Float[Array, 'M C'] | None = None,
      f0_train: Float[Array, 'N C'] | None = None) -> Float[Array, '*T M C']:
    """f_t(x), (M, C), in the kernel's dtype; for times (T,) it is (T, M, C).

    Args:
      x: (M, ...) inputs.
      t: time >= 0 in units of the learning rate, or an array of such; may be
        infinity, which None means.
      f0_x: (M, C) outputs at time 0; None, with `f0_train`, means 0.
      f0_train: (N, C) outputs at time 0 on the training inputs.

    Raises:
      ValueError: wrong shapes, a negative `t`, or only one of f0_x, f0_train.
    """
    checks.inputs('x', x, like=self.support)
    if (f0_x is None) != (f0_train is None):
      raise ValueError('`f0_x` and `f0_train` must be given together, '
                       'got only one of them.')
    k = self.kernel_fn(x, self.support)
    dual = self.dual(t, f0_train=f0_train)
    change = numerics.matmul(k, dual.astype(k.dtype))
    if f0_x is None:
      return change
    checks.targets('f0_x', f0_x, rows=x.shape[0])
    start = f0_x.astype(k.dtype)
    return change + start.reshape((1,) * (change.ndim - 2) + start.shape)

  def dual(
      self, t: float | Float[np.ndarray | Array, '*T'] | None = None, *,
      f0_train: Float[Array, 'N C'] | None = None) -> Float[Array, '*T N C']:
    """alpha_t with f_t(x) = f_0(x) + K(x, X) alpha_t; arguments as above."""
    t = jnp.inf if t is None else t
    if not isinstance(t, jax.Array) and not np.all(np.asarray(t) >= 0):
      raise ValueError(f'`t` must not be negative, got {t!r}.')
    target = self.y.astype(self.values.dtype)
    if f0_train is not None:
      checks.targets('f0_train', f0_train, rows=self.y.shape[0])
      target = target - f0_train.astype(target.dtype)
    n = self.values.shape[0]
    # (1 - exp(-t a / n)) / a by eigenvalue. Below rounding a is unknown and
    # its direction is left out, at every t: the pseudo-inverse at infinity.
    limit = n * jnp.finfo(self.values.dtype).eps * self.values[-1]
    known = self.values + self.shift > limit
    a = jnp.where(known, self.values + self.shift, 1)
    # Times come first: an axis of their own, whatever their number.
    t = jnp.asarray(t, a.dtype)[..., None]
    a, known = (v.reshape((1,) * (t.ndim - 1) + (n,)) for v in (a, known))
    # Infinity apart, where the derivative would be 0 times infinity.
    end = jnp.isinf(t)
    learned = jnp.where(end, 1, -jnp.expm1(-a * (jnp.where(end, 0, t) / n)))
    rate = jnp.where(known, learned / a, 0)
    spectral = numerics.matmul(self.vectors.T, target)
    spectral = spectral.reshape((1,) * (t.ndim - 1) + spectral.shape)
    return numerics.matmul(self.vectors, rate[..., None] * spectral)


def gradient_flow(
    kernel_fn: KernelFn, data: Examples, *, ridge: float = 0.0
) -> GradientFlow:
  r"""Builds f_t for the loss and units stated at the top of this module.

  Directions of K below N eps |K| are not learned, whatever `t`. The result is
  differentiable in `data` where the eigenvalues of K are distinct.

  Args:
    kernel_fn: the kernel, as a rule an NTK.
    data: inputs (N, ...) and targets (N, C).
    ridge: \lambda >= 0, relative to tr(K)/N.

  Returns:
    A predictor (x (M, ...), t=None, *, f0_x=None, f0_train=None) -> (M, C),
    or (T, M, C) at times (T,).

  Raises:
    ValueError: `data` is misshapen or `ridge` is negative.
  """
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  checks.non_negative('ridge', ridge)
  k = kernel_fn(data.x)
  k = k.astype(numerics.solve_dtype(k.dtype))
  # Not `linalg.factorise`, whose eigenvectors carry no derivative.
  values, vectors = jnp.linalg.eigh(k)
  shift = ridge * jnp.trace(k) / k.shape[0]
  return GradientFlow(kernel_fn, data.x, data.y, values, vectors, shift)
