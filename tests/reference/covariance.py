r"""Slow oracle of infinite-width kernels, in 40 digits.

Straight from the papers, in products instead of distances: the whole
covariance k(n, p; n', p') of all images n, n' at all positions p, p' goes
through every layer, and cosines go through arccos. In 40 digits that costs
nothing even for near-duplicates, whose digits the product form would lose in
float64. Vectors are images of one pixel.

A network is a list of (layer, arguments) pairs: [('Dense', {'W_std': 1.4}),
('Relu', {})].
"""
import math

import mpmath
import numpy as np

_DIGITS = 40
_STEP = mpmath.mpf(10) ** -12  # Central differences: an error of 1e-16 or so.

_arccos = np.frompyfunc(mpmath.acos, 1, 1)
_arcsin = np.frompyfunc(mpmath.asin, 1, 1)
_arctan = np.frompyfunc(mpmath.atan, 1, 1)
_exp = np.frompyfunc(mpmath.exp, 1, 1)
_sin = np.frompyfunc(mpmath.sin, 1, 1)
_sqrt = np.frompyfunc(mpmath.sqrt, 1, 1)


def kernel(network, x, get='ntk', digits=_DIGITS):
  """k(x, x) as an (N, N) array of mpmath numbers; x is (N, D) or images."""
  with mpmath.workdps(digits):
    x = _exact(x)
    if x.ndim == 2:
      x = x[:, None, None]
    channels = x.shape[-1]
    k = sum(np.multiply.outer(x[..., c], x[..., c])
            for c in range(channels)) / channels
    ntk = np.zeros_like(k)
    for name, kwargs in network:
      k, ntk = _LAYERS[name](k, ntk, **kwargs)
    out = ntk if get == 'ntk' else k
    return out[:, 0, 0, :, 0, 0]


def slope(network, x, direction, weights, get='ntk'):
  """d/dt sum(weights * k(x + t direction)), as a float.

  At a kink this is the mean of the slopes on both sides.
  """
  with mpmath.workdps(_DIGITS):
    plus, minus = (
        (_exact(weights) * kernel(network, _exact(x) + sign * _exact(direction),
                                  get)).sum() for sign in (_STEP, -_STEP))
    return float((plus - minus) / (2 * _STEP))


