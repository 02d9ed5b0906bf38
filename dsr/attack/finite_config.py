"""Options of `attack.finite`, and what is refused before it starts."""
from typing import NamedTuple

from dsr import checks
from dsr.attack import prior as prior_lib
from dsr.attack.prior import Prior
from dsr.attack.release import Released

GRADIENTS = ('auto', 'initial', 'final', 'both', 'path', 'mean')


class Config(NamedTuple):
  """How the attack is run.

  Attributes:
    ratio: M / N; 0 takes 2.
    steps: of Adam.
    learning_rate: of Adam at the start, in units of a pixel; 0 is automatic.
    last_rate: at the end, as a share of it.
    start_scale: standard deviation of the noise that candidates start from.
    gradients: where features are taken: 'initial', 'final', 'both'; 'path' for
      `points` places on the line from theta_0 to theta_T, ends included, with
      duals of their own; 'mean' for their mean over the middles of `points`
      parts of that line, with one dual; or 'auto' for 'initial' with linearised
      networks and 'both' with others.
    points: of 'path' and 'mean'; cost and, with 'path', memory grow with it.
    slope: of the smoothed ReLU at the start, 1 / pre-activation.
    last_slope: at the end, on a geometric way.
    subspace: whether to search in the span of the first layer's change, where
      that is possible.
    jitter: of K, relative to its mean diagonal.
    sparsity: weight of the mean |dual| relative to its value at the start.
    tolerance: relative loss at which to stop.
    prior: penalties, in units of |Delta|^2.
    num_seeds: starts run side by side, of which the best is kept.
    batch: candidates whose features are held at a time; None is all. Memory is
      then that of two batches, features are computed anew for each pair of
      batches, and results are the same but for rounding.
  """

  ratio: float = 0.0
  steps: int = 600
  learning_rate: float = 0.0
  last_rate: float = 0.02
  start_scale: float = 0.2
  gradients: str = 'auto'
  points: int = 5
  slope: float = 6.0
  last_slope: float = 6.0
  subspace: bool = True
  jitter: float = 1e-6
  sparsity: float = 0.0
  tolerance: float = 0.0
  prior: Prior = Prior()
  num_seeds: int = 1
  batch: int | None = None


DEFAULT = Config()


def check(released: Released, config: Config) -> None:
  """Raises a ValueError for what is wrong before the run starts."""
  if released.theta_0 is None or released.theta_T is None:
    raise ValueError('`released` must hold theta_0 and theta_T for the finite '
                     f'attack, got threat {released.threat!r}.')
  checks.non_negative('ratio', config.ratio)
  checks.at_least('steps', config.steps, 1)
  checks.non_negative('learning_rate', config.learning_rate)
  checks.within('last_rate', config.last_rate, 0, 1)
  checks.positive('start_scale', config.start_scale)
  checks.one_of('gradients', config.gradients, GRADIENTS)
  if released.linearised and config.gradients not in ('auto', 'initial'):
    raise ValueError("`gradients` must be 'initial' or 'auto' for a linearised "
                     f'network, got {config.gradients!r}.')
  checks.at_least('points', config.points, 2)
  checks.positive('slope', config.slope)
  checks.positive('last_slope', config.last_slope)
  checks.positive('jitter', config.jitter)
  checks.non_negative('sparsity', config.sparsity)
  checks.non_negative('tolerance', config.tolerance)
  if config.batch is not None:
    checks.at_least('batch', config.batch, 1)
  prior_lib.check(config.prior, released)
