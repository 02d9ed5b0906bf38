r"""Confidence intervals, one for each way in which a number varies.

Which to take: an accuracy on n test examples, `wilson`; a mean over seeds,
`mean_t`; both at once, `crossed`; any other statistic of independent values,
`bootstrap`. An interval over test examples says nothing about other seeds, nor
the reverse.
"""
from collections.abc import Callable
import math
from typing import Any, NamedTuple
import warnings

import jax
from jaxtyping import Array, Key
import numpy as np
from scipy import special

from dsr import checks


class Interval(NamedTuple):
  """An estimate and the ends of its confidence interval, in its own unit."""

  value: float
  low: float
  high: float


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
  r"""Wilson's score interval for a proportion, e.g. a test accuracy.

  With p = successes / n and z the normal quantile of (1 + level) / 2:
  (p + z^2/2n +- z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n).
  Unlike p +- z sqrt(p (1-p)/n) it stays in [0, 1] and keeps its coverage at
  accuracies close to 1. Source: Wilson, JASA 22 (1927) 209-212.

  Args:
    successes: correct predictions, 0 to `n`.
    n: predictions, at least 1, independent of each other.
    level: coverage, in (0, 1).

  Returns:
    Fractions in [0, 1].

  Raises:
    ValueError: an argument out of its range.
  """
  checks.at_least('n', n, 1)
  checks.at_least('successes', successes, 0)
  checks.within('successes', successes, 0, n)
  z2 = special.ndtri(0.5 + _level(level) / 2) ** 2
  p = successes / n
  center = (p + z2 / (2 * n)) / (1 + z2 / n)
  half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2))) / (1 + z2 / n)
  low = 0.0 if successes == 0 else center - half  # Exact at the edges.
  high = 1.0 if successes == n else center + half
  return Interval(p, float(low), float(high))


def mean_t(values: Any, *, level: float = 0.95) -> Interval:
  r"""Student's t interval for the mean of independent runs, e.g. over seeds.

  m +- t_{R-1} s / sqrt(R), with s^2 = sum (v - m)^2 / (R - 1).

  Args:
    values: (R,) finite numbers, R at least 2, about normally distributed.
    level: coverage, in (0, 1).

  Raises:
    ValueError: fewer than two values, or one that is not finite.
  """
  values = _values(values)
  mean = float(np.mean(values))
  t = special.stdtrit(len(values) - 1, 0.5 + _level(level) / 2)
  half = float(t * np.std(values, ddof=1) / math.sqrt(len(values)))
  return Interval(mean, mean - half, mean + half)


def crossed(values: Any, *, level: float = 0.95) -> Interval:
  r"""Interval for the mean of R models on the same N examples, over both.

  With m_r and e_n the means of the rows and columns of v (R, N), and s^2 the
  sample variance,

    m +- t_f sqrt(a + b),  a = s^2(m_r) / R,  b = s^2(e_n) / N,
    f = (a + b)^2 / (a^2 / (R - 1) + b^2 / (N - 1)),

  t with Satterthwaite's degrees of freedom. What varies from entry to entry is
  in both parts: the interval is a little wide, never narrow. With R = 1 it is
  over examples alone. If all R models are right on all N examples, or none is
  anywhere, no variance can be seen, and it is Wilson's for N of them.

  Args:
    values: (R, N) finite numbers, such as whether model r is right on example
      n; N at least 2. Booleans give an interval within [0, 1].
    level: coverage, in (0, 1).

  Raises:
    ValueError: another shape, or a value that is not finite.
  """
  array = np.asarray(values, dtype=float)
  if array.ndim != 2 or not len(array) or array.shape[1] < 2:
    raise ValueError('`values` must be (R, N) with N at least 2, got shape '
                     f'{array.shape}.')
  checks.finite('values', array)
  shares = np.asarray(values).dtype == bool
  if shares and (len(array) == 1 or np.ptp(array) == 0):
    return wilson(int(array[0].sum()), array.shape[1], level=level)
  spread = lambda means: np.var(means, ddof=1) / len(means)
  parts = [(float(spread(array.mean(0))), array.shape[1] - 1)]
  if len(array) > 1:
    parts.append((float(spread(array.mean(1))), len(array) - 1))
  found = satterthwaite(float(array.mean()), parts, level=level)
  if not shares:
    return found
  return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))


def satterthwaite(
    value: float, parts: list[tuple[float, int]], *,
    level: float = 0.95) -> Interval:
  """`value` +- t sqrt(sum of variances), t with Satterthwaite's freedom.

  Args:
    value: the estimate.
    parts: independent (variance of the estimate, degrees of freedom).
    level: coverage, in (0, 1).

  Raises:
    ValueError: no part, or a variance below 0 or without freedom.
  """
  for variance, freedom in parts:
    checks.non_negative('variance', variance)
    checks.at_least('freedom', freedom, 1)
  if not parts:
    raise ValueError('`parts` must have a variance, got none.')
  total = sum(variance for variance, _ in parts)
  t = 0.0
  if total:
    freedom = total**2 / sum(v**2 / f for v, f in parts)
    t = special.stdtrit(freedom, 0.5 + _level(level) / 2)
  half = float(t * math.sqrt(total))
  return Interval(float(value), float(value) - half, float(value) + half)


def bootstrap(
    key: Key[Array, ''], values: Any,
    statistic: Callable = np.mean, *, level: float = 0.95,
    num_resamples: int = 9999, method: str = 'bca') -> Interval:
  """Bootstrap interval of any statistic of independent values.

  Args:
    key: of the resampling; the same key gives the same interval.
    values: (N,) finite numbers, N at least 2.
    statistic: maps an array to its statistic along the argument `axis`, such
      as `np.mean` or `np.median`.
    level: coverage, in (0, 1).
    num_resamples: of N values each; 9999 put the error of an end at a few
      hundredths of the interval.
    method: 'bca' corrects bias and skew (Efron, JASA 82 (1987) 171-185);
      'percentile' does not. Where the correction is undefined, as it is for
      equal values, 'bca' means 'percentile'.

  Returns:
    The statistic of `values` itself, and the ends of the interval, which need
    not hold it.

  Raises:
    ValueError: an argument out of its range.
  """
  from scipy import stats

  values = _values(values)
  checks.one_of('method', method, ('bca', 'percentile'))
  checks.at_least('num_resamples', num_resamples, 1)
  bits = np.asarray(jax.random.key_data(key)).tolist()

  def ends(method):
    with warnings.catch_warnings(), np.errstate(invalid='ignore'):
      warnings.simplefilter('ignore', stats.DegenerateDataWarning)
      found = stats.bootstrap(
          (values,), statistic, confidence_level=_level(level), method=method,
          n_resamples=num_resamples, rng=np.random.default_rng(bits),
          batch=max(1, 10**7 // len(values)))
    return found.confidence_interval

  low, high = ends(method)
  if not math.isfinite(low + high):
    low, high = ends('percentile')
  return Interval(float(statistic(values, axis=0)), float(low), float(high))


def _level(level: float) -> float:
  checks.within('level', level, 0, 1)
  if level in (0, 1):
    raise ValueError(f'`level` must be between 0 and 1, got {level}.')
  return level


def _values(values) -> np.ndarray:
  values = np.asarray(values, dtype=float)
  if values.ndim != 1 or len(values) < 2:
    raise ValueError(f'`values` must be a vector of at least 2 numbers, got '
                     f'shape {values.shape}.')
  checks.finite('values', values)
  return values
