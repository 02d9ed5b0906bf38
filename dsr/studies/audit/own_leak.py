"""Sets of one's own as victims of the reconstruction: what is said of them.

A network is trained on the set as it is, and attacked. What came back is held
against the set and against training images, see `leak_data`.
"""
from typing import Any

import numpy as np

from dsr.studies.audit import leak_data, leaks, subjects
from dsr.studies.distillation import evaluation, names


def load(config: Any) -> list[tuple[str, subjects.Shown, Any]]:
  """(path, set, problem) of each of one's own sets; writes nothing.

  Args:
    config: of `leakage`: its `own`, `dataset`, `data_dir` and `seed`.

  Raises:
    ValueError: as `sets.from_file`.
  """
  return [(path, *leak_data.load_set(leak_data.Config(
      dataset=config.dataset, data_dir=config.data_dir, seed=config.seed,
      set=path))) for path in evaluation.names(config.own)]


def too_large(config: Any, num_images: int, image: np.ndarray) -> list[str]:
  """Regimes that cannot tell so many images apart: `first_layer`'s limit.

  Args:
    config: of `leakage`: its `regimes` and `width`.
    num_images: of the set.
    image: one of them.
  """
  limit = min(image.size + 1, config.width)
  return [regime for regime in evaluation.names(config.regimes)
          if regime != 'infinite' and num_images >= limit]


def sentence(rows: list[dict[str, Any]]) -> str:
  """What came back of one's own sets, set by set; '' without any.

  Args:
    rows: with `method`, `regime`, `num_images` and the `metrics` of an attack.
  """
  told = []
  for row in rows:
    own, train, given = (
        row['metrics'][f'{who}_recovered_rmse_{leaks.LEVEL}'].value
        for who in ('own', 'train', 'given'))
    total = round(row['num_compared'])
    told.append(
        f'a network trained on {row["method"]} ({row["regime"]}) gave back '
        f'{round(own * row["num_images"])} of its '
        f'{row["num_images"]} images, and with them '
        f'{round(train * total)} training images '
        f'({round(given * total)} are in the set itself)')
  return f'At RMSE < {leaks.LEVEL}, {"; ".join(told)}.' if told else ''


def untested(config: Any, sets: list[tuple[str, subjects.Shown, Any]]) -> str:
  """Which attacks were not made on which set, and why; '' if all were.

  Args:
    config: of `leakage`: its `regimes` and `width`.
    sets: of `load`.
  """
  told = []
  for path, shown, _ in sets:
    num = len(shown.labels)
    if out := too_large(config, num, shown.pixels[0]):
      told.append(
          f'{names.title(path)} was not attacked in the regime'
          f'{"s" * (len(out) > 1)} {" and ".join(out)}: its {num} images are '
          'more than the first layer can tell apart')
  return '. '.join(told) + '.' if told else ''
