"""Eager checks of static facts, and the only place that words input errors.

Every message names the argument, what was needed and what came:
``ValueError: `x2` has D=3, expected D=2.`` Checks look at shapes, dtypes and
Python values, so they also work while jax traces; `finite` and `labels` look
at values and belong on the host.
"""
from collections.abc import Collection, Iterator
import contextlib
import math
from typing import Any

import jax.numpy as jnp
import numpy as np


def features(name: str, x: Any, *, dim: int | None = None) -> None:
  """`x` is a non-empty floating (N, D) array, with D = `dim` if given."""
  _floating(name, x, rank=2, letters='(N, D)')
  if dim is not None and x.shape[1] != dim:
    raise ValueError(f'`{name}` has D={x.shape[1]}, expected D={dim}.')


def images(
    name: str, x: Any, *, shape: tuple[int, ...] | None = None) -> None:
  """`x` is a non-empty floating (N, H, W, C) array; (H, W, C) is `shape`."""
  _floating(name, x, rank=4, letters='(N, H, W, C)')
  if shape is not None and tuple(x.shape[1:]) != tuple(shape):
    raise ValueError(
        f'`{name}` has images of shape {tuple(x.shape[1:])}, '
        f'expected {tuple(shape)}.')


def sequences(name: str, x: Any) -> None:
  """`x` is a non-empty floating (N, L, C) array."""
  _floating(name, x, rank=3, letters='(N, L, C)')


def square(name: str, x: Any) -> None:
  """`x` is a non-empty floating (N, N) array."""
  _floating(name, x, rank=2, letters='(N, N)')
  if x.shape[0] != x.shape[1]:
    raise ValueError(f'`{name}` must have shape (N, N), got {tuple(x.shape)}.')


def inputs(name: str, x: Any, *, like: Any = None) -> None:
  """`x` is a non-empty floating array of examples shaped as in `like`."""
  _floating(name, x, rank=None, letters='(N, ...)')
  if like is not None and x.shape[1:] != like.shape[1:]:
    raise ValueError(
        f'`{name}` has examples of shape {tuple(x.shape[1:])}, '
        f'expected {tuple(like.shape[1:])}.')
  if like is not None and x.dtype != like.dtype:
    raise ValueError(f'`{name}` has dtype {x.dtype}, expected {like.dtype}.')


def _floating(name, x, *, rank, letters):
  shape = getattr(x, 'shape', None)
  if shape is None:
    raise ValueError(
        f'`{name}` must be an array {letters}, got {type(x).__name__}.')
  if (rank is not None and len(shape) != rank) or len(shape) < 2:
    raise ValueError(
        f'`{name}` must have shape {letters}, got {tuple(shape)}.')
  if min(shape) == 0:
    raise ValueError(f'`{name}` must not be empty, got shape {tuple(shape)}.')
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f'`{name}` must be floating point, got {x.dtype}.')


def precision(name: str, x: Any) -> None:
  """`x` is float32 or float64: less cannot hold a kernel's digits."""
  if x.dtype not in (jnp.float32, jnp.float64):
    raise ValueError(f'`{name}` must be float32 or float64, got {x.dtype}.')


def targets(name: str, y: Any, *, rows: int) -> None:
  """`y` is a floating (N, C) array of N = `rows` encoded labels."""
  _floating(name, y, rank=2, letters='(N, C)')
  if y.shape[0] != rows:
    raise ValueError(f'`{name}` has {y.shape[0]} rows, expected {rows}.')


def class_indices(name: str, y: Any) -> None:
  """`y` is an (N,) integer array."""
  if len(y.shape) != 1 or not jnp.issubdtype(y.dtype, jnp.integer):
    raise ValueError(
        f'`{name}` must be a vector of integers, got {y.dtype} '
        f'{tuple(y.shape)}.')


def numbers(name: str, x: Any, *, rows: int | None = None) -> None:
  """`x` is a non-empty (N,) vector of floats, with N = `rows` if given."""
  shape = getattr(x, 'shape', None)
  if shape is None or len(shape) != 1 or not shape[0] or (
      not jnp.issubdtype(x.dtype, jnp.floating)):
    got = type(x).__name__ if shape is None else f'{x.dtype} {tuple(shape)}'
    raise ValueError(
        f'`{name}` must be a non-empty vector of floats, got {got}.')
  if rows is not None and shape[0] != rows:
    raise ValueError(f'`{name}` has {shape[0]} rows, expected {rows}.')


