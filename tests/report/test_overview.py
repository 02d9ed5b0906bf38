"""The table at the top, the glossary and tables of figures, as text."""
import re

import pytest

from dsr.report import overview, page, tables
from dsr.runs import records

METRIC = records.Metric(0.9, 0.85, 0.95)
COLUMNS = [tables.Column('set'), tables.Column('good', 'accuracy', True),
           tables.Column('leaks', 'AUC', digits=3)]
ROWS = [
    overview.Row('a|b', [overview.Cell(METRIC, 'better', '', 'Scores'),
                         overview.Cell()]),
    overview.Row('<c>', [
        overview.Cell(METRIC, 'cannot tell', 'about 90 images', 'Scores'),
        overview.Cell(records.Metric(0.1, 0.0, 0.2), 'worse', '', 'Scores',
                      '0.4 → 0.5')])]


def make(rows=ROWS, sentences=('It is LiRA.',), **fields):
  """A page with an overview; `fields` are of its table."""
  asked = page.Section(
      'Is it good?', 'Yes, by LiRA. The AUC is high.', 'No AUC-like `AUC`.',
      [page.Table('Scores', ['set', 'x'], [{'set': 'a', 'command': 'run'}])],
      short='Yes.', threats={'LiRA': 'Knows it all.'})
  return page.Page('A', 'B', [asked], glossary={
      'AUC': 'Area <1>.', 'LiRA': 'Ratio "of" likelihoods.', 'KIP': 'None.'},
      overview=overview.Overview(**dict(
          title='At a glance', legend='By the AUC.', columns=COLUMNS,
          rows=rows, sentences=sentences,
          data=[page.Table('Differences', ['set'], [{'set': 'z'}])]) | fields))


def _texts(tmp_path, made):
  return [write(tmp_path / 'report', made).read_text('utf-8')
          for write in (page.write_html, page.write_markdown)]


def test_cells_have_number_interval_mark_and_link(tmp_path):
  html, markdown = _texts(tmp_path, make())
  assert ('<td class="number better" data-value="0.9"><a href="#scores">'
          '<span class="value">90.0</span></a> <span class="interval">'
          '[85.0, 95.0]</span> <span class="mark">▲ better</span>') in html
  assert ('<span class="mark">≈ cannot tell</span> '
          '<span class="need">about 90 images</span>') in html
  assert '<span class="value none">not asked</span>' in html
  assert ('<span class="value">0.4 → 0.5</span></a> '
          '<span class="interval">0.100 [0.000, 0.200]</span>') in html
  assert html.index('At a glance</h2>') < html.index('Answers in short</h2>')
  assert '<p>Yes.</p>' in html  # The card.
  assert '&lt;c&gt;' in html
  assert (r'| a\|b | [90.0 \[85.0, 95.0\]](#scores) ▲ better | not asked |'
          ) in markdown
  assert '≈ cannot tell (about 90 images)' in markdown
  assert '- [Is it good?](#is-it-good) Yes.' in markdown
  assert ('<details><summary>Differences</summary>\n\n'
          '| set |') in markdown


def test_terms_are_explained_once_a_text_and_listed_if_used(tmp_path):
  html, markdown = _texts(tmp_path, make())
  answer = re.search('<p class="answer">(.*?)</p>', html)[1]
  assert answer == (
      'Yes, by <abbr title="Ratio &#34;of&#34; likelihoods.">LiRA</abbr>. The '
      '<abbr title="Area &lt;1&gt;.">AUC</abbr> is high.')
  # Neither a part of a word nor code is a term.
  assert 'No AUC-like <code>AUC</code>.' in html
  assert re.findall('<dfn>(.*?)</dfn>', html) == ['AUC', 'LiRA']
  assert '## Glossary\n\n- **AUC**: Area \\<1>.\n- **LiRA**: Ratio' in markdown
  assert 'KIP' not in html
  assert '**What each attacker knows**\n\n- **LiRA**: Knows it all.' in markdown


def test_figures_have_their_numbers(tmp_path):
  picture = tmp_path / 'a.svg'
  picture.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
  made = make()
  section = made.sections[0]._replace(pictures=[
      page.Picture(picture, 'One.', data='Scores'),
      page.Picture(picture, 'Two.', data=page.Table(
          'Curve', ['set'], [{'set': 'c', 'command': 'run'}]))])
  html, markdown = _texts(tmp_path, made._replace(sections=[section]))
  assert 'One. <a href="#scores">Numbers of this figure</a>.' in html
  assert '<details class="data">\n<summary>Numbers of this figure' in html
  assert html.count('class="command"') == 1  # Of the table of the section.
  assert '*One.* [Numbers of this figure](#scores).' in markdown
  assert ('<summary>Numbers of this figure</summary>\n\n| set |\n| --- |\n'
          '| c |\n\n</details>') in markdown
  ids = re.findall(r' id="(.*?)"', html)
  assert len(ids) == len(set(ids))
  with pytest.raises(ValueError, match='data` must be a table of the section'):
    _texts(tmp_path, made._replace(sections=[section._replace(pictures=[
        page.Picture(picture, 'One.', data='Other')])]))


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    (dict(title=''), '`page.overview.title` must be a text'),
    (dict(legend=' '), '`page.overview.legend` must be a text'),
    (dict(rows=[]), 'must have questions and rows, got 3 columns and 0 rows'),
    (dict(sentences=['a'] * 5), 'must be at most 4, got 5'),
    (dict(rows=[overview.Row('a', [])]), 'must have 2 cells, got 0'),
    (dict(rows=[overview.Row('a', [overview.Cell(mark='best')] * 2)]),
     "must have marks of .*, got 'best'"),
    (dict(rows=[overview.Row('a', [overview.Cell(evidence='x')] * 2)]),
     "must link to tables of the page, got 'x'"),
])
def test_what_is_wrong_is_named(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    page.write_html(tmp_path / 'a.html', make(**fields))
