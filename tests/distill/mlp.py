"""`nets.MLP(C, (5,))`, a network of one hidden layer, in NumPy."""
import numpy as np


def unravel(vector, inputs, classes, units=5):
  """A vector as parameters, in the order of `jax.flatten_util`."""
  shapes = {'hidden_0': {'bias': (units,), 'kernel': (inputs, units)},
            'readout': {'bias': (classes,), 'kernel': (units, classes)}}
  out, place = {}, 0
  for layer, leaves in shapes.items():
    out[layer] = {}
    for name, shape in leaves.items():
      size = int(np.prod(shape))
      out[layer][name] = np.asarray(vector)[place:place + size].reshape(shape)
      place += size
  assert place == len(vector)
  return out


def ravel(params):
  """The vector of `unravel`."""
  return np.concatenate([params[layer][name].ravel() for layer in sorted(params)
                         for name in sorted(params[layer])])


def forward(params, x):
  """(hidden units, outputs) for images or rows `x`."""
  hidden, readout = params['hidden_0'], params['readout']
  flat = np.asarray(x).reshape(len(x), -1)
  units = np.maximum(flat @ hidden['kernel'] + hidden['bias'], 0)
  return units, units @ readout['kernel'] + readout['bias']


def backward(params, x, slopes):
  """Gradient of a loss whose derivative by the outputs is `slopes` (N, C)."""
  units, _ = forward(params, x)
  flat = np.asarray(x).reshape(len(x), -1)
  back = (slopes @ params['readout']['kernel'].T) * (units > 0)
  return {
      'hidden_0': {'kernel': flat.T @ back, 'bias': back.sum(0)},
      'readout': {'kernel': units.T @ slopes, 'bias': slopes.sum(0)}}


def cross_entropy_slopes(outputs, y):
  """Of the mean cross-entropy, by the outputs."""
  p = np.exp(outputs - outputs.max(1, keepdims=True))
  return (p / p.sum(1, keepdims=True) - y) / len(y)


def step(params, gradient, rate):
  """Parameters after a step of gradient descent."""
  return {layer: {name: params[layer][name] - rate * gradient[layer][name]
                  for name in params[layer]} for layer in params}


def central_differences(fn, x, width=1e-6):
  """The gradient of `fn` by each entry of `x`."""
  out = np.zeros_like(x)
  for i in np.ndindex(x.shape):
    up, down = x.copy(), x.copy()
    up[i] += width
    down[i] -= width
    out[i] = (fn(up) - fn(down)) / (2 * width)
  return out
