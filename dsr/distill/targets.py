"""Class-balanced batches of the training set, drawn inside a jitted step."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key
import numpy as np

from dsr import checks, hosts
from dsr.types import Examples


class Targets(NamedTuple):
  """The training set, with its rows listed by class.

  Attributes:
    x: (T, ...) inputs.
    y: (T, C) encoded targets.
    rows: (classes, largest class) row numbers, padded with -1.
  """

  x: Float[Array, 'T ...']
  y: Float[Array, 'T C']
  rows: Int[Array, 'K n']


def targets(
    x: Float[Array | np.ndarray, 'T ...'],
    y: Float[Array | np.ndarray, 'T C'],
    labels: Int[Array | np.ndarray, 'T'], *, on: Mesh | None = None) -> Targets:
  """Lists the rows of each class that occurs in `labels`. Host only.

  Args:
    x: (T, ...) inputs.
    y: (T, C) encoded targets.
    labels: (T,) class indices; C need not be their number (C = 1 for two).
    on: the devices of many processes, which call this with the same arguments:
      rows of x and y are dealt out to them where they divide T, else every
      device has all.

  Raises:
    ValueError: misshapen arguments, or labels that are not integers.
  """
  checks.inputs('x', x)
  checks.targets('y', y, rows=x.shape[0])
  checks.class_indices('labels', labels)
  checks.same_rows(x=x, labels=labels)
  labels = np.asarray(labels)
  groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
  rows = np.full((len(groups), max(map(len, groups))), -1, np.int32)
  for row, group in zip(rows, groups):
    row[:len(group)] = group
  if on is None:
    return Targets(jnp.asarray(x), jnp.asarray(y), jnp.asarray(rows))
  if x.shape[0] % on.devices.size:
    return hosts.spread(Targets(x, y, rows), on)
  x, y = (hosts.deal(a, on, pad=False) for a in (x, y))
  return Targets(x, y, hosts.spread(rows, on))


def batch(key: Key[Array, ''], data: Targets, size: int) -> Examples:
  """About `size` examples, equally many of each class, without replacement.

  `size` is rounded down to a multiple of the number of classes, at least one
  each. A class smaller than its share gives all it has, some of it again, so
  that classes weigh the same. A `size` of T or more, or 0, returns all of T,
  in order.
  """
  total = data.x.shape[0]
  if size == 0 or size >= total:
    return Examples(data.x, data.y)
  counts = jnp.sum(data.rows >= 0, axis=1)
  per_class = max(1, size // data.rows.shape[0])
  rows = _draw(key, data, per_class)
  # A class smaller than its share starts again from its first draw.
  again = jnp.arange(rows.shape[1])[None, :] % counts[:, None]
  rows = jnp.take_along_axis(rows, again, axis=1).reshape(-1)
  return Examples(data.x[rows], data.y[rows])


def by_class(
    key: Key[Array, ''], data: Targets, per_class: int
) -> tuple[Int[Array, 'K B'], Float[Array, 'K B']]:
  """Rows of `per_class` examples of each class, drawn without replacement.

  B is `per_class`, or the size of the largest class if that is less. A class
  that is smaller gives all it has.

  Args:
    key: of the draw.
    data: of `targets`.
    per_class: at least 1.

  Returns:
    Row numbers into `data.x`, and weights that make a mean over each class: 1
    over the number drawn; 0 where a class has no more, with any row there.
  """
  rows = _draw(key, data, min(per_class, data.rows.shape[1]))
  valid = rows >= 0
  count = jnp.sum(valid, axis=1, keepdims=True)
  return jnp.maximum(rows, 0), valid.astype(data.x.dtype) / count


def _draw(key, data, num):
  """`num` shuffled rows of each class, those that there are first, then -1."""
  score = jax.random.uniform(key, data.rows.shape)
  score = jnp.where(data.rows >= 0, score, -1)
  _, at = jax.lax.top_k(score, num)
  return jnp.take_along_axis(data.rows, at, axis=1)


def classes_of(
    name: str, x: Float[Array, 'S ...'], data: Targets) -> int:
  """The number of classes of `data`, of which `x` has as many images each.

  For methods that go class by class.

  Args:
    name: of the argument whose images `x` are, for the message.
    x: (S, ...) distilled images, one class after another.
    data: by `targets`.

  Raises:
    ValueError: `x` is not shaped as `data.x`, or S is no multiple of the
      classes.
  """
  checks.inputs(f'{name}.x', x, like=data.x)
  classes = data.rows.shape[0]
  if len(x) % classes:
    raise ValueError(
        f'`{name}` must hold as many images of each of the {classes} classes, '
        f'class by class; got {len(x)} images.')
  return classes
