"""Two audits side by side: what changed in each cell of their tables.

`experiments.audit --compare=out/a,out/b` reads the cells that both audits left
(`cells`), and nothing else, so that the data need not be there any more. Cells
of the same images are compared image by image, others as two samples.
"""
import pathlib
import time
from typing import Any, NamedTuple

from dsr.report import overview as overview_lib, page as page_lib, tables
from dsr.report.page import Section, Table
from dsr.runs import records, screen
from dsr.studies.audit import cells as cells_lib, overview, terms
from dsr.studies.audit.cells import QUESTIONS, Cell, Compared
from dsr.studies.distillation import evaluation

NAME = 'compare'  # Of what is written: .html, .md and .json.
_TABLE, _FLAGS = 'The second audit less the first', 'Flags that differ'
_NAMED = 5  # Changes in the answer; the table has them all.


class Audit(NamedTuple):
  """What an audit left."""

  folder: str
  record: dict[str, Any]
  cells: dict[tuple[str, str], Cell]
  titles: dict[str, str]  # Of its sets, by folder.


def run(config: Any) -> dict[str, Any]:
  """Compares, writes a page and a record, and returns its metrics.

  Args:
    config: of an audit: its `compare` and `workdir`.

  Raises:
    ValueError: `compare` does not name two finished audits of the same kind.
  """
  began = time.monotonic()
  one, other = _both(config.compare)
  tests = {key: test for key, cell in one.cells.items()
           if key in other.cells and (test := cells_lib.compare(
               key[1], other.cells[key], cell)) is not None}
  metrics = {f'{name}_{question}': test.difference
             for (name, question), test in tests.items()
             if test.difference.parts}
  records.write(config.workdir, config=config, name=NAME, metrics=metrics,
                wall_time=time.monotonic() - began, extra={
                    'audits': [one.record['command'], other.record['command']]})
  page = _page(one, other, tests)
  folder = pathlib.Path(config.workdir)
  paths = [page_lib.write_html(folder / f'{NAME}.html', page),
           page_lib.write_markdown(folder / f'{NAME}.md', page)]
  table = page.sections[0].tables[0]
  screen.show(tables.render(table.rows, table.columns, title=table.title), '',
              page.sections[0].answer, *(f'  {path}' for path in paths),
              sep='\n')
  return metrics


def _both(compare) -> list[Audit]:
  wanted = ('`compare` must name the workdirs of two finished runs of '
            'experiments.audit, with a comma between them, ')
  named = evaluation.names(compare)
  if len(named) != 2:
    raise ValueError(f'{wanted}got {compare!r}.')
  found = []
  for folder in named:
    try:
      record, cells = cells_lib.load(folder)
      if not record['command'].startswith('python -m experiments.audit'):
        raise ValueError(f'its command is {record["command"]}')
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(
          f'{wanted}got {compare!r}: {folder} has no cells of an audit; if one '
          'was made there, call its command again, which keeps what is '
          f'finished ({error}).') from error
    found.append(Audit(folder, record, cells, {
        row['set']: row['title'] for row in record['extra']['cells']}))
  if not set(found[0].titles) & set(found[1].titles):
    raise ValueError(f'{wanted}with a set of one name in both, got '
                     f'{sorted(found[0].titles)} and '
                     f'{sorted(found[1].titles)}.')
  return found


def _page(one, other, tests) -> page_lib.Page:
  section = _section(one, other, tests)
  rows = [overview_lib.Row(title, [
      _cell(question, one, other, tests, name) for question in QUESTIONS])
          for name, title in one.titles.items() if name in other.titles]
  return page_lib.Page(
      f'Two audits: {one.folder} and {other.folder}',
      'What changed from the first audit to the second, set by set and '
      'question by question.', [section], facts={
          f'{label} {name}': text for label, audit in (
              ('first', one), ('second', other)) for name, text in (
                  ('date', audit.record['date']),
                  ('versions', ', '.join(map(' '.join, audit.record[
                      'versions'].items()))),
                  ('command', audit.record['command']))},
      overview=overview_lib.Overview(
          'What changed', 'First → second; below it the change with its 95 % '
          'interval. ▲ better, ▼ worse: the interval leaves 0 out; ≈ cannot '
          f'tell: it holds 0. Each of the {len(tests)} marks is at 95 % by '
          f'itself: if nothing had changed, {len(tests) / 20:.2g} of them '
          'would be wrong on average.', overview.columns('set'), rows),
      glossary=terms.GLOSSARY)


def _cell(question, one, other, tests, name) -> overview_lib.Cell:
  key = name, question
  if key not in tests:
    where = [label for label, audit in (('first', one), ('second', other))
             if key in audit.cells]
    return overview_lib.Cell(
        text='no attack in common' if len(where) == 2 else
        f'in the {where[0]} alone' if where else 'not asked')
  test, column = tests[key], tables.Column(
      'x', percent=QUESTIONS[question].percent,
      digits=None if QUESTIONS[question].percent else 3)
  told = [tables.grid([{'x': value}], [column]).body[0][0].text
          for value in (test.b, test.a)]
  mark, note = overview.marked(question, test)
  if _same(one.cells[key], other.cells[key], test):
    mark, note = '', 'unchanged'
  return overview_lib.Cell(
      records.metric(*overview.ends(test.difference)), mark, note, _TABLE,
      ' → '.join(told))


def _same(one: Cell, other: Cell, test: Compared) -> bool:
  """Whether number and interval are the same, of the same images."""
  return test.paired and tuple(one.metric) == tuple(other.metric)


def _section(one, other, tests) -> Section:
  told = []
  for (name, question), test in tests.items():
    mark, _ = overview.marked(question, test)
    if test.difference.sign:
      told.append(f'{one.titles[name]}: {QUESTIONS[question].title} {mark}')
  more = len(told) - _NAMED
  answer = ('Of these differences the interval leaves 0 out: '
            + '; '.join(told[:_NAMED])
            + (f'; and {more} more' if more > 0 else '') + '.' if told else
            'No interval leaves 0 out: nothing was seen to change.')
  only = [f'only in {audit.folder}: {", ".join(names)}'
          for audit, others in ((one, other), (other, one))
          if (names := [title for name, title in audit.titles.items()
                        if name not in others.titles])]
  return Section(
      'In which cells?', ' '.join([answer, *(
          f'{text[0].upper()}{text[1:]}.' for text in only)]),
      'What changed may be the data, the sets, the flags or the version, see '
      'below: the test says that something did, not what.',
      [overview.differences_table(_TABLE, 'first', [
          ({'set': one.titles[name]}, question, test)
          for (name, question), test in tests.items()]),
       _flags(one, other)], short=answer)


def _flags(one, other) -> Table:
  """What the two commands, data and versions differ in."""
  rows = []
  for kind in ('config', 'contents', 'versions', 'device'):
    sides = [audit.record.get(kind, {}) for audit in (one, other)]
    rows += [{'flag': f'{kind}: {key}', 'first': str(sides[0].get(key)),
              'second': str(sides[1].get(key))}
             for key in dict.fromkeys([*sides[0], *sides[1]])
             if sides[0].get(key) != sides[1].get(key) and key != 'workdir']
  return Table(_FLAGS, ['flag', 'first', 'second'], rows,
               'Contents are digests of the data and sets.')
