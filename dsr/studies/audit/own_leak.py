"""Sets of one's own as victims of the reconstruction: files and sentences.

A network is trained on the set as it is, and attacked. What came back is held
against the set and against training images: those nearest to the set, and
others drawn at random, since nothing else of a large training set can have come
back through the set.
"""
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from dsr import checks
from dsr.data import Splits, files
from dsr.probes import copies as copies_lib
from dsr.studies.audit import attack_set, leaks, subjects
from dsr.studies.distillation import evaluation, names

_NEAREST = 10  # Training images held against each image of the set.
_OTHERS = 1000  # Further ones, at random.


@dataclasses.dataclass(frozen=True)
class Own:
  """A set, and the files that its attacks read.

  Attributes:
    name: of its folder, below the workdir.
    title: in tables.
    dataset: path of the training images that it is held against.
    images: path of the set, as `experiments.attack_set` takes it.
    num_images: S.
    splits: what `dataset` holds.
    digest: of the set.
  """

  name: str
  title: str
  dataset: str
  images: str
  num_images: int
  splits: Splits
  digest: str


def load(config: Any) -> list[tuple[str, subjects.Shown, Any]]:
  """(path, set, problem) of each of one's own sets; writes nothing.

  Args:
    config: of `leakage`: its `own`, `dataset`, `data_dir` and `seed`.

  Raises:
    ValueError: as `sets.from_file`.
  """
  found = []
  for path in evaluation.names(config.own):
    problem = subjects.load_problem(subjects.SubjectConfig(
        dataset=config.dataset, data_dir=config.data_dir, seed=config.seed,
        transform='mean', validation=0.0))
    with checks.renamed(set='own'):
      found.append((path, subjects.from_file(path, problem), problem))
  return found


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


def write(config: Any, sets: list[tuple[str, subjects.Shown, Any]]
          ) -> list[Own]:
  """Writes what the attacks on each set read, in files named by contents.

  Args:
    config: of `leakage`: its `workdir` and `seed`.
    sets: of `load`.
  """
  found, folder = [], pathlib.Path(config.workdir)
  folders = names.folders([path for path, *_ in sets])
  for path, shown, problem in sets:
    train, name = problem.train, f'own/{folders[path]}'
    near, _ = copies_lib.neighbours(
        np.clip(shown.pixels, 0, 1), train.x, _NEAREST)
    others = np.asarray(jax.random.permutation(
        jax.random.fold_in(jax.random.key(config.seed), 14), len(train)))
    rows = np.union1d(near.reshape(-1), others[:_OTHERS])
    splits = Splits(train.take(rows), problem.test)
    arrays = {'x_train': splits.train.x, 'y_train': splits.train.y,
              'x_test': splits.test.x, 'y_test': splits.test.y}
    own = {'images': shown.pixels, 'labels': shown.labels,
           'targets': np.asarray(shown.examples.y)}
    digest = attack_set.digest(shown.pixels, own['targets'])
    paths = [folder / name / f'{stem}_{attack_set.digest(*a.values())}.npz'
             for stem, a in (('train', arrays), ('set', own))]
    for where, content in zip(paths, (arrays, own)):
      if not where.exists():
        files.write_npz(where, content)
    found.append(Own(name, names.title(path), *map(str, paths),
                     len(shown.labels), splits, digest))
  return found


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
