"""What a record may hold: finite numbers, arrays of numbers, plain JSON."""
from collections.abc import Mapping
import enum
import math
import os
from typing import Any, NamedTuple

import jax
import numpy as np


class Metric(NamedTuple):
  """A number and its 95 % interval; equal ends mean an exact number."""

  value: float
  low: float
  high: float


def metrics(given: Mapping[str, Any]) -> dict[str, Metric]:
  """All as `one`, by name; raises a ValueError."""
  checked = {}
  for name, value in given.items():
    if not isinstance(name, str):
      raise ValueError(f'`metrics` must have strings as names, got {name!r}.')
    if isinstance(value, Mapping) and set(value) == set(Metric._fields):
      value = Metric(**value)
    if not all(hasattr(value, field) for field in Metric._fields):
      raise ValueError(f'`metrics[{name!r}]` must have value, low and high '
                       f'(see `records.metric`), got {value!r}.')
    checked[name] = one(f'metrics[{name!r}]', value)
  return checked


def one(name: str, given: Any) -> Metric:
  """A metric of finite numbers, low <= high; raises a ValueError."""
  numbers = []
  for field in Metric._fields:
    number = getattr(given, field)
    if np.ndim(number) or np.asarray(number).dtype.kind not in 'fiu':
      raise ValueError(f'`{name}.{field}` must be a number, got {number!r}.')
    if not math.isfinite(number):
      raise ValueError(f'`{name}.{field}` must be finite, got {number}.')
    numbers.append(float(number))
  value, low, high = numbers
  if not low <= high:  # A bootstrap interval need not hold its value.
    raise ValueError(f'`{name}` must have low <= high, got [{low}, {high}].')
  return Metric(value, low, high)


def arrays(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Arrays of numbers or texts, by identifiers; or a ValueError."""
  checked = {}
  for name, array in given.items():
    if not isinstance(name, str) or not name.isidentifier():
      raise ValueError(
          f'`arrays` must have identifiers as names, got {name!r}.')
    checked[name] = np.asarray(array)
    if checked[name].dtype.kind not in 'biufcU':
      raise ValueError(f'`arrays[{name!r}]` must hold numbers or texts, got '
                       f'dtype {checked[name].dtype}.')
  return checked


def plain(where: str, value: Any) -> Any:
  """`value` in JSON's own types; NumPy and jax values become numbers, lists."""
  if value is None or isinstance(value, (bool, str)):
    return value
  if isinstance(value, enum.Enum):
    return value.name
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if isinstance(value, Mapping):
    if odd := [k for k in value if not isinstance(k, str)]:
      raise ValueError(f'`{where}` must have strings as names, got {odd[0]!r}.')
    return {k: plain(f'{where}.{k}', v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(f'{where}[{i}]', v) for i, v in enumerate(value)]
  if isinstance(value, (np.ndarray, np.generic, jax.Array)):
    return plain(where, np.asarray(value).tolist())
  if isinstance(value, (int, float)):
    if not math.isfinite(value):
      raise ValueError(f'`{where}` must be finite, got {value}.')
    return value
  raise ValueError(f'`{where}` must fit into JSON, got {type(value).__name__}.')
