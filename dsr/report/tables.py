"""Tables of records: plain text for the terminal, Markdown and CSV.

A row is a record (as `records.read` gives it) or any mapping. A column looks
up its key in the row, then among its metrics, then in its config; a dotted key
such as `config.kernel` says where. What a row lacks stays empty.
"""
from collections.abc import Mapping, Sequence
import csv
import io
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from dsr.runs import records


class Column(NamedTuple):
  """How one column is found and shown.

  A plain string stands for `Column(key)`, in percent if it ends in `accuracy`.

  Attributes:
    key: where the value is, e.g. `krr_accuracy` or `config.method`.
    title: heading; default: the last part of `key`, spaces for underscores.
    percent: show fractions times 100.
    digits: behind the point; default: 1 in percent, else 4 significant ones.
  """

  key: str
  title: str = ''
  percent: bool = False
  digits: int | None = None

  @property
  def heading(self) -> str:
    """The title with its unit."""
    title = self.title or self.key.split('.')[-1].replace('_', ' ')
    return f'{title} (%)' if self.percent else title


class Cell(NamedTuple):
  """A cell as shown.

  Attributes:
    text: the value.
    interval: as `[low, high]`, or nothing.
    value: what to sort by: a finite number, or None for text and gaps.
  """

  text: str
  interval: str = ''
  value: float | None = None


class Grid(NamedTuple):
  """A table as shown; `numeric` says which columns hold numbers."""

  head: Sequence[str]
  body: Sequence[Sequence[Cell]]
  numeric: Sequence[bool]


def render(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str | Column], *,
    title: str = '') -> str:
  """An aligned table: text to the left, numbers to the right.

  Metrics read `85.5 [84.8, 86.2]`: the value and its 95 % interval.

  Raises:
    ValueError: no columns.
  """
  columns = as_columns(columns)
  head, body, numeric = _cells(rows, columns)
  widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

  def line(cells):
    places = zip(cells, widths, numeric, strict=True)
    return '  '.join(cell.rjust(width) if right else cell.ljust(width)
                     for cell, width, right in places).rstrip()

  rule = '  '.join('-' * width for width in widths)
  lines = [line(head), rule, *map(line, body)]
  return '\n'.join([title, *lines] if title else lines)


def markdown(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column]) -> str:
  """The same table as GitHub Markdown."""
  head, body, numeric = _cells(rows, as_columns(columns))
  rule = ['---:' if right else '---' for right in numeric]
  escaped = [[cell.replace('|', r'\|') for cell in cells]
             for cells in (head, *body)]
  return '\n'.join(f'| {" | ".join(cells)} |'
                   for cells in (escaped[0], rule, *escaped[1:]))


def to_csv(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column]) -> str:
  """Full precision, no percent; a metric takes columns key, _low and _high."""
  columns = as_columns(columns)
  table = [[find(row, column.key) for column in columns] for row in rows]
  is_metric = [any(map(_is_metric, column))
               for column in zip(*table, strict=True)] or [False] * len(columns)
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  spread = lambda column: [column.key + end for end in ('', '_low', '_high')]
  writer.writerow(
      name for column, wide in zip(columns, is_metric, strict=True)
      for name in (spread(column) if wide else [column.key]))
  for values in table:
    writer.writerow(
        cell for value, wide in zip(values, is_metric, strict=True)
        for cell in (_ends(value) if wide else [value]))
  return out.getvalue()


def write(
    path: str | os.PathLike, rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str | Column], *, note: str = '') -> pathlib.Path:
  """Writes .txt, .md or .csv, by the ending of `path`, all at once.

  Args:
    path: of the file.
    rows: of the table.
    columns: of the table.
    note: stands below, but in .csv.

  Raises:
    ValueError: another ending.
  """
  path = pathlib.Path(path)
  writers = {'.txt': render, '.md': markdown, '.csv': to_csv}
  if path.suffix not in writers:
    raise ValueError(
        f'`path` must end in {", ".join(writers)}, got {str(path)!r}.')
  text = writers[path.suffix](rows, columns)
  if note and path.suffix != '.csv':
    text = f'{text.rstrip()}\n\n{note}'
  path.parent.mkdir(parents=True, exist_ok=True)
  with records.replacing(path) as part:
    part.write_text(text.rstrip('\n') + '\n', encoding='utf-8')
  return path


def grid(rows: Sequence[Mapping[str, Any]],
         columns: Sequence[str | Column]) -> Grid:
  """The cells of `render`, value and interval apart."""
  columns = as_columns(columns)
  head, texts, numeric = _cells(rows, columns)
  body = [[_cell(find(row, column.key), text)
           for column, text in zip(columns, line, strict=True)]
          for row, line in zip(rows, texts, strict=True)]
  return Grid(head, body, numeric)


def _cell(value, text: str) -> Cell:
  metric = _is_metric(value)
  if not metric and not _is_number(value):
    return Cell(text)
  number = float(_ends(value)[0])
  shown, _, interval = text.partition(' ') if metric else (text, '', '')
  return Cell(shown, interval, number if math.isfinite(number) else None)


def as_columns(columns: Sequence[str | Column]) -> list[Column]:
  """Each as a `Column`.

  Raises:
    ValueError: no columns.
  """
  if isinstance(columns, str) or not columns:
    raise ValueError(f'`columns` must be a list of names, got {columns!r}.')
  return [Column(c, percent=c.endswith('accuracy')) if isinstance(c, str) else c
          for c in columns]


def _cells(rows, columns):
  """(head, body, which columns are numbers), all as strings."""
  table = [[find(row, column.key) for column in columns] for row in rows]
  body = [[_format(value, column) for value, column in zip(values, columns)]
          for values in table]
  numeric = [all(v is None or _is_metric(v) or _is_number(v) for v in column)
             for column in zip(*table, strict=True)] or [False] * len(columns)
  return [column.heading for column in columns], body, numeric


def find(row: Mapping[str, Any], key: str) -> Any:
  """The value of a column in a row, or None."""
  for place in (row, row.get('metrics') or {}, row.get('config') or {}):
    if key in place:
      return place[key]
  first, _, rest = key.partition('.')
  inner = row.get(first)
  return find(inner, rest) if rest and isinstance(inner, Mapping) else None


def _is_number(value) -> bool:
  return (isinstance(value, (int, float, np.number))
          and not isinstance(value, bool))


def _is_metric(value) -> bool:
  return all(hasattr(value, field) for field in records.Metric._fields) or (
      isinstance(value, Mapping) and set(records.Metric._fields) <= set(value))


def _ends(value) -> list:
  if isinstance(value, Mapping):
    return [value[field] for field in records.Metric._fields]
  if _is_metric(value):
    return [getattr(value, field) for field in records.Metric._fields]
  return [value, value, value]


def _format(value, column: Column) -> str:
  if value is None:
    return ''
  if _is_metric(value):
    ends = _ends(value)
    value, low, high = (_number(end, column) for end in ends)
    exact = ends[0] == ends[1] == ends[2]
    return value if exact else f'{value} [{low}, {high}]'
  return _number(value, column) if _is_number(value) else str(value)


def _number(value, column: Column) -> str:
  if column.percent:
    return f'{100 * value:.{1 if column.digits is None else column.digits}f}'
  if isinstance(value, (int, np.integer)):
    return str(value)
  return f'{value:.4g}' if column.digits is None else (
      f'{value:.{column.digits}f}')
