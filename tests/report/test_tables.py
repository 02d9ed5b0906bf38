"""Tables: exact text, so that a change of looks is a change of this file."""
import csv
import dataclasses
import io

import numpy as np
import pytest

from dsr.probes import intervals
from dsr.report import tables
from dsr.runs import records


@dataclasses.dataclass(frozen=True)
class Config:
  """An experiment's."""

  method: str = 'kip'
  images: int = 1


ROWS = [
    {'method': 'kip', 'images': 1, 'loss': 0.0123456, 'seconds': 12.3,
     'krr_accuracy': records.metric(0.855, 0.848, 0.862)},
    {'method': 'label|solve', 'images': 10, 'loss': 1234567.0,
     'krr_accuracy': records.metric(1.0)},
]
COLUMNS = ['method', 'images', 'krr_accuracy', 'loss',
           tables.Column('seconds', title='time (s)', digits=2)]


def test_render():
  assert tables.render(ROWS, COLUMNS, title='Digits') == '\n'.join([
      'Digits',
      'method       images   krr accuracy (%)       loss  time (s)',
      '-----------  ------  -----------------  ---------  --------',
      'kip               1  85.5 [84.8, 86.2]    0.01235     12.30',
      'label|solve      10              100.0  1.235e+06',
  ])


def test_markdown():
  assert tables.markdown(ROWS, COLUMNS[:3]) == '\n'.join([
      '| method | images | krr accuracy (%) |',
      '| --- | ---: | ---: |',
      '| kip | 1 | 85.5 [84.8, 86.2] |',
      r'| label\|solve | 10 | 100.0 |',
  ])


def test_csv_has_all_digits_and_the_ends_in_columns_of_their_own():
  rows = list(csv.DictReader(io.StringIO(tables.to_csv(ROWS, COLUMNS))))
  assert rows[0] == {
      'method': 'kip', 'images': '1', 'krr_accuracy': '0.855',
      'krr_accuracy_low': '0.848', 'krr_accuracy_high': '0.862',
      'loss': '0.0123456', 'seconds': '12.3'}
  assert rows[1]['method'] == 'label|solve'
  assert rows[1]['seconds'] == ''


def test_rows_may_be_records(tmp_path):
  record = records.read(records.write(
      tmp_path, config=Config(images=50), wall_time=3.0,
      metrics={'krr_accuracy': intervals.wilson(9, 10)}))
  text = tables.render([record], [
      'config.method', 'images', 'metrics.krr_accuracy', 'device.platform',
      'absent', 'no.such.place'])
  cells = text.splitlines()[-1].split()
  assert cells == ['kip', '50', '90.0', '[59.6,', '98.2]',
                   record['device']['platform']]


def test_a_narrow_interval_is_shown_and_an_exact_number_has_none():
  rows = [{'a': records.metric(0.5, 0.4999, 0.5001)},
          {'a': records.metric(np.float32(0.5))}]
  column = tables.Column('a', percent=True)
  assert tables.render(rows, [column]).splitlines()[2:] == [
      '50.0 [50.0, 50.0]', '             50.0']


def test_no_rows_leaves_the_heading():
  assert tables.render([], ['a', 'b']).splitlines()[0] == 'a  b'
  assert tables.to_csv([], ['a', 'b']) == 'a,b\n'


@pytest.mark.parametrize('ending', ['txt', 'md', 'csv'])
def test_write_goes_by_the_ending(tmp_path, ending):
  path = tables.write(tmp_path / 'new' / f't.{ending}', ROWS, COLUMNS)
  make = {'txt': tables.render, 'md': tables.markdown, 'csv': tables.to_csv}
  assert path.read_text().strip() == make[ending](ROWS, COLUMNS).strip()
  assert len(list(path.parent.iterdir())) == 1


@pytest.mark.errors
def test_bad_arguments_are_named(tmp_path):
  with pytest.raises(ValueError, match='`path` must end in .txt, .md, .csv'):
    tables.write(tmp_path / 't.tex', ROWS, COLUMNS)
  for columns in ([], 'method'):
    with pytest.raises(ValueError, match='`columns` must be a list of names'):
      tables.render(ROWS, columns)
