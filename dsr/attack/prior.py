r"""What an attacker believes of images: penalties on candidates.

Each is a sum over the M candidates of a mean over their pixels, so weights do
not depend on the size of an image:

  box             relu(x - high)^2 + relu(low - x)^2     (arXiv:2302.01428)
  variation       |x[h+1] - x[h]| + |x[w+1] - x[w]|, isotropic, smoothed at 0
  high_frequency  (x - blur_3x3 x)^2                     (arXiv:2302.01428)
"""
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks
from dsr.attack.release import Released

_SMOOTH = 1e-3  # Differences below this count by their square.


class Prior(NamedTuple):
  """Weights of the penalties; 0 leaves one out.

  Attributes:
    box: of values outside the pixel range.
    variation: of the total variation; inputs must be images (H, W, C).
    high_frequency: of what a 3x3 blur takes away; likewise.
    project: clip to the pixel range after each step instead.
  """

  box: float = 0.0
  variation: float = 0.0
  high_frequency: float = 0.0
  project: bool = False


@runtime_checkable
class Range(Protocol):
  """The pixel range of inputs: what is read of a release."""

  @property
  def input_shape(self) -> tuple[int, ...]: ...

  @property
  def low(self) -> Any: ...

  @property
  def high(self) -> Any: ...


class Bounds(NamedTuple):
  """A `Range` that hashes, so that solvers can be kept by it."""

  input_shape: tuple[int, ...]
  low: Any
  high: Any


def bounds(released: Range) -> Bounds:
  """The pixel range of `released`, ends as numbers or nested tuples."""
  return Bounds(tuple(released.input_shape), _nested(released.low),
                _nested(released.high))


def check(prior: Prior, released: Released) -> None:
  """Raises a ValueError if a weight is negative or needs images."""
  for name in ('box', 'variation', 'high_frequency'):
    checks.non_negative(name, getattr(prior, name))
    if (name != 'box' and getattr(prior, name)
        and len(released.input_shape) != 3):
      raise ValueError(f'`{name}` needs inputs of shape (H, W, C), got '
                       f'{released.input_shape}.')


def penalty(
    prior: Prior, released: Range, x: Float[Array, 'M ...']
) -> Float[Array, '']:
  """The weighted sum of the module text for candidates `x`."""
  total = jnp.zeros((), x.dtype)
  if prior.box:
    low, high = _range(released, x.dtype)
    outside = jax.nn.relu(x - high[None]) + jax.nn.relu(low[None] - x)
    total += prior.box * _sum_of_means(outside**2)
  if prior.variation:
    down = jnp.diff(x, axis=1, append=x[:, -1:])
    right = jnp.diff(x, axis=2, append=x[:, :, -1:])
    length = jnp.sqrt(down**2 + right**2 + _SMOOTH**2) - _SMOOTH
    total += prior.variation * _sum_of_means(length)
  if prior.high_frequency:
    total += prior.high_frequency * _sum_of_means((x - _blur(x)) ** 2)
  return total


def project(
    prior: Prior, released: Range, x: Float[Array, 'M ...']
) -> Float[Array, 'M ...']:
  """`x` clipped to the pixel range if the prior asks for that."""
  if not prior.project:
    return x
  low, high = _range(released, x.dtype)
  return jnp.clip(x, low[None], high[None])


def _nested(end):
  end = np.asarray(end)
  return tuple(map(_nested, end)) if end.ndim else float(end)


def _range(released, dtype):
  return (jnp.broadcast_to(jnp.asarray(end, dtype), released.input_shape)
          for end in (released.low, released.high))


def _sum_of_means(x):
  return jnp.sum(jnp.mean(x.reshape(x.shape[0], -1), axis=1))


def _blur(x):
  """Mean of 3x3 neighbours, edges repeated."""
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  height, width = x.shape[1:3]
  shifts = [padded[:, i:i + height, j:j + width]
            for i in range(3) for j in range(3)]
  return sum(shifts) / 9
