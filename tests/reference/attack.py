r"""Slow NumPy oracles of the attacks: Jacobians by hand, example by example."""
import numpy as np


def softplus(z, beta):
  """(value, slope) of log(1 + e^(beta z)) / beta."""
  return (np.logaddexp(0, beta * z) / beta, sigmoid(beta * z))


def sigmoid(z):
  return 0.5 * (1 + np.tanh(z / 2))


def jacobian(theta, x, act):
  """(outputs (C,), [df_c/dtheta]) of an MLP of two hidden layers at one x.

  `act` maps z to (value, slope); gradients are dicts shaped as `theta`.
  """
  layers = [theta[name] for name in ('hidden_0', 'hidden_1', 'readout')]
  h0 = x.ravel()
  z1 = h0 @ layers[0]['kernel'] + layers[0].get('bias', 0)
  h1, s1 = act(z1)
  z2 = h1 @ layers[1]['kernel'] + layers[1].get('bias', 0)
  h2, s2 = act(z2)
  out = h2 @ layers[2]['kernel'] + layers[2].get('bias', 0)
  grads = []
  for c in range(len(out)):
    e = np.eye(len(out))[c]
    d2 = layers[2]['kernel'][:, c] * s2
    d1 = layers[1]['kernel'] @ d2 * s1
    signals = {'hidden_0': (h0, d1), 'hidden_1': (h1, d2), 'readout': (h2, e)}
    grads.append({
        name: {key: np.outer(a, d) if key == 'kernel' else d
               for key in theta[name]} for name, (a, d) in signals.items()})
  return out, grads


def flat(tree):
  """All numbers of a dict of dicts, names in order."""
  return np.concatenate([np.ravel(tree[a][b]) for a in sorted(tree)
                         for b in sorted(tree[a])])


def box(x, low, high):
  """Sum over images of the mean squared distance to the pixel range."""
  return sum(np.mean(np.maximum(a - high, 0)**2 + np.maximum(low - a, 0)**2)
             for a in x)


def high_frequency(x):
  """Sum over images of the mean square of what a 3x3 mean takes away."""
  total = 0.0
  for image in x:
    height, width, channels = image.shape
    left = np.empty_like(image)
    for i, j, c in np.ndindex(height, width, channels):
      around = [image[min(max(i + u, 0), height - 1),
                      min(max(j + v, 0), width - 1), c]
                for u in (-1, 0, 1) for v in (-1, 0, 1)]
      left[i, j, c] = image[i, j, c] - np.mean(around)
    total += np.mean(left**2)
  return total


def published_loss(
    thetas, change, x, duals, *, beta, low, high, box_weight,
    high_frequency_weight, sparsity):
  """(L, its first term) of arXiv:2302.01428, one set of duals per theta."""
  left = flat(change)
  for theta, a in zip(thetas, duals):
    for image, row in zip(x, a):
      _, grads = jacobian(theta, image, lambda z: softplus(z, beta))
      for number, grad in zip(row, grads):
        left = left - number * flat(grad) / a.size
  first = left @ left
  total = (first + box_weight * box(x, low, high)
           + high_frequency_weight * high_frequency(x)
           + sparsity * sum(np.mean(np.abs(a)) for a in duals))
  return total, first


def smooth_relu(z, slope):
  """(value, slope) of a ReLU whose derivative is a sigmoid."""
  return np.maximum(z, 0), sigmoid(slope * z)


def margin_gradients(theta, x, label, *, slope):
  """(M, P): d Phi_j / d theta, with Phi = +-f or f_y - max_{j != y} f_j."""
  rows = []
  for image, y in zip(x, label):
    out, grads = jacobian(theta, image, lambda z: smooth_relu(z, slope))
    if len(out) == 1:
      rows.append((1 if y else -1) * flat(grads[0]))
    else:
      rival = max((c for c in range(len(out)) if c != y), key=lambda c: out[c])
      rows.append(flat(grads[y]) - flat(grads[rival]))
  return np.stack(rows)


def output_gradients(theta, x, *, slope):
  """(M C, P): d f_c(x_j) / d theta."""
  act = lambda z: smooth_relu(z, slope)
  return np.stack([flat(grad) for image in x
                   for grad in jacobian(theta, image, act)[1]])
