"""What the HTML and the Markdown of a page share: anchors and code."""
from collections.abc import Mapping, Sequence
import re
from typing import NamedTuple

SUMMARY, FACTS, NOTES = 'Answers in short', 'What was audited', 'Notes'
MEASURED = 'How this was measured'
THREATS, GLOSSARY = 'What each attacker knows', 'Glossary'
DATA, DIFFERENCES = 'Numbers of this figure', 'The differences behind the marks'


class Outline(NamedTuple):
  """The anchors of a page's headings, in the order in which they stand."""

  title: str
  summary: str
  facts: str
  sections: Sequence[str]
  tables: Sequence[Sequence[str]]  # Of each section.
  notes: str
  overview: str
  glossary: str
  links: Mapping[str, str]  # Title of a table -> its anchor, the first one.
  data: Sequence[Sequence[str]]  # Of each section's pictures, in HTML alone.
  differences: Sequence[str]  # Of the overview's data, in HTML alone.


def outline(page) -> Outline:
  """The anchors that GitHub gives to headings: equal ones are numbered."""
  seen = {}

  def anchor(title):
    title = ' '.join(title.lower().split())
    slug = re.sub(r'[^\w\- ]', '', title).replace(' ', '-') or 'section'
    count = seen[slug] = seen.get(slug, -1) + 1
    return f'{slug}-{count}' if count else slug

  title = anchor(page.title)
  overview = anchor(page.overview.title) if page.overview else ''
  summary = anchor(SUMMARY)
  facts = anchor(FACTS) if page.facts else ''
  sections, inner, links = [], [], {}
  for section in page.sections:
    sections.append(anchor(section.title))
    inner.append([anchor(table.title) for table in section.tables])
    for table, own in zip(section.tables, inner[-1]):
      links.setdefault(table.title, own)
  notes = anchor(NOTES) if page.footnotes else ''
  glossary = anchor(GLOSSARY) if used(page) else ''
  data = [[anchor(f'{section.title} {DATA}') for _ in section.pictures]
          for section in page.sections]
  differences = [anchor(table.title) for table in page.overview.data
                 ] if page.overview else []
  return Outline(title, summary, facts, sections, inner, notes, overview,
                 glossary, links, data, differences)


def card(section) -> str:
  """The answer to a section's question, as short as there is one."""
  return section.short or section.answer


def terms(glossary: Mapping[str, str]) -> re.Pattern | None:
  """Finds the terms, the longest first; None without any."""
  if not glossary:
    return None
  names = sorted(glossary, key=len, reverse=True)
  return re.compile(rf'(?<![\w-])({"|".join(map(re.escape, names))})(?![\w-])')


def used(page) -> dict[str, str]:
  """The terms of the glossary that occur in the texts of the page."""
  pattern = terms(page.glossary)
  if pattern is None:
    return {}
  found = {match for text in _texts(page) for code, piece in spans(text)
           if not code for match in pattern.findall(piece)}
  return {name: text for name, text in sorted(
      page.glossary.items(), key=lambda item: item[0].lower()) if name in found}


def _texts(page):
  """What is prose on the page, without names and cells."""
  shown = [page.lead, *page.footnotes]
  if page.overview:
    shown += [page.overview.legend, *page.overview.sentences,
              *(column.heading for column in page.overview.columns)]
  for section in page.sections:
    shown += [section.answer, section.short, section.caution, section.details,
              *section.threats, *section.threats.values()]
    shown += [picture.caption for picture in section.pictures]
    for table in section.tables:
      shown += [table.note, *(heading for heading, _ in table.groups),
                *(c if isinstance(c, str) else c.heading
                  for c in table.columns)]
  return shown


def spans(text: str) -> list[tuple[bool, str]]:
  """`text` in pieces, each told whether it stood between two backticks."""
  pieces = re.split(r'`([^`\n]+)`', text)
  return [(bool(i % 2), piece) for i, piece in enumerate(pieces) if piece]


def paragraphs(text: str) -> list[str]:
  """The parts of `text` between empty lines, each on one line."""
  parts = re.split(r'\n\s*\n', text)
  return [' '.join(part.split()) for part in parts if part.strip()]


def is_command(name: str) -> bool:
  """Whether the fact of this name is shown as code."""
  return name.lower().endswith('command')
