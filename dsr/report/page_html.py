"""A page as one HTML file: the template, with pictures and styles inside."""
import base64
import functools
import hashlib
import pathlib
import re
import struct
from typing import NamedTuple

from dsr.report import overview, page_text, tables

_TEMPLATES = pathlib.Path(__file__).parent / 'templates'
_TYPES = {'.png': 'image/png', '.svg': 'image/svg+xml'}
_WIDE = 2.2  # Pictures of this ratio of sides take the whole width.
_IN_A_ROW = 4  # Cards.
_LONG = 500  # Rows beyond which sections are laid out as they are reached.


class Image(NamedTuple):
  """An embedded picture, and whether it is far wider than high."""

  uri: str
  wide: bool


def render(page) -> str:
  """The HTML of `page` (a checked `page.Page`), escaped by the template."""
  import jinja2
  import markupsafe

  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True,
      undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
      keep_trailing_newline=True)
  environment.filters |= {
      'code': _code, 'embed': embed, 'paragraphs': page_text.paragraphs,
      'prose': functools.partial(_prose, page.glossary)}
  environment.globals |= {
      'card': page_text.card, 'grid': tables.grid, 'shown': overview.shown,
      'is_command': page_text.is_command}
  script = (_TEMPLATES / 'audit.js').read_text('utf-8')
  count = len(page.sections)
  rows = -(-count // _IN_A_ROW)
  return environment.get_template('audit.html.j2').render(
      page=page, anchors=page_text.outline(page), words=page_text,
      glossary=page_text.used(page), long=_rows(page) > _LONG,
      across=-(-count // rows), script=markupsafe.Markup(script),
      script_hash=_digest(script),
      style=markupsafe.Markup((_TEMPLATES / 'audit.css').read_text('utf-8')))


def _rows(page) -> int:
  return sum(len(table.rows) for section in page.sections
             for table in section.tables)


def _code(text: str):
  """Escaped, with <code> for what stood between backticks."""
  from markupsafe import Markup, escape

  return Markup('').join(
      Markup('<code>{}</code>').format(piece) if code else escape(piece)
      for code, piece in page_text.spans(text))


def _prose(glossary, text: str):
  """As `_code`, with terms explained on hover where they stand first."""
  from markupsafe import Markup, escape

  pattern, seen, pieces = page_text.terms(glossary), set(), []
  for code, piece in page_text.spans(text):
    if code or pattern is None:
      pieces.append(_code(f'`{piece}`') if code else escape(piece))
      continue
    for i, part in enumerate(pattern.split(piece)):  # Text, term, text, ...
      if i % 2 and part not in seen:
        seen.add(part)
        part = Markup('<abbr title="{}">{}</abbr>').format(
            glossary[part], part)
      pieces.append(escape(part))
  return Markup('').join(pieces)


def embed(path) -> Image:
  """The picture at `path` as a data URI; scripts in an SVG do not run so."""
  path = pathlib.Path(path)
  data = path.read_bytes()
  uri = (f'data:{_TYPES[path.suffix]};base64,'
         f'{base64.b64encode(data).decode("ascii")}')
  return Image(uri, _ratio(path.suffix, data) >= _WIDE)


def _ratio(suffix: str, data: bytes) -> float:
  """Width / height as the file says, or 1."""
  if suffix == '.png':
    width, height = struct.unpack('>II', data[16:24])
  else:
    box = re.search(rb'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', data)
    width, height = map(float, box.groups()) if box else (1, 1)
  return width / height


def _digest(text: str) -> str:
  """What a content security policy calls an inline script by."""
  digest = hashlib.sha256(text.encode('utf-8')).digest()
  return f'sha256-{base64.b64encode(digest).decode("ascii")}'
