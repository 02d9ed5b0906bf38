"""The answers of an audit as cells: sets by questions, for tests between them.

Beside a number and its interval a cell keeps what each image and each model
contributed, so that two sets, or two audits, are compared image by image. The
cells of an audit are files of their own, `cells.json` and `cells.npz`, which
`experiments.audit --compare` reads.
"""
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from dsr import data as data_lib
from dsr.probes import (
  differences,
  fairness as fairness_lib,
  intervals,
)
from dsr.probes.differences import Difference
from dsr.runs import contents, records
from dsr.studies.audit import leaks, models as models_lib, strongest, subjects
from dsr.studies.audit.results import Results, class_of, main_model
from dsr.studies.distillation import evaluation

NAME = 'cells'  # Of both files.
_ROBUST = ('worst_linf', 'worst_l2', 'corrupted')  # The first that was tried.


class Question(NamedTuple):
  """A column of the table.

  Attributes:
    title: its heading.
    better: 1 if more is better, -1 if less is.
    percent: whether shares are shown times 100.
    unit: what it is asked of, in a sentence.
  """

  title: str
  better: int
  percent: bool
  unit: str


QUESTIONS = {
    'accuracy': Question('accuracy', 1, True, 'test images'),
    'membership': Question('membership, AUC', -1, False, 'images'),
    'start': Question('membership of the start, AUC', -1, False, 'images'),
    'robustness': Question('accuracy under attack', 1, True, 'test images'),
    'worst': Question('worst class', 1, True, 'test images'),
    'rebuilt': Question('training images given back', -1, True,
                        'training images')}


class Cell(NamedTuple):
  """The answer to one question for one set.

  Attributes:
    metric: the number with its interval.
    images: digest of what was asked; equal ones are compared image by image.
    arrays: `right` (R, N) of the R models on N images; of the test images
      `labels` besides.
    sources: of questions about membership, the attacks that were made.
    of: what gave the number, in words.
    seed: of the audit.
  """

  metric: Any
  images: str
  arrays: dict[str, np.ndarray]
  sources: tuple[strongest.Source, ...] = ()
  of: str = ''
  seed: int = 0


class Compared(NamedTuple):
  """Two cells: the values that were compared, and a - b.

  They are those of the cells but where an attack was made on one side alone:
  then of the strongest attack among those made on both.
  """

  a: float
  b: float
  difference: Difference
  paired: bool
  unit: str  # Of the models: 'networks', or 'targets' of shadow attacks.


def collect(results: Results) -> dict[tuple[str, str], Cell]:
  """(set, question) -> cell, of the questions that were asked, in order."""
  model, found = main_model(results), {}
  for name, cell in accuracies(results, model).items():
    found[name, 'accuracy'] = cell
    fair = results.of('fairness', name, model)
    found[name, 'worst'] = cell._replace(
        metric=fair['metrics']['worst'],
        of=f'class {class_of(fair, fair["extra"]["worst_class"])}')
  for name in results.plan.subjects:
    found |= {(name, question): cell for question, asked in (
        ('membership', 'train'), ('start', 'init'))
              if (cell := _membership(results, name, asked)) is not None}
  found |= {(row['name'], 'robustness'): cell
            for row in results.rows('robustness') if row['model'] == model
            if (cell := _robustness(row)) is not None}
  found |= _rebuilt(results)
  return {(name, question): found[name, question]
          for name in results.plan.subjects for question in QUESTIONS
          if (name, question) in found}


def accuracies(results: Results, model: str) -> dict[str, Cell]:
  """Set -> accuracy of a model of it, of those that have that model."""
  test, found = data_lib.load(
      results.config.dataset, data_dir=results.config.data_dir,
      seed=results.config.seed).test, {}
  for row in results.rows('fits'):
    if row['model'] == model:
      outputs = records.read_arrays(pathlib.Path(row['folder']))['outputs']
      found[row['name']] = Cell(
          row['metrics']['accuracy'], data_lib.digest(
              np.array([row['contents']['dataset']]), test.y),
          {'right': models_lib.decisions(outputs) == test.y[None],
           'labels': test.y}, seed=results.config.seed)
  return found


def _membership(results, name, asked) -> Cell | None:
  """By the strongest attack, see `strongest`."""
  sources = tuple(strongest.sources(results, name, asked))
  if not sources:
    return None
  row = results.of('membership', name, sources[0].model)
  parts = [np.array([row['contents']['dataset'], asked, *(
      str(row['config'][key]) for key in (
          'seed', 'num_probed', 'max_train', 'validation'))])]
  if asked == 'init':
    shown, _ = subjects.load_set(
        results.plan.membership[name, sources[0].model])
    parts.append(np.unique(shown.init_rows))
  best = strongest.of_set(results, name, asked)
  return Cell(best.auc, data_lib.digest(*parts), {}, sources,
              f'{best.attack}, on {best.model}', results.config.seed)


def _robustness(row) -> Cell | None:
  arrays = records.read_arrays(pathlib.Path(row['folder']))
  name = next((n for n in _ROBUST if f'right_{n}' in arrays), None)
  if name is None:
    return None
  config = row['config']
  return Cell(
      row['metrics'][f'{name}_accuracy'], data_lib.digest(
          np.array([row['contents']['dataset'], name, str(config['seed']),
                    str(row['extra']['radii'])]), arrays['labels']),
      {'right': arrays[f'right_{name}']}, of=name.replace('_', ' '))


