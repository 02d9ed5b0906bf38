r"""What a score is worth: the same score for guesses that used no attack.

Whoever knows the kind of data, but not the model, can name real images or the
mean of a class; an attack has to beat both. All of these take `others`, real
images that were not trained on: the mean of the training set itself would
already be a leak. As `attack.match`, this module sees the truth.
"""
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int, Key
import numpy as np
from scipy.spatial import distance

from dsr import checks
from dsr.attack import match, pairwise


class Ranks(NamedTuple):
  """Where true images stand in line-ups of K images each.

  Attributes:
    rank: (N,) from 1, the closest, to K; NaN for images without a candidate.
    mean: over the images that have one.
    chance: (K + 1) / 2, the mean if candidates knew nothing.
    size: K.
  """

  rank: Float[np.ndarray, 'N']
  mean: float
  chance: float
  size: int


def best_of_others(
    key: Key[Array, ''], truth: Float[Array | np.ndarray, 'N ...'],
    others: Float[Array | np.ndarray, 'K ...'], num: int, *,
    thresholds: Sequence[float] = match.THRESHOLDS,
    ssim: bool = True) -> match.Score:
  """The score of `num` random other real images in place of candidates.

  Args:
    key: of the choice, without replacement.
    truth: (N, ...) training images, pixels in [0, 1].
    others: (K, ...) real images that were not trained on.
    num: as many as the attack had candidates, at most K.
    thresholds: as in `match.score`.
    ssim: as in `match.score`.

  Raises:
    ValueError: `num` is out of range, or as `match.score`.
  """
  checks.at_least('num', num, 1)
  checks.within('num', num, 1, np.shape(others)[0])
  others = pairwise.pixels('others', others)
  chosen = jax.random.choice(key, len(others), (num,), replace=False)
  return match.score(
      truth, others[np.asarray(chosen)], thresholds=thresholds, ssim=ssim)


def class_means(
    truth: Float[Array | np.ndarray, 'N ...'],
    others: Float[Array | np.ndarray, 'K ...'],
    labels: Int[np.ndarray, 'N'] | None = None,
    other_labels: Int[np.ndarray, 'K'] | None = None, *,
    metric: str = 'l2') -> match.Match:
  """Distance of each image to the mean of the other images of its class.

  The guess even knows the class of each image. One mean serves all of them, so
  this is no one-to-one matching.

  Args:
    truth: (N, ...) training images, pixels in [0, 1].
    others: (K, ...) real images that were not trained on.
    labels: (N,) classes of `truth`; without labels, the mean of all others.
    other_labels: (K,) classes of `others`.
    metric: one of `match.METRICS`.

  Returns:
    `candidate` is the class (0 without labels), `distance` that by `metric`.

  Raises:
    ValueError: labels for one set only, or a class that `others` lacks.
  """
  truth = pairwise.pixels('truth', truth)
  others = pairwise.pixels('others', others, like=truth)
  if (labels is None) != (other_labels is None):
    raise ValueError('`labels` and `other_labels` go together, got one only.')
  if labels is None:
    labels, other_labels = (np.zeros(len(a), int) for a in (truth, others))
  labels, other_labels = np.asarray(labels), np.asarray(other_labels)
  for name, given, images in (('labels', labels, truth),
                              ('other_labels', other_labels, others)):
    checks.class_indices(name, given)
    checks.same_rows(**{name: given, 'its images': images})
  gaps = np.empty(len(truth))
  for label in np.unique(labels):
    if not (other_labels == label).any():
      raise ValueError(f'`other_labels` must hold each class of `labels`, got '
                       f'none of class {label}.')
    rows = labels == label
    mean = others[other_labels == label].mean(axis=0)
    gaps[rows] = pairwise.distances(truth[rows], mean[None], metric)[:, 0]
  return match.Match(labels, gaps)


def expected_rank(
    truth: Float[Array | np.ndarray, 'N ...'],
    candidates: Float[Array | np.ndarray, 'M ...'], matched: match.Match,
    others: Float[Array | np.ndarray, 'L ...']) -> Ranks:
  """Rank of the true image among K = 1 + L real ones, seen from its candidate.

  If x_i and `others` come from one distribution and the candidate knows
  nothing of x_i, each rank from 1 to K is equally likely. The matching does
  know x_i, and that alone pulls ranks below chance: compare with the ranks of
  `best_of_others`, whose images then must not be among `others`.

  Args:
    truth: (N, ...) training images, pixels in [0, 1].
    candidates: (M, ...) what the attack returned.
    matched: the candidate of each image.
    others: (L, ...) real images that were not trained on.

  Raises:
    ValueError: shapes that do not fit, or no image has a candidate.
  """
  truth = pairwise.pixels('truth', truth)
  candidates = pairwise.examples('candidates', candidates, like=truth)
  others = pairwise.pixels('others', others, like=truth)
  checks.same_rows(truth=truth, matched=matched.candidate)
  has = matched.candidate >= 0
  if not has.any():
    raise ValueError('`matched` must have a candidate for some image.')
  flat = lambda x: x.reshape(len(x), -1)
  guesses = flat(candidates[matched.candidate[has]])
  # One function for both distances, so that copies of x_i tie exactly.
  own = np.concatenate([distance.cdist(x[None], guess[None])[0]
                        for x, guess in zip(flat(truth)[has], guesses)])
  gaps = distance.cdist(guesses, flat(others))
  closer = (gaps < own[:, None]).sum(axis=1)
  ties = (gaps == own[:, None]).sum(axis=1)
  rank = np.full(len(truth), np.nan)
  rank[has] = 1 + closer + ties / 2
  size = 1 + len(others)
  return Ranks(rank, float(rank[has].mean()), (size + 1) / 2, size)
