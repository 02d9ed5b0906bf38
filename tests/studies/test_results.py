"""The page of results: rows of records, and what was written by hand."""
import dataclasses
import pathlib
import shutil

import jax
import pytest

from dsr.runs import records, screen
from dsr.studies import krr, results
from dsr.studies.distillation import distill
from dsr.studies.reconstruction import reconstruct
from dsr.types import Status

ROOT = pathlib.Path(__file__).resolve().parents[2]
HAND = f'# Mine\n\nText.\n\n{results.BEGIN}\nold\n{results.END}\n\n## More\n'


@pytest.fixture
def folder(tmp_path):
  """Records of two commands, one of a stopped run, and JSON that is none."""
  where = tmp_path / 'records'
  for method, value in (('kip', 0.981), ('rkip', 0.973)):
    config = distill.Config(method=method, seed=3, steps=50)
    records.write(
        where / method, config=config,
        metrics={'krr_accuracy': records.metric(value, 0.95, 0.99)})
  records.write(
      where / 'stopped', config=distill.Config(method='dm'),
      metrics={'krr_accuracy': records.metric(0.5)},
      extra={'status': Status.INTERRUPTED.name})
  many = {f'a|{i}_accuracy': records.metric(0.5, 0.4, 0.7) for i in range(8)}
  records.write(where / 'krr', config=krr.Config(ridge=0.1), metrics=many,
                claimed={'a|0_accuracy': 0.75})
  (where / 'kip' / 'clock.json').write_text('{"seconds": 1}')
  return where


def _run(folder, out):
  with screen.quiet():
    return results.run(results.Config(str(folder), str(out)))


def _cells(line):
  return [cell.strip() for cell in line.strip('|').split('|')]


def test_a_record_becomes_a_row_with_date_device_and_command(folder, tmp_path):
  out = tmp_path / 'page.md'
  assert _run(folder, out) == {'num_records': 3}
  text = out.read_text()
  assert text.startswith('# Results\n')
  assert text.index('## `python -m experiments.distill`') < text.index(
      '## `python -m experiments.krr`')
  rows = [line for line in text.splitlines()
          if 'experiments.distill --' in line]
  assert len(rows) == 2  # That of the stopped run is left out.
  day = records.read(folder / 'rkip')['date'][:10]
  device = jax.devices()[0].device_kind
  assert _cells(rows[1]) == [
      '[record](records/rkip/record.json)', 'digits',
      'method=rkip<br>steps=50', '3', day, f'{device}, jax {jax.__version__}',
      '`python -m experiments.distill --method=rkip --steps=50 --seed=3`']
  assert _cells(rows[0])[3:6] == _cells(rows[1])[3:6]


def test_a_metric_becomes_a_row_claimed_ours_and_interval(folder, tmp_path):
  _run(folder, tmp_path / 'page.md')
  lines = (tmp_path / 'page.md').read_text().splitlines()
  plain, many = (f'| [record](records/{name}/record.json) |' for name in (
      'rkip', 'krr'))
  assert any(line.startswith(f'{plain} 97.3 [95.0, 99.0] |') for line in lines)
  start = lines.index('| record | metric | claimed | ours | interval |',
                      lines.index('## `python -m experiments.krr`'))
  assert lines[start + 2:start + 4] == [
      many + r' a\|0 accuracy (%) | 75.0 | 50.0 | [40.0, 70.0] |',
      many + r' a\|1 accuracy (%) |  | 50.0 | [40.0, 70.0] |']


def test_runs_that_are_compared_have_a_row_each(tmp_path):
  for seed, found in ((11, 0.5), (12, 1.0)):
    records.write(
        tmp_path / 'records' / str(seed), config=reconstruct.Config(seed=seed),
        metrics={'recovered_rmse_0.01': records.metric(found, 0.25, 1.0),
                 'greedy_l2_half': records.metric(0.002),
                 'mean_rank': records.metric(1.0)},  # Is in the record only.
        claimed={'greedy_l2_half': 1.45} if seed == 12 else {})
  _run(tmp_path / 'records', tmp_path / 'page.md')
  lines = (tmp_path / 'page.md').read_text().splitlines()
  start, = (i for i, line in enumerate(lines) if '| recovered' in line)
  names, rows = _cells(lines[start]), lines[start + 2:start + 4]
  assert 'mean rank' not in names
  for row, want in zip(rows, (['50.0 [25.0, 100.0]', '0.002', ''],
                              ['100.0 [25.0, 100.0]', '0.002', '1.45'])):
    cells = dict(zip(names, _cells(row)))
    assert [cells[name] for name in (
        'recovered rmse 0.01 (%)', 'greedy l2 half',
        'greedy l2 half, published')] == want


def test_what_is_written_by_hand_is_kept_and_tables_are_replaced(
    folder, tmp_path):
  out = tmp_path / 'page.md'
  out.write_text(HAND)
  _run(folder, out)
  first = out.read_text()
  assert first.startswith(f'# Mine\n\nText.\n\n{results.BEGIN}\n')
  assert first.endswith(f'{results.END}\n\n## More\n')
  assert 'old' not in first
  _run(folder, out)
  assert out.read_text() == first
  shutil.rmtree(folder / 'krr')
  _run(folder, out)
  assert 'experiments.krr' not in out.read_text()


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'hand', 'message'), [
    ({'records': 'none'}, None, '`records` must be a folder with records'),
    ({'out': 'page.txt'}, None, '`out` must end in .md'),
    ({}, '# A page of mine\n', '`out` must have the lines'),
    ({}, HAND + results.BEGIN, '`out` must have the lines'),
    ({}, f'{results.END}{results.BEGIN}', '`out` must have the lines'),
], ids=['no records', 'ending', 'no marks', 'two marks', 'wrong order'])
def test_refuses_before_it_writes(
    folder, tmp_path, monkeypatch, fields, hand, message):
  monkeypatch.chdir(tmp_path)
  if hand:
    pathlib.Path('page.md').write_text(hand)
  config = results.Config('records', 'page.md')
  with pytest.raises(ValueError, match=message):
    results.run(dataclasses.replace(config, **fields))
  assert not hand or pathlib.Path('page.md').read_text() == hand


def test_the_page_of_this_project_is_that_of_its_records(tmp_path):
  shutil.copytree(ROOT / 'notebooks', tmp_path / 'notebooks')
  page = tmp_path / 'notebooks' / 'results.md'
  _run(tmp_path / 'notebooks' / 'records', page)
  assert page.read_text() == (ROOT / 'notebooks' / 'results.md').read_text()