def gradients(network, x, digits=120):
  """(N, N, D) floats, d ntk(x_i, x_j) / dx_i of vectors x (N, D).

  By the chain rule, from differences in <x_i, x_j> and in |x_i|^2 alone; at
  kinks, and for a zero vector without a bias, it means nothing.
  """
  with mpmath.workdps(digits):
    x = _exact(x)
    (n, dim), step = x.shape, mpmath.mpf(10) ** (-digits // 3)
    p = x @ x.T / dim
    q = np.diag(p)
    scale = _sqrt(np.multiply.outer(q, q))
    scale = np.where(scale == 0, mpmath.mpf(1), scale)

    def value(along, longer):
      """ntk of x, with these shares of p and of |x_i|^2 more, and of x."""
      left = p + np.diag(longer * step * q)
      across = p + along * step * scale
      k = np.block([[left, across], [across.T, p]])
      k, ntk = (a.reshape(2 * n, 1, 1, 2 * n, 1, 1) for a in (k, 0 * k))
      for name, kwargs in network:
        k, ntk = _LAYERS[name](k, ntk, **kwargs)
      return ntk.reshape(2 * n, 2 * n)[:n, n:]

    in_p = (value(1, 0) - value(-1, 0)) / (2 * step * scale)
    in_q = (value(0, 1) - value(0, -1)) / (
        2 * step * np.where(q == 0, mpmath.mpf(1), q)[:, None])
    out = (in_p[:, :, None] * x[None] + 2 * in_q[:, :, None] * x[:, None]) / dim
    return out.astype(float)


def _exact(x):
  x = np.asarray(x)
  return np.frompyfunc(mpmath.mpf, 1, 1)(
      x if x.dtype == object else x.astype(float).astype(object))


def _dense(k, ntk, W_std=1, b_std=0):
  k = _exact(W_std) ** 2 * k + _exact(b_std) ** 2
  return k, k + _exact(W_std) ** 2 * ntk


def _conv(k, ntk, kernel_size=3, W_std=1, b_std=0, padding='SAME'):
  scale = (_exact(W_std) / kernel_size) ** 2
  k = scale * _patch_sum(k, kernel_size, padding) + _exact(b_std) ** 2
  return k, k + scale * _patch_sum(ntk, kernel_size, padding)


def _patch_sum(k, size, padding):
  (_, h, w), side = k.shape[:3], size // 2
  pads = (((0, 0), (side, side), (side, side)) * 2)
  mode = {'SAME': 'constant', 'CIRCULAR': 'wrap'}[padding]
  k = np.pad(k, pads, mode)
  return sum(k[:, i:i + h, j:j + w, :, i:i + h, j:j + w]
             for i in range(size) for j in range(size))


def _relu(k, ntk):
  q = _variances(k)
  s = _sqrt(np.multiply.outer(q, q))
  safe = np.where(s == 0, mpmath.mpf(1), s)
  theta = _arccos(_clip(k / safe))
  away = np.where(s == 0, 0, mpmath.pi - theta)
  return ((s * _sin(theta) + away * k) / (2 * mpmath.pi),
          ntk * away / (2 * mpmath.pi))


def _erf(k, ntk):
  a = 1 + 2 * _variances(k)
  a = np.multiply.outer(a, a)
  return (2 * _arcsin(2 * k / _sqrt(a)) / mpmath.pi,
          4 * ntk / (mpmath.pi * _sqrt(a - 4 * k**2)))


def _abrelu(k, ntk, a, b):
  relu, slope = _relu(k, ntk)
  scale = (_exact(b) - _exact(a)) ** 2
  return a * b * k + scale * relu, a * b * ntk + scale * slope


def _sign(k, ntk):
  q = _variances(k)
  s = _sqrt(np.multiply.outer(q, q))
  theta = _arccos(_clip(k / np.where(s == 0, mpmath.mpf(1), s)))
  return np.where(s == 0, 0, 1 - 2 * theta / mpmath.pi), 0 * ntk


def _sin_layer(k, ntk, a=1, b=1, c=0):
  q, b2 = _variances(k), _exact(b) ** 2
  half = np.add.outer(q, q) / 2
  near, far = _exp(-b2 * (half - k)), _exp(-b2 * (half + k))
  turned = mpmath.cos(2 * mpmath.mpf(c))
  scale = _exact(a) ** 2 / 2
  return scale * (near - turned * far), ntk * scale * b2 * (near + turned * far)


def _cos_layer(k, ntk, a=1, b=1, c=0):
  return _sin_layer(k, ntk, a, b, c + mpmath.pi / 2)


def _rbf(k, ntk, gamma=1):
  q = _variances(k)
  k = _exp(-_exact(gamma) * (np.add.outer(q, q) - 2 * k))
  return k, 2 * _exact(gamma) * k * ntk


def _exp_layer(k, ntk, a=1, b=1):
  q, b2 = _variances(k), _exact(b) ** 2
  k = _exact(a) ** 2 * _exp(b2 * (np.add.outer(q, q) / 2 + k))
  return k, b2 * k * ntk


def _gaussian(k, ntk, a=1, b=1):
  a, b = mpmath.mpf(a), mpmath.mpf(b)
  wide = 1 + 2 * b * _variances(k)
  det = np.multiply.outer(wide, wide) - 4 * b**2 * k**2
  return (a**2 / _sqrt(det), ntk * 4 * a**2 * b**2 * k / (det * _sqrt(det)))


def _gelu(k, ntk):
  """Its slope is the derivative of k' in k, written out."""
  q = _variances(k)
  p, s2 = np.multiply.outer(1 + q, 1 + q), np.multiply.outer(q, q)
  d = _sqrt(p - k**2)
  turned = mpmath.mpf(1) / 4 + _arctan(k / d) / (2 * mpmath.pi)
  top, bottom = k**2 + s2 * d**2, p * d
  # d' = -k / d, and (arctan(k / d))' = 1 / d.
  slope = (((2 * k - 2 * s2 * k) * bottom + top * p * k / d) / bottom**2
           + k / d) / (2 * mpmath.pi) + turned
  return k * turned + top / bottom / (2 * mpmath.pi), ntk * slope


def _layer_norm(k, ntk, axis=-1):
  q = _variances(k)
  axes = () if axis == -1 else tuple(axis)[:-1]
  count = math.prod(q.shape[a] for a in axes)
  q = np.broadcast_to(q.sum(axes, keepdims=True) / count, q.shape)
  s = _sqrt(np.multiply.outer(q, q))
  safe = np.where(s == 0, mpmath.mpf(1), s)
  return k / safe, np.where(s == 0, 0, ntk / safe)


def _polynomial(k, ntk, coefs):
  """E[u^i v^j] by the number of pairings with m of them across."""
  q = _variances(k)
  ones = np.ones_like(k)
  left = np.multiply.outer(q, np.ones_like(q))
  right = np.multiply.outer(np.ones_like(q), q)
  even = lambda n: math.prod(range(n - 1, 0, -2))  # (n - 1)!!
  out, slope = 0 * k, 0 * k
  for i, a in enumerate(coefs):
    for j, b in enumerate(coefs):
      for m in range(i % 2, min(i, j) + 1, 2):
        if (j - m) % 2:
          continue
        count = (math.comb(i, m) * math.comb(j, m) * math.factorial(m)
                 * even(i - m) * even(j - m))
        rest = (_exact(a) * _exact(b) * count * left ** ((i - m) // 2)
                * right ** ((j - m) // 2))
        out = out + rest * (k**m if m else ones)
        if m:
          slope = slope + m * rest * (k ** (m - 1) if m > 1 else ones)
  return out, ntk * slope


def _avg_pool(k, ntk, window=2):
  return _pool(k, window, window), _pool(ntk, window, window)


def _global_avg_pool(k, ntk):
  return _pool(k, *k.shape[1:3]), _pool(ntk, *k.shape[1:3])


def _pool(k, rows, cols):
  n, h, w = k.shape[:3]
  tiles = [(i, j) for i in range(h // rows) for j in range(w // cols)]
  at = lambda i, j: np.s_[i * rows:(i + 1) * rows, j * cols:(j + 1) * cols]
  means = [k[:, *at(*p), :, *at(*r)].sum((1, 2, 4, 5)) / (rows * cols) ** 2
           for p in tiles for r in tiles]
  size = h // rows, w // cols
  return np.stack(means, -1).reshape(n, n, *size, *size).transpose(
      0, 2, 3, 1, 4, 5)


def _flatten(k, ntk):
  return _same_position_mean(k), _same_position_mean(ntk)


def _same_position_mean(k):
  n, h, w = k.shape[:3]
  mean = sum(k[:, i, j, :, i, j] for i in range(h) for j in range(w)) / (h * w)
  return mean.reshape(n, 1, 1, n, 1, 1)


def _variances(k):
  size = math.prod(k.shape[:3])
  return np.diag(k.reshape(size, size)).reshape(k.shape[:3])


def _clip(c):
  return np.minimum(np.maximum(c, mpmath.mpf(-1)), mpmath.mpf(1))


_LAYERS = {
    'ABRelu': _abrelu, 'AvgPool': _avg_pool, 'Conv': _conv, 'Cos': _cos_layer,
    'Dense': _dense, 'Erf': _erf, 'Exp': _exp_layer, 'Flatten': _flatten,
    'Gaussian': _gaussian, 'Gelu': _gelu, 'GlobalAvgPool': _global_avg_pool,
    'LayerNorm': _layer_norm, 'Polynomial': _polynomial, 'Rbf': _rbf,
    'Relu': _relu, 'Sign': _sign, 'Sin': _sin_layer}
