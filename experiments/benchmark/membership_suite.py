"""Membership: all outputs without each example, shadows."""
from typing import Any

from dsr.report import tables
from experiments.benchmark import (
  cases,
  membership as membership_rivals,
)
from experiments.benchmark.rows import (
    CASE,
    DIFFERENCE,
    ratio,
    select,
)


def membership_suite(config: Any) -> tuple[list[dict], list[str]]:
  """All outputs without each example against refits; fits of random halves."""
  chosen = select(config, cases.WITHOUT + cases.SHADOWS)
  rows = [membership_rivals.leave_one_out_row(
      case.shrunk(config.shrink), config.seed, repeats=config.repeats,
      seconds=config.seconds) for case in cases.WITHOUT if case in chosen]
  rows += [membership_rivals.shadow_row(
      case.shrunk(config.shrink), config.seed)
           for case in cases.SHADOWS if case in chosen]
  wanted = [CASE, 'ours_s', 'refits_s',
            ratio('refits_per_ours', 'refits / ours'), 'ours_cpu_s',
            DIFFERENCE, 'goal']
  return rows, [tables.render(
      rows, wanted, title='Seconds for all examples, or for all shadows')]
