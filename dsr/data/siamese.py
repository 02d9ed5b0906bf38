r"""Differentiable Siamese augmentation (DSA, arXiv:2102.08259).

One operation of a strategy is drawn per call, then its parameters; with u
uniform in [0, 1), each u drawn on its own:

  color   brightness  x + (u - 0.5)
          saturation  (x - m) 2 u + m,        m the mean over C
          contrast    (x - m) (u + 0.5) + m,  m the mean over H, W and C
  crop    moves by whole pixels, at most an eighth of the size on each axis
  cutout  a rectangle of half the height and width becomes background; its
          centre is anywhere in the image, which may cut it off
  flip    mirrors left and right with probability 1/2: wrong for digits
  scale   samples at s times the distance from the centre, bilinear; s is
          uniform in [1/1.2, 1.2] on each axis on its own
  rotate  turns about the centre by up to 15 degrees, bilinear

Distillation compares real with synthetic images under the same change: with
`shared=True` all images of a call get the same parameters, and so does every
other call with the same key, whatever its number of images. Training uses
`shared=False`: the operation is still one for all, its parameters are drawn for
each image.

x is (B, H, W, C), floating; everything is differentiable in x, and what is
drawn does not depend on x64. What moves into view is `fill`, in the units of x
as in `augment`; as published it is 0, which is the mean of standardised images
and not the paper of digits.
"""
from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np

from dsr import checks
from dsr.data import geometry

STRATEGIES = {
    'cifar10': 'color_crop_cutout_flip_scale_rotate',
    'mnist': 'color_crop_cutout_scale_rotate',
}

_ALWAYS = ('flip', 'color', 'cutout')  # In `layered`.

_BRIGHTNESS, _SATURATION, _CONTRAST = 1.0, 2.0, 0.5
_CROP, _CUTOUT = 0.125, 0.5  # In units of the height and the width.
_FLIP = 0.5
_SCALE = 1.2
_DEGREES = 15.0


def siamese(
    strategy: str = STRATEGIES['cifar10'], *, shared: bool = True, fill=0.0
) -> Callable:
  """The augmentation (key, x (B, H, W, C)) -> (B, H, W, C) of a strategy.

  Args:
    strategy: operations joined by '_', or a key of `STRATEGIES`. An operation
      named twice is drawn twice as often.
    shared: whether all images of a call get the same parameters.
    fill: background: a number, C numbers, or an (H, W, C) image.

  Returns:
    A function that is hashable; equal arguments give the same object, so that
    as a static argument of `jit` it compiles once.

  Raises:
    ValueError: an operation is unknown; when called, `x` is not (B, H, W, C)
      or `fill` does not fit it.
  """
  operations = tuple(STRATEGIES.get(strategy, strategy).split('_'))
  for operation in operations:
    checks.one_of('strategy', operation, _OPERATIONS)
  return _augment(operations, bool(shared), _hashable(np.asarray(fill)))


def layered(strategy: str, *, shared: bool = True, fill=0.0) -> Callable:
  """Flip, colour, one of the other operations, cutout: each that is named.

  Where `siamese` draws one operation of all, this makes flip, colour and cutout
  whenever they are part of the strategy, and draws one of what else there is,
  as in arXiv:2205.14959. Arguments and errors are those of `siamese`.
  """
  operations = tuple(STRATEGIES.get(strategy, strategy).split('_'))
  others = '_'.join(o for o in operations if o not in _ALWAYS)
  order = ('flip', 'color', others, 'cutout')
  chosen = [o for o in order if o and (o == others or o in operations)]
  return _chain(tuple(
      siamese(o, shared=shared, fill=fill) for o in chosen))


@functools.lru_cache(maxsize=64)
def _chain(parts):
  """The functions one after another, each with a key of its own."""

  def augment(key, x):
    for i, part in enumerate(parts):
      x = part(jax.random.fold_in(key, i), x)
    return x

  return augment


def _hashable(fill):
  """An array as a number or as nested tuples."""
  return tuple(_hashable(a) for a in fill) if fill.ndim else float(fill)


