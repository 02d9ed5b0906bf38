"""Trains the models of an audit on a set, and keeps them.

The command is `experiments.fit`; its docstring has an example, and what
it writes.
"""
import dataclasses
import hashlib
import json
import math
import pathlib
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from dsr import nets, train
from dsr.probes import intervals
from dsr.runs import contents, jobs, records
from dsr.studies.audit import models as models_lib, subjects
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.problem import missing_classes

_TRAINING = 'training'


@dataclasses.dataclass(frozen=True)
class Config(subjects.SubjectConfig):
  """Trains models on a set of images."""

  workdir: str = 'out/fit'  # Where the results go.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  subjects.check(config)
  shown, problem = subjects.load_set(config)
  gaps = {'classes_not_in_set': missing_classes(shown.labels, problem.train),
          'classes_not_in_test': missing_classes(
              problem.test.y, problem.train)}
  if gaps['classes_not_in_set']:
    logging.warning('The set has no images of classes %s: a model trained on '
                    'it cannot know them.', gaps['classes_not_in_set'])
  arrays, info = {}, {}
  if config.model == subjects.KRR:
    found = models_lib.outputs(
        [subjects.kernel_regression(config, shown, problem)], problem.test.x)
  else:
    variables, info = _networks(config, shown, problem)
    arrays = models_lib.pack(variables)
    module = nets.build(config.model, _num_outputs(config, shown))
    trained = train.Trained(module, variables['params'], np.zeros((0, 0)),
                            variables.get(nets.BATCH_STATS))
    found = train.predict(trained, problem.inputs(problem.test))
  right = models_lib.decisions(found) == problem.test.y[None]
  metrics = {'accuracy': intervals.crossed(right)}
  if len(right) > 1:
    metrics['accuracy_over_networks'] = intervals.mean_t(right.mean(1))
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, arrays_name='networks',
      arrays={'outputs': found.astype(np.float32)} | arrays,
      wall_time=time.monotonic() - began,
      extra=info | {'num_images': len(shown.labels), 'method': shown.name,
                    'num_test': len(problem.test),
                    'set_notes': list(shown.notes)} | gaps)
  logging.info('%s: accuracy = %.2f %% [%.2f, %.2f]', config.model,
               *(100 * v for v in metrics['accuracy']))
  return metrics


def models(config: Any, workdir: str) -> list[jax.tree_util.Partial]:
  """The models of a stage's flags, trained if they are not there.

  Args:
    config: a `SubjectConfig`, whose field `fit`, if it has one and it is not
      '', is the workdir of the networks.
    workdir: of the stage: its folder `fit` is used otherwise.
  """
  given = getattr(config, 'fit', '')
  job = Config(**subjects.subject_fields(config),
               workdir=given or str(pathlib.Path(workdir, 'fit')))
  if given:
    _check_belongs(job)
  shown, problem = subjects.load_set(config)
  if config.model == subjects.KRR:
    return [subjects.kernel_regression(config, shown, problem)]
  if not given:
    jobs.finished(job, run)
  return subjects.networks(config, job.workdir, problem)


def _check_belongs(job: Config) -> None:
  """Raises a ValueError if the models in the workdir of `job` are of others."""
  record = jobs.recorded(job)
  if record is None or not record['command'].startswith(
      'python -m experiments.fit'):
    raise ValueError('`fit` must be the workdir of a finished experiments.fit, '
                     f'got {job.workdir!r}.')
  if not jobs.is_complete(record):
    raise ValueError(f'`fit` must be finished, {job.workdir} is not: call its '
                     f'command again: {record["command"]}')
  fields = dataclasses.fields(subjects.SubjectConfig)
  differ = jobs.differences(record, job, only=tuple(
      f.name for f in fields if f.name != 'data_dir'))
  if differ:
    raise ValueError(f'`fit` must be of the same set and flags, in '
                     f'{job.workdir} {"; ".join(differ)}.')


def _num_outputs(config, shown) -> int:
  two = evaluation.protocol(config).loss == 'cross_entropy' or config.dp_epsilon
  return max(2, shown.examples.y.shape[1]) if two else shown.examples.y.shape[1]


def _networks(config, shown, problem):
  """Variables of all networks, each leaf (R, ...), and what to tell of them."""
  folder = pathlib.Path(config.workdir) / _TRAINING
  fields = subjects.subject_fields(config) | {'num_networks': 0, 'data_dir': ''}
  digest = hashlib.sha256(b''.join(
      np.ascontiguousarray(a).tobytes() for a in shown.examples)).hexdigest()
  fingerprint = json.dumps(fields | {
      'set': digest, 'student_rate': shown.student_rate}, sort_keys=True)
  done, info = [], {}
  for r in range(config.num_networks):
    path = folder / f'network_{r}.npz'
    kept = records.read_arrays(path) if path.exists() else {}
    if str(kept.get('fingerprint')) != fingerprint:
      began = time.monotonic()
      trained, info = _train(
          jax.random.fold_in(jax.random.key(config.seed + 3), r), config,
          shown, problem)
      variables = {'params': trained.params}
      if trained.batch_stats is not None:
        variables[nets.BATCH_STATS] = trained.batch_stats
      kept = models_lib.pack(variables)
      path.parent.mkdir(parents=True, exist_ok=True)
      with records.replacing(path) as part, open(part, 'wb') as file:
        np.savez(file, fingerprint=fingerprint, info=json.dumps(info), **kept)
      logging.info('%s %d of %d: %.1f s', config.model, r + 1,
                   config.num_networks, time.monotonic() - began)
    else:
      info = json.loads(str(kept['info']))
    done.append(models_lib.unpack(kept))
  stack = lambda *leaves: np.concatenate(leaves)
  return jax.tree.map(stack, *done), info


def _train(key, config, shown, problem):
  """One network, as `train.Trained` with R = 1."""
  recipe = evaluation.protocol(config, shown.student_rate)
  examples = shown.examples
  module = nets.build(config.model, _num_outputs(config, shown))
  if config.dp_epsilon:
    examples = examples._replace(y=evaluation.probabilities(examples.y))
    batch = min(recipe.batch_size, len(examples.y))
    steps = recipe.epochs * math.ceil(len(examples.y) / batch)
    trained, privacy = train.fit_private(
        key, module, examples, epsilon=config.dp_epsilon,
        delta=config.dp_delta, clip=config.dp_clip, num_steps=steps,
        expected_batch=batch, num_networks=1,
        optimizer=train.make_optimizer(recipe, num_steps=steps))
    return trained, {'privacy': privacy._asdict()}
  if recipe.loss == 'cross_entropy':
    examples = examples._replace(y=evaluation.probabilities(examples.y))
  found = train.evaluate(
      key, module, examples, problem.inputs(problem.test)[:1],
      problem.test.y[:1], protocol=recipe, num_networks=1)
  return found.trained, {}
