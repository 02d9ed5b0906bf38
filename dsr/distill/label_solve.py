r"""Label Solve (arXiv:2107.13034): the best labels for given support images.

  y_s = (K_ts (K_ss + \lambda tr(K_ss)/S I)^{-1})^+ y_t

minimises |y_t - f(X_t)|^2 over the labels, and has the least norm among the
minimisers. A = K_ts (...)^{-1} is (T, S) and tall. It is never formed: tiles
of rows, with y_t appended, are folded into one triangular factor, whose
leading S x S block has the singular values of A itself, not their squares.

Axes: S support, T training set, C classes.
"""
import functools
import sys

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, linalg
from dsr.types import Examples, KernelFn


def label_solve(
    kernel_fn: KernelFn, support_x: Float[Array | np.ndarray, 'S ...'],
    data: Examples, *, ridge: float = 1e-6, rcond: float | None = None,
    tile: int = 2048, progress: bool = False) -> Float[np.ndarray, 'S C']:
  r"""The least-norm optimal labels. Host only.

  Args:
    kernel_fn: (N, ...), (M, ...) -> (N, M).
    support_x: (S, ...) support images.
    data: the training set.
    ridge: \lambda > 0, relative to tr(K_ss)/S.
    rcond: singular values below `rcond` times the largest count as zero;
      default S max(eps of the inputs' dtype, eps of float64 / \lambda), since
      the solve magnifies rounding by 1 / \lambda. In float32 a repeated image
      may need more, its kernel values differing by rounding.
    tile: training rows at a time.
    progress: show a bar, if stderr is a terminal.

  Returns:
    (S, C) labels in the dtype of `data.y`.

  Raises:
    ValueError: misshapen arguments, or an option out of range.
    FloatingPointError: K_ss is not positive definite at this ridge.
  """
  checks.inputs('support_x', support_x)
  checks.inputs('data.x', data.x, like=support_x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  checks.positive('ridge', ridge)
  checks.at_least('tile', tile, 1)
  size = support_x.shape[0]
  if rcond is None:
    rcond = size * float(max(
        jnp.finfo(support_x.dtype).eps, np.finfo(np.float64).eps / ridge))
  checks.non_negative('rcond', rcond)
  factor = jax.jit(lambda x: linalg.factorise(kernel_fn(x), ridge=ridge))(
      jnp.asarray(support_x))
  if not factor.ok:
    raise FloatingPointError(
        f'Cholesky of K_ss failed: raise `ridge` (got {ridge}) or enable x64.')
  width = size + data.y.shape[1]
  triangle = jnp.zeros((width, width), factor.k.dtype)
  starts = range(0, data.x.shape[0], tile)
  if progress and sys.stderr.isatty():
    import tqdm

    starts = tqdm.tqdm(starts, desc='label_solve', unit='tile')
  for i in starts:
    triangle = _fold(kernel_fn, triangle, factor, support_x,
                     data.x[i:i + tile], data.y[i:i + tile])
  triangle = np.asarray(triangle)
  labels = np.linalg.pinv(triangle[:size, :size], rcond=rcond)
  labels = labels @ triangle[:size, size:]
  return labels.astype(data.y.dtype)


@functools.partial(jax.jit, static_argnums=0)
def _fold(kernel_fn, triangle, factor, support_x, x, y):
  """R of the QR factorisation of [triangle; [A(x), y]]."""
  k = kernel_fn(x, support_x).astype(factor.k.dtype)
  rows = jnp.concatenate(
      [linalg.solve(factor, k.T).T, y.astype(k.dtype)], axis=1)
  stacked = jnp.concatenate([triangle, rows])
  return jnp.linalg.qr(stacked, mode='r')
