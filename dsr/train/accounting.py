r"""What DP-SGD guarantees: (epsilon, delta) from noise, sampling and steps.

A mechanism M is (\epsilon, \delta) private if for any two data sets that
differ by one example, added or removed, and any set of outcomes,

  P(M(D) in A) <= e^\epsilon P(M(D') in A) + \delta.

Here M makes `num_steps` steps. Each includes every example with probability q,
independently (Poisson sampling), and adds Gaussian noise to the sum of the
clipped gradients, of `noise_multiplier` times the clipping norm
(arXiv:1607.00133). Epsilon comes from the privacy loss distribution of
dp-accounting (arXiv:2106.08567): an upper bound, tight but for a grid that
losses are rounded up to.
"""
import math

from dsr import checks

# Of the losses; times epsilon where that is below 1. At q = 256 / 60000, noise
# 1.1 and 60 epochs it adds 0.4 % to epsilon, and a tenth of it takes ten times
# as long.
_GRID = 1e-3
_FINEST = 1e-5
_TOLERANCE = 1e-3  # Of the noise multiplier, relative.
_LEAST_DELTA = 1e-13  # Compositions are Fourier transforms, exact to 1e-16.
_MOST_NOISE = 2.0**10  # Times a first guess.
_EPSILONS = 1e-3, 100.0  # The grid is too coarse below; e^100 is no protection.


def epsilon(
    noise_multiplier: float, sampling_rate: float, num_steps: int,
    delta: float) -> float:
  """The epsilon of DP-SGD at `delta`; infinity without noise.

  Args:
    noise_multiplier: deviation of the noise over the clipping norm, >= 0.
    sampling_rate: q in (0, 1], of each example in each step.
    num_steps: at least 1.
    delta: in [1e-13, 1).

  Raises:
    ValueError: a number out of range.
  """
  checks.non_negative('noise_multiplier', noise_multiplier)
  _check(sampling_rate, num_steps, delta)
  if not noise_multiplier:
    return math.inf
  found = lambda grid: _spent(
      grid, noise_multiplier, sampling_rate, num_steps, delta)
  coarse = found(_GRID)
  return coarse if coarse >= 1 else found(max(_FINEST, _GRID * coarse))


def noise_multiplier(
    epsilon: float, delta: float, sampling_rate: float, num_steps: int
) -> float:
  """The least noise with which DP-SGD is (`epsilon`, `delta`) private.

  Within a thousandth of the least, and on its safe side: the function
  `epsilon` of the result is at most the argument `epsilon`.

  Args:
    epsilon: in [0.001, 100].
    delta: in [1e-13, 1).
    sampling_rate: q in (0, 1], of each example in each step.
    num_steps: at least 1.

  Raises:
    ValueError: a number out of range, or no noise that suffices was found.
  """
  checks.within('epsilon', epsilon, *_EPSILONS)
  _check(sampling_rate, num_steps, delta)
  suffices = lambda noise: _epsilon(
      noise, sampling_rate, num_steps, delta) <= epsilon
  # About what suffices: where noise is far too small, epsilon takes long.
  above = start = max(1.0, sampling_rate / epsilon * math.sqrt(
      2 * num_steps * math.log(1.25 / delta)))
  while not suffices(above):
    above *= 2
    if above > _MOST_NOISE * start:
      raise ValueError(f'`epsilon` must be within reach of the noise, got '
                       f'{epsilon}, which {above:.3g} does not reach.')
  below = above / 2
  while suffices(below):
    above, below = below, below / 2
  while above > (1 + _TOLERANCE) * below:
    middle = (above * below) ** 0.5
    above, below = (middle, below) if suffices(middle) else (above, middle)
  return above


_epsilon = epsilon  # In `noise_multiplier` the name is that of an argument.


def _check(sampling_rate, num_steps, delta):
  checks.positive('sampling_rate', sampling_rate)
  checks.within('sampling_rate', sampling_rate, 0, 1)
  checks.at_least('num_steps', num_steps, 1)
  checks.within('delta', delta, _LEAST_DELTA, 1)
  if delta == 1:
    raise ValueError(f'`delta` must be below 1, got {delta}.')


def _spent(grid, noise, sampling_rate, num_steps, delta):
  import dp_accounting
  from dp_accounting import pld

  step = dp_accounting.PoissonSampledDpEvent(
      sampling_rate, dp_accounting.GaussianDpEvent(noise))
  accountant = pld.PLDAccountant(
      dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, grid)
  accountant.compose(dp_accounting.SelfComposedDpEvent(step, num_steps))
  return float(accountant.get_epsilon(delta))
