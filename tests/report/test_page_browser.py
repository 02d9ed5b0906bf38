"""The page in Chromium, narrow and wide: it fits, sorts and complains not.

With axe-core (`npm install --no-save axe-core` in the root of the repository)
its rules of accessibility are checked as well, in light and dark.
"""
import csv
import io
import pathlib
import shutil

import pytest

from dsr.report import page
from dsr.runs import records
from tests.report import audit_page

FLAGS = (
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic',
    '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync')
WIDTHS = (400, 1400)
AXE = pathlib.Path(__file__).resolve().parents[2].joinpath(
    'node_modules/axe-core/axe.min.js')
HOSTILE = (
    '<img src=x onerror="document.title=1">',
    '"><script>document.title=1</script>', '</script><b>bold', "' onclick='1",
    '&lt;i&gt; &amp;', '{{ 7 * 7 }} ${7 * 7}', 'javascript:document.title=1',
    '=1+1', '<!--', 'a|b`c`*d*')

# Pairs of colours with less than 4.5 to 1, of every element with text.
CONTRAST = """
const luminance = (rgb) => rgb.map((c) => c / 255).map(
    (c) => c > 0.04045 ? ((c + 0.055) / 1.055) ** 2.4 : c / 12.92).reduce(
    (sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const parts = (color) => color.match(/[\\d.]+/g).map(Number);
const bad = [];
let seen = 0;
for (const element of document.body.querySelectorAll('*')) {
  const own = [...element.childNodes].some(
      (node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility()) continue;
  let ground = element;
  while (ground && (parts(getComputedStyle(ground).backgroundColor)[3] ?? 1)
         === 0) ground = ground.parentElement;
  const back = ground ? parts(getComputedStyle(ground).backgroundColor)
      : [255, 255, 255];
  const [low, high] = [parts(getComputedStyle(element).color), back].map(
      (c) => luminance(c.slice(0, 3))).sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05);
  seen += 1;
  if (ratio < 4.5) bad.push([element.outerHTML.slice(0, 80), ratio]);
}
return [seen, bad];
"""


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  """One headless Chromium for all tests of this file."""
  webdriver = pytest.importorskip('selenium.webdriver')
  from selenium.webdriver.chrome import service

  chromium = shutil.which('chromium') or shutil.which('google-chrome')
  driver = shutil.which('chromedriver')
  if not (chromium and driver):
    pytest.skip('no chromium and chromedriver')
  options = webdriver.ChromeOptions()
  options.binary_location = chromium
  for flag in FLAGS:
    options.add_argument(flag)
  options.add_argument(f'--user-data-dir={tmp_path_factory.mktemp("profile")}')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  started = webdriver.Chrome(options=options, service=service.Service(driver))
  yield started
  started.quit()


@pytest.fixture(scope='module')
def audit(tmp_path_factory):
  """(page, its file)."""
  folder = tmp_path_factory.mktemp('audit')
  built = audit_page.build(folder)
  return built, page.write_html(folder / 'report.html', built)


@pytest.fixture(params=WIDTHS)
def opened(request, browser, audit):
  """The browser, with the page open at one of the widths."""
  # A headless window has a least width; an emulated screen has none.
  browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
      'width': request.param, 'height': 900, 'deviceScaleFactor': 1,
      'mobile': False})
  browser.get_log('browser')
  browser.get(audit[1].as_uri())
  return browser


def _column(browser, table, column):
  """The texts of a column's values, from top to bottom."""
  return browser.execute_script(
      'return [...document.querySelectorAll(".question > .table table")'
      '[arguments[0]].tBodies].map((body) => body.rows[0].cells[arguments[1]]'
      '.querySelector(".value").textContent)', table, column)


def _head(browser, table, column):
  table = browser.find_elements(
      'css selector', '.question > .table table')[table]
  return table.find_elements('css selector', 'thead tr:last-child th')[column]


def _press(browser, table, column):
  button = _head(browser, table, column).find_element('css selector', 'button')
  browser.execute_script('arguments[0].scrollIntoView({block: "center", '
                         'inline: "center"})', button)
  button.click()


def _width(browser):
  return browser.execute_script('return document.documentElement.scrollWidth')


