"""The page as HTML and as Markdown: what is said, escaped and never halved."""
import base64
import hashlib
import html
import os
import pathlib
import re
from urllib import parse

import numpy as np
import pytest

from dsr.report import figures, page, page_html, tables
from dsr.runs import records

EVIL = '<script>alert("1")</script>'
SVG = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 30 10">'
       '<text>a</text></svg>')
ROWS = [
    {'set': 'kip', 'accuracy': records.Metric(0.855, 0.848, 0.862),
     'rmse': 0.0123456, 'command': "python -m run --name='a b'"},
    {'set': 'all', 'accuracy': records.Metric(1.0, 1.0, 1.0), 'rmse': None},
]
COLUMNS = ['set', 'accuracy', tables.Column('rmse', 'RMSE')]


@pytest.fixture
def make(tmp_path):
  """A small page, with fields of its section and its table replaced."""
  picture = tmp_path / 'in here' / 'a b.svg'
  picture.parent.mkdir()
  picture.write_text(SVG)
  grid = figures.image_grid(tmp_path / 'grid.png', np.zeros((1, 2, 2, 2, 1)))

  def make(section=None, table=None, **fields):
    tabled = page.Table('Scores', COLUMNS, ROWS, note='Means.')._replace(
        **table or {})
    asked = page.Section(
        'Is it good?', 'It is right on 85.5 %.', 'Not on `cifar10`.',
        tables=[tabled], pictures=[page.Picture(picture, 'A curve.'),
                                   page.Picture(grid, 'Images.', 'Two dots.')],
        details='One.\n\nTwo.')._replace(**section or {})
    return page.Page('An audit', 'What it is.', [asked], facts={
        'dataset': 'digits', 'command': 'python -m audit --a=*'},
        footnotes=['At 95 %.'])._replace(**fields)

  return make


def _html(tmp_path, made):
  return page.write_html(tmp_path / 'report.html', made).read_text('utf-8')


def _markdown(tmp_path, made):
  return page.write_markdown(tmp_path / 'report.md', made).read_text('utf-8')


def test_html_says_every_text_and_number(tmp_path, make):
  text = _html(tmp_path, make())
  for snippet in (
      '<html lang="en">', '<title>An audit</title>', '<p class="lead">What it',
      '<h2 id="is-it-good">Is it good?</h2>', '<a href="#is-it-good">Is it',
      '<p class="answer">It is right on 85.5 %.</p>',
      '</strong> Not on <code>cifar10</code>.</p>', '<h3 id="scores">Scores',
      '<th scope="col" class="number">accuracy (%)</th>',
      '<th scope="row"><span class="value">kip</span>',
      '<td class="number" data-value="0.855"><span class="value">85.5</span> '
      '<span class="interval">[84.8, 86.2]</span>',
      'data-value="1.0"><span class="value">100.0</span></td>',
      'data-value="0.0123456"><span class="value">0.01235</span></td>',
      '<td class="number"><span class="value"></span></td>',
      '<p class="note">Means.</p>', 'alt="A curve."', 'alt="Two dots."',
      '<figcaption>Images.</figcaption>', '<p>One.</p>\n<p>Two.</p>',
      '<dt>dataset</dt><dd>digits</dd>', '<li>At 95 %.</li>',
  ):
    assert snippet in text, snippet
  assert text.count('<tr class="command"') == 1
  commands = [html.unescape(re.sub('<[^>]+>', '', code))
              for code in re.findall('<pre>(.*?)</pre>', text)]
  assert commands == ['python -m audit --a=*', "python -m run --name='a b'"]


def test_html_holds_its_pictures_and_asks_for_nothing_else(tmp_path, make):
  text = _html(tmp_path, make())
  sources = re.findall(r'<img src="data:(.*?);base64,(.*?)"', text)
  assert [kind for kind, _ in sources] == ['image/svg+xml', 'image/png']
  assert base64.b64decode(sources[0][1]).decode() == SVG
  assert base64.b64decode(sources[1][1]) == (tmp_path / 'grid.png').read_bytes()
  assert 'http' not in text.replace('http-equiv', '')
  assert not re.search(r'(src|href)="(?!data:|#)', text)
  assert '@import' not in text
  assert 'url(' not in text
  (script,) = re.findall('<script>(.*?)</script>', text, re.S)
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  assert f"script-src 'sha256-{digest}'" in text
  assert "default-src 'none'" in text
  assert text.count('<figure class="wide">') == 1  # 30 x 10.


