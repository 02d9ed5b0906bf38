"""Slow NumPy oracles of kernel ridge regression, in float64 throughout."""
import numpy as np
import scipy.integrate


def gaussian(x1, x2, scale):
  """2 exp(-|x - x'|^2 / (2 scale^2)), one pair of examples at a time."""
  return np.array([
      [2 * np.exp(-np.sum((a - b) ** 2) / (2 * scale**2)) for b in x2]
      for a in x1])


def system(k, ridge):
  """K + ridge tr(K)/N I."""
  n = len(k)
  return k + ridge * sum(k[i, i] for i in range(n)) / n * np.eye(n)


def ridge_predict(k_test, k, y, ridge):
  """K(x, X) (K + ridge tr(K)/N I)^-1 y, by Gaussian elimination."""
  return k_test @ np.linalg.solve(system(k, ridge), y)


def leave_one_out(k, y, ridge):
  """N refits, each without one example, at the absolute ridge of all N."""
  a = system(k, ridge)
  rows = []
  for i in range(len(k)):
    rest = [j for j in range(len(k)) if j != i]
    rows.append(k[i, rest] @ np.linalg.solve(a[np.ix_(rest, rest)], y[rest]))
  return np.array(rows)


def gradient_flow(k_test, k, y, t, ridge, f0_test, f0_train):
  """Integrates d alpha/dt = -(A alpha - (y - f0)) / N numerically."""
  a, n = system(k, ridge), len(k)
  target = y - f0_train

  def velocity(_, alpha):
    return (-(a @ alpha.reshape(y.shape) - target) / n).ravel()

  path = scipy.integrate.solve_ivp(
      velocity, (0, t), np.zeros(y.size), method='LSODA', rtol=1e-10,
      atol=1e-12)
  return f0_test + k_test @ path.y[:, -1].reshape(y.shape)
