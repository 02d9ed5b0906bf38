r"""Kernel ridge regression by direct solves.

f(x) = K(x, X) (K + \lambda tr(K)/N I)^{-1} Y, with \lambda relative to the
mean of the kernel's diagonal. It minimises, over the kernel's Hilbert space,
sum_i |f(x_i) - y_i|^2 + \lambda tr(K)/N |f|^2.

On paper -> code: K -> k, \alpha -> dual, \lambda -> ridge.
Axes: N training and M test examples; C outputs.
"""
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from dsr import checks, hosts, linalg
from dsr.krr import iterative
from dsr.krr.predictor import Regressor
from dsr.types import Examples, KernelFn


def fit(
    kernel_fn: KernelFn, data: Examples, *,
    ridge: float | Float[Array, ''] = 1e-6, method: str = 'cholesky'
) -> Regressor:
  r"""Fits f(x) = K(x, X) \alpha, \alpha = (K + \lambda tr(K)/N I)^{-1} Y.

  With a direct method it is pure: safe under `jit`, `vmap` and `grad`, the
  derivative with respect to `data` costing one more solve with the same
  factor. Traced code cannot raise: a solve that fails there gives NaN, sets
  ``predict_fn.info.converged`` to False, and the predictor raises when it is
  called outside of the trace. Where rounding leaves a float32 kernel
  indefinite, what it hides is left out, with a warning: `linalg.factorise`.

  Args:
    kernel_fn: the kernel.
    data: inputs (N, ...) and targets (N, C).
    ridge: \lambda >= 0, relative to tr(K)/N.
    method: 'cholesky'; 'eigh', slower, which stays accurate where Cholesky
      breaks down; or 'cg' for kernels beyond memory, which is `fit_by_cg`
      with its defaults, and over many processes `fit_on_hosts`.

  Raises:
    ValueError: `data` is misshapen, or an option is out of range.
    FloatingPointError: outside of a trace, the matrix is not positive
      definite or not finite.
  """
  checks.one_of('method', method, ('cholesky', 'eigh', 'cg'))
  if method == 'cg' and hosts.several():
    from dsr.krr import many_hosts  # With loops and checkpoints.

    return many_hosts.fit(kernel_fn, data, ridge=ridge)
  if method == 'cg':
    return iterative.fit_by_cg(kernel_fn, data, ridge=ridge)
  factor = _factorise(kernel_fn, data, ridge, method)
  dual = linalg.solve(factor, data.y)
  info = linalg.residual_info(factor, dual, data.y)
  return Regressor(kernel_fn, data.x, dual, info)


def _factorise(kernel_fn, data, ridge, method='cholesky'):
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  return linalg.factorise(kernel_fn(data.x), ridge=ridge, method=method)