def test_nothing_is_amiss_and_nothing_runs_over(opened, audit):
  assert opened.get_log('browser') == []
  inner = opened.execute_script('return window.innerWidth')
  assert inner in WIDTHS
  assert _width(opened) <= inner
  images = opened.execute_script(
      'return [...document.images].map((i) => [i.complete, i.naturalWidth, '
      'i.alt, i.getBoundingClientRect().right])')
  assert len(images) == sum(len(s.pictures) for s in audit[0].sections)
  for complete, natural, alt, right in images:
    assert complete
    assert natural > 0
    assert alt
    assert right <= inner
  for button in opened.find_elements('css selector', 'button.show'):
    opened.execute_script('arguments[0].click()', button)
  assert _width(opened) <= inner  # With every command shown.
  shown = opened.execute_script(
      'return [...document.querySelectorAll("tr.command pre")].map((p) => '
      '[p.textContent, p.getBoundingClientRect().left, '
      'p.getBoundingClientRect().right])')
  commands = [row['command'] for section in audit[0].sections
              for table in section.tables for row in table.rows]
  assert [text for text, *_ in shown] == commands
  assert all(0 < left < right <= inner for _, left, right in shown)


def test_answers_and_cautions_are_visible(opened, audit):
  for kind in ('answer', 'caution'):
    found = opened.find_elements('css selector', f'p.{kind}')
    assert len(found) == len(audit[0].sections)
    for element, section in zip(found, audit[0].sections, strict=True):
      assert element.is_displayed()
      assert getattr(section, kind).replace('`', '') in element.text
  cards = opened.find_elements('css selector', '.cards li')
  assert [card.find_element('css selector', 'p').text for card in cards] == [
      section.short or section.answer for section in audit[0].sections]


def test_headings_go_down_by_one(opened):
  levels = opened.execute_script(
      'return [...document.querySelectorAll("h1, h2, h3, h4")].map('
      '(h) => Number(h.tagName[1]))')
  assert levels[0] == 1
  assert levels.count(1) == 1
  assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))


def test_a_click_sorts_by_number_up_down_and_back(opened):
  original = _column(opened, 0, 2)
  names = _column(opened, 0, 0)
  numbers = sorted(map(float, original))
  for state, expected in (('ascending', numbers), ('descending', numbers[::-1]),
                          ('none', [float(v) for v in original])):
    _press(opened, 0, 2)
    assert _head(opened, 0, 2).get_attribute('aria-sort') == state
    assert [float(v) for v in _column(opened, 0, 2)] == expected
  assert _column(opened, 0, 0) == names

  # 100, 500 and 60000 go by size, and equal ones stay in their order.
  for state in (1, -1):
    _press(opened, 0, 1)
    images = [int(v) for v in _column(opened, 0, 1)]
    assert images == sorted(images)[::state]
    hundred = [n for n, i in zip(_column(opened, 0, 0), images) if i == 100]
    assert hundred == [n for n in names if n in hundred]
  _press(opened, 0, 3)  # Another column: the first one is sorted no more.
  assert _head(opened, 0, 1).get_attribute('aria-sort') == 'none'
  assert _column(opened, 0, 3)[-1] == ''  # A gap is last, up and down.
  _press(opened, 0, 3)
  assert _column(opened, 0, 3)[-1] == ''
  _press(opened, 0, 0)
  assert _column(opened, 0, 0) == sorted(names, key=str.lower)
  assert _column(opened, 1, 0) == names  # The other tables stay.


def test_a_command_follows_its_row(opened):
  show = opened.find_elements('css selector', 'button.show')[0]
  command = opened.find_elements('css selector', 'tr.command')[0]
  assert not command.is_displayed()
  opened.execute_script('arguments[0].scrollIntoView({block: "center"})', show)
  show.click()
  assert show.get_attribute('aria-expanded') == 'true'
  assert command.is_displayed()
  _press(opened, 0, 2)
  rows = opened.execute_script(
      'return [...document.querySelector(".question table").rows].map('
      '(row) => row.textContent)')
  place = next(i for i, row in enumerate(rows) if row.strip().startswith('kip'))
  assert '--question=good' in rows[place + 1]
  assert 'sets/kip' in rows[place + 1]
  show.click()
  assert not command.is_displayed()


def test_the_keyboard_sorts(opened):
  from selenium.webdriver.common.keys import Keys

  button = _head(opened, 1, 1).find_element('css selector', 'button')
  opened.execute_script('arguments[0].focus()', button)
  numbers = sorted(map(float, _column(opened, 1, 1)))
  for key, expected in ((Keys.ENTER, numbers), (Keys.SPACE, numbers[::-1])):
    opened.switch_to.active_element.send_keys(key)
    assert [float(v) for v in _column(opened, 1, 1)] == expected
  assert opened.switch_to.active_element == button


