r"""Random image augmentations for distillation, all `(key, x) -> x`.

x is (B, H, W, C), floating; every image draws its own change, shape and dtype
stay. The functions are pure and safe under `jit`, and what is drawn does not
depend on x64.

`fill` is the value of the background that moves into view: a number, C numbers
for the channels, or an (H, W, C) image, in the units of `x`. Preprocessed
pixels have a background other than 0: black MNIST paper is -0.42 after
standardisation. What is moved is the difference x - fill.
"""
from collections.abc import Callable
import re

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np

from dsr import checks
from dsr.data import geometry, photometric, siamese

Augmentation = Callable  # (key, x (B, H, W, C)) -> (B, H, W, C)


def flip(
    key: Key[Array, ''], x: Float[Array, 'B H W C']
) -> Float[Array, 'B H W C']:
  """Mirrors left and right with probability 1/2."""
  checks.images('x', x)
  shape = (x.shape[0], 1, 1, 1)
  mirrored = jax.random.bernoulli(key, jnp.float32(0.5), shape)
  return jnp.where(mirrored, x[:, :, ::-1, :], x)


def shift(max_pixels: int, *, fill=0.0) -> Augmentation:
  """Moves by a whole number of pixels, uniform in [-max, max] on both axes."""
  checks.at_least('max_pixels', max_pixels, 0)

  def augment(key, x):
    checks.images('x', x)
    pad = ((0, 0), (max_pixels, max_pixels), (max_pixels, max_pixels), (0, 0))
    return geometry.on_background(
        lambda z: _random_crop(key, jnp.pad(z, pad), z.shape), x, fill)

  return augment


def crop_pad(max_pixels: int) -> Augmentation:
  """Crops at random from the image padded by its own reflection.

  The same moves as `shift`, for photographs, which have no background. Needs
  images larger than `max_pixels`.
  """
  checks.at_least('max_pixels', max_pixels, 0)

  def augment(key, x):
    checks.images('x', x)
    if max_pixels >= min(x.shape[1:3]):
      raise ValueError(f'`max_pixels` must be below the size of the image, '
                       f'got {max_pixels} for {tuple(x.shape[1:3])}.')
    pad = ((0, 0), (max_pixels, max_pixels), (max_pixels, max_pixels), (0, 0))
    return _random_crop(key, jnp.pad(x, pad, 'reflect'), x.shape)

  return augment


def rotate(max_degrees: float, *, fill=0.0) -> Augmentation:
  """Turns about the centre, angle uniform in [-max, max] degrees; bilinear."""
  checks.within('max_degrees', max_degrees, 0.0, 180.0)
  bound = np.deg2rad(max_degrees)

  def augment(key, x):
    checks.images('x', x)
    draw = jax.random.uniform(key, (x.shape[0],), jnp.float32, -bound, bound)
    angle = draw.astype(x.dtype)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([cos, -sin, sin, cos], axis=-1).reshape(-1, 2, 2)
    return geometry.on_background(
        lambda z: jax.vmap(geometry.resample)(z, matrix), x, fill)

  return augment


def scale(max_factor: float, *, fill=0.0) -> Augmentation:
  """Zooms about the centre by 1/max to max, log-uniform; bilinear."""
  checks.within('max_factor', max_factor, 1.0, 10.0)
  bound = np.log(max_factor)

  def augment(key, x):
    checks.images('x', x)
    draw = jax.random.uniform(key, (x.shape[0],), jnp.float32, -bound, bound)
    inverse = jnp.exp(-draw.astype(x.dtype))[:, None, None]
    matrix = inverse * jnp.eye(2, dtype=x.dtype)[None]
    return geometry.on_background(
        lambda z: jax.vmap(geometry.resample)(z, matrix), x, fill)

  return augment


def stretch(most: float, *, fill=0.0) -> Augmentation:
  """Height and width times factors of their own; bilinear.

  Both are uniform in [1 - most, 1 + most].
  """
  checks.within('most', most, 0.0, 0.9)

  def augment(key, x):
    checks.images('x', x)
    draw = jax.random.uniform(
        key, (x.shape[0], 2, 1), jnp.float32, 1 - most, 1 + most)
    matrix = jnp.eye(2, dtype=x.dtype)[None] / draw.astype(x.dtype)
    return geometry.on_background(
        lambda z: jax.vmap(geometry.resample)(z, matrix), x, fill)

  return augment