@functools.lru_cache(maxsize=64)
def _augment(operations, shared, fill):
  """One function for equal arguments."""

  def augment(key, x):
    checks.images('x', x)
    key_choice, key = jax.random.split(key)
    choice = jax.random.randint(
        key_choice, (), 0, len(operations), dtype=jnp.int32)
    num = 1 if shared else x.shape[0]
    branches = [functools.partial(_OPERATIONS[o], num=num, fill=fill)
                for o in operations]
    return jax.lax.switch(choice, branches, key, x)

  return augment


def _uniform(key, num, low=0.0, high=1.0, *, dtype):
  """`num` draws in [low, high); float32, so that x64 changes none."""
  return jax.random.uniform(
      key, (num,), jnp.float32, low, high).astype(dtype)


def _color(key, x, *, num, fill):
  del fill
  draws = [_uniform(k, num, dtype=x.dtype).reshape(-1, 1, 1, 1)
           for k in jax.random.split(key, 3)]
  x = x + (draws[0] - 0.5) * _BRIGHTNESS
  mean = jnp.mean(x, 3, keepdims=True)
  x = (x - mean) * (draws[1] * _SATURATION) + mean
  mean = jnp.mean(x, (1, 2, 3), keepdims=True)
  return (x - mean) * (draws[2] + _CONTRAST) + mean


def _crop(key, x, *, num, fill):
  most = [_rounded(size * _CROP) for size in x.shape[1:3]]
  pad = [(0, 0), *((m, m) for m in most), (0, 0)]
  start = _integers(key, num, [2 * m + 1 for m in most])

  def window(image, start):
    zero = jnp.int32(0)
    return jax.lax.dynamic_slice(
        image, (start[0], start[1], zero), x.shape[1:])

  move = lambda z: _each(window, jnp.pad(z, pad), start)
  return geometry.on_background(move, x, fill)


def _cutout(key, x, *, num, fill):
  sides = [_rounded(size * _CUTOUT) for size in x.shape[1:3]]
  # The centre of an even side lies between pixels: one more place.
  places = [n + 1 - side % 2 for n, side in zip(x.shape[1:3], sides)]
  centre = _integers(key, num, places)
  inside = []
  for axis, side in enumerate(sides):
    low = centre[:, axis, None] - side // 2
    at = jnp.arange(x.shape[1 + axis], dtype=jnp.int32)[None]
    inside.append((at >= low) & (at < low + side))
  hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
  return jnp.where(hole, geometry.background(x, fill), x)


def _flip(key, x, *, num, fill):
  del fill
  mirrored = jax.random.bernoulli(key, jnp.float32(_FLIP), (num, 1, 1, 1))
  return jnp.where(mirrored, x[:, :, ::-1], x)


def _scale(key, x, *, num, fill):
  factor = _uniform(key, 2 * num, 1 / _SCALE, _SCALE, dtype=x.dtype)
  matrix = factor.reshape(num, 2, 1) * jnp.eye(2, dtype=x.dtype)[None]
  move = lambda z: _each(geometry.resample, z, matrix)
  return geometry.on_background(move, x, fill)


def _rotate(key, x, *, num, fill):
  bound = np.deg2rad(_DEGREES)
  angle = _uniform(key, num, -bound, bound, dtype=x.dtype)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  matrix = jnp.stack([cos, -sin, sin, cos], axis=-1).reshape(-1, 2, 2)
  move = lambda z: _each(geometry.resample, z, matrix)
  return geometry.on_background(move, x, fill)


def _each(move, x, parameters):
  """`move` on each image, by its own parameters or by the only ones."""
  if parameters.shape[0] == x.shape[0]:
    return jax.vmap(move)(x, parameters)
  return jax.vmap(move, in_axes=(0, None))(x, parameters[0])


def _rounded(size) -> int:
  return int(size + 0.5)


def _integers(key, num, highs) -> Int[Array, 'num 2']:
  """Uniform in [0, highs[0]) and [0, highs[1])."""
  return jax.random.randint(
      key, (num, 2), 0, jnp.asarray([highs], jnp.int32), dtype=jnp.int32)


_OPERATIONS = {
    'color': _color, 'crop': _crop, 'cutout': _cutout, 'flip': _flip,
    'scale': _scale, 'rotate': _rotate,
}
