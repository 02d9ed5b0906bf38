r"""Preprocessing as fit/apply/invert triples, so pixels can be recovered.

A factory is fitted on training images on the host, in float64; `apply` and
`invert` are pure functions, safe under `jit` and `grad`, that keep the dtype of
their input. `invert(apply(x))` is x to rounding.

Axes: N examples; H, W, C image; D = H W C features.
"""
from collections.abc import Callable, Iterator
import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dsr import checks

_BLOCK = 1000  # Images at a time in host passes: bounds the float64 copies.


class Transform(NamedTuple):
  """An invertible map of examples.

  Attributes:
    apply: pixels (N, H, W, C), or tables (N, D), -> preprocessed examples.
    invert: back to pixels.
    name: how records and messages call it.
    parts: (name, numbers) of each step, from which `dsr.data.distilled` makes
      the transform again.
  """

  apply: Callable
  invert: Callable
  name: str
  parts: tuple[tuple[str, dict[str, np.ndarray]], ...] = ()


def identity() -> Transform:
  """x -> x."""
  return Transform(jnp.asarray, jnp.asarray, 'none', (('none', {}),))


def flatten(shape: tuple[int, ...]) -> Transform:
  """(N, H, W, C) <-> (N, D), for images of `shape` (H, W, C)."""
  shape = tuple(shape)

  def apply(x):
    checks.inputs('x', x)
    if tuple(x.shape[1:]) != shape:
      raise ValueError(f'`x` has examples of shape {tuple(x.shape[1:])}, '
                       f'expected {shape}.')
    return jnp.reshape(x, (x.shape[0], math.prod(shape)))

  def invert(x):
    checks.features('x', x, dim=math.prod(shape))
    return jnp.reshape(x, (x.shape[0], *shape))

  return Transform(apply, invert, 'flatten')


def remove_mean(x) -> Transform:
  """x - m, with the mean m of each channel over all images and pixels.

  Raises:
    ValueError: `x` is not a finite floating (N, H, W, C) array.
  """
  x = _images(x)
  mean, _ = _channel_moments(x)
  return affine(mean, np.ones_like(mean), 'mean')


def standardise(x) -> Transform:
  """(x - m) / s, with mean m and deviation s of each channel over `x`.

  The deviation is that of the population (divided by N H W). A channel that is
  constant over `x` is only centred.

  Raises:
    ValueError: `x` is not a finite floating (N, H, W, C) array.
  """
  return affine(*_channel_moments(_images(x)), 'standardise')


def zca(x, *, reg: float = 0.1) -> Transform:
  r"""Regularised ZCA whitening, the preprocessing of KIP on colour images.

  Conventions. Channels are standardised first, images are flattened to D
  features and centred by their mean image m. With the eigenvalues l and
  eigenvectors V of the covariance (divided by N, float64),

    apply(x) = (standardise(x) - m) W,   W = V diag(l + reg mean(l))^{-1/2} V^T,

  where mean(l) = tr(covariance) / D, and `invert` uses the inverse of W, which
  exists for every reg > 0. An eigendirection comes out with variance
  l / (l + reg mean(l)). After arXiv:2107.13034 and arXiv:2206.00719.

  Args:
    x: (N, H, W, C) training images. O(N D^2 + D^3): for the 50,000
      of CIFAR-10 about half a minute of one core.
    reg: relative to the mean eigenvalue, positive.

  Raises:
    ValueError: `x` is not a finite floating (N, H, W, C) array, holds no two
      different images, or `reg` is not positive.
  """
  checks.positive('reg', reg)
  x = _images(x)
  moments = _channel_moments(x)
  mean, covariance = _pixel_moments(x, *moments)
  eigenvalues, basis = np.linalg.eigh(covariance)
  eigenvalues = np.maximum(eigenvalues, 0)  # Negative ones are rounding.
  if not eigenvalues.any():
    raise ValueError('`x` must hold at least two different images.')
  root = np.sqrt(eigenvalues + reg * eigenvalues.mean())
  whiten = (basis / root) @ basis.T
  colour = (basis * root) @ basis.T
  return whitening(*moments, mean, whiten, colour, x.shape[1:])


def whitening(channel_mean, channel_std, mean, whiten, colour,
              shape: tuple[int, ...]) -> Transform:
  """The map of `zca` from its numbers.

  Args:
    channel_mean: (C,).
    channel_std: (C,).
    mean: (1, D) of the standardised pixels.
    whiten: (D, D).
    colour: (D, D), its inverse.
    shape: of an example.
  """
  channels = affine(channel_mean, channel_std, 'standardise')
  flat = flatten(shape)

  def apply(x):
    z = flat.apply(channels.apply(x)) - jnp.asarray(mean, x.dtype)
    return flat.invert(_matmul(z, whiten))

  def invert(x):
    z = _matmul(flat.apply(x), colour) + jnp.asarray(mean, x.dtype)
    return channels.invert(flat.invert(z))

  return Transform(apply, invert, 'zca', (('zca', {
      'channel_mean': channel_mean, 'channel_std': channel_std, 'mean': mean,
      'whiten': whiten, 'colour': colour, 'shape': np.asarray(shape)}),))


