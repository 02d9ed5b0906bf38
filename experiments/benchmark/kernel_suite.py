"""Kernels: time and memory beside a product and neural-tangents."""
from typing import Any

from dsr.report import tables
from dsr.runs import records
from experiments.benchmark import (
  cases,
  kernels as rivals,
  measure,
)
from experiments.benchmark.rows import (
    CASE,
    DIFFERENCE,
    against_matmul,
    columns,
    race,
    ratio,
    row_of,
    select,
)


def kernel_suite(config: Any) -> tuple[list[dict], list[str]]:
  """Time of vector kernels and KIP, time and memory of image kernels."""
  chosen = select(config, cases.PRODUCTS + cases.LOSSES + cases.IMAGES)
  absent = {'nt_ms': rivals.ABSENT, 'difference': rivals.ABSENT}
  vectors = [absent | against_matmul(
                 case.shrunk(config.shrink), config, build)
             for group, build in ((cases.PRODUCTS, rivals.product_calls),
                                  (cases.LOSSES, rivals.loss_calls))
             for case in group if case in chosen]
  images = [absent | _image_row(case.shrunk(config.shrink), config)
            for case in cases.IMAGES if case in chosen]
  shown = []
  if vectors:
    shown.append(tables.render(
        vectors, [CASE, *columns('matmul_ms', 'ours_ms', 'nt_ms'),
                  ratio('ours_per_matmul', 'ours / matmul'),
                  ratio('nt_per_matmul', 'nt / matmul'), DIFFERENCE, 'goal'],
        title='Milliseconds a call; ratios to one matrix product'))
  if images:
    shown.append(tables.render(
        images, [CASE, *columns('ours_ms', 'nt_ms'),
                 ratio('nt_per_ours', 'time nt / ours'),
                 *columns('ours_mb', 'nt_mb'),
                 ratio('memory_nt_per_ours', 'memory nt / ours'),
                 DIFFERENCE, 'goal'],
        title='Milliseconds an entry; peak MB of one matrix'))
  return vectors + images, shown


def gram_suite(config: Any) -> tuple[list[dict], list[str]]:
  """Time and peak memory of a large symmetric `kernels.gram`."""
  rows = []
  for case in select(config, cases.GRAMS):
    case = case.shrunk(config.shrink)
    row = against_matmul(case, config, rivals.gram_calls)
    peak = measure.peak_mb(rivals.gram_calls, (case, config.seed), 'ours')
    if peak is not None:
      row['peak_mb'] = peak
      row['peak_per_result'] = records.metric(peak * 1e6 / (4 * case.rows**2))
    rows.append(row)
  wanted = [CASE, *columns('matmul_ms', 'ours_ms'),
            ratio('ours_per_matmul', 'ours / matmul'), *columns('peak_mb'),
            ratio('peak_per_result', 'peak / result'), 'goal']
  return rows, [tables.render(rows, wanted, title='Large symmetric matrix')]


def _image_row(case: Any, config: Any) -> dict[str, Any]:
  """Milliseconds an entry, peak memory, and their ratios."""
  values, seconds = race(rivals.image_calls, case, config)
  seconds = {side: s / values[side].size for side, s in seconds.items()}
  row = row_of(case, values, seconds)
  if 'nt' in seconds:
    row['nt_per_ours'] = measure.quartiles(seconds['nt'] / seconds['ours'])
  if config.memory:
    equal = case._replace(rows=case.nt_size, cols=case.nt_size)
    peaks = {f'{side}_mb': measure.peak_mb(
                 rivals.image_calls, (equal, config.seed), side)
             for side in seconds}
    row |= {key: peak for key, peak in peaks.items() if peak is not None}
    if 'ours_mb' in row and 'nt_mb' in row:
      row['memory_nt_per_ours'] = records.metric(
          row['nt_mb'] / row['ours_mb'])
  return row