def test_a_picture_opens_in_full_size_and_closes(opened):
  from selenium.webdriver.common.keys import Keys

  zoom = opened.find_elements('css selector', 'button.zoom')[-1]
  opened.execute_script('arguments[0].scrollIntoView({block: "center"})', zoom)
  zoom.click()
  large = opened.find_element('css selector', 'dialog[open] img')
  natural = int(large.get_attribute('naturalWidth'))
  assert large.size['width'] >= natural
  assert _width(opened) <= opened.execute_script('return window.innerWidth')
  opened.switch_to.active_element.send_keys(Keys.ESCAPE)
  assert not opened.find_elements('css selector', 'dialog[open]')


@pytest.mark.parametrize('media', ['screen', 'print'])
def test_without_javascript_all_is_there_to_read(browser, audit, media):
  browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
      'width': 700, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False})
  browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'media': media})
  off = media == 'screen'  # On paper it is script that must not hide things.
  browser.execute_cdp_cmd('Emulation.setScriptExecutionDisabled',
                          {'value': off})
  browser.get(audit[1].as_uri())
  try:
    scripted = browser.find_elements('css selector', 'html.js')
    assert bool(scripted) != off
    commands = browser.find_elements('css selector', 'tr.command')
    assert commands
    assert all(command.is_displayed() for command in commands)
    buttons = browser.find_elements('css selector', 'button.show, button.copy')
    assert buttons
    assert not any(button.is_displayed() for button in buttons)
    heads = browser.find_elements(
        'css selector', 'section > .table thead tr:last-child th')
    assert len(heads) > 20
    assert all(head.text and head.is_displayed() for head in heads)
  finally:
    browser.execute_cdp_cmd('Emulation.setScriptExecutionDisabled',
                            {'value': False})
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'media': ''})


def test_gaps_stay_last_and_small_and_negative_numbers_count(
    browser, tmp_path):
  values = [0.02, 1e-7, None, -3.0, 10.0, float('nan'), 2.0]
  rows = [{'set': str(i), 'value': v} for i, v in enumerate(values)]
  rows[0]['value'] = records.Metric(0.02, -9.0, 99.0)  # By value, not by end.
  one = page.Section('Is it?', 'Yes.', 'Or no.', tables=[
      page.Table('Values', ['set', 'value'], rows)])
  browser.get(page.write_html(
      tmp_path / 'a.html', page.Page('A', 'B', [one])).as_uri())
  for order in ('3106452', '4601352', '0123456'):
    _press(browser, 0, 1)
    assert ''.join(_column(browser, 0, 0)) == order


@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_axe_finds_nothing_and_text_stands_out(opened, mode):
  opened.execute_cdp_cmd('Emulation.setEmulatedMedia', {
      'features': [{'name': 'prefers-color-scheme', 'value': mode}]})
  try:
    opened.execute_script(
        'document.querySelectorAll("details").forEach((d) => d.open = true)')
    seen, bad = opened.execute_script(CONTRAST)
    assert seen > 400
    assert bad == []
    if AXE.exists():
      # The page's own policy lets no script in; the debugger does.
      opened.execute_cdp_cmd(
          'Runtime.evaluate', {'expression': AXE.read_text('utf-8')})
      assert opened.execute_async_script(
          'const done = arguments[0]; axe.run(document).then((found) => done('
          'found.violations.map((v) => [v.id, v.nodes.map((n) => n.html)])))'
          ) == []
  finally:
    opened.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


def test_cells_at_the_top_are_marked_and_lead_to_their_tables(opened, audit):
  overview = audit[0].overview
  cells = opened.find_elements('css selector', '.overview tbody td')
  expected = [cell for row in overview.rows for cell in row.cells]
  assert len(cells) >= len(expected)
  signs = {'better': '▲', 'worse': '▼', 'cannot tell': '≈', 'reference': '◆'}
  for element, cell in zip(cells, expected):
    marks = element.find_elements('css selector', '.mark')
    assert [mark.text for mark in marks] == (
        [f'{signs[cell.mark]} {cell.mark}'] if cell.mark else [])
    for link in element.find_elements('css selector', 'a'):
      target = link.get_attribute('href').partition('#')[2]
      heading = opened.execute_script(
          'return document.getElementById(arguments[0]).textContent', target)
      assert heading == cell.evidence
  colors = {element.value_of_css_property('color') for element in
            opened.find_elements('css selector', '.overview .mark')}
  assert len(colors) == 3  # Better, worse, and neither.
  link = cells[0].find_element('css selector', 'a')
  opened.execute_script('arguments[0].scrollIntoView({block: "center"})', link)
  link.click()
  top = opened.execute_script(
      'return document.querySelector(location.hash).getBoundingClientRect().top'
      ' - document.querySelector("nav").getBoundingClientRect().bottom')
  assert -1 <= top < 900 or opened.execute_script('return innerWidth') == 400


