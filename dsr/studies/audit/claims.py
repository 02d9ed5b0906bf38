"""Three claims of arXiv:2305.03355, held against the records of an audit.

The command is `experiments.claims`; its docstring has an example, and what
it writes.
"""
import dataclasses
import pathlib
import time
from typing import Any

import jax

from dsr import checks
from dsr.probes import membership as membership_lib
from dsr.runs import contents, records
from dsr.studies.audit import subjects
from dsr.studies.distillation import evaluation

CLAIMS = ('size', 'init', 'spread')


@dataclasses.dataclass(frozen=True)
class Config:
  """Tests claims on what an audit has measured."""

  audit: str = 'out/audit'  # Workdir of experiments.audit.
  # Names of its sets, with commas between them; '' for all.
  subjects: str = ''
  models: str = 'krr,mlp'  # Of which model; krr or a network.
  num_resamples: int = 500  # Of the bootstrap.
  seed: int = 0  # Of the bootstrap.
  workdir: str = 'out/claims'  # Where the record goes.


def attack_of(model: str) -> str:
  """The membership attack that stands for all, named before any was run."""
  return 'squared_error' if model == subjects.KRR else 'loss'


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any record is read."""
  checks.at_least('num_resamples', config.num_resamples, 2)
  if not evaluation.names(config.models):
    raise ValueError('`models` must name one or more, got none.')
  if not pathlib.Path(config.audit).is_dir():
    raise ValueError('`audit` must be the workdir of experiments.audit, got '
                     f'{config.audit!r}.')


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record.

  Metrics are named `<claim>_<set>_<model>_<question>`, each the difference
  that the claim says is above 0.
  """
  began = time.monotonic()
  check(config)
  root = pathlib.Path(config.audit)
  sets = {name: records.read(root / name)['config']
          for name in _subjects(config, root)
          if (root / name / 'record.json').exists()}
  key = jax.random.key(config.seed + 10)
  metrics, cases = {}, []
  for model in evaluation.names(config.models):
    for claim, name, other, questions in _pairs(sets):
      for question in questions:
        found = _difference(key, config, name, other, model, question)
        if found is not None:
          label = f'{claim}_{name}_{model}_{question}'
          metrics[label] = found
          cases.append({'claim': claim, 'set': name, 'other': other,
                        'model': model, 'question': question, 'metric': label})
    for name in sets:
      folder = root / name / model / 'fairness'
      if (folder / 'record.json').exists():
        label = f'spread_{name}_{model}_classes'
        metrics[label] = records.read(folder)['metrics']['change_between']
        cases.append({'claim': 'spread', 'set': name, 'other': 'all',
                      'model': model, 'question': 'classes', 'metric': label})
  records.write(config.workdir, config=config, contents=contents.of(config),
                metrics=metrics,
                wall_time=time.monotonic() - began, extra={
                    'cases': cases, 'tally': tally(metrics, cases)})
  return metrics


def _subjects(config, root) -> list[str]:
  """Folders of sets, each with a model that was asked something."""
  measured = sorted({path.parents[2].name for path in root.glob(
      '*/*/*/record.json') if path.parent.name in ('membership', 'fairness')})
  if not measured:
    raise ValueError('`audit` must hold the records of experiments.audit, got '
                     f'{str(root)!r} without any.')
  named = evaluation.names(config.subjects)
  for name in named:
    checks.one_of('subjects', name, measured)
  for model in evaluation.names(config.models):
    if not any((root / name / model).is_dir() for name in named or measured):
      raise ValueError(f'`models` must be those of {root}, got {model!r}.')
  return named or measured


def tally(metrics: dict[str, Any], cases: list[dict[str, str]]
          ) -> dict[str, dict[str, int]]:
  """Claim -> how many cases support it, contradict it, or leave it open."""
  found = {claim: {'supported': 0, 'contradicted': 0, 'open': 0}
           for claim in CLAIMS}
  for case in cases:
    metric = metrics[case['metric']]
    verdict = ('supported' if metric.low > 0 else
               'contradicted' if metric.high < 0 else 'open')
    found[case['claim']][verdict] += 1
  return found


def _pairs(sets):
  """(claim, the set that should leak more, the other, about what)."""
  of = {(c['method'], c['init'], c['images_per_class']): name
        for name, c in sets.items()}
  sizes = sorted({size for _, _, size in of})
  for (method, init, size), name in of.items():
    if size != sizes[0] and (method, init, sizes[0]) in of:
      yield 'size', name, of[method, init, sizes[0]], ('train',)
    if init == 'real' and (method, 'noise', size) in of:
      yield 'init', name, of[method, 'noise', size], ('train', 'init')


def _difference(key, config, name, other, model, question):
  """The AUC of the first set less that of the second; None if not measured."""
  sides, member = [], None
  for set_name in (name, other):
    folder = pathlib.Path(config.audit, set_name, model, 'membership')
    if not (folder / 'record.json').exists():
      return None
    arrays = records.read_arrays(folder)
    label = f'{question}_{attack_of(model)}'
    if label not in arrays:
      return None
    member = arrays[f'{question}_member']
    sides.append(arrays[label])
  return membership_lib.difference(
      key, *sides, member, num_resamples=config.num_resamples).auc
