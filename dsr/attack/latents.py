r"""Candidates as blurred latents: pixels in their range, smooth ones first.

  x = low + (high - low) sigmoid(B z + b),   B = G / rms(G),

with G a Gaussian blur and b such that z = 0 is the data's mean, 0. Every image
inside the range is some x, but the slope in z is B' times that in x: what
measured slopes and differences of kernels add at random, alike at all
frequencies, moves an image by its low ones only, of which there are few. A
pixel that is black is left alone.

Axes: M candidates, (H, W, channels) pixels.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks
from dsr.attack.release import Released
from dsr.types import KernelFn


class Latent(NamedTuple):
  """An attack's problem, with latents in the place of inputs.

  Attributes:
    released: whose query takes latents; its pixel range is that of inputs.
    kernel_fn: of latents.
    decode: latents (M, ...) to inputs (M, ...).
  """

  released: Released
  kernel_fn: KernelFn
  decode: Callable


def check(released: Released, blur: int | float) -> None:
  """Raises a ValueError for a negative `blur`, or one that the inputs forbid.

  It needs images, whose mean, 0, is inside their range.
  """
  checks.non_negative('blur', blur)
  if not blur:
    return
  if len(released.input_shape) != 3:
    raise ValueError('`blur` needs inputs of shape (H, W, C), got '
                     f'{released.input_shape}.')
  if not (np.all(released.low < 0) and np.all(released.high > 0)):
    raise ValueError('`blur` needs a pixel range with low < 0 < high, got '
                     f'{released.low} and {released.high}.')


def latent(
    released: Released, kernel_fn: KernelFn, blur: int | float) -> Latent:
  """The problem in latents; see the module's text.

  Args:
    released: with a query.
    kernel_fn: of inputs.
    blur: the Gaussian's deviation, in pixels; 0 leaves the inputs as they are.

  Raises:
    ValueError: see `check`.
  """
  check(released, blur)
  if not blur:
    return Latent(released, kernel_fn, lambda z: z)
  low, high = (np.broadcast_to(end, released.input_shape)
               for end in (released.low, released.high))
  middle = np.log(-low / high)
  rows, columns = (_blur(side, blur) for side in released.input_shape[:2])

  def decode(z: Float[Array, 'M H W C']) -> Float[Array, 'M H W C']:
    cast = lambda a: jnp.asarray(a, z.dtype)
    smooth = jnp.einsum('ij,mjkc,lk->milc', cast(rows), z, cast(columns),
                        precision='highest')
    return cast(low)[None] + cast(high - low)[None] * jax.nn.sigmoid(
        smooth + cast(middle)[None])

  kernel = KernelFn(
      lambda z1, z2: kernel_fn.cross(decode(z1), decode(z2)),
      lambda z: kernel_fn.symmetric(decode(z)),
      lambda z: kernel_fn.diag(decode(z)), kernel_fn.name)
  query = released.query
  return Latent(released._replace(query=lambda z: query(decode(z))), kernel,
                decode)


def _blur(side, blur) -> Float[np.ndarray, 'side side']:
  """A Gaussian's values, rows of norm 1: z ~ N(0, 1) keeps its deviation."""
  place = np.arange(side)
  out = np.exp(-0.5 * ((place[:, None] - place) / blur) ** 2)
  return out / np.linalg.norm(out, axis=1, keepdims=True)
