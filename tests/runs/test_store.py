"""A store: files of one call or of none, with their dates."""
import os

import fsspec
import pytest

from dsr.runs import store

URL = 'memory://bucket/folder'


@pytest.fixture
def there(tmp_path, monkeypatch):
  """A store in memory, and a current folder with a job in it."""
  monkeypatch.chdir(tmp_path)
  memory = fsspec.filesystem('memory')
  memory.store.clear()
  for name, text in {'record.json': '{}', 'sub/a.npz': 'a', '.lock': 'x',
                     'other/record.json': '{}', 'other/b.npz': 'b'}.items():
    path = tmp_path / 'job' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  os.utime(tmp_path / 'job' / 'record.json', ns=(5, 5 * 10**9))
  return store.Store(URL), memory


def test_a_folder_comes_back_with_its_dates_and_without_others(
    there, tmp_path, monkeypatch):
  held, _ = there
  held.put('job')
  held.put('job/other/b.npz')
  (tmp_path / 'else').mkdir()
  monkeypatch.chdir(tmp_path / 'else')
  assert held.get('job/')
  assert held.get('job/other/b.npz')
  assert not held.get('nothing')
  root = tmp_path / 'else' / 'job'
  found = sorted(path.relative_to(root).as_posix()
                 for path in root.rglob('*') if path.is_file())
  assert found == ['other/b.npz', 'record.json', 'sub/a.npz']
  assert (root / 'sub' / 'a.npz').read_text() == 'a'
  assert (root / 'record.json').stat().st_mtime_ns == 5 * 10**9


def test_the_newer_record_stays(there, tmp_path):
  held, memory = there
  held.put('job')
  first = set(memory.find('/bucket/folder'))
  held.put('job')  # Nothing is new.
  assert set(memory.find('/bucket/folder')) == first
  record = tmp_path / 'job' / 'record.json'
  record.write_text('new')
  assert held.get('job')
  assert record.read_text() == 'new'
  held.put('job')
  record.write_text('old')
  os.utime(record, ns=(5, 5 * 10**9))
  assert held.get('job')
  assert record.read_text() == 'new'
  # One manifest, and the files of the last call alone.
  assert len(memory.find('/bucket/folder')) == 3


def test_a_put_that_was_cut_off_is_as_if_it_had_not_been(
    there, tmp_path, monkeypatch):
  held, _ = there
  held.put('job')
  (tmp_path / 'job' / 'record.json').write_text('new')
  write = held._write

  def cut(where, content):
    if where.endswith('manifest.json'):
      raise ConnectionError('gone')
    write(where, content)

  monkeypatch.setattr(held, '_write', cut)
  with pytest.raises(ConnectionError):
    held.put('job')
  (tmp_path / 'job' / 'record.json').unlink()
  assert held.get('job')
  assert (tmp_path / 'job' / 'record.json').read_text() == '{}'


@pytest.mark.errors
@pytest.mark.parametrize('path', ['/out/x', '../x', 'a/../../x'])
def test_paths_that_mean_something_else_elsewhere(path):
  with pytest.raises(ValueError, match='`store` needs paths below the current'):
    store.key(path)
