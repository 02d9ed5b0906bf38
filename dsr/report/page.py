"""The report of an audit: one HTML file that needs no network, and Markdown.

One table at the top holds all things against all questions. Below, the page
answers each question in a sentence, says what the answer may not be taken to
mean, and shows the tables and figures it rests on. Values come in as plain
data; the page renders them and computes nothing.
"""
from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any, NamedTuple

from dsr.report import (
  overview as overview_lib,
  page_html,
  page_markdown,
  tables,
)
from dsr.runs import records

_PNG = b'\x89PNG\r\n\x1a\n'


class Table(NamedTuple):
  """Rows of numbers, each with its interval and the command that gives it.

  Attributes:
    title: stands above.
    columns: as in `dsr.report.tables`; the first one names the rows.
    rows: mappings or records; a row's `command` is the shell command that
      reproduces it.
    note: a sentence below, e.g. on units and on what the intervals cover.
    groups: (heading, number of columns) over neighbouring columns, all of them.
  """

  title: str
  columns: Sequence[str | tables.Column]
  rows: Sequence[Mapping[str, Any]]
  note: str = ''
  groups: Sequence[tuple[str, int]] = ()


class Picture(NamedTuple):
  """A PNG or SVG on disk, and what it shows.

  Attributes:
    path: of the file; the HTML embeds it, the Markdown links to it.
    caption: stands below.
    alt: what a reader who cannot see it is told; default: the caption.
    data: of a figure, a table of its numbers, or the title of a table of the
      same section that has them; None for images.
  """

  path: str | os.PathLike
  caption: str
  alt: str = ''
  data: Table | str | None = None


class Section(NamedTuple):
  """A question, its answer and what that rests on.

  Attributes:
    title: the question.
    answer: the plain sentence that answers it, with numbers.
    caution: what the answer may not be taken to mean.
    tables: of the numbers.
    pictures: of the numbers or the images.
    details: how it was measured; empty lines separate paragraphs.
    short: the answer on its card, at most two sentences; default: `answer`.
    threats: attack -> what its attacker knows and does, a line each.
  """

  title: str
  answer: str
  caution: str
  tables: Sequence[Table] = ()
  pictures: Sequence[Picture] = ()
  details: str = ''
  short: str = ''
  threats: Mapping[str, str] = {}


class Page(NamedTuple):
  """A report. In its texts, `backticks` make code; all else is literal.

  Attributes:
    title: of the whole.
    lead: what was audited, in a few sentences.
    sections: in order.
    facts: name to text: dataset, sizes, versions, device, date, command.
    footnotes: at the end, numbered.
    overview: the table at the top.
    glossary: term -> what it means; those that the page uses stand at its end,
      and are explained on hover.
  """

  title: str
  lead: str
  sections: Sequence[Section]
  facts: Mapping[str, str] = {}
  footnotes: Sequence[str] = ()
  overview: overview_lib.Overview | None = None
  glossary: Mapping[str, str] = {}


def write_html(path: str | os.PathLike, page: Page) -> pathlib.Path:
  """Writes the page as one file, pictures, styles and script inside.

  It opens from disk, is read without JavaScript and sorts with it; its content
  security policy keeps it from loading anything. Equal pages give equal bytes.

  Args:
    path: of the HTML; its folder is made if need be.
    page: what to show.

  Returns:
    `path`.

  Raises:
    ValueError: something is missing, or not what it should be; nothing is
      written then.
  """
  _check(page)
  return _write(path, page_html.render(page))


def write_markdown(path: str | os.PathLike, page: Page) -> pathlib.Path:
  """Writes the same content as GitHub Markdown, with links to the pictures.

  Args:
    path: of the Markdown; links are relative to its folder.
    page: what to show.

  Returns:
    `path`.

  Raises:
    ValueError: as in `write_html`.
  """
  _check(page)
  return _write(path, page_markdown.render(page, pathlib.Path(path).parent))


def _write(path, text: str) -> pathlib.Path:
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with records.replacing(path) as part:
    part.write_text(text, encoding='utf-8', newline='\n')
  return path


