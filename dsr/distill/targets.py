"""Class-balanced batches of the training set, drawn inside a jitted step."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

from dsr import checks
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
    labels: Int[Array | np.ndarray, 'T']) -> Targets:
  """Lists the rows of each class that occurs in `labels`. Host only.

  Args:
    x: (T, ...) inputs.
    y: (T, C) encoded targets.
    labels: (T,) class indices; C need not be their number (C = 1 for two).

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
  return Targets(jnp.asarray(x), jnp.asarray(y), jnp.asarray(rows))


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
  score = jax.random.uniform(key, data.rows.shape)
  score = jnp.where(data.rows >= 0, score, -1)
  _, at = jax.lax.top_k(score, per_class)
  # A class smaller than its share starts again from its first draw.
  at = jnp.take_along_axis(
      at, jnp.arange(at.shape[1])[None, :] % counts[:, None], axis=1)
  rows = jnp.take_along_axis(data.rows, at, axis=1).reshape(-1)
  return Examples(data.x[rows], data.y[rows])
