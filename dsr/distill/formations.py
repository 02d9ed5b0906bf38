"""Several images in the place of one: the multi-formation of arXiv:2205.14959.

A stored image is cut into factor x factor equal tiles, and each is enlarged to
the size of the whole. So of S stored images a network sees factor^2 S.

Axes: N stored images; H, W, C an image; S of all classes.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks
from dsr.types import Examples

_GREY = 0.5  # Beside an image whose sides the factor does not divide.


def decode(
    x: Float[Array, 'N H W C'], factor: int) -> Float[Array, 'M H W C']:
  """The factor^2 images that each stored one holds, M = factor^2 N.

  All upper left tiles come first, in the order of x, then those to their right,
  and so on. Enlarging is bilinear between centres of pixels, with the edge's
  pixels continued. An image whose sides `factor` does not divide is filled up
  below and to the right with 0.5.

  Raises:
    ValueError: `x` is not (N, H, W, C), or `factor` is no positive integer.
  """
  checks.images('x', x)
  checks.at_least('factor', factor, 1)
  if factor == 1:
    return x
  num, height, width, channels = x.shape
  short = (0, 0), (0, -height % factor), (0, -width % factor), (0, 0)
  x = jnp.pad(x, short, constant_values=_GREY)
  h, w = x.shape[1] // factor, x.shape[2] // factor
  tiles = jnp.concatenate([
      x[:, i * h:(i + 1) * h, j * w:(j + 1) * w]
      for i in range(factor) for j in range(factor)])
  return jax.image.resize(
      tiles, (factor**2 * num, height, width, channels), 'bilinear')


def decode_classes(
    x: Float[Array, 'S H W C'], y: Float[Array, 'S C'], factor: int,
    classes: int) -> Examples:
  """The decoded set with its labels, class by class, pixels cut to [0, 1]."""
  num = x.shape[0] // classes
  out = jnp.clip(decode(x, factor), 0, 1)
  out = out.reshape(factor**2, classes, num, *x.shape[1:])
  out = jnp.swapaxes(out, 0, 1).reshape(-1, *x.shape[1:])
  labels = y.reshape(classes, 1, num, -1)
  labels = jnp.broadcast_to(labels, (classes, factor**2, *labels.shape[2:]))
  return Examples(out, labels.reshape(-1, y.shape[1]))


def mixed(images: Float[np.ndarray, 'M H W C'], factor: int) -> np.ndarray:
  """Stored images (M / factor^2, H, W, C) that hold small copies of `images`.

  The published start: the first images are upper left tiles, and so on. Pixels
  are those nearest, rounded down. Host only.

  Raises:
    ValueError: their number is no multiple of factor^2.
  """
  if len(images) % factor**2:
    raise ValueError(f'`images` must be a multiple of {factor**2}, got '
                     f'{len(images)}.')
  parts = images.reshape(factor, factor, -1, *images.shape[1:])
  nearest = []
  for size in images.shape[1:3]:
    sizes = [len(part) for part in np.array_split(np.arange(size), factor)]
    nearest.append([np.arange(s) * size // s for s in sizes])
  return np.concatenate([np.concatenate([
      parts[i, j][:, rows][:, :, columns]
      for j, columns in enumerate(nearest[1])], axis=2)
                         for i, rows in enumerate(nearest[0])], axis=1)
