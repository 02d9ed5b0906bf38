"""Files of PyTorch: equal to PyTorch's own reading, and nothing is executed."""
from collections import OrderedDict
import io
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from dsr.data import torch_file
from tests.data.test_files import EXPLODED, Bomb

MAGIC = 0x1950a86a20f9469cfc6c


class _Storage:
  """Written as a pointer to entries that follow."""

  def __init__(self, name, entries, kind):
    self.name, self.entries, self.kind = name, entries, kind


class _Tensor:
  """Written as a call of what PyTorch calls `_rebuild_tensor_v2`."""

  def __init__(self, *args):
    self.args = args

  def __reduce__(self):
    return sys.modules['torch._utils']._rebuild_tensor_v2, self.args


@pytest.fixture
def write(tmp_path, monkeypatch):
  """(dictionary, storages, header) -> the path of a file in PyTorch's format.

  The names of PyTorch are put in place while it is written.
  """
  torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
  torch._utils = utils
  for module, name in ((torch, 'FloatStorage'), (torch, 'LongStorage'),
                       (utils, '_rebuild_tensor_v2')):
    maker = types.FunctionType((lambda: None).__code__, {}, name)
    maker.__module__, maker.__qualname__ = module.__name__, name
    setattr(module, name, maker)

  class Pickler(pickle.Pickler):

    def persistent_id(self, obj):
      if isinstance(obj, _Storage):
        return ('storage', getattr(torch, obj.kind), obj.name, 'cpu',
                len(obj.entries), None)
      return None

  def make(tensors, storages, magic=MAGIC, cut=0, zipped=None):
    with monkeypatch.context() as patch:
      patch.setitem(sys.modules, 'torch', torch)
      patch.setitem(sys.modules, 'torch._utils', utils)
      out = io.BytesIO()
      for part in (magic, 1001, {'little_endian': True}):
        if zipped is None:
          out.write(pickle.dumps(part, 2))
      Pickler(out, 2).dump(tensors)
    if zipped is not None:
      members = {'w/data.pkl': out.getvalue(), 'w/byteorder': b'little',
                 **{f'w/data/{s.name}': s.entries.tobytes()
                    for s in storages}} | zipped
      with zipfile.ZipFile(tmp_path / 'set.pt', 'w') as archive:
        for name, content in members.items():
          archive.writestr(name, content)
      return tmp_path / 'set.pt'
    out.write(pickle.dumps([s.name for s in storages], 2))
    for storage in storages:
      out.write(len(storage.entries).to_bytes(8, 'little'))
      out.write(storage.entries.tobytes())
    path = tmp_path / 'weights.pth'
    data = out.getvalue()
    path.write_bytes(data[:len(data) - cut])
    return path

  return make


def _floats(num=12):
  return _Storage('7', np.arange(num, dtype='<f4'), 'FloatStorage')


def test_views_of_storages_become_arrays(write):
  floats = _floats()
  longs = _Storage('8', np.array([5], '<i8'), 'LongStorage')
  tensors = OrderedDict(
      a=_Tensor(floats, 2, (2, 3), (3, 1), False, OrderedDict()),
      b=_Tensor(floats, 0, (3, 4), (1, 3), False, OrderedDict()),
      n=_Tensor(longs, 0, (), (), False, OrderedDict()))
  tensors._metadata = OrderedDict()  # As `state_dict()` has.
  for zipped in (None, {}):  # The older format, and that since PyTorch 1.6.
    found = torch_file.read_weights(
        'w', write(tensors, [floats, longs], zipped=zipped))
    assert list(found) == ['a', 'b', 'n']
    np.testing.assert_array_equal(
        found['a'], np.arange(2, 8, dtype='<f4').reshape(2, 3), strict=True)
    np.testing.assert_array_equal(
        found['b'], np.arange(12, dtype='<f4').reshape(4, 3).T, strict=True)
    np.testing.assert_array_equal(found['n'], np.array(5), strict=True)


def test_containers_keep_their_arrays(write):
  floats = _floats()
  tensor = _Tensor(floats, 0, (3,), (1,), False, OrderedDict())
  found = torch_file.read('set', write(
      {'data': [[tensor, tensor]], 'accuracy': {'mlp': [np.float64(0.5)]},
       'name': 'dc'}, [floats], zipped={}))
  np.testing.assert_array_equal(found['data'][0][1], np.arange(3))
  assert found['accuracy'] == {'mlp': [None]}  # No tensor: of no account.
  assert found['name'] == 'dc'


@pytest.mark.errors
def test_what_is_no_weights_is_refused_and_nothing_runs(write, tmp_path):
  floats = _floats()
  good = _Tensor(floats, 0, (3,), (1,), False, OrderedDict())
  large = _Tensor(floats, 9, (2, 3), (3, 1), False, OrderedDict())
  back = _Tensor(floats, 2, (3,), (-1,), False, OrderedDict())
  for tensors, more, message in (
      ({'a': Bomb()}, {}, 'asks for tests.data.test_files.explode'),
      (Bomb(), {}, 'asks for'), (Bomb(), {'zipped': {}}, 'asks for'),
      ({'a': 3, 'b': good}, {}, "'a' is no tensor"),
      ({'a': good}, {'zipped': {'w/byteorder': b'big'}}, 'another order'),
      ({'a': good}, {'zipped': {'w/data/7': b'abc'}}, 'set.pt is not'),
      ([good], {}, 'no dictionary'), ({'a': large}, {}, 'larger than its'),
      ({'a': back}, {}, 'strides'), ({'a': good}, {'magic': 3}, 'header'),
      ({'a': good}, {'cut': 4}, 'weights.pth is not')):
    with pytest.raises(ValueError, match=message):
      torch_file.read_weights('w', write(tensors, [floats], **more))
  with pytest.raises(ValueError, match='`w` must be a file of tensors'):
    torch_file.read_weights('w', tmp_path / 'missing.pth')
  (tmp_path / 'zip.pth').write_bytes(b'PK\x03\x04')
  with pytest.raises(ValueError, match='not a zip file'):
    torch_file.read_weights('w', tmp_path / 'zip.pth')
  assert not EXPLODED


def test_equals_pytorchs_own_reading(tmp_path):
  torch = pytest.importorskip('torch')
  base = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4)
  state = {'whole': base, 'turned': base.permute(2, 0, 1), 'part': base[1, 1:],
           'half': torch.ones(3).half(), 'count': torch.tensor(4)}
  path = tmp_path / 'w.pth'
  for zipped in (False, True):
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found = torch_file.read_weights('w', path)
    assert found.keys() == state.keys()
    for name, tensor in torch.load(path, weights_only=True).items():
      np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)
  trained = torch.nn.Parameter(torch.rand(2, 3))
  torch.save({'data': [[trained, torch.arange(2).byte()]],
              'accs': {'net': [np.float64(0.3)]}}, path)
  found = torch_file.read('set', path)
  np.testing.assert_array_equal(found['data'][0][0], trained.detach().numpy())
  np.testing.assert_array_equal(found['data'][0][1], [0, 1])