def fit_gram(
    gram: Float[Array | np.ndarray, 'N N'], kernel_fn: KernelFn,
    data: Examples, *, ridge: float = 1e-6, dtype: str = 'float64',
    overwrite: bool = False) -> Regressor:
  """`fit` on the host from a given kernel matrix, in place, for large N.

  LAPACK overwrites one triangle of one (N, N) array of `dtype`; the other
  triangle still holds K and serves for the residuals. So 20,000 examples
  take 3.2 GB in float64 beside `gram`, and float64 needs no x64 mode.

  Args:
    gram: (N, N) the kernel at `data.x`, as from `kernels.gram`.
    kernel_fn: for predictions.
    data: inputs (N, ...) and targets (N, C).
    ridge: relative to tr(K)/N.
    dtype: 'float64', or 'float32' at half the memory and time where the
      ridge is far above 1e-7 N.
    overwrite: destroy `gram`, if a C-contiguous NumPy array of `dtype`,
      instead of copying it.

  Raises:
    ValueError: misshapen arguments or an option out of range.
    FloatingPointError: the matrix is not positive definite, or not finite.
  """
  import scipy.linalg  # Here, so that `import dsr` stays light.
  n = data.x.shape[0]
  checks.square('gram', gram)
  checks.same_rows(**{'gram': gram, 'data.x': data.x})
  checks.targets('data.y', data.y, rows=n)
  checks.non_negative('ridge', ridge)
  checks.one_of('dtype', dtype, ('float32', 'float64'))
  a = np.array(gram, dtype, order='C', copy=None if overwrite else True)
  if not a.flags.writeable:  # A view of a jax array.
    a = a.copy()
  y = np.asarray(data.y, dtype)
  with np.errstate(invalid='ignore'):  # NaN is reported by the flag.
    diag = a.diagonal() + ridge * a.diagonal().mean()
  np.fill_diagonal(a, diag)
  columns = a.T  # Column-major, as LAPACK wants it; K being symmetric.
  try:
    factor = scipy.linalg.cho_factor(
        columns, lower=True, overwrite_a=True, check_finite=False)
    x = scipy.linalg.cho_solve(factor, y, check_finite=False)
  except np.linalg.LinAlgError:
    x = np.full_like(y, np.nan)
  np.fill_diagonal(a, diag)
  symm, = scipy.linalg.get_blas_funcs(('symm',), (columns,))
  residual = np.linalg.norm(y - symm(1, columns, x, lower=0), axis=0)
  size = np.linalg.norm(y, axis=0)
  residual = residual / np.where(size > 0, size, 1)
  converged = bool(np.all(residual <= linalg.RESIDUAL_LIMIT))
  info = linalg.Info(
      jnp.asarray(residual), jnp.zeros((), int), jnp.asarray(converged))
  linalg.raise_if_failed(info, ridge=ridge)
  return Regressor(kernel_fn, jnp.asarray(data.x), jnp.asarray(x), info)


def leave_one_out(
    kernel_fn: KernelFn, data: Examples, *,
    ridge: float | Float[Array, ''] = 1e-6) -> Float[Array, 'N C']:
  r"""Prediction of each example by the fit to all others, in closed form.

  f_{-i}(x_i) = y_i - \alpha_i / [A^{-1}]_{ii}, A = K + \lambda tr(K)/N I, from
  one factorisation; in the dtype of the solve, differentiable. The absolute
  ridge of the N refits is that of the whole set. Ref: Rasmussen & Williams
  (2006), section 5.4.2.

  Raises:
    ValueError: as `fit`.
    FloatingPointError: as `fit`, and for targets that are not finite. Inside
      of a trace the result is NaN.
  """
  factor = _factorise(kernel_fn, data, ridge)
  dual = linalg.solve(factor, data.y)
  linalg.report(linalg.residual_info(factor, dual, data.y))
  residual = dual / linalg.diag_inverse(factor)[:, None]
  return data.y.astype(residual.dtype) - residual


def accuracy(
    outputs: Float[Array | np.ndarray, 'N C'],
    y: Int[Array | np.ndarray, 'N']) -> Float[Array, '']:
  """Fraction of rows whose class is right: largest output, or sign if C = 1.

  Args:
    outputs: (N, C) predictions; with C = 1, positive means class 1.
    y: (N,) class indices.

  Raises:
    ValueError: `outputs` is no (N, C), or `y` no N integers.
  """
  checks.features('outputs', outputs)
  checks.same_rows(outputs=outputs, y=y)
  checks.class_indices('y', y)
  outputs = jnp.asarray(outputs)
  if outputs.shape[1] == 1:
    guess = (outputs[:, 0] > 0).astype(int)
  else:
    guess = outputs.argmax(1)
  # NaN never counts as right, though argmax and > would name a class.
  right = (guess == jnp.asarray(y)) & jnp.isfinite(outputs).all(1)
  return right.mean()


def mse(
    outputs: Float[Array | np.ndarray, 'N C'],
    y: Float[Array | np.ndarray, 'N C']) -> Float[Array, '']:
  """Mean over all N C entries of (outputs - y)^2.

  Raises:
    ValueError: the shapes differ.
  """
  checks.features('outputs', outputs)
  checks.targets('y', y, rows=outputs.shape[0])
  checks.features('y', y, dim=outputs.shape[1])
  return jnp.mean((jnp.asarray(outputs) - jnp.asarray(y)) ** 2)
