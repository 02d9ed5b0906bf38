r"""Scores a reconstruction: the one place where an attack meets the truth.

Axes: N true images, M candidates. An attack returns candidates in no order,
often more than there are images, so each image is first given a candidate:

  assign   one to one, of least total distance (Hungarian method): the score;
  greedy   one to one, the closest pair first (as in arXiv:2302.01428, which
           takes 1 - SSIM for the distance where networks were pre-trained):
           for comparison with published curves;
  nearest  the closest candidate, which several images may share: a bound.

All of them see the truth, so a few good matches come for free when M is large.
`attack.baselines` measures how many; `attack.outliers` asks which images are
the easy ones. `attack.pairwise` has the distances, and their conventions.
"""
from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

from jaxtyping import Array, Float, Int
import numpy as np
from scipy import optimize

from dsr import checks
from dsr.attack.pairwise import METRICS, distances

__all__ = ['METRICS', 'Match', 'Score', 'THRESHOLDS', 'assign', 'distances',
           'greedy', 'nearest', 'recovered', 'score']

THRESHOLDS = (0.01, 0.05, 0.1)  # RMSE, in units of the pixel range.


class Match(NamedTuple):
  """The candidate of each image.

  Attributes:
    candidate: (N,) index into the candidates; -1 for none, where M < N.
    distance: (N,) to it, in the metric that was matched by; inf for none.
  """

  candidate: Int[np.ndarray, 'N']
  distance: Float[np.ndarray, 'N']


class Score(NamedTuple):
  """How well N images were rebuilt, image by image in their given order.

  Attributes:
    assigned: one-to-one assignment by L2.
    greedy: greedy matching by L2.
    nearest: nearest candidates by L2.
    rmse: (N,) of the assigned pairs, inf for none.
    recovered: threshold to the number of images with `rmse` below it.
    ssim: (N,) SSIM of the assigned pairs, 0 for none; None without images.
    by_ssim: one-to-one assignment by 1 - SSIM; None without images.
    greedy_ssim: greedy matching by 1 - SSIM; None without images.
  """

  assigned: Match
  greedy: Match
  nearest: Match
  rmse: Float[np.ndarray, 'N']
  recovered: Mapping[float, int]
  ssim: Float[np.ndarray, 'N'] | None
  by_ssim: Match | None
  greedy_ssim: Match | None

  @property
  def curve(self) -> Float[np.ndarray, 'N']:
    """L2 of the assigned pairs, best first."""
    return np.sort(self.assigned.distance)

  @property
  def greedy_curve(self) -> Float[np.ndarray, 'N']:
    """L2 of the greedy pairs, best first: the published curve."""
    return np.sort(self.greedy.distance)

  @property
  def rmse_curve(self) -> Float[np.ndarray, 'N']:
    """RMSE of the assigned pairs, best first."""
    return np.sort(self.rmse)

  @property
  def mean_ssim(self) -> float | None:
    """Mean SSIM of the assigned pairs, an image without one counting 0."""
    return None if self.ssim is None else float(self.ssim.mean())


def score(
    truth: Float[Array | np.ndarray, 'N ...'],
    candidates: Float[Array | np.ndarray, 'M ...'], *,
    thresholds: Sequence[float] = THRESHOLDS, ssim: bool = True) -> Score:
  """Compares candidates with the images that they should be.

  The assignment has the least total L2, which is not always the most images
  under a threshold: the counts are never flattered by it.

  Args:
    truth: (N, H, W, C) or (N, D) training images, pixels in [0, 1].
    candidates: (M, ...) what the attack returned, in the same space.
    thresholds: RMSE below which an image counts as recovered.
    ssim: also compare by SSIM, if the examples are images (H, W, C).

  Raises:
    ValueError: as `distances`, or a threshold that is not positive.
  """
  for threshold in thresholds:
    checks.positive('thresholds', threshold)
  l2 = distances(truth, candidates, 'l2')
  assigned = assign(l2)
  rmse = assigned.distance / math.sqrt(math.prod(np.shape(truth)[1:]))
  similarity = by_ssim = greedy_ssim = None
  if ssim and np.ndim(truth) == 4:
    far = distances(truth, candidates, 'ssim')
    by_ssim, greedy_ssim = assign(far), greedy(far)
    pairs = far[np.arange(len(far)), assigned.candidate]
    similarity = np.where(assigned.candidate >= 0, 1 - pairs, 0.0)
  return Score(assigned, greedy(l2), nearest(l2), rmse,
               recovered(rmse, thresholds), similarity, by_ssim, greedy_ssim)


def recovered(
    rmse: Float[np.ndarray, 'N'],
    thresholds: Sequence[float] = THRESHOLDS) -> dict[float, int]:
  """How many images have an RMSE below each threshold."""
  return {float(t): int(np.sum(rmse < t)) for t in thresholds}


def assign(distances: Float[np.ndarray, 'N M']) -> Match:
  """One-to-one pairs of least total distance: min(N, M) of them.

  Raises:
    ValueError: not an (N, M) array of finite numbers.
  """
  _check(distances)
  rows, columns = optimize.linear_sum_assignment(distances)
  return _match(distances, rows, columns)


def greedy(distances: Float[np.ndarray, 'N M']) -> Match:
  """One-to-one pairs, always the closest that remain; ties by lower index.

  Raises:
    ValueError: not an (N, M) array of finite numbers.
  """
  _check(distances)
  rest, pairs = np.array(distances, np.float64), []
  for _ in range(min(rest.shape)):
    i, j = np.unravel_index(np.argmin(rest), rest.shape)
    pairs.append((i, j))
    rest[i], rest[:, j] = np.inf, np.inf
  return _match(distances, *np.transpose(pairs))


def nearest(distances: Float[np.ndarray, 'N M']) -> Match:
  """The closest candidate of each image; images may share one.

  Raises:
    ValueError: not an (N, M) array of finite numbers.
  """
  _check(distances)
  return _match(distances, np.arange(len(distances)), distances.argmin(axis=1))


def _match(distances, rows, columns) -> Match:
  candidate = np.full(len(distances), -1)
  candidate[rows] = columns
  distance = np.full(len(distances), np.inf)
  distance[rows] = distances[rows, columns]
  return Match(candidate, distance)


def _check(distances):
  checks.features('distances', distances)
  checks.finite('distances', distances)
