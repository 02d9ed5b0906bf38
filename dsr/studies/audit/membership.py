"""Membership inference against a set of images, and models trained on it.

The command is `experiments.membership`; its docstring has an example, and what
it writes.
"""
import dataclasses
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from dsr import checks
from dsr.probes import learned, membership, nearest, scores as scores_lib
from dsr.runs import contents, records
from dsr.studies.audit import copies, fit, models as models_lib, subjects
from dsr.studies.distillation import evaluation, problem as problem_lib
from dsr.types import Dataset

SET = 'set'  # In place of a model: the images of the set themselves.
QUESTIONS = ('train', 'init')
SET_ATTACKS = ('pixel_distance', 'kernel_distance', 'pixel_density')
_MOST_SHOWN = 2000  # Images of a set beyond which its density is not fitted.


@dataclasses.dataclass(frozen=True)
class Config(subjects.SubjectConfig):
  """Attacks the membership of images."""

  fit: str = ''  # Workdir of experiments.fit with the networks; '': made here.
  num_probed: int = 2000  # Members, and as many others, if there are so many.
  learned: str = 'logistic,mlp'  # Attacks that are trained; '' for none.
  num_resamples: int = 500  # Of the bootstrap.
  workdir: str = 'out/membership'  # Where the results go.


class Probe(NamedTuple):
  """The images of one question, (N, ...), and the truth about them."""

  images: Dataset
  member: np.ndarray
  rows: np.ndarray  # Where they are from, see `subjects.origins`.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  check(config)
  shown, problem = subjects.load_set(config)
  models = ([] if config.model == SET else
            fit.models(config, config.workdir))
  metrics, arrays = (copies.measure(config, shown, problem)
                     if config.model == SET else ({}, {}))
  for number, (question, probe) in enumerate(
      probes(config, shown, problem).items()):
    key = jax.random.fold_in(jax.random.key(config.seed + 7), number)
    key_learned, key_resample = jax.random.split(key)
    if config.model == SET:
      found = _by_images(config, shown, problem, probe)
    else:
      found = _by_outputs(key_learned, config, models, probe)
    for attack, scores in found.items():
      metrics |= {
          f'{question}_{attack}_{name}': value
          for name, value in membership.evaluate_models(
              key_resample, scores, probe.member,
              num_resamples=config.num_resamples)._asdict().items()}
      arrays[f'{question}_{attack}'] = scores
    arrays |= {f'{question}_member': probe.member,
               f'{question}_labels': probe.images.y,
               f'{question}_rows': probe.rows}
    metrics[f'{question}_members'] = records.metric(int(probe.member.sum()))
    metrics[f'{question}_others'] = records.metric(int((~probe.member).sum()))
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays=arrays,
      arrays_name='membership', wall_time=time.monotonic() - began,
      extra={'outsiders': subjects.outsiders(problem)[1], 'init': shown.init,
             'method': shown.name})
  return metrics


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  model = subjects.KRR if config.model == SET else config.model
  subjects.check(dataclasses.replace(config, model=model))
  checks.at_least('num_probed', config.num_probed, 10)
  checks.at_least('num_resamples', config.num_resamples, 2)
  for name in evaluation.names(config.learned):
    checks.one_of('learned', name, learned.MODELS)
  if config.model == SET and not config.set:
    raise ValueError('`set` must be given with model set: all training images '
                     'are members as they stand.')


def probes(config: Any, shown: subjects.Shown,
           problem: problem_lib.Problem) -> dict[str, Probe]:
  """The questions that can be asked, the same images for all sets.

  Args:
    config: its `num_probed` and `seed`.
    shown: the set, which decides about `init`.
    problem: whose images are asked about.
  """
  keys = jax.random.split(jax.random.key(config.seed + 6))
  outside, _ = subjects.outsiders(problem)
  pick = lambda key, pool: np.sort(np.asarray(jax.random.choice(
      key, len(pool), (min(config.num_probed, len(pool)),), replace=False)))
  inside = pick(keys[0], problem.train)
  others = pick(keys[1], outside)
  found = {'train': _probe(
      problem.train.take(inside), outside.take(others),
      problem.rows[inside], subjects.origins(problem)[others])}
  if shown.init_rows is not None:
    rows = np.unique(shown.init_rows)
    others = np.setdiff1d(inside, rows)
    if len(others):
      found['init'] = _probe(
          problem.train.take(rows), problem.train.take(others),
          problem.rows[rows], problem.rows[others])
  return found


def _probe(members, others, *rows):
  both = dataclasses.replace(
      members, x=np.concatenate([members.x, others.x]),
      y=np.concatenate([members.y, others.y]))
  return Probe(both, np.arange(len(both)) < len(members),
               np.concatenate(rows))


def _by_outputs(key, config, models, probe) -> dict[str, np.ndarray]:
  """Scores (R, N) of every attack on the outputs of R models."""
  outputs = models_lib.outputs(models, probe.images.x)
  y = probe.images.y
  found = {name: score(outputs, y)
           for name, score in scores_lib.SCORES.items()}
  targets = None
  if config.model == subjects.KRR:
    targets = np.asarray(problem_lib.encoded(probe.images), float)
    found['squared_error'] = scores_lib.negative_squared_error(outputs, targets)
  for i, name in enumerate(evaluation.names(config.learned)):
    keys = jax.random.split(jax.random.fold_in(key, i), len(outputs))
    if min(probe.member.sum(), (~probe.member).sum()) >= 5:
      found[f'learned_{name}'] = np.stack([
          learned.learned_scores(
              k, out, y, probe.member, targets=targets, model=name)
          for k, out in zip(keys, outputs)])
  return found


def _by_images(config, shown, problem, probe) -> dict[str, np.ndarray]:
  """Scores (1, N) of every attack on the images of the set."""
  pixels = probe.images.x
  found = {'pixel_distance': nearest.nearest_scores(pixels, shown.pixels)}
  kernel_fn = evaluation.kernel_named(config.kernel)
  inputs, support = problem.inputs(probe.images), shown.examples.x
  found['kernel_distance'] = nearest.kernel_scores(
      kernel_fn.diag(inputs), models_lib.cross(kernel_fn, inputs, support),
      kernel_fn.diag(support))
  if len(shown.pixels) <= _MOST_SHOWN:
    found['pixel_density'] = nearest.density_scores(pixels, shown.pixels)
  return {name: np.asarray(score, float)[None]
          for name, score in found.items()}
