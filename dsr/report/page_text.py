"""What the HTML and the Markdown of a page share: anchors and code."""
from collections.abc import Sequence
import re
from typing import NamedTuple

SUMMARY, FACTS, NOTES = 'Answers in short', 'What was audited', 'Notes'
MEASURED = 'How this was measured'


class Outline(NamedTuple):
  """The anchors of a page's headings, in the order in which they stand."""

  title: str
  summary: str
  facts: str
  sections: Sequence[str]
  tables: Sequence[Sequence[str]]  # Of each section.
  notes: str


def outline(page) -> Outline:
  """The anchors that GitHub gives to headings: equal ones are numbered."""
  seen = {}

  def anchor(title):
    title = ' '.join(title.lower().split())
    slug = re.sub(r'[^\w\- ]', '', title).replace(' ', '-') or 'section'
    count = seen[slug] = seen.get(slug, -1) + 1
    return f'{slug}-{count}' if count else slug

  title, summary = anchor(page.title), anchor(SUMMARY)
  facts = anchor(FACTS) if page.facts else ''
  sections, inner = [], []
  for section in page.sections:
    sections.append(anchor(section.title))
    inner.append([anchor(table.title) for table in section.tables])
  notes = anchor(NOTES) if page.footnotes else ''
  return Outline(title, summary, facts, sections, inner, notes)


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