def test_terms_are_explained_on_hover_and_at_the_end(opened, audit):
  found = opened.execute_script(
      'return [...document.querySelectorAll("abbr")].map('
      '(a) => [a.textContent, a.title])')
  assert dict(found) == {
      name: text for name, text in audit[0].glossary.items() if name != 'LiRA'}
  listed = opened.find_elements('css selector', '.glossary dfn')
  assert [dfn.text for dfn in listed] == ['AUC', 'MLP', 'ROC']


def test_tables_download_with_their_marks(opened, audit):
  """As `csvOf` makes it; Chromium keeps nothing without a window."""
  text = opened.execute_script(
      'return csvOf(document.querySelector(".overview table"))')
  rows = list(csv.reader(io.StringIO(text)))
  head, first = rows[0], rows[1]
  assert len(rows) == 1 + len(audit[0].overview.rows)
  place = head.index('accuracy, more is better (%)')
  assert head[place:place + 4] == [
      head[place] + end for end in ('', ', interval', ', mark', ', need')]
  assert first[place:place + 4] == ['94.7', '[94.2, 95.1]', '▲ better', '']
  buttons = opened.find_elements('css selector', 'button.download')
  tables = opened.find_elements('css selector', 'table')
  assert len(buttons) == len(tables)
  for button in buttons:
    opened.execute_script('arguments[0].click()', button)
  assert opened.get_log('browser') == []


def test_names_with_markup_are_letters_and_nothing_runs(browser, tmp_path):
  from dsr.report import overview, tables

  columns = [tables.Column('set'), tables.Column('x', HOSTILE[0])]
  rows = [{'set': name, 'x': 0.5, 'command': name} for name in HOSTILE]
  made = page.Page(
      'A', HOSTILE[1], [page.Section(
          name, name, name, [page.Table(name, columns, rows, name)],
          details=name, short=name, threats={name: name})
                        for name in HOSTILE],
      facts={name: name for name in HOSTILE}, footnotes=HOSTILE,
      overview=overview.Overview(
          HOSTILE[2], HOSTILE[0], columns, [
              overview.Row(name, [overview.Cell(
                  records.metric(0.5), 'better', name, name)])
              for name in HOSTILE], HOSTILE[:4]),
      glossary={name: name for name in HOSTILE})
  browser.get_log('browser')
  browser.get(page.write_html(tmp_path / 'a.html', made).as_uri())
  assert browser.get_log('browser') == []
  assert browser.title == 'A'
  names = browser.execute_script(
      'return [...document.querySelectorAll(".overview tbody th .value")].map('
      '(v) => v.textContent)')
  assert names == [name.replace('`', '') for name in HOSTILE]
  assert browser.execute_script(
      'return [document.images.length, document.scripts.length, '
      'document.querySelectorAll("b, i, [onclick], [onerror]").length]') == [
          0, 1, 0]
  text = browser.execute_script(
      'return csvOf(document.querySelector(".overview table"))')
  assert list(csv.reader(io.StringIO(text)))[8][0] == "'=1+1"


@pytest.mark.slow
def test_forty_sets_open_within_two_seconds(browser, tmp_path):
  """Forty sets, five models: 1,400 rows in seven tables, with commands."""
  from dsr.report import overview, tables

  metric = records.metric(0.5, 0.4, 0.6)
  columns = [tables.Column(f'x{i}', percent=True) for i in range(8)]
  rows = [{'set': f'set {i} of model {j}', 'command': 'python -m run ' * 20}
          | {column.key: metric for column in columns}
          for i in range(40) for j in range(5)]
  sections = [page.Section(f'Question {i}', 'Yes.', 'No.', [page.Table(
      f'Table {i}', ['set', *columns], rows)]) for i in range(7)]
  made = page.Page('Forty', 'Sets.', sections, overview=overview.Overview(
      'At a glance', 'All.', [tables.Column('set'), *columns], [
          overview.Row(f'set {i}', [
              overview.Cell(metric, 'better', '', 'Table 0')] * 8)
          for i in range(40)]))
  path = page.write_html(tmp_path / 'a.html', made)
  times = []
  for _ in range(2):  # The better of two: other work runs beside.
    browser.get(path.as_uri())
    times.append(browser.execute_script(
        'const t = performance.getEntriesByType("navigation")[0];'
        'return t.loadEventEnd'))
  assert 0 < min(times) < 2000
