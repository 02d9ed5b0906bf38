"""A page as GitHub Markdown."""
import os
import pathlib
import re
from urllib import parse

from dsr.report import overview as overview_lib, page_text, tables


def render(page, folder: str | os.PathLike) -> str:
  """The text of `page` (a checked `page.Page`).

  Args:
    page: what to show.
    folder: to which links are relative.

  Returns:
    Markdown that ends in a newline.
  """
  anchors = page_text.outline(page)
  blocks = [f'# {_text(page.title)}',
            *map(_text, page_text.paragraphs(page.lead))]
  if page.overview:
    blocks += _overview(page.overview, anchors)
  blocks += [f'## {page_text.SUMMARY}', '\n'.join(
      f'- [{_label(section.title)}](#{anchor}) {_text(page_text.card(section))}'
      for section, anchor in zip(page.sections, anchors.sections))]
  if page.facts:
    blocks += [f'## {page_text.FACTS}', '\n'.join(
        f'- {_text(name)}: '
        f'{_code(fact) if page_text.is_command(name) else _text(fact)}'
        for name, fact in page.facts.items())]
  for section in page.sections:
    blocks += _section(section, pathlib.Path(folder), anchors)
  if page.footnotes:
    blocks += [f'## {page_text.NOTES}', '\n'.join(
        f'{i}. {_text(note)}' for i, note in enumerate(page.footnotes, 1))]
  if glossary := page_text.used(page):
    blocks += [f'## {page_text.GLOSSARY}', _list(glossary)]
  return '\n\n'.join(blocks) + '\n'


def _overview(overview, anchors) -> list[str]:
  head, body = overview_lib.shown(overview)
  names = [overview.columns[0].heading, *head]
  rows = [dict(zip(names, [_text(row.name), *(
      _overview_cell(cell, anchors) for cell in cells)]))
          for row, cells in zip(overview.rows, body)]
  blocks = [f'## {_text(overview.title)}', _text(overview.legend),
            tables.markdown(rows, [
                tables.Column(name, _text(name)) for name in names]),
            *map(_text, overview.sentences)]
  for table in overview.data:
    blocks += _folded(_text(table.title), table)
  return blocks


def _overview_cell(cell, anchors) -> str:
  text = _label(f'{cell.text} {cell.interval}'.strip())
  if cell.evidence:
    text = f'[{text}](#{anchors.links[cell.evidence]})'
  return ' '.join(filter(None, (
      text, cell.sign, cell.mark, f'({_text(cell.note)})' * bool(cell.note))))


def _folded(summary, table) -> list[str]:
  """A table that opens on a click; its title makes no anchor."""
  return [f'<details><summary>{summary}</summary>',
          *_table(table, commands=False)[1:], '</details>']


def _list(texts) -> str:
  return '\n'.join(
      f'- **{_text(name)}**: {_text(text)}' for name, text in texts.items())


def _section(section, folder, anchors) -> list[str]:
  blocks = [f'## {_text(section.title)}', f'**{_text(section.answer)}**',
            f'> Caution: {_text(section.caution)}']
  for table in section.tables:
    blocks += _table(table)
  for picture in section.pictures:
    link = parse.quote(pathlib.Path(os.path.relpath(
        picture.path, folder)).as_posix())
    numbers = ''
    if isinstance(picture.data, str):
      numbers = f' [{page_text.DATA}](#{anchors.links[picture.data]}).'
    blocks += [f'![{_label(picture.alt or picture.caption)}]({link})',
               f'*{_text(picture.caption)}*{numbers}']
    if picture.data and not numbers:
      blocks += _folded(page_text.DATA, picture.data)
  if section.threats:
    blocks += [f'**{page_text.THREATS}**', _list(section.threats)]
  if details := page_text.paragraphs(section.details):
    blocks += [f'<details><summary>{page_text.MEASURED}</summary>',
               *map(_text, details), '</details>']
  return blocks


def _table(table, commands=True) -> list[str]:
  columns = tables.as_columns(table.columns)
  names = [heading for heading, span in table.groups for _ in range(span)]
  shown = [
      column._replace(title=_text(_joined(name, column)))
      for name, column in zip(names or [''] * len(columns), columns)]
  rows = [{column.key: _value(tables.find(row, column.key))
           for column in columns} for row in table.rows]
  blocks = [f'### {_text(table.title)}',
            tables.markdown(rows, shown) if rows else 'No rows.']
  if table.note:
    blocks.append(_text(table.note))
  body = tables.grid(table.rows, columns).body
  own = [(cells[0].text, row['command'])
         for cells, row in zip(body, table.rows) if row.get('command')]
  if own and commands:
    blocks += ['<details><summary>Commands</summary>', _fence('\n'.join(
        f'# {" ".join(name.split())}\n{command.strip()}'
        for name, command in own)), '</details>']
  return blocks


def _joined(group: str, column) -> str:
  title = column.title or column._replace(percent=False).heading
  return f'{group}: {title}' if group else title


def _value(value):
  return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
  """On one line, with what Markdown would read as markup escaped."""
  return ' '.join(''.join(
      _code(piece) if code else re.sub(
          r'([\\*<~]|\](?=\()|(?<![^\W_])_|_(?![^\W_]))', r'\\\1', piece)
      for code, piece in page_text.spans(text)).split())


def _label(text: str) -> str:
  """As the text of a link."""
  return re.sub(r'(?<!\\)([\[\]])', r'\\\1', _text(text))


def _code(text: str) -> str:
  ticks = '`' * (1 + max(map(len, re.findall('`+', text)), default=0))
  edge = ' ' if '`' in text else ''
  return f'{ticks}{edge}{text}{edge}{ticks}'


def _fence(text: str) -> str:
  longest = max(map(len, re.findall('`+', text)), default=0)
  ticks = '`' * max(3, longest + 1)
  return f'{ticks}sh\n{text}\n{ticks}'
