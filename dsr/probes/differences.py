r"""Differences between two models on the same images, and what would show them.

A `Sample` is a mean over R models and N images, kept as what each of them
contributes. Two samples differ by d = a - b, with

  var d = s^2(a_r) / R + s^2(b_q) / Q + sum_g s^2(c_n) / N_g,

a_r and b_q being the values of single models, which are independent, and c_n
what image n of stratum g contributes to d: a_n - b_n where both sides saw the
same images (paired), which takes out what makes an image hard for both. Of
other images the last term is that of each side. An AUC has two strata, members
and others (DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845); a
share has one, and counts as if one more image spoke for each side, so that
intervals keep their coverage where few images differ: Bonett and Price, J.
Educ. Behav. Stat. 37 (2012) 479-488, paired; Agresti and Caffo, Am. Stat. 54
(2000) 280-288, of two samples. Intervals are `intervals.satterthwaite`'s.
"""
from collections.abc import Callable
import math
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from dsr import checks
from dsr.probes.intervals import Interval

IMAGES, MODELS, BOTH = 'images', 'models', 'images and models'
_MOST = 1e6  # Times as many as there are, beyond which nothing is named.


class Sample(NamedTuple):
  """A mean over models and images.

  Attributes:
    models: (R,) the value of each model.
    strata: what each image contributes, (N_g,) for each stratum, the mean of
      each being the value; () if images are no part of it, as where every
      model has members of its own.
    share: whether it is a mean of shares of images in [0, 1].
  """

  models: np.ndarray
  strata: tuple[np.ndarray, ...]
  share: bool = False


class Part(NamedTuple):
  """The variance of a difference that is due to one unit.

  Attributes:
    unit: 'images', 'models', or both at once.
    variance: of the difference.
    freedom: degrees of freedom of that variance.
    number: how many there are of the unit on one side, all strata together.
  """

  unit: str
  variance: float
  freedom: float
  number: int


class Difference(NamedTuple):
  """a - b with its 95 % interval, and where its variance is from."""

  value: float
  low: float
  high: float
  parts: tuple[Part, ...] = ()

  @property
  def sign(self) -> int:
    """1 or -1 where the interval does not hold 0, else 0."""
    return int(self.low > 0) - int(self.high < 0)


class Needed(NamedTuple):
  """How many would tell a difference; None: as many as there are."""

  images: int | None = None
  models: int | None = None


def of_shares(right: np.ndarray) -> Sample:
  """Of R models on N images: right (R, N), booleans or shares in [0, 1]."""
  right = np.asarray(right, float)
  if right.ndim != 2 or not len(right) or right.shape[1] < 2:
    raise ValueError('`right` must be (R, N) with N at least 2, got shape '
                     f'{right.shape}.')
  for end in (right.min(), right.max()):
    checks.within('right', float(end), 0, 1)
  return Sample(right.mean(1), (right.mean(0),), True)


def of_auc(scores: np.ndarray, member: np.ndarray) -> Sample:
  """The AUC of membership scores (R, N), with the truth (N,) for all models.

  A member contributes the share of others below it, another image the share of
  members above it; equal scores count half.

  Raises:
    ValueError: other shapes, or only one kind of image.
  """
  scores, member = np.atleast_2d(scores), np.asarray(member)
  checks.flags('member', member, shape=scores.shape[1:])
  if member.all() or not member.any():
    raise ValueError('`member` must hold members and non-members, '
                     f'got {member.sum()} members of {len(member)}.')
  n, m = int(member.sum()), int((~member).sum())
  rank = stats.rankdata(scores, axis=1)
  inside = (rank[:, member] - stats.rankdata(scores[:, member], axis=1)) / m
  outside = 1 - (rank[:, ~member]
                 - stats.rankdata(scores[:, ~member], axis=1)) / n
  return Sample(inside.mean(1), (inside.mean(0), outside.mean(0)))


def of_models(values: np.ndarray) -> Sample:
  """One value (R,) for each model, whose images are its own."""
  values = np.asarray(values, float)
  if values.ndim != 1 or not len(values):
    raise ValueError(f'`values` must be (R,), got shape {values.shape}.')
  return Sample(values, ())


def difference(a: Sample, b: Sample, *, paired: bool) -> Difference:
  """a - b; the formulas are at the top of the module.

  Args:
    a: of one set, or audit.
    b: of another.
    paired: whether both saw the same images, in the same order; if neither has
      strata, whether model r of one goes with model r of the other.

  Returns:
    d and its ends; the ends are infinite where no variance can be seen, as of
    one model each without strata.

  Raises:
    ValueError: `paired` samples of different sizes.
  """
  value = float(a.models.mean() - b.models.mean())
  sizes = [[len(s) for s in side.strata] or [len(side.models)]
           for side in (a, b)]
  if paired and sizes[0] != sizes[1]:
    raise ValueError('`paired` samples must be of the same images, got '
                     f'{sizes[0]} and {sizes[1]}.')
  if paired and not a.strata:
    parts, center = [_part(MODELS, [a.models - b.models], len(a.models))], value
  else:
    shift, strata = _strata(a, b, paired)
    sides = [side.models for side in (a, b) if len(side.models) > 1]
    number = max(sum(map(len, side.strata)) for side in (a, b))
    parts = [_part(IMAGES, strata, number),
             _part(MODELS, sides, max(map(len, sides), default=1))]
    center = value + shift
  parts = tuple(part for part in parts if part.freedom > 0)
  half = math.inf
  if parts:
    total = sum(part.variance for part in parts)
    half = _quantile(parts, 0.975) * math.sqrt(total) if total else 0.0
  return Difference(value, min(center - half, value),
                    max(center + half, value), parts)


