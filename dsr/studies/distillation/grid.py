"""Several runs of `experiments.distill` at once: methods, sizes, their options.

Binaries that compare methods take the flags `methods`, `images_per_class` and
`options`, all with commas between their parts; an option is
[method.]flag=value, where flag is one of `experiments.distill`.
"""
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dsr import checks
from dsr.runs import options
from dsr.studies.distillation import distill, evaluation
from dsr.studies.distillation.methods import table
from dsr.studies.distillation.problem import class_sizes

# Flags of a run that `options` cannot set.
_OWN = ('method', 'workdir', 'dataset', 'data_dir', 'images_per_class',
        'options', 'fresh')


def chosen_methods(flag: str, *, more: Sequence[str] = ()) -> list[str]:
  """The methods that a flag names, each once; `more` are known as well.

  Raises:
    ValueError: none, or an unknown one.
  """
  chosen = list(dict.fromkeys(evaluation.names(flag)))
  for method in chosen:
    checks.one_of('methods', method, (*table.METHODS, *more))
  if not chosen:
    raise ValueError('`methods` must name one or more, got none.')
  return chosen


def chosen_sizes_by_class(flag: str) -> list[int | str]:
  """As `chosen_sizes`; a size may have a number for each class, '3:1:2'.

  Raises:
    ValueError: none, or a part that is no positive integer.
  """
  sizes = {size: class_sizes(size) for size in evaluation.names(flag)}
  if not sizes:
    raise ValueError('`images_per_class` must name a size, got none.')
  return sorted({size if isinstance(parts, tuple) else parts
                 for size, parts in sizes.items()},
                key=lambda size: np.mean(class_sizes(size)))


def chosen_sizes(flag: str) -> list[int]:
  """The sizes that a flag names, each once, in increasing order.

  Raises:
    ValueError: none, or one that is no positive integer.
  """
  sizes = evaluation.names(flag)
  if not sizes or not all(size.isdigit() and int(size) for size in sizes):
    raise ValueError('`images_per_class` must be positive integers with commas '
                     f'between them, got {flag!r}.')
  return sorted(set(map(int, sizes)))


def method_options(
    config: Any, chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
  """Method, or '' for all -> flags of its runs, as `config.options` has them.

  Args:
    config: a dataclass with the field `options`; flags of `experiments.distill`
      that it has itself can be set for single methods only.
    chosen: the methods that may be named.

  Raises:
    ValueError: a part that is no [method.]flag=value, or no such flag.
  """
  kinds = options.kinds(distill.Config)
  out = {name: {} for name in ('', *table.METHODS)}
  for name, text in options.split(config.options):
    method, _, flag = name.rpartition('.')
    if method:
      checks.one_of('options', method, chosen)
      own = table.METHODS[method].options
      if text and flag in getattr(own, '_fields', ()):  # Not a flag of all.
        before = out[method].get('options', '')
        out[method]['options'] = f'{before},{flag}={text}'.lstrip(',')
        continue
    free = flag in kinds and flag not in _OWN
    if not (text and free and (method or not hasattr(config, flag))):
      raise ValueError(
          '`options` must be [method.]flag=value with flags of '
          f'experiments.distill that are not flags here, got {name!r}.')
    out[method][flag] = options.parse(flag, text, kinds[flag])
  return out


def distillation(
    config: Any, method: str, size: int | str,
    own: dict[str, dict[str, Any]], *, name: str | None = None,
    **fields: Any) -> distill.Config:
  """One run, checked.

  Args:
    config: a dataclass; what it shares with `experiments.distill` is handed on.
    method: of the run.
    size: images per class.
    own: of `method_options`.
    name: of its folder in the workdir; unset: '<method>_<size>', a size by
      class with '-' in place of ':'.
    **fields: of the run, before the options of `own`.

  Raises:
    ValueError: a flag out of its range, or one without effect.
  """
  shared = {field.name: getattr(config, field.name)
            for field in dataclasses.fields(distill.Config)
            if hasattr(config, field.name)
            and field.name not in ('options', 'fresh')}
  folder = pathlib.Path(
      config.workdir, name or f'{method}_{size}'.replace(':', '-'))
  job = distill.Config(**shared | fields | own[''] | own[method] | {
      'method': method, 'images_per_class': size, 'workdir': str(folder)})
  distill.check(job)
  return distill.resolve(job)
