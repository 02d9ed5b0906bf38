"""The table of ways to a distilled set: a line each to add another.

Flags, `--help`, comparisons, audits and error messages read it.
"""
import dataclasses
from typing import Any, TypeVar

from dsr import checks
from dsr.studies.distillation.methods import (
    dc,
    dm,
    frepo,
    idc,
    kip,
    label_solve,
    mtt,
    rkip,
    rkip_finite,
    selections,
)
from dsr.studies.distillation.methods.method import Method, options_of
from dsr.studies.distillation.problem import class_sizes

_Config = TypeVar('_Config')

METHODS: dict[str, Method] = {
    'kip': kip.KIP,
    'rkip': rkip.RKIP,
    'rkip_finite': rkip_finite.RKIP_FINITE,
    'label_solve': label_solve.LABEL_SOLVE,
    'dm': dm.DM,
    'dc': dc.DC,
    'dsa': dc.DSA,
    'idc': idc.IDC,
    'frepo': frepo.FREPO,
    'mtt': mtt.MTT,
    'random': selections.RANDOM,
    'herding': selections.HERDING,
    'kcenter': selections.KCENTER,
    'kmedoids': selections.KMEDOIDS,
    'el2n': selections.EL2N,
    'mfc': selections.MFC,
}


def names() -> tuple[str, ...]:
  """Of all methods."""
  return tuple(METHODS)


def describe() -> str:
  """The methods, a line each, for `--help`."""
  return '\n'.join(['methods:', *(
      f'  {name}: {method.help}' for name, method in METHODS.items())])


def resolve(config: _Config) -> _Config:
  """`config` with the method's own values for what is unset.

  Raises:
    ValueError: an unknown method, or sizes that it cannot make.
  """
  checks.one_of('method', config.method, METHODS)
  method, sizes = METHODS[config.method], class_sizes(config.images_per_class)
  if isinstance(sizes, int):
    config = dataclasses.replace(config, images_per_class=sizes)
  elif not method.uneven:
    raise ValueError('`images_per_class` must be one number with '
                     f'{config.method}, which matches classes of one size; got '
                     f'{config.images_per_class}.')
  own = method.values(config)
  unset = {name for name in own if getattr(config, name) in (None, 'auto')}
  return dataclasses.replace(config, **{name: own[name] for name in unset})


def check(config: Any) -> None:
  """Raises a ValueError for a flag out of range or one without effect.

  Args:
    config: an `experiments.distill.Config`, resolved.
  """
  method = METHODS[config.method]
  own = method.values(config)
  some = frozenset().union(*(m.reads for m in METHODS.values()))
  for field in dataclasses.fields(config):
    name, value = field.name, getattr(config, field.name)
    default = own.get(name, field.default)
    if name in some - method.reads and value != default:
      raise ValueError(f'`{name}` must be {default} with {config.method}, '
                       f'which has no use for it; got {value}.')
  if config.keep == 'best' and not config.validation:
    raise ValueError('`keep=best` needs `validation` above 0, got 0.')
  checks.within('ema', config.ema, 0, 1)
  options_of(method, config.options)
  method.check(config)
  selections.check(config)