def one_of(*augmentations: Augmentation) -> Augmentation:
  """One of them for each image, all as likely, each with a key of its own."""

  def augment(key, x):
    moved = jnp.stack([move(jax.random.fold_in(key, i), x)
                       for i, move in enumerate(augmentations)])
    choice = jax.random.randint(
        jax.random.fold_in(key, len(augmentations)), (1, *x.shape[:1]), 0,
        len(augmentations), dtype=jnp.int32)
    return jnp.take_along_axis(moved, choice[..., None, None, None], 0)[0]

  return augment


def chain(*augmentations: Augmentation) -> Augmentation:
  """One after another, the first first, each with a key of its own."""

  def augment(key, x):
    for i, augmentation in enumerate(augmentations):
      x = augmentation(jax.random.fold_in(key, i), x)
    return x

  return augment


def by_name(name: str, *, fill=0.0) -> Augmentation | None:
  """Parses 'flip+shift2+rotate10'; 'none' gives None.

  Args:
    name: 'none', or a sum of the following, applied from left to right:
      'flip', 'shift<pixels>', 'crop_pad<pixels>', 'rotate<degrees>',
      'scale<factor>', 'stretch<share>'; 'brightness<..>', 'contrast<..>',
      'saturation<..>', 'hue<..>', 'blur<..>' of `photometric`;
      'siamese_<strategy>' and 'layered_<strategy>' with own parameters for
      each image, e.g. 'siamese_cifar10'. Of 'shift4|rotate45' each image gets
      one, drawn for it alone.
    fill: background for those that need one, see the module's text.

  Raises:
    ValueError: a part is unknown, or its number is missing or out of range.
  """
  if name == 'none':
    return None
  parts = [_parse(part, name, fill) for part in name.split('+')]
  return parts[0] if len(parts) == 1 else chain(*parts)


def _parse(part, name, fill):
  if '|' in part:
    return one_of(*(_parse(p, name, fill) for p in part.split('|')))
  match = re.fullmatch(r'([a-z_]+?)(\d+(?:\.\d+)?)?', part)
  kind, number = match.groups() if match else (part, None)
  if kind == 'flip' and number is None:
    return flip
  if number is not None and kind in ('rotate', 'scale', 'stretch'):
    move = {'rotate': rotate, 'scale': scale, 'stretch': stretch}[kind]
    return move(float(number), fill=fill)
  if number is not None and number.isdigit() and kind == 'shift':
    return shift(int(number), fill=fill)
  if number is not None and number.isdigit() and kind == 'crop_pad':
    return crop_pad(int(number))
  if number is not None and kind in photometric.KINDS:
    return photometric.photometric(kind, float(number), fill=fill)
  if part.startswith('siamese_'):
    return siamese.siamese(
        part.removeprefix('siamese_'), shared=False, fill=fill)
  if part.startswith('layered_'):
    return siamese.layered(
        part.removeprefix('layered_'), shared=False, fill=fill)
  raise ValueError(
      "`name` must be 'none' or made of flip, shift<pixels>, "
      'crop_pad<pixels>, rotate<degrees>, scale<factor>, stretch<share>, '
      'siamese_<strategy>, layered_<strategy>, '
      f'{", ".join(f"{kind}<amount>" for kind in photometric.KINDS)} joined by '
      f"+ (all of them) or | (one of them), as in 'flip+shift2|rotate10'; got "
      f'{part!r} in {name!r}.')


def _random_crop(key, padded, shape):
  """Windows of `shape` at random places, one for each image."""
  room = padded.shape[1] - shape[1]
  starts = jax.random.randint(
      key, (shape[0], 2), 0, room + 1, dtype=jnp.int32)
  crop = lambda image, start: jax.lax.dynamic_slice(
      image, (start[0], start[1], jnp.int32(0)), shape[1:])
  return jax.vmap(crop)(padded, starts)
