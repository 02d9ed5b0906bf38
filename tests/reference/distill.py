r"""Slow NumPy oracles of the distillation methods, in float64 throughout.

Written from the formulas, with explicit inverses and sums over examples.
Axes: S support, T training set, C classes.
"""
import math

import numpy as np

from tests.reference import krr


def fcn1(x1, x2, W_std=2**0.5, b_std=0.1):
  """NTK of Dense, ReLU, Dense (arXiv:1806.07572).

  A bias is one more input. Angles come from |u - v| and |u + v| (Kahan), which
  is exact for u = v, where arccos of a rounded cosine is off by 1e-8.
  """
  u, v = (np.c_[W_std * x.reshape(len(x), -1) / math.sqrt(x[0].size),
                np.full(len(x), b_std)] for x in (x1, x2))
  size_u, size_v = (np.linalg.norm(w, axis=1) for w in (u, v))
  u, v = u / size_u[:, None], v / size_v[:, None]
  theta = 2 * np.arctan2(
      np.linalg.norm(u[:, None] - v[None], axis=-1),
      np.linalg.norm(u[:, None] + v[None], axis=-1))
  scale, away = np.outer(size_u, size_v), math.pi - theta
  relu = scale * (np.sin(theta) + away * np.cos(theta)) / (2 * math.pi)
  first = scale * np.cos(theta) * away / (2 * math.pi)
  return W_std**2 * relu + b_std**2 + W_std**2 * first


def kip_loss(kernel, x, y, x_t, y_t, *, ridge, loss='mse', a=0.0):
  """The loss of KRR from the support (x, y) on (x_t, y_t)."""
  outputs = krr.ridge_predict(kernel(x_t, x), kernel(x, x), y, ridge)
  if loss == 'mse':
    return sum(((o - t) ** 2).sum() for o, t in zip(outputs, y_t)) / (
        2 * len(y_t))
  total = 0.0
  for output, target in zip(math.exp(a) * outputs, y_t):
    if len(target) == 1:
      total += math.log1p(math.exp(-target[0] / abs(target[0]) * output[0]))
    else:
      total += math.log(sum(math.exp(o - output[target.argmax()])
                            for o in output))
  return total / len(y_t)


def rkip_loss(kernel, x, y, x_t, y_t, *, ridge):
  """Half the squared distance of the two regressors in the kernel's space."""
  b = np.linalg.solve(krr.system(kernel(x, x), ridge), y)
  a = np.linalg.solve(krr.system(kernel(x_t, x_t), ridge), y_t)
  return 0.5 * sum(
      b[:, c] @ kernel(x, x) @ b[:, c] - 2 * b[:, c] @ kernel(x, x_t) @ a[:, c]
      + a[:, c] @ kernel(x_t, x_t) @ a[:, c] for c in range(y.shape[1]))


def prediction_matrix(kernel, x, x_t, ridge):
  """A, with f(X_t) = A y_s."""
  return kernel(x_t, x) @ np.linalg.inv(krr.system(kernel(x, x), ridge))


def label_solve(kernel, x, x_t, y_t, *, ridge, rcond=1e-8):
  """The pseudoinverse of A on y_t, from an SVD of A itself."""
  return np.linalg.pinv(
      prediction_matrix(kernel, x, x_t, ridge), rcond=rcond) @ y_t


def closeness(x, data, distance):
  """Mean relu(1 - d_min / distance), d_min the least RMS difference."""
  total = 0.0
  for image in x:
    nearest = min(math.sqrt(((image - other) ** 2).mean()) for other in data)
    total += max(0.0, 1 - nearest / distance)
  return total / len(x)


def gradient(fn, x, step=1e-5):
  """Central differences of a scalar `fn`, one entry of `x` at a time."""
  x = np.asarray(x, float)
  slopes = np.zeros_like(x)
  for at in np.ndindex(x.shape):
    up, down = x.copy(), x.copy()
    up[at] += step
    down[at] -= step
    slopes[at] = (fn(up) - fn(down)) / (2 * step)
  return slopes