def _strata(a, b, paired):
  """(What one more image for each side adds to d, contributions to d)."""
  more = a.share and b.share
  if paired:
    strata = [x - y for x, y in zip(a.strata, b.strata)]
    if more:  # One image more is right on one side alone, one on the other.
      strata = [np.r_[c, 1.0, -1.0] for c in strata]
  else:
    strata = [np.r_[c, 1.0, 0.0] if more else c
              for side in (a, b) for c in side.strata]
  if not more:
    return 0.0, strata
  before = a.strata[0].mean() - b.strata[0].mean()
  after = strata[0].mean() if paired else strata[0].mean() - strata[1].mean()
  return float(after - before), strata


def _part(unit, vectors, number) -> Part:
  """Of independent means of `vectors`, by Satterthwaite's freedom."""
  vectors = [v for v in vectors if len(v) > 1]
  variances = [float(np.var(v, ddof=1) / len(v)) for v in vectors]
  total, freedom = sum(variances), sum(len(v) - 1 for v in vectors)
  if total:
    freedom = total**2 / sum(
        v**2 / (len(x) - 1) for v, x in zip(variances, vectors))
  return Part(unit, total, freedom, number)


def _quantile(parts, share) -> float:
  """Student's, with Satterthwaite's freedom of a sum of variances."""
  total = sum(part.variance for part in parts)
  spread = sum(part.variance**2 / part.freedom for part in parts)
  return float(special.stdtrit(total**2 / spread, share) if spread else
               special.ndtri(share))


def two_intervals(a: Interval, b: Interval, number: int) -> Difference:
  """a - b of independent estimates with intervals, but no common images.

  By squares of the arms: low = d - sqrt((a - a_low)^2 + (b_high - b)^2), and
  high alike (Zou and Donner, Stat. Med. 27 (2008) 1693-1702).

  Args:
    a: an estimate with its 95 % interval.
    b: another.
    number: of images on one side.
  """
  value = a.value - b.value
  low = value - math.hypot(a.value - a.low, b.high - b.value)
  high = value + math.hypot(a.high - a.value, b.value - b.low)
  return from_ends(Interval(value, low, high), number)


def from_ends(found: Interval, number: int) -> Difference:
  """A difference of which only the interval is known, say of a bootstrap."""
  error = (found.high - found.low) / 2 / special.ndtri(0.975)
  return Difference(*map(float, found[:3]), (
      Part(BOTH, float(error) ** 2, math.inf, number),))


def needed(found: Difference, *, power: float = 0.8) -> Needed | None:
  r"""How many images or models would tell the difference, if it is as it looks.

  The smallest numbers at which the interval would leave 0 out in a share
  `power` of repetitions, given that d is the true difference: with k_u
  times as many of unit u, v_u its part of the variance, and f Satterthwaite's
  degrees of freedom of the sum,

    (t_{f, 0.975} + z_power)^2 \sum_u v_u / k_u <= d^2,

  for many images alone n (1.96 + z_power)^2 v / d^2, i.e. n (h / d)^2 (1 +
  z_power / 1.96)^2 with the half width h. More images alone are tried first,
  then more models alone, then both by the same factor. What is seen of d is
  uncertain itself, so this is a rough size and no promise.

  Args:
    found: of `difference`.
    power: in (0, 1); 0.5 is n (h / d)^2.

  Returns:
    What is needed; None where no number can be named: d is 0, no variance is
    known, or it would take more than a million times as many.

  Raises:
    ValueError: `power` out of its range.
  """
  checks.within('power', power, 0, 1)
  if power in (0, 1):
    raise ValueError(f'`power` must be between 0 and 1, got {power}.')
  if not found.value or not sum(part.variance for part in found.parts):
    return None
  units = [part.unit for part in found.parts]
  choices = [(unit,) for unit in units]
  if len(units) > 1:
    choices.append(tuple(units))
  for grown in choices:
    factor = _factor(lambda k, grown=grown: _tells(
        found, {unit: k for unit in grown}, power))
    if factor is not None:
      number = {part.unit: math.ceil(part.number * factor)
                for part in found.parts if part.unit in grown}
      both = number.get(BOTH)
      return Needed(number.get(IMAGES, both), number.get(MODELS))
  return None


def _tells(found, factors, power) -> bool:
  """Whether the condition of `needed` holds with `factors` times as many."""
  parts = [part._replace(
      variance=part.variance / factors.get(part.unit, 1),
      freedom=part.freedom * factors.get(part.unit, 1))
           for part in found.parts if part.variance]
  reach = _quantile(parts, 0.975) + special.ndtri(power)
  return reach**2 * sum(part.variance for part in parts) <= found.value**2


def _factor(tells: Callable[[float], bool]) -> float | None:
  """The least k >= 1 at which `tells`, by bisection; None above a million."""
  if tells(1.0):
    return 1.0
  low, high = 1.0, _MOST
  if not tells(high):
    return None
  while high / low > 1 + 1e-6:
    middle = math.sqrt(low * high)
    low, high = (low, middle) if tells(middle) else (middle, high)
  return high
