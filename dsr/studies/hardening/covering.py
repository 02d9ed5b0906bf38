"""A set of training images as a cover of all, and the bound that it gives."""
import functools
from typing import NamedTuple

import jax
from jaxtyping import Array, Key
import numpy as np

from dsr.distill import distances
from dsr.probes import cover_bound
from dsr.probes.attacks import pgd
from dsr.types import Dataset, PredictFn

NORMS = ('linf', 'l2')
SIDES = ('left', 'right', 'right_by_attack', 'relative_slack')  # Of a bound.
_STEPS = 20  # Of the attacks on both sides.


class Cover(NamedTuple):
  """Images that stand for all training images of their class."""

  x: np.ndarray  # (K, H, W, C)
  labels: np.ndarray  # (K,)
  assignment: np.ndarray  # (T,) the nearest of the own class.
  eta: np.ndarray  # (K,) radius of the class of each.
  norm: str


def cover(x: np.ndarray, labels: np.ndarray, points: Dataset, norm: str
          ) -> Cover:
  """The images `x` with the smallest radius of each class that covers `points`.

  Args:
    x: (K, H, W, C) pixels.
    labels: (K,) classes; each class of `points` occurs.
    points: what is covered.
    norm: 'l1', 'l2' or 'linf'.
  """
  assignment, eta = np.zeros(len(points), np.intp), np.zeros(len(x))
  for c in np.unique(points.y):
    inside, own = np.flatnonzero(points.y == c), np.flatnonzero(labels == c)
    index, gap = distances.nearest(
        points.x[inside].reshape(len(inside), -1), x[own].reshape(len(own), -1),
        norm=norm)
    assignment[inside], eta[own] = own[index], gap.max()
  return Cover(x, labels, assignment, eta, norm)


def bound(
    key: Key[Array, ''], own: Cover, predict_fns: list[PredictFn],
    points: Dataset, *, count: int, epsilon: float) -> list[cover_bound.Bound]:
  """Both sides of the bound for each network, by PGD from random starts.

  Args:
    key: of the points and the attacks.
    own: a cover of `points`.
    predict_fns: networks as functions of pixels.
    points: training images; the bound is that of `count` random ones, for
      which the weights are their shares, within the radii of all.
    count: how many, at most.
    epsilon: radius around the points, in the norm of the cover.
  """
  key_rows, key = jax.random.split(key)
  rows = np.asarray(jax.random.permutation(key_rows, len(points)))[:count]
  attack = functools.partial(pgd.pgd, norm=own.norm, steps=_STEPS)
  return [cover_bound.cover_bound(
      jax.random.fold_in(key, r), attack, predict_fn, points.x[rows],
      points.y[rows], centres=own.x, centre_labels=own.labels,
      assignment=own.assignment[rows], eta=own.eta, norm=own.norm,
      epsilon=epsilon) for r, predict_fn in enumerate(predict_fns)]
