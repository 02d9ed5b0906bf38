"""Gradients of a small MLP and their distances, in plain NumPy."""
import numpy as np


def softmax(out):
  e = np.exp(out - out.max(1, keepdims=True))
  return e / e.sum(1, keepdims=True)


def mlp_gradient(params, x, y):
  """Of the mean cross-entropy of `nets.MLP(K, (W,))`, as its parameters.

  Args:
    params: {'hidden_0': {'kernel', 'bias'}, 'readout': ...}, arrays.
    x: (n, ...).
    y: (n, K) probabilities.
  """
  first, last = params['hidden_0'], params['readout']
  x = np.asarray(x).reshape(len(x), -1)
  before = x @ first['kernel'] + first['bias']
  hidden = np.maximum(before, 0)
  out = (softmax(hidden @ last['kernel'] + last['bias']) - y) / len(x)
  back = (out @ last['kernel'].T) * (before > 0)
  return {'hidden_0': {'kernel': x.T @ back, 'bias': back.sum(0)},
          'readout': {'kernel': hidden.T @ out, 'bias': out.sum(0)}}


def descend(params, gradient, rate):
  """One step of plain gradient descent."""
  return {layer: {name: a - rate * gradient[layer][name]
                  for name, a in own.items()} for layer, own in params.items()}


def cosine(want, got):
  """Sum over kernels and their columns of 1 - cos, 1e-6 beside the norms."""
  total = 0.0
  for layer in want:
    for a, b in zip(want[layer]['kernel'].T, got[layer]['kernel'].T):
      norms = np.sqrt(np.sum(a**2)) * np.sqrt(np.sum(b**2))
      total += 1 - np.sum(a * b) / (norms + 1e-6)
  return total


def difference(want, got, power):
  """Sum of |difference|^power over the kernel below the readout."""
  a, b = (g['hidden_0']['kernel'] for g in (want, got))
  return np.sum(np.abs(a - b)**power)


def numerical(fn, x, step=1e-6):
  """Central differences of a scalar function in every entry of x."""
  out = np.zeros_like(x)
  for i in np.ndindex(x.shape):
    up, down = x.copy(), x.copy()
    up[i] += step
    down[i] -= step
    out[i] = (fn(up) - fn(down)) / (2 * step)
  return out