def test_names_are_text_wherever_they_stand(tmp_path, make):
  evil = make(
      section=dict(title=EVIL, answer=EVIL, caution=EVIL, details=EVIL),
      table=dict(title=EVIL, note=EVIL, groups=[(EVIL, 3)], columns=[
          tables.Column('set', EVIL), 'accuracy', 'rmse'], rows=[
              {'set': EVIL, 'accuracy': None, 'rmse': EVIL, 'command': EVIL}]),
      title=EVIL, lead=f'`{EVIL}`', facts={EVIL: EVIL, 'command': EVIL},
      footnotes=[EVIL])
  evil = evil._replace(sections=[evil.sections[0]._replace(pictures=[
      page.Picture(tmp_path / 'grid.png', EVIL + '" onerror="x')])])
  text = _html(tmp_path, evil)
  assert text.count('<script') == 1
  assert text.count('</script') == 1
  assert ' onerror="' not in text
  assert text.count('&lt;script&gt;alert(') >= 20
  prose = re.sub('```.*?```|`[^`\n]*`', '', _markdown(tmp_path, evil),
                 flags=re.S)
  assert r'\<script>alert("1")\</script>' in prose
  assert not re.search(r'(?<!\\)<(?!/?(details|summary)>)', prose)


def test_equal_pages_give_equal_bytes(tmp_path, make):
  for write, name in ((page.write_html, 'html'), (page.write_markdown, 'md')):
    first = write(tmp_path / f'1.{name}', make()).read_bytes()
    assert first == write(tmp_path / f'2.{name}', make()).read_bytes()
    other = write(tmp_path / f'3.{name}', make(title='Another'))
    assert first != other.read_bytes()


@pytest.mark.parametrize('write', [page.write_html, page.write_markdown])
def test_a_failure_leaves_the_old_report_and_no_rubbish(
    tmp_path, make, monkeypatch, write):
  path = tmp_path / 'new' / 'report'
  write(path, make())
  old = path.read_bytes()
  with pytest.raises(ValueError, match='`page.title`'):
    write(path, make(title=''))

  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='disk full'):
    write(path, make(title='Another'))
  assert path.read_bytes() == old
  assert os.listdir(path.parent) == ['report']


def test_markdown(tmp_path, make):
  assert _markdown(tmp_path, make()) == r'''# An audit

What it is.

## Answers in short

- [Is it good?](#is-it-good) It is right on 85.5 %.

## What was audited

- dataset: digits
- command: `python -m audit --a=*`

## Is it good?

**It is right on 85.5 %.**

> Caution: Not on `cifar10`.

### Scores

| set | accuracy (%) | RMSE |
| --- | ---: | ---: |
| kip | 85.5 [84.8, 86.2] | 0.01235 |
| all | 100.0 |  |

Means.

<details><summary>Commands</summary>

```sh
# kip
python -m run --name='a b'
```

</details>

![A curve.](in%20here/a%20b.svg)

*A curve.*

![Two dots.](grid.png)

*Images.*

<details><summary>How this was measured</summary>

One.

Two.

</details>

## Notes

1. At 95 %.
'''


def test_markdown_links_lead_to_the_pictures_from_any_folder(tmp_path, make):
  path = page.write_markdown(tmp_path / 'x' / 'y' / 'report.md', make())
  links = re.findall(r'!\[.*?\]\((.*?)\)', path.read_text())
  assert links == ['../../in%20here/a%20b.svg', '../../grid.png']
  for link in links:
    assert (path.parent / parse.unquote(link)).is_file()


def test_markdown_escapes_markup_but_not_code_or_intervals(tmp_path, make):
  text = _markdown(tmp_path, make(section=dict(
      answer='a*b* _c_ d_e ~f [1, 2] [x](y) `g*h`'), table=dict(
          rows=[{'set': 'a|b', 'command': 'echo ```'}])))
  assert r'**a\*b\* \_c\_ d_e \~f [1, 2] [x\](y) `g*h`**' in text
  assert r'| a\|b |  |  |' in text
  assert '````sh\n# a|b\necho ```\n````' in text


def test_anchors_are_those_of_github(tmp_path, make):
  one = make().sections[0]
  twice = make(sections=[one, one._replace(title='Scores'), one._replace(
      title='Überlauf: 5 % (k-center)')])
  ids = ['is-it-good', 'scores-1', 'überlauf-5--k-center']
  markdown = _markdown(tmp_path, twice)
  assert re.findall(r'\]\(#(.*?)\)', markdown) == ids
  text = _html(tmp_path, twice)
  assert re.findall(r'<h2 id="(.*?)">', text)[2:5] == ids
  found = re.findall(r' id="(.*?)"', text)
  assert len(found) == len(set(found))
  for link in re.findall(r'(?:href="#|aria-controls="|labelledby=")(.*?)"',
                         text):
    assert link in found


def test_groups_stand_over_their_columns(tmp_path, make):
  made = make(table=dict(groups=[('', 1), ('scores', 2)]))
  text = _html(tmp_path, made)
  assert '<th scope="colgroup" colspan="2">scores</th>' in text
  assert ('| set | scores: accuracy (%) | scores: RMSE |'
          in _markdown(tmp_path, made))


def test_numbers_that_are_not_finite_are_shown_and_not_sorted_by(
    tmp_path, make):
  text = _html(tmp_path, make(table=dict(rows=[
      {'set': 'a', 'accuracy': float('nan'), 'rmse': float('inf')}])))
  assert '<td class="number"><span class="value">nan</span>' in text
  assert '<td class="number"><span class="value">inf</span>' in text


