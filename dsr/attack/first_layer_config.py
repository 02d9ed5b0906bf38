"""Options of `attack.first_layer`, and what it takes for a row of an image."""
from typing import NamedTuple

from dsr import checks

MIXTURE = 10.0  # Of `Rows.second`: a mixture of two rows has less.
INDEPENDENT = 0.01  # Least distance of a new row from the span of the known.
_MARGIN = 0.1  # Share of zeros beyond those that chance can give.


class Config(NamedTuple):
  """How the attack is run.

  Attributes:
    num_starts: random starts of each kind a round.
    max_rounds: rounds, at most.
    patience: rounds without a new image after which the search ends.
    iterations: alternations from each start.
    oversample: inactive units used by the search, relative to N; 15 % of all
      units are taken at least.
    zeros: share of the units at which a row must be 0. Images leave 36 to 50 %
      of them inactive throughout training, vectors of the span that are no row
      are 0 at N - 1 units at most; below that share and 10 % more, nothing is
      accepted either.
    refinements: passes of the last stage.
    searches: times that the search may go on after rows that turned out to be
      copies were taken away.
  """

  num_starts: int = 64
  max_rounds: int = 400
  patience: int = 12
  iterations: int = 24
  oversample: float = 1.5
  zeros: float = 0.3
  refinements: int = 8
  searches: int = 3


DEFAULT = Config()


def check(config: Config) -> None:
  """Raises a ValueError for an option out of its range."""
  for name in ('num_starts', 'max_rounds', 'patience', 'iterations',
               'searches'):
    checks.at_least(name, getattr(config, name), 1)
  checks.at_least('refinements', config.refinements, 0)
  checks.within('oversample', config.oversample, 1, 10)
  checks.within('zeros', config.zeros, 0.1, 0.5)


def least_zeros(num: int, width: int, config: Config = DEFAULT) -> float:
  """The share of zeros that a row of one of `num` images must exceed."""
  return max(config.zeros, (num - 1) / width + _MARGIN)
