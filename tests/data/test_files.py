"""Hostile files: one named error each, and nothing of them is executed."""
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from dsr.data import files

EXPLODED = []


def explode():
  """What unpickling a bomb calls."""
  EXPLODED.append(True)


class Bomb:
  """Says so when it is unpickled."""

  def __reduce__(self):
    return explode, ()


def _npy(array=None, **header):
  """The bytes of an `.npy`, with another header perhaps."""
  out = io.BytesIO()
  np.lib.format.write_array(out, np.arange(6.0) if array is None else array)
  if not header:
    return out.getvalue()
  text = str({'descr': '<f8', 'fortran_order': False, 'shape': (6,)} | header)
  text = text.encode().ljust(118) + b'\n'
  return (b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text
          + np.arange(6.0).tobytes())


def _zip(path, member, **how):
  with zipfile.ZipFile(path, 'w', **how) as archive:
    archive.writestr('x.npy', member)
  return path


def test_arrays_come_back_as_they_were(tmp_path):
  path = tmp_path / 'a.npz'
  arrays = {'x': np.arange(24.0).reshape(2, 3, 4), 'n': np.array('text'),
            'f': np.asfortranarray(np.eye(3)), 'e': np.zeros((0, 4), np.uint8),
            'b': np.array([True, False])}
  for save in (np.savez, np.savez_compressed):
    save(path, **arrays)
    found = files.read_npz('set', path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
      np.testing.assert_array_equal(found[name], array, strict=True)
      assert found[name].flags.writeable
  assert set(files.read_npz('set', path, only=['n'])) == {'n'}
  np.save(tmp_path / 'x.npy', arrays['x'])
  np.testing.assert_array_equal(
      files.read_npy('groups', tmp_path / 'x.npy'), arrays['x'])


def test_nothing_is_unpickled(tmp_path):
  bomb = np.array([Bomb()], object)
  np.savez(tmp_path / 'a.npz', x=bomb)
  np.save(tmp_path / 'a.npy', bomb)
  with pytest.raises(ValueError, match='`set` must be a readable .npz'):
    files.read_npz('set', tmp_path / 'a.npz')
  with pytest.raises(ValueError, match='`set` must be a readable .npy'):
    files.read_npy('set', tmp_path / 'a.npy')
  assert not EXPLODED
  pickle.loads(pickle.dumps(Bomb()))  # It would go off.
  assert EXPLODED.pop()


@pytest.mark.errors
@pytest.mark.parametrize(('make', 'message'), [
    (lambda p: p.write_bytes(_npy()), 'it is an .npy file'),
    (lambda p: p.write_bytes(b''), 'no ZIP archive'),
    (lambda p: p.write_bytes(b'PK\x03\x04' + bytes(50)), 'not a zip file'),
    (lambda p: _zip(p, _npy(shape=(387_000_000_000,))), 'claims 3,096,000,000'),
    (lambda p: _zip(p, _npy(shape=(2**70,))), 'claims'),
    (lambda p: _zip(p, _npy(shape=(-6,))), 'claims'),
    (lambda p: _zip(p, _npy(descr='|O')), 'instead of numbers'),
    (lambda p: _zip(p, _npy(descr='nonsense')), 'nonsense'),
    (lambda p: _zip(p, _npy()[:-8]), 'claims 48 bytes, 40 are there'),
    (lambda p: _zip(p, b'\x93NUMPY\x09\x00' + bytes(80)), '9.0'),
    (lambda p: _zip(p, b'hello'), 'not'),
    (lambda p: _zip(p, _npy().replace(b"'descr'", b"'de(cr")), 'its header'),
    (lambda p: _zip(p, _npy().replace(b'(6,)', b'((((')), 'its header'),
    (lambda p: _zip(p, _npy(), compression=zipfile.ZIP_LZMA), 'unknown way'),
], ids=['npy', 'empty', 'cut', 'huge', 'beyond', 'negative', 'objects', 'dtype',
        'short', 'version', 'text', 'header', 'tokens', 'lzma'])
def test_each_kind_of_damage_is_one_line(tmp_path, make, message):
  path = tmp_path / 'a.npz'
  make(path)
  with pytest.raises(ValueError, match='`set` must be a readable') as error:
    files.read_npz('set', path)
  assert message in str(error.value)
  assert str(path) in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.errors
def test_flipped_bits_encryption_and_claims_of_the_archive(tmp_path):
  path, noise = tmp_path / 'a.npz', np.random.default_rng(0).normal(size=4000)
  np.savez_compressed(path, x=noise)
  data = bytearray(path.read_bytes())
  for place in range(200, len(data) - 200, 1999):
    flipped = data.copy()
    flipped[place] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match='`set` must be a readable .npz'):
      files.read_npz('set', path)
  entry = data.find(b'PK\x01\x02')  # Of the directory at the end.
  secret = data.copy()
  secret[entry + 8] |= 1
  path.write_bytes(secret)
  with pytest.raises(ValueError, match='is encrypted'):
    files.read_npz('set', path)
  large = data.copy()
  large[entry + 24:entry + 28] = (2**32 - 2).to_bytes(4, 'little')
  path.write_bytes(large)
  with pytest.raises(ValueError, match='claims 4,294,967,294 bytes'):
    files.read_npz('set', path)


@pytest.mark.errors
@pytest.mark.parametrize('path', ['~nouser_of_that_name/x.npz', 'none.npz', '.',
                                  'a\0b.npz'])
def test_paths_that_lead_nowhere(path):
  with pytest.raises(ValueError, match='`set` must be a readable .npz'):
    files.read_npz('set', path)
