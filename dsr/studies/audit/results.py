"""The records of an audit, and how numbers of them are told."""
from collections.abc import Callable
import functools
import pathlib
from typing import Any

from dsr.report import tables
from dsr.runs import records
from dsr.studies.audit import claims, subjects
from dsr.studies.distillation import evaluation

_CALLED = {'krr': 'kernel regression', 'set': 'the images alone',
           'mlp': 'the MLP', 'lenet': 'LeNet',
           'convnet3': 'ConvNet-3', 'alexnet': 'AlexNet', 'vgg11': 'VGG-11',
           'resnet18': 'ResNet-18', 'resnet': 'the ResNet'}
_MOST_NAMED = 3  # Sets of one's own in an answer; tables have them all.
SET, MODEL = tables.Column('set'), tables.Column('model')


class Results:
  """All records of an audit, read once.

  Attributes:
    config: an `experiments.audit.Config`.
    plan: its `Plan`.
    folder: where pictures go.
    networks: names of the networks.
    missing: which parts are, in a sentence; '' if none is.
    drawings: file in `folder` -> function of its path that draws it.
  """

  def __init__(self, config: Any, plan: Any, missing: str = ''):
    self.config, self.plan, self.missing = config, plan, missing
    self.folder = pathlib.Path(config.workdir)
    self.networks = evaluation.names(config.networks)
    self.drawings: dict[str, Callable[[pathlib.Path], Any]] = {}

  def later(self, name: str, draw: Callable, *args, **options) -> pathlib.Path:
    """The path of a picture that `draw(path, ...)` is to make at the end."""
    self.drawings[name] = lambda path: draw(path, *args, **options)
    return self.folder / name

  @functools.cache  # noqa: B019
  def rows(self, stage: str) -> list[dict[str, Any]]:
    """Records of a stage with set, name, model, method, and size."""
    found = []
    for (name, model), job in getattr(self.plan, stage).items():
      subject = self.plan.subjects[name]
      found.append(records.read(job.workdir) | {
          'set': subject.title, 'name': name, 'model': model,
          'method': subject.method, 'size': subject.size,
          'init': subject.init, 'folder': job.workdir})
    return found

  def of(self, stage: str, name: str, model: str) -> dict[str, Any]:
    """One of `rows`."""
    return next(row for row in self.rows(stage)
                if (row['name'], row['model']) == (name, model))

  @property
  def leakage(self) -> dict[str, Any] | None:
    """The record of the reconstruction, if one was made."""
    job = self.plan.leakage
    return None if job is None else records.read(job.workdir)

  @property
  def claims(self) -> dict[str, Any] | None:
    """The record of the claims, if they were tested."""
    job = self.plan.claims
    return None if job is None else records.read(job.workdir)

  @functools.cached_property
  def lira(self) -> dict[str, dict[str, Any]]:
    """Method -> record of the attack with shadow models."""
    return {name: records.read(job.workdir)
            for name, job in self.plan.lira.items()}


def class_of(row: dict[str, Any], c: Any) -> str:
  """What class `c` is called in the data of a record; its number otherwise."""
  names = row['extra'].get('data', {}).get('classes')
  return names[int(c)] if names else str(c)


def told(metric: Any, *, percent: bool = True) -> str:
  """'91.2 % [90.1, 92.3]', or a plain number with its interval."""
  scale, digits, unit = (100, 1, ' %') if percent else (1, 3, '')
  value, low, high = (f'{scale * v:.{digits}f}' for v in (
      metric.value, metric.low, metric.high))
  return f'{value}{unit} [{low}, {high}]'


def own_sets(rows: list[dict[str, Any]], most: int = _MOST_NAMED
             ) -> list[dict[str, Any]]:
  """The first of the sets that the user brought; tables have them all."""
  return [row for row in rows if row['method'] == 'own'][:most]


def of_own(rows: list[dict[str, Any]], key: str) -> list[str]:
  """One's own sets in a sentence each: a share, by every model.

  Args:
    rows: with `set`, `model`, `method` and `metrics`.
    key: of the metric; rows without it are left out.
  """
  found: dict[str, list[str]] = {}
  for row in own_sets(rows, most=len(rows)):
    if key in row['metrics']:
      found.setdefault(row['set'], []).append(
          f'{told(row["metrics"][key])} by {called(row["model"])}')
  return [f'{name}: {" and ".join(shares)}'
          for name, shares in list(found.items())[:_MOST_NAMED]]


def distilled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Those of small sets."""
  return [row for row in rows if row['method'] not in ('all', 'dp')]


def main_model(results: Results) -> str:
  """The model that figures and sentences are about."""
  return results.networks[0] if results.networks else subjects.KRR


def sentence(parts: list[str]) -> str:
  """Parts as sentences."""
  return '. '.join(part[0].upper() + part[1:] for part in parts) + '.'


def called(model: str) -> str:
  """The model in a sentence."""
  return _CALLED.get(model, model)


def models_of(results: Results) -> list[str]:
  """Kernel regression and the networks."""
  return [subjects.KRR, *results.networks]


def attack_of(model: str) -> str:
  """The membership attack that stands for all of a model, or of a set."""
  return 'pixel_distance' if model == 'set' else claims.attack_of(model)