def flags(name: str, x: Any, *, shape: tuple[int, ...]) -> None:
  """`x` is a boolean array of `shape`."""
  got = getattr(x, 'shape', None)
  if got is None or tuple(got) != tuple(shape) or x.dtype != bool:
    came = (type(x).__name__ if got is None else f'{x.dtype} {tuple(got)}')
    raise ValueError(
        f'`{name}` must be boolean of shape {tuple(shape)}, got {came}.')


def same_rows(**arrays: Any) -> None:
  """All `arrays` have the same number of rows."""
  rows = {name: a.shape[0] for name, a in arrays.items()}
  if len(set(rows.values())) > 1:
    got = ', '.join(f'`{name}` has {n}' for name, n in rows.items())
    raise ValueError(f'Arrays must have the same number of rows: {got}.')


def number(name: str, value: Any) -> None:
  """`value` is a finite number."""
  if not _is_number(value):
    raise ValueError(f'`{name}` must be a finite number, got {value!r}.')


def positive(name: str, value: Any) -> None:
  """`value` is a finite number above zero."""
  if not _is_number(value) or not value > 0:
    raise ValueError(f'`{name}` must be positive and finite, got {value!r}.')


def non_negative(name: str, value: Any) -> None:
  """`value` is a finite number, zero or above."""
  if not _is_number(value) or not value >= 0:
    raise ValueError(
        f'`{name}` must be finite and not negative, got {value!r}.')


def within(
    name: str, value: Any, low: int | float, high: int | float) -> None:
  """`value` is a number in [low, high]."""
  if not _is_number(value) or not low <= value <= high:
    raise ValueError(f'`{name}` must be in [{low}, {high}], got {value!r}.')


def below_one(name: str, value: Any) -> None:
  """`value` is a number in [0, 1)."""
  if not _is_number(value) or not 0 <= value < 1:
    raise ValueError(f'`{name}` must be in [0, 1), got {value!r}.')


def at_least(name: str, value: Any, low: int) -> None:
  """`value` is an integer, `low` or above."""
  whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
  if not whole or value < low:
    raise ValueError(
        f'`{name}` must be an integer of at least {low}, got {value!r}.')


def one_each(name: str, value: Any, num: int) -> list[int]:
  """`value`, an integer of at least 1 or a sequence of `num`, as a list."""
  if isinstance(value, (list, tuple)):
    if len(value) != num:
      raise ValueError(f'`{name}` must be an integer or {num} of them, one for '
                       f'each class, got {len(value)}.')
    values = list(value)
  else:
    values = [value] * num
  for one in values:
    at_least(name, one, 1)
  return values


def one_of(name: str, value: Any, choices: Collection[Any]) -> None:
  """`value` is one of `choices`."""
  if value not in choices:
    known = ', '.join(str(c) for c in choices)
    raise ValueError(f'`{name}` must be one of {known}; got {value!r}.')


def finite(name: str, x: Any) -> None:
  """Host only: no NaN and no infinity in `x`."""
  bad = int(np.size(x) - np.isfinite(np.asarray(x)).sum())
  if bad:
    raise ValueError(f'`{name}` must be finite, got {bad} NaN or infinite.')


def labels(name: str, y: Any, num_classes: int) -> None:
  """Host only: `y` is (N,) integers in [0, num_classes)."""
  y = np.asarray(y)
  class_indices(name, y)
  if y.size and not (0 <= y.min() and y.max() < num_classes):
    raise ValueError(
        f'`{name}` must be in [0, {num_classes}), '
        f'got values from {y.min()} to {y.max()}.')


@contextlib.contextmanager
def renamed(**names: str) -> Iterator[None]:
  """Errors raised inside name arguments as the caller's reader knows them.

  Args:
    **names: of arguments -> of flags; `renamed(name='dataset')` turns
      "`name` must be ..." into "`dataset` must be ...".

  Raises:
    ValueError: with other words, the one that was raised inside.
  """
  try:
    yield
  except ValueError as error:
    text = str(error)
    for old, new in names.items():
      text = text.replace(f'`{old}`', f'`{new}`')
    raise ValueError(text) from error


def _is_number(value) -> bool:
  return (isinstance(value, (int, float, np.number))
          and not isinstance(value, bool) and math.isfinite(value))
