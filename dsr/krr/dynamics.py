r"""Gradient flow of the mean-squared error, in closed form.

The loss is L(f) = sum_i |f(x_i) - y_i|^2 / (2N): a mean over the N examples, a
sum over the C outputs, and one half. Under d\theta/dt = -grad L the outputs of
a network in its kernel regime obey df_t/dt = -K(., X) (f_t(X) - Y) / N, so

  f_t(x) = f_0(x) + K(x, X) A^{-1} (I - exp(-t A / N)) (Y - f_0(X)).

Time t is in units of the learning rate: n steps of gradient descent at rate
\eta, small against 2N / |K|, are t = n \eta. A = K + \lambda tr(K)/N I; with
\lambda > 0 the loss gains the penalty \lambda tr(K)/N |f - f_0|^2 / (2N) in
the kernel's Hilbert space, and t = inf is ridge regression.

Descent at a larger rate, with or without momentum, is `spectrum.Descent`.

On paper -> code: K -> k, f_0(x) -> f0_x, f_0(X) -> f0_train.
Axes: N training and M test examples; C outputs.
Refs: arXiv:1806.07572; arXiv:1902.06720, equations 10 and 11.
"""
import dataclasses
import functools
from typing import Any

import jax
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, numerics
from dsr.krr import spectrum
from dsr.krr.spectrum import Descent
from dsr.types import Examples, KernelFn


# A dataclass for the reasons given at `krr.Regressor`.
@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('support', 'y', 'spectrum'),
    meta_fields=('kernel_fn',))
@dataclasses.dataclass(frozen=True)
class GradientFlow:
  """Mean predictions at any time, from one eigendecomposition.

  Attributes:
    kernel_fn: the `KernelFn`.
    support: (N, ...) the training inputs X.
    y: (N, C) their targets.
    spectrum: `spectrum.Spectrum` of K(X, X).
  """

  kernel_fn: KernelFn
  support: Any
  y: Any
  spectrum: Any

  def __call__(
      self, x: Float[Array, 'M ...'],
      t: float | Descent | Float[np.ndarray | Array, '*T'] | None = None, *,
      f0_x: Float[Array, 'M C'] | None = None,
      f0_train: Float[Array, 'N C'] | None = None) -> Float[Array, '*T M C']:
    """f_t(x), (M, C), in the kernel's dtype; for times (T,) it is (T, M, C).

    Args:
      x: (M, ...) inputs.
      t: time >= 0 in units of the learning rate, or an array of such; may be
        infinity, which None means; or a `Descent`.
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
      self,
      t: float | Descent | Float[np.ndarray | Array, '*T'] | None = None, *,
      f0_train: Float[Array, 'N C'] | None = None) -> Float[Array, '*T N C']:
    """alpha_t with f_t(x) = f_0(x) + K(x, X) alpha_t; arguments as above."""
    vectors = self.spectrum.vectors
    target = self.y.astype(vectors.dtype)
    if f0_train is not None:
      checks.targets('f0_train', f0_train, rows=self.y.shape[0])
      target = target - f0_train.astype(target.dtype)
    rate = spectrum.learned(self.spectrum, t)
    spectral = numerics.matmul(vectors.T, target)
    spectral = spectral.reshape((1,) * (rate.ndim - 1) + spectral.shape)
    return numerics.matmul(vectors, rate[..., None] * spectral)


def gradient_flow(
    kernel_fn: KernelFn, data: Examples, *, ridge: float = 0.0
) -> GradientFlow:
  r"""Builds f_t for the loss and units stated at the top of this module.

  Directions of K that rounding hides are not learned, whatever `t`: see
  `spectrum.decompose`. The result is differentiable in `data` where the
  eigenvalues of K are distinct.

  Args:
    kernel_fn: the kernel, as a rule an NTK.
    data: inputs (N, ...) and targets (N, C).
    ridge: \lambda >= 0, relative to tr(K)/N.

  Returns:
    A predictor (x (M, ...), t=None, *, f0_x=None, f0_train=None) -> (M, C),
    or (T, M, C) at times (T,).

  Raises:
    ValueError: `data` is misshapen or `ridge` is negative.
    FloatingPointError: outside of a trace, the kernel is not finite.
  """
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  checks.non_negative('ridge', ridge)
  found = spectrum.decompose(kernel_fn(data.x), ridge)
  return GradientFlow(kernel_fn, data.x, data.y, found)
