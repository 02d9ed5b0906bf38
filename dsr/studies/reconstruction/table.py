"""The table of attacks on networks: a line each to add another.

Flags, `--help`, comparisons and error messages read it.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

from dsr.attack import (
  finite,
  first_layer,
  kkt,
  ntk_limit,
  published,
  simulate,
)
from dsr.attack.result import Reconstruction


class Attack(NamedTuple):
  """A line of the table.

  Attributes:
    reconstruct: (key, released, config, *, workdir, on_chunk) ->
      `Reconstruction`; of an infinitely wide network it gets `kernel_fn` too.
    config: NamedTuple of its options, all with defaults; its fields `ratio`,
      `steps`, `learning_rate`, `gradients` and `prior`, as far as it has them,
      are set by flags, the others by the flag `options`.
    help: in a line.
    infinite: whether it is for networks of infinite width, whose values are
      released, or for finite ones, whose parameters are.
    threats: what it can work with, of 'query', 'parameters' and 'final'; the
      first is the usual one.
  """

  reconstruct: Callable[..., Reconstruction]
  config: type
  help: str
  infinite: bool = False
  threats: tuple[str, ...] = ('parameters',)

  def settings(self) -> Any:
    """Its options, at their defaults."""
    return self.config()


ATTACKS: dict[str, Attack] = {
    'ntk_limit': Attack(
        ntk_limit.reconstruct, ntk_limit.Config,
        'of a kernel predictor: exact (arXiv:2302.01428, infinite width)',
        infinite=True, threats=('query', 'parameters')),
    'finite': Attack(
        finite.reconstruct, finite.Config,
        'matches gradients, the duals eliminated; any network'),
    'simulate': Attack(
        simulate.reconstruct, simulate.Config,
        'trains on its candidates, from where `finite` ends (SimuDy)'),
    'first_layer': Attack(
        first_layer.reconstruct, first_layer.Config,
        'factorises the change of a dense first layer'),
    'published': Attack(
        published.reconstruct, published.Config,
        'the algorithm of arXiv:2302.01428, as it was published'),
    'kkt': Attack(
        kkt.reconstruct, kkt.Config,
        'of the trained parameters alone (arXiv:2206.07758)',
        threats=('final', 'parameters')),
}


def known(infinite: bool) -> tuple[str, ...]:
  """The attacks on networks of infinite width, or on finite ones."""
  return tuple(name for name, attack in ATTACKS.items()
               if attack.infinite == infinite)


def describe() -> str:
  """The attacks, a line each, for `--help`."""
  return '\n'.join(['attacks:', *(
      f'  {name}: {attack.help}' for name, attack in ATTACKS.items())])
