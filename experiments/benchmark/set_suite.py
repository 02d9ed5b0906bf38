"""Distilled sets: a step of DM, distances of coresets."""
from typing import Any

from dsr.report import tables
from experiments.benchmark import (
  cases,
  measure,
  sets as set_rivals,
)
from experiments.benchmark.rows import (
    CASE,
    against_matmul,
    columns,
    ratio,
    select,
)


def set_suite(config: Any) -> tuple[list[dict], list[str]]:
  """Wall and CPU time of DM's step, and the distances of one class."""
  chosen = select(config, cases.STEPS + cases.DISTANCES)
  rows = []
  for group, build in ((cases.STEPS, set_rivals.step_calls),
                       (cases.DISTANCES, set_rivals.distance_calls)):
    for case in (c.shrunk(config.shrink) for c in group if c in chosen):
      row = against_matmul(case, config, build)
      row['ours_cpu_s'] = measure.cpu_seconds(
          build(case, config.seed)['ours'])
      rows.append(row)
  wanted = [CASE, *columns('matmul_ms', 'ours_ms', 'ours_cpu_s'),
            ratio('ours_per_matmul', 'ours / matmul'), 'goal']
  return rows, [tables.render(
      rows, wanted, title='Milliseconds a call; ratios to matrix products')]
