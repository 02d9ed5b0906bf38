r"""What one training run proves of its epsilon, by canaries (arXiv:2305.08846).

Each of m canaries takes part in the training with probability 1/2,
independently. An attacker guesses of r of them whether they did and abstains
from the others. If the training is (\epsilon, \delta) private, with W binomial
of r trials that succeed with probability e^\epsilon / (1 + e^\epsilon),

  P(at least v guesses are right) <=
    P(W >= v) + 2 m \delta \max_{1 <= i <= v} P(v - i <= W < v) / i.

Where the right side is below 1 - level, that epsilon is refuted: the largest
refuted one is a lower bound at that confidence, to be held against the upper
bound of an accountant. It can only be as large as the attack is good, and with
r guesses, all of them right, no larger than about log(r / 3) at level 0.95.
"""
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Array, Bool, Float
import numpy as np

from dsr import checks

_MOST = 50.0  # Epsilon beyond which nothing is refuted here.
_STEPS = 40  # Of the bisection: exact to 1e-10.


class Bound(NamedTuple):
  """What was proved.

  Attributes:
    epsilon: the lower bound; 0 where nothing is refuted.
    num_guesses: r of the best of those tried.
    num_correct: v, how many were right.
  """

  epsilon: float
  num_guesses: int
  num_correct: int


def p_value(
    num_canaries: int, num_guesses: int, num_correct: int, epsilon: float,
    delta: float = 0.0) -> float:
  """How likely so many right guesses are, at most, if the guarantee holds.

  Args:
    num_canaries: m, each in the training with probability 1/2.
    num_guesses: r, 1 to m.
    num_correct: v, 0 to r.
    epsilon: at least 0.
    delta: in [0, 1].

  Returns:
    In [0, 1], growing with epsilon.

  Raises:
    ValueError: a number out of its range.
  """
  from scipy import special, stats

  checks.at_least('num_canaries', num_canaries, 1)
  checks.at_least('num_guesses', num_guesses, 1)
  checks.within('num_guesses', num_guesses, 1, num_canaries)
  checks.at_least('num_correct', num_correct, 0)
  checks.within('num_correct', num_correct, 0, num_guesses)
  checks.non_negative('epsilon', epsilon)
  checks.within('delta', delta, 0, 1)
  rate = special.expit(epsilon)
  total = stats.binom.sf(num_correct - 1, num_guesses, rate)
  if delta and num_correct:
    below = stats.binom.pmf(
        np.arange(num_correct - 1, -1, -1), num_guesses, rate)
    slopes = np.cumsum(below) / np.arange(1, num_correct + 1)
    total += 2 * num_canaries * delta * slopes.max()
  return float(min(total, 1.0))


def epsilon_bound(
    num_canaries: int, num_guesses: int, num_correct: int, *,
    delta: float = 0.0, level: float = 0.95) -> float:
  """The largest epsilon whose `p_value` is below 1 - `level`; 0 if none is.

  Args:
    num_canaries: m.
    num_guesses: r, chosen without looking at the outcome.
    num_correct: v.
    delta: in [0, 1].
    level: confidence, in (0, 1).

  Raises:
    ValueError: a number out of its range.
  """
  _check_level(level)
  refuted = lambda epsilon: p_value(
      num_canaries, num_guesses, num_correct, epsilon, delta) < 1 - level
  if not refuted(0.0):
    return 0.0
  low, high = 0.0, _MOST
  for _ in range(_STEPS):
    middle = (low + high) / 2
    low, high = (middle, high) if refuted(middle) else (low, middle)
  return low


def lower_bound(
    score: Float[Array | np.ndarray, 'M'],
    included: Bool[Array | np.ndarray, 'M'], *, num_guesses: Sequence[int],
    delta: float = 0.0, level: float = 0.95) -> Bound:
  """The bound from one number per canary, larger where it took part.

  Of r guesses half say "in", of the highest scores, half "out", of the lowest;
  ties go by position. Several r are corrected for (Bonferroni): each is tested
  at the confidence 1 - (1 - `level`) / their number.

  Args:
    score: (M,) finite.
    included: (M,) the truth, drawn independently with probability 1/2.
    num_guesses: even numbers from 2 to M, chosen without looking at the scores.
    delta: in [0, 1], that of the guarantee in question.
    level: confidence, in (0, 1).

  Raises:
    ValueError: wrong shapes, or a number out of its range.
  """
  _check_level(level)
  checks.numbers('score', score)
  checks.flags('included', included, shape=score.shape)
  checks.finite('score', score)
  score, included = np.asarray(score, float), np.asarray(included)
  if not len(num_guesses):
    raise ValueError('`num_guesses` must have a number, got none.')
  order, found = np.argsort(-score, kind='stable'), []
  for number in num_guesses:
    checks.within('num_guesses', number, 2, len(score))
    if number % 2:
      raise ValueError(f'`num_guesses` must be even, got {number}.')
    half = number // 2
    right = int(included[order[:half]].sum() + (~included[order[-half:]]).sum())
    found.append(Bound(epsilon_bound(
        len(score), number, right, delta=delta,
        level=1 - (1 - level) / len(num_guesses)), number, right))
  return max(found, key=lambda bound: bound.epsilon)


def _check_level(level):
  checks.within('level', level, 0, 1)
  if level in (0, 1):
    raise ValueError(f'`level` must be between 0 and 1, got {level}.')
