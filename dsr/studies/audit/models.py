"""Models of an audit as files, and what they answer."""
import functools
from typing import Any

import jax
from jax.tree_util import Partial
import numpy as np

from dsr import krr
from dsr.types import KernelFn


def pack(variables: Any) -> dict[str, np.ndarray]:
  """A dict of dicts of arrays as one dict, for an npz."""
  flat = jax.tree_util.tree_flatten_with_path(variables)[0]
  return {'v__' + '__'.join(key.key for key in path): np.asarray(leaf)
          for path, leaf in flat}


def unpack(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
  """What `pack` packed, among other arrays."""
  tree = {}
  for name, array in arrays.items():
    if not name.startswith('v__'):
      continue
    *path, last = name.split('__')[1:]
    node = tree
    for part in path:
      node = node.setdefault(part, {})
    node[last] = array
  return tree


def outputs(predict_fns: list[Partial], pixels: np.ndarray) -> np.ndarray:
  """(R, N, K) of every model on the host, tile by tile."""
  return np.stack([krr.predict_in_tiles(predict_fn, pixels, tile=256)
                   for predict_fn in predict_fns])


def cross(kernel_fn: KernelFn, x: jax.Array, support: jax.Array) -> np.ndarray:
  """K(x, support) on the host, tile by tile."""
  run = Partial(_cross(kernel_fn), support)
  return krr.predict_in_tiles(run, x, tile=1000)


@functools.lru_cache(maxsize=16)
def _cross(kernel_fn):
  return lambda support, x: kernel_fn.cross(x, support)


def decisions(outputs: np.ndarray) -> np.ndarray:
  """(..., N) classes of outputs (..., N, K): argmax, or sign if K = 1."""
  if outputs.shape[-1] == 1:
    return (outputs[..., 0] > 0).astype(np.int32)
  return outputs.argmax(-1)