def _rebuilt(results) -> dict[tuple[str, str], Cell]:
  """Of every set or method that was attacked, by any of the regimes."""
  record, found = results.leakage, {}
  if record is None:
    return found
  folder = pathlib.Path(results.plan.leakage.workdir)
  regimes = evaluation.names(record['config']['regimes'])
  for name, subject in results.plan.subjects.items():
    where = folder / ('own' if subject.method == 'own' else '') / (
        name if subject.method == 'own' else subject.method)
    parts = [where / regime for regime in regimes
             if (where / regime / 'record.json').exists()]
    if not parts or subject.init != 'real':
      continue
    near = [records.read_arrays(part)['train'] for part in parts]
    back = np.any([d < float(leaks.LEVEL) for d in near], axis=0)
    images = records.read(parts[0])['contents']['dataset']
    found[name, 'rebuilt'] = Cell(
        intervals.wilson(int(back.sum()), len(back)), images,
        {'right': back[None]}, of=f'{int(back.sum())} of {len(back)}')
  return found


def compare(question: str, a: Cell, b: Cell) -> Compared | None:
  """a - b; None where no attack was made on both.

  Args:
    question: of `QUESTIONS`.
    a: of one set, or of one audit.
    b: of another.
  """
  paired = a.images == b.images
  unit = 'networks'
  if a.sources or b.sources:
    both = _common(a, b)
    if both is None:
      return None
    (one, truth), (other, other_truth) = both
    paired = paired and np.array_equal(truth, other_truth)
    samples = [_auc_sample(*side) for side in both]
    if not all(sample.strata for sample in samples):
      unit = 'targets'
      paired = np.array_equal(truth, other_truth)
  elif question == 'worst':
    return _worst(a, b, paired)
  else:
    samples = [differences.of_shares(cell.arrays['right']) for cell in (a, b)]
  found = differences.difference(*samples, paired=paired)
  return Compared(*(float(sample.models.mean()) for sample in samples),
                  found, paired, unit)


def _common(a, b):
  """(scores, member) of both on the second half, of attacks made on both."""
  named = [{(s.model, s.name): s for s in cell.sources} for cell in (a, b)]
  shared = [key for key in named[0] if key in named[1]]
  if not shared:
    return None
  key = strongest.key_of(a.seed)
  return [strongest.half(key, strongest.pick(
      key, [side[name].read() for name in shared]), 1) for side in named]


def _auc_sample(scores, member) -> differences.Sample:
  if strongest.shared(member):
    return differences.of_auc(scores, member[0])
  return differences.of_models(np.array([
      differences.of_auc(s, m).models[0] for s, m in zip(scores, member)]))


def _worst(a, b, paired) -> Compared:
  """By the bootstrap of `fairness.compare`, as the least of several shares."""
  number = len(a.arrays['labels'])
  if not paired:
    found = differences.two_intervals(a.metric, b.metric, number)
  else:
    labels = np.asarray(a.arrays['labels']).astype(int)
    said = [np.where(cell.arrays['right'], labels, labels.max() + 1)
            for cell in (a, b)]  # Right or wrong is all that counts.
    found = differences.from_ends(fairness_lib.compare(
        jax.random.key(a.seed + 15), labels, *said).worst, number)
  return Compared(a.metric.value, b.metric.value, found, paired, 'networks')


def save(results: Results, cells: dict[tuple[str, str], Cell]) -> None:
  """Writes `cells.json` and `cells.npz` into the workdir of the audit."""
  root, arrays, rows = results.folder, {}, []
  for i, ((name, question), cell) in enumerate(cells.items()):
    subject = results.plan.subjects[name]
    arrays |= {f'cell_{i}_{key}': value for key, value in cell.arrays.items()}
    rows.append({
        'set': name, 'title': subject.title, 'method': subject.method,
        'question': question, 'images': cell.images, 'of': cell.of,
        'seed': cell.seed, 'arrays': list(cell.arrays), 'sources': [
            source._replace(file=str(pathlib.Path(source.file).relative_to(
                root)))._asdict() for source in cell.sources]})
  records.write(
      root, config=results.config, contents=contents.of(results.config),
      name=NAME, arrays=arrays, arrays_name=NAME, metrics={
          f'{name}_{question}': cell.metric
          for (name, question), cell in cells.items()}, extra={'cells': rows})


def load(folder: str) -> tuple[dict[str, Any], dict[tuple[str, str], Cell]]:
  """(record, cells) of the audit in `folder`, wherever it was made.

  Raises:
    ValueError: there are none.
  """
  root = pathlib.Path(folder)
  record = records.read(root / f'{NAME}.json')
  arrays = records.read_arrays(root / record['arrays'])
  found = {}
  for i, row in enumerate(record['extra']['cells']):
    sources = tuple(strongest.Source(**source | {
        'file': str(root / source['file'])}) for source in row['sources'])
    found[row['set'], row['question']] = Cell(
        record['metrics'][f'{row["set"]}_{row["question"]}'], row['images'],
        {key: arrays[f'cell_{i}_{key}'] for key in row['arrays']}, sources,
        row['of'], row['seed'])
  return record, found
