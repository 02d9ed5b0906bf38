"""Arrays of files as datasets, checked."""
from typing import NamedTuple

import numpy as np

from dsr import checks
from dsr.data import files
from dsr.types import Dataset


class Splits(NamedTuple):
  """A dataset's training and test parts."""

  train: Dataset
  test: Dataset


def pixels(name, x):
  """Images as (N, H, W, C) float32 in [0, 1], or a table (N, D); checked."""
  if x.ndim == 2:
    return _table(name, x)
  if x.ndim == 3:
    x = x[..., None]
  files.channels_last(name, x)
  if x.dtype == np.uint8:
    x = x.astype(np.float32)
    x /= np.float32(255)
    checks.images(name, x)
    return x
  if not np.issubdtype(x.dtype, np.floating):
    raise ValueError(
        f'`{name}` must be uint8, or float in [0, 1], got {x.dtype}.')
  checks.images(name, x)
  checks.finite(name, x)
  if x.min() < 0 or x.max() > 1:
    raise ValueError(
        f'`{name}` must be uint8, or float in [0, 1], '
        f'got {x.dtype} from {x.min():.4g} to {x.max():.4g}.')
  return x.astype(np.float32)


def _table(name, x):
  """Rows of D numbers of any size, as float32."""
  if x.dtype.kind not in 'fiu':
    raise ValueError(f'`{name}` must hold numbers, got {x.dtype}.')
  x = x.astype(np.float32)
  checks.features(name, x)
  checks.finite(name, x)
  return x


def splits(arrays, num_classes: int, name: str) -> Splits:
  """Of x_train, y_train, x_test, y_test, as checked."""
  x_train, y_train, x_test, y_test = arrays
  return Splits(
      Dataset(x_train, y_train.astype(np.int32), num_classes, name),
      Dataset(x_test, y_test.astype(np.int32), num_classes, name))
