"""Rows of the benchmark's tables: times, ratios, differences."""
from collections.abc import Callable
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr.report import tables
from experiments.benchmark import measure

CASE = 'case'
DIFFERENCE = tables.Column('difference', 'largest difference')


def columns(*keys: str) -> list[tables.Column]:
  return [tables.Column(key, digits=2) for key in keys]


def ratio(key: str, title: str) -> tables.Column:
  return tables.Column(key, title, digits=2)


def select(config, group) -> list[Any]:
  chosen = [case for case in group if config.only in case.name]
  if not chosen:
    raise ValueError(
        f'`only` must be part of one of {", ".join(c.name for c in group)}; '
        f'got {config.only!r}.')
  return chosen


def against_matmul(
    case: Any, config: Any, build: Callable) -> dict[str, Any]:
  """Milliseconds a call, and ratios to the matrix product."""
  values, seconds = race(build, case, config)
  ratios = {f'{side}_per_matmul': measure.quartiles(s / seconds['matmul'])
            for side, s in seconds.items() if side != 'matmul'}
  return row_of(case, values, seconds) | ratios


def race(build: Callable, case: Any, config: Any
          ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  calls = build(case, config.seed)
  logging.info('%s: %s', case.name, ', '.join(calls))
  return measure.race(
      calls, repeats=config.repeats, seconds=config.seconds)


def row_of(case: Any, values, seconds) -> dict[str, Any]:
  row = {'case': case.name, 'goal': case.goal}
  row |= {f'{side}_ms': 1e3 * float(np.median(s))
          for side, s in seconds.items()}
  if 'nt' in values:
    row['difference'] = _difference(values['ours'], values['nt'])
  return row


def _difference(ours, theirs) -> float:
  """Largest of two pytrees, over the largest value of each leaf of theirs."""

  def leaf(a, b):
    a = a[tuple(slice(n) for n in b.shape)]  # Theirs may have fewer entries.
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))

  return max(jax.tree.leaves(jax.tree.map(leaf, ours, theirs)))