def _check(page) -> None:
  _check_texts('page', page, ('title', 'lead'))
  _check_list('page.sections', page.sections, Section)
  if not page.sections:
    raise ValueError('`page.sections` must not be empty.')
  for i, section in enumerate(page.sections):
    _check_section(f'page.sections[{i}]', section)
  if page.overview is not None:
    overview_lib.check(page.overview, [
        table.title for section in page.sections for table in section.tables])
    for i, table in enumerate(page.overview.data):
      _check_table(f'page.overview.data[{i}]', table)
  for field in ('facts', 'glossary'):
    for name, text in getattr(page, field).items():
      if not isinstance(text, str):
        raise ValueError(
            f'`page.{field}[{name!r}]` must be a text, got {text!r}.')


def _check_section(where, section) -> None:
  _check_texts(where, section, ('title', 'answer', 'caution'))
  _check_list(f'{where}.tables', section.tables, Table)
  _check_list(f'{where}.pictures', section.pictures, Picture)
  if not (section.tables or section.pictures or section.details.strip()):
    raise ValueError(
        f'`{where}` must have a table, a picture or details, got none.')
  for i, table in enumerate(section.tables):
    _check_table(f'{where}.tables[{i}]', table)
  for i, picture in enumerate(section.pictures):
    _check_picture(f'{where}.pictures[{i}]', picture)
    titles = [table.title for table in section.tables]
    if isinstance(picture.data, str) and picture.data not in titles:
      raise ValueError(f'`{where}.pictures[{i}].data` must be a table of the '
                       f'section, got {picture.data!r}.')
    if isinstance(picture.data, Table):
      _check_table(f'{where}.pictures[{i}].data', picture.data)


def _check_table(where, table) -> None:
  _check_texts(where, table, ('title',))
  if isinstance(table.columns, str) or not table.columns:
    raise ValueError(f'`{where}.columns` must be a list of names, got '
                     f'{table.columns!r}.')
  if isinstance(table.rows, (str, Mapping)):
    raise ValueError(f'`{where}.rows` must be a list of mappings, got '
                     f'{type(table.rows).__name__}.')
  for i, row in enumerate(table.rows):
    if not isinstance(row, Mapping):
      raise ValueError(f'`{where}.rows[{i}]` must be a mapping, got '
                       f'{type(row).__name__}.')
    command = row.get('command')
    if command is not None and not isinstance(command, str):
      raise ValueError(f'`{where}.rows[{i}]` must have a text as command, got '
                       f'{command!r}.')
  spans = [span for _, span in table.groups]
  if spans and sum(spans) != len(table.columns):
    raise ValueError(f'`{where}.groups` must span {len(table.columns)} '
                     f'columns, got {spans}.')


def _check_picture(where, picture) -> None:
  _check_texts(where, picture, ('caption',))
  path = pathlib.Path(picture.path)
  if path.suffix not in ('.png', '.svg'):
    raise ValueError(
        f'`{where}.path` must end in .png or .svg, got {str(path)!r}.')
  if not path.is_file():
    raise ValueError(f'`{where}.path` must be a file, got {str(path)!r}.')
  with path.open('rb') as file:
    start = file.read(512)
  if not (start.startswith(_PNG) if path.suffix == '.png'
          else start.lstrip().startswith((b'<?xml', b'<svg'))):
    raise ValueError(f'`{where}.path` must hold a picture, {path} does not.')


def _check_texts(where, value, fields) -> None:
  for field in fields:
    text = getattr(value, field)
    if not isinstance(text, str) or not text.strip():
      raise ValueError(f'`{where}.{field}` must be a text, got {text!r}.')


def _check_list(where, values, kind) -> None:
  if isinstance(values, (str, kind)) or not isinstance(values, Sequence):
    raise ValueError(f'`{where}` must be a list, got {values!r}.')
  for i, value in enumerate(values):
    if not isinstance(value, kind):
      raise ValueError(f'`{where}[{i}]` must be a {kind.__name__}, got '
                       f'{type(value).__name__}.')
