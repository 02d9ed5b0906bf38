"""The table at the top of a page: things by questions, marked by a test.

Each cell has a number with its interval, a mark that says by sign, word and
colour whether it is better than what it was tested against, and a link to the
table that it is from.
"""
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from dsr.report import tables

# Mark -> what stands before the word; it is told by sign, word and colour.
MARKS = {'better': '▲', 'worse': '▼', 'cannot tell': '≈', 'reference': '◆',
         '': ''}


class Cell(NamedTuple):
  """The answer to a question for one thing.

  Attributes:
    value: a metric, or None if the question was not asked.
    mark: of `MARKS`; '' for no comparison.
    note: a few words below, such as what would tell.
    evidence: title of the table of the page that has the number.
    text: shown in place of the value, which then stands before its interval.
  """

  value: Any = None
  mark: str = ''
  note: str = ''
  evidence: str = ''
  text: str = ''


class Row(NamedTuple):
  """A thing, and a cell for each question."""

  name: str
  cells: Sequence[Cell]


class Overview(NamedTuple):
  """Things by questions.

  Attributes:
    title: stands above.
    legend: what marks mean, and which test decided them.
    columns: of the questions; the first is that of the names.
    rows: the things.
    sentences: what follows from it, at most four.
    data: `page.Table`s of the differences behind the marks.
  """

  title: str
  legend: str
  columns: Sequence[tables.Column]
  rows: Sequence[Row]
  sentences: Sequence[str] = ()
  data: Sequence[Any] = ()


class Shown(NamedTuple):
  """A cell as letters; `value` is what to sort by."""

  text: str
  interval: str
  value: float | None
  sign: str
  mark: str
  note: str
  evidence: str


def shown(overview: Overview) -> tuple[list[str], list[list[Shown]]]:
  """Headings of the questions, and the cells of every row.

  Args:
    overview: a checked one.
  """
  columns = overview.columns[1:]
  body = []
  for row in overview.rows:
    cells = []
    for column, cell in zip(columns, row.cells, strict=True):
      found = tables.grid([{column.key: cell.value}], [column]).body[0][0]
      interval = f'{found.text} {found.interval}'.strip() if cell.text else (
          found.interval)
      cells.append(Shown(
          cell.text or found.text or 'not asked', interval, found.value,
          MARKS[cell.mark], cell.mark, cell.note, cell.evidence))
    body.append(cells)
  return [column.heading for column in columns], body


def check(overview: Overview, titles: Collection[str]) -> None:
  """Raises a ValueError for what is missing or leads nowhere.

  Args:
    overview: what to check; its `data` are the page's to check.
    titles: of the tables of the page.
  """
  for field in ('title', 'legend'):
    text = getattr(overview, field)
    if not isinstance(text, str) or not text.strip():
      raise ValueError(f'`page.overview.{field}` must be a text, got {text!r}.')
  if len(overview.columns) < 2 or not overview.rows:
    raise ValueError('`page.overview` must have questions and rows, got '
                     f'{len(overview.columns)} columns and '
                     f'{len(overview.rows)} rows.')
  if len(overview.sentences) > 4:
    raise ValueError('`page.overview.sentences` must be at most 4, got '
                     f'{len(overview.sentences)}.')
  for i, row in enumerate(overview.rows):
    if len(row.cells) != len(overview.columns) - 1:
      raise ValueError(
          f'`page.overview.rows[{i}]` must have {len(overview.columns) - 1} '
          f'cells, got {len(row.cells)}.')
    for cell in row.cells:
      if cell.mark not in MARKS:
        raise ValueError(f'`page.overview.rows[{i}]` must have marks of '
                         f'{list(MARKS)}, got {cell.mark!r}.')
      if cell.evidence and cell.evidence not in titles:
        raise ValueError(f'`page.overview.rows[{i}]` must link to tables of '
                         f'the page, got {cell.evidence!r}.')
