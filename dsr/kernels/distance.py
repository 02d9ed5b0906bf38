r"""How far apart two kernel matrices are, e.g. before and after training.

  cosine    1 - <A, B> / (|A| |B|)  (as in arXiv:2010.15110): blind to scale;
  relative  |B - A| / |A|, which also sees it; norms are Frobenius'.

Wide networks hardly move their kernel, so both must resolve tiny values. With
a = A / |A| and b = B / |B|, 1 - <a, b> = |a - b|^2 / 2, a sum of squares that
keeps its digits where 1 - <a, b> would cancel. All is float64 on the host.
"""
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, PyTree
import numpy as np

from dsr import checks
from dsr.kernels import empirical


class KernelChange(NamedTuple):
  """Both distances; 0 means that the kernel did not move."""

  cosine: float
  frobenius: float


def cosine_distance(
    k0: Float[Array | np.ndarray, '...'],
    k1: Float[Array | np.ndarray, '...']) -> float:
  """1 - <k0, k1> / (|k0| |k1|), in [0, 2].

  Args:
    k0: (N, M), or (N, M, C, C) with all outputs.
    k1: the same shape.

  Raises:
    ValueError: shapes that differ, values that are not finite, or all zero.
  """
  k0, k1 = _pair(k0, k1)
  if not k1.any():
    raise ValueError('`k1` must not be zero everywhere.')
  gap = k0 / np.linalg.norm(k0) - k1 / np.linalg.norm(k1)
  return float(np.vdot(gap, gap) / 2)


def relative_frobenius(
    k0: Float[Array | np.ndarray, '...'],
    k1: Float[Array | np.ndarray, '...']) -> float:
  """|k1 - k0| / |k0|; arguments as in `cosine_distance`, but k1 may be zero."""
  k0, k1 = _pair(k0, k1)
  return float(np.linalg.norm(k1 - k0) / np.linalg.norm(k0))


def kernel_change(
    module: Any, theta_0: PyTree, theta_T: PyTree,
    x: Float[Array, 'N ...'], *, method: str = 'auto',
    batch_size: int | None = None) -> KernelChange:
  """How far training moved the empirical NTK of x, averaged over outputs.

  Args:
    module: Flax module; `module.apply({'params': theta}, x)` are its outputs.
    theta_0: parameters before training.
    theta_T: parameters after it.
    x: (N, ...) inputs as the network saw them, e.g. the training images.
    method: as in `empirical.ntk`.
    batch_size: as in `empirical.ntk`.

  Raises:
    ValueError: as `empirical.ntk`.
  """
  apply_fn = lambda theta, x: module.apply({'params': theta}, x)
  k0, k1 = (
      jax.device_get(empirical.ntk(
          apply_fn, theta, method=method, batch_size=batch_size)(x))
      for theta in (theta_0, theta_T))
  return KernelChange(cosine_distance(k0, k1), relative_frobenius(k0, k1))


def _pair(k0, k1):
  """Both in float64 and flat, after the checks."""
  if np.shape(k0) != np.shape(k1):
    raise ValueError(f'`k1` must have shape {np.shape(k0)} as `k0`, got '
                     f'{np.shape(k1)}.')
  for name, k in (('k0', k0), ('k1', k1)):
    checks.finite(name, k)
  if not np.any(k0):
    raise ValueError('`k0` must not be zero everywhere.')
  return (np.asarray(k, np.float64).ravel() for k in (k0, k1))