def chain(*transforms: Transform) -> Transform:
  """First the first; the inverses in the opposite order."""
  if not transforms:
    return identity()

  def apply(x):
    for transform in transforms:
      x = transform.apply(x)
    return x

  def invert(x):
    for transform in reversed(transforms):
      x = transform.invert(x)
    return x

  return Transform(apply, invert, '+'.join(t.name for t in transforms),
                   sum((t.parts for t in transforms), ()))


_FACTORIES = {
    'none': lambda x: identity(),
    'standardise': standardise,
    'mean': remove_mean,
    'zca': zca,
}


def known() -> tuple[str, ...]:
  """The names that `by_name` takes."""
  return tuple(_FACTORIES)


def by_name(name: str, x) -> Transform:
  """The transform called `name`, fitted on the training images `x`.

  Args:
    name: one of `known()`, or several joined by '+', first applied first; each
      is fitted on what the ones before it give.
    x: (N, H, W, C) training images.

  Raises:
    ValueError: unknown name, or images that the factory refuses.
  """
  names = name.split('+')
  for part in names:
    checks.one_of('transform', part, known())
  transforms = []
  for i, part in enumerate(names):
    transforms.append(_FACTORIES[part](x))
    if i + 1 < len(names):
      x = map_host(transforms[-1].apply, x)
  return transforms[0] if len(names) == 1 else chain(*transforms)


def map_host(fn: Callable, x, *, batch_size: int = 5000) -> np.ndarray:
  """fn(x) by batches of rows, collected on the host.

  For whole training sets, whose intermediate arrays would not fit on a device:
  `map_host(transform.apply, data.train.x)`.
  """
  checks.at_least('batch_size', batch_size, 1)
  checks.inputs('x', x)
  out = None
  for start in range(0, len(x), batch_size):
    part = np.asarray(fn(x[start:start + batch_size]))
    if out is None:  # Filled in place: never two copies of the whole.
      out = np.empty((len(x), *part.shape[1:]), part.dtype)
    out[start:start + len(part)] = part
  return out


def affine(mean, scale, name: str) -> Transform:
  """(x - mean) / scale by channel (C,) of images, or by column of tables.

  The same one for equal numbers: `jax.jit` tells functions apart by identity,
  so that runs on equal data share what is compiled.
  """
  return _affine(name, *(
      (a.tobytes(), a.dtype.str) for a in map(np.asarray, (mean, scale))))


@functools.lru_cache(maxsize=16)
def _affine(name, *ends):
  mean, scale = (np.frombuffer(*end) for end in ends)
  channels = len(mean)

  def numbers(x):
    if x.ndim == 2:
      checks.features('x', x, dim=channels)
    else:
      checks.images('x', x, shape=(*x.shape[1:3], channels))
    return (jnp.asarray(a.reshape((1,) * (x.ndim - 1) + (channels,)), x.dtype)
            for a in (mean, scale))

  def apply(x):
    m, s = numbers(x)
    return (x - m) / s

  def invert(x):
    m, s = numbers(x)
    return x * s + m

  return Transform(apply, invert, name,
                   ((name, {'mean': mean, 'scale': scale}),))


def _images(x) -> np.ndarray:
  """Images (N, H, W, C) or a table (N, D), whose columns are its channels."""
  if getattr(x, 'ndim', None) == 2:
    checks.features('x', x)
  else:
    checks.images('x', x)
  checks.finite('x', x)
  return np.asarray(x)


def _blocks(x) -> Iterator[np.ndarray]:
  for start in range(0, len(x), _BLOCK):
    yield x[start:start + _BLOCK].astype(np.float64)


def _channel_moments(x):
  """Mean and deviation (C,) in float64; deviation 1 for constant channels."""
  count = x[..., 0].size
  axes = tuple(range(x.ndim - 1))
  mean = sum(b.sum(axes) for b in _blocks(x)) / count
  square = sum(((b - mean)**2).sum(axes) for b in _blocks(x)) / count
  std = np.sqrt(square)
  # What lies below the resolution of float32 is rounding, not variation.
  varies = std > np.finfo(np.float32).eps * np.abs(mean)
  return mean, np.where(varies, std, 1.0)


def _pixel_moments(x, channel_mean, channel_std):
  """Mean (1, D) and covariance (D, D) of the standardised pixels."""
  mean = sum(b.sum(0) for b in _blocks(x)) / len(x)
  scale = np.broadcast_to(channel_std, mean.shape)
  covariance = np.zeros((mean.size, mean.size))
  for block in _blocks(x):
    z = ((block - mean) / scale).reshape(len(block), -1)
    covariance += z.T @ z
  mean = (mean - channel_mean) / scale
  return mean.reshape(1, -1), covariance / len(x)


def _matmul(x, w):
  return jnp.matmul(x, jnp.asarray(w, x.dtype), precision='highest')