def test_tables_may_have_no_rows_and_sections_no_pictures(tmp_path, make):
  made = make(table=dict(rows=[]), section=dict(pictures=()), facts={},
              footnotes=())
  text = _html(tmp_path, made)
  assert '<p class="note">No rows.</p>' in text
  assert 'What was audited' not in text
  assert '<figure' not in text
  assert 'No rows.' in _markdown(tmp_path, made)


@pytest.mark.parametrize(('count', 'across'), [
    (1, 1), (2, 2), (4, 4), (5, 3), (8, 4), (9, 3)])
def test_cards_fill_their_rows(tmp_path, make, count, across):
  one = make().sections[0]._replace(tables=(), pictures=())
  assert (f'<ul class="cards across-{across}">'
          in _html(tmp_path, make(sections=[one] * count)))


def test_templates_ship_with_the_package():
  folder = pathlib.Path(page_html.__file__).parent / 'templates'
  assert sorted(os.listdir(folder)) == [
      'audit.css', 'audit.html.j2', 'audit.js', 'parts.html.j2']


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    (dict(title=' '), "`page.title` must be a text, got ' '"),
    (dict(lead=None), '`page.lead` must be a text, got None'),
    (dict(sections=[]), '`page.sections` must not be empty'),
    (dict(sections=['a']), r'`page.sections\[0\]` must be a Section, got str'),
    (dict(facts={'a': 1}), r"`page.facts\['a'\]` must be a text, got 1"),
    (dict(section=dict(answer='')), r'`page.sections\[0\].answer` must be a'),
    (dict(section=dict(caution='')), r'`page.sections\[0\].caution` must be'),
    (dict(section=dict(tables=(), pictures=(), details=' ')),
     r'`page.sections\[0\]` must have a table, a picture or details'),
    (dict(section=dict(tables=page.Table('a', ['b'], []))),
     r'`page.sections\[0\].tables` must be a list'),
    (dict(section=dict(tables=[{}])), r'tables\[0\]` must be a Table, got di'),
    (dict(table=dict(rows=[ROWS[0], 'a'])),
     r'`page.sections\[0\].tables\[0\].rows\[1\]` must be a mapping, got str'),
    (dict(table=dict(rows=ROWS[0])), r'rows` must be a list of mappings, got'),
    (dict(table=dict(rows=[{'command': ['ls']}])), r"text as command, got \['"),
    (dict(table=dict(columns=[])), r'tables\[0\].columns` must be a list of'),
    (dict(table=dict(columns='set')), "must be a list of names, got 'set'"),
    (dict(table=dict(groups=[('a', 2)])), r'must span 3 columns, got \[2\]'),
    (dict(section=dict(pictures=[page.Picture('no.png', 'a')])),
     r"pictures\[0\].path` must be a file, got 'no.png'"),
    (dict(section=dict(pictures=[page.Picture('a.gif', 'a')])),
     r"pictures\[0\].path` must end in .png or .svg, got 'a.gif'"),
    (dict(section=dict(pictures=[page.Picture('a.png', '')])),
     r'pictures\[0\].caption` must be a text'),
])
def test_what_is_missing_is_named_before_anything_is_written(
    tmp_path, make, fields, message):
  for write in (page.write_html, page.write_markdown):
    with pytest.raises(ValueError, match=message):
      write(tmp_path / 'out' / 'report', make(**fields))
  assert not (tmp_path / 'out').exists()


@pytest.mark.errors
def test_a_picture_must_hold_one(tmp_path, make):
  for name in ('a.png', 'a.svg'):
    path = tmp_path / name
    path.write_text('nothing')
    with pytest.raises(ValueError, match='must hold a picture'):
      page.write_html(tmp_path / 'a.html', make(
          section=dict(pictures=[page.Picture(path, 'a')])))


def _luminance(color):
  rgb = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
            for v in rgb]
  return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_colours_of_text_stand_out_in_both_modes(mode):
  """WCAG 2 AA: 4.5 for text; on the paper and on the background of code."""
  style = (pathlib.Path(page.__file__).parent / 'templates' / 'audit.css'
           ).read_text()
  light, dark = re.findall(r':root \{(.*?)\}', style, re.DOTALL)[:2]
  colors = dict(re.findall(
      r'--(\w+): (#\w+);', light if mode == 'light' else dark))
  colors = {name: c if len(c) == 7 else '#' + ''.join(2 * x for x in c[1:])
            for name, c in colors.items() if len(c) in (4, 7)}
  for text, ground in (('ink', 'paper'), ('soft', 'paper'), ('link', 'paper'),
                       ('ink', 'pale')):
    high, low = sorted((_luminance(colors[name]) for name in (text, ground)),
                       reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_navigation_lies_above_every_heading_that_sticks():
  style = (pathlib.Path(page.__file__).parent / 'templates' / 'audit.css'
           ).read_text()
  nav = int(re.search(r'nav \{[^}]*z-index: (\d+)', style)[1])
  others = [int(z) for rule, z in re.findall(
      r'([^{}]*)\{[^{}]*z-index: (\d+)', style)
            if 'nav' not in rule and '.skip' not in rule]
  assert others
  assert nav > max(others)
