"""The table of attacks on networks: a line each to add another.

Flags, `--help`, comparisons and error messages read it.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

from dsr import checks
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
      `Reconstruction`; where values are all that is released, of a network of
      any width, it gets `kernel_fn` too.
    config: NamedTuple of its options, all with defaults; its fields `ratio`,
      `steps`, `learning_rate`, `gradients` and `prior`, as far as it has them,
      are set by flags, the others by the flag `options`.
    help: in a line.
    threats: what it can work with of a finite network, of 'parameters',
      'final', 'query' and 'outputs'; the first is the usual one, () is none.
    limit_threats: likewise, of 'query' and 'parameters', of a network of
      infinite width.
    finite: its options for finite networks, where its defaults are for
      infinite width.
  """

  reconstruct: Callable[..., Reconstruction]
  config: type
  help: str
  threats: tuple[str, ...] = ('parameters',)
  limit_threats: tuple[str, ...] = ()
  finite: Any = None

  def threats_of(self, infinite: bool) -> tuple[str, ...]:
    """What it can work with of networks of infinite width, or of finite ones.
    """
    return self.limit_threats if infinite else self.threats

  def settings(self, infinite: bool) -> Any:
    """Its options, at their defaults for such networks."""
    if not infinite and self.finite is not None:
      return self.finite
    return self.config()


ATTACKS: dict[str, Attack] = {
    'ntk_limit': Attack(
        ntk_limit.reconstruct, ntk_limit.Config,
        'of values alone; exact at infinite width (arXiv:2302.01428)',
        threats=('query', 'outputs'), limit_threats=('query', 'parameters'),
        finite=ntk_limit.FINITE),
    'finite': Attack(
        finite.reconstruct, finite.Config,
        'matches gradients, the duals eliminated; any network'),
    'first_layer': Attack(
        first_layer.reconstruct, first_layer.Config,
        'factorises the change of a dense first layer'),
    'published': Attack(
        published.reconstruct, published.Config,
        'the algorithm of arXiv:2302.01428, as it was published'),
    'simulate': Attack(
        simulate.reconstruct, simulate.Config,
        'trains on its candidates, from where `finite` ends (SimuDy)'),
    'kkt': Attack(
        kkt.reconstruct, kkt.Config,
        'of the trained parameters alone (arXiv:2206.07758)',
        threats=('final', 'parameters')),
}


def known(infinite: bool) -> tuple[str, ...]:
  """The attacks on networks of infinite width, or on finite ones."""
  return tuple(name for name, attack in ATTACKS.items()
               if attack.threats_of(infinite))


def check_threat(name: str, threat: str, infinite: bool) -> None:
  """Raises a ValueError if that attack cannot work with what is released."""
  threats = ATTACKS[name].threats_of(infinite)
  if threat == 'final' and threats == ('parameters',):
    raise ValueError(
        f"`threat` must be 'parameters' with the attack {name}, which looks at "
        "theta_T - theta_0; got 'final'. The attack for an unknown theta_0 is "
        'kkt.')
  checks.one_of('threat', threat, threats)


def describe() -> str:
  """The attacks, a line each, for `--help`."""
  return '\n'.join(['attacks:', *(
      f'  {name}: {attack.help}' for name, attack in ATTACKS.items())])
