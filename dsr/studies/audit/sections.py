"""The questions of an audit, each answered from records in a sentence."""
from collections.abc import Callable
import pathlib

import numpy as np

from dsr.report import answers, dots, figures, tables
from dsr.report.page import Picture, Section, Table
from dsr.runs import records
from dsr.studies.audit import (
  given_back,
  names as names_lib,
  privacy as audit_privacy,
  robustness,
)
from dsr.studies.audit.results import (
  MODEL,
  SET,
  Results,
  called,
  distilled,
  main_model,
  models_of,
  of_own,
  sentence,
  told,
)
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.results import by_class

_NOT_IN_SET = 'classes_not_in_set'  # Of the record of experiments.fit.
_FEW = 20  # Test images of a class below which it is marked.
_ACROSS = 4  # Images of a class in the picture of the sets.
_ABREAST = 3  # Sets beside each other, at most.


def good(results: Results) -> Section:
  """Accuracy."""
  rows = []
  for row in results.rows('fits'):
    seconds = None
    if row['name'] in results.plan.sets:
      seconds = records.read(results.plan.sets[row['name']].workdir)[
          'metrics']['method_seconds'].value
    rows.append(row | {'images': row['extra']['num_images'],
                       'seconds': seconds})
  parts = [f'test accuracy on {text}' for text in of_own(rows, 'accuracy')]
  parts += list(dict.fromkeys(
      f'{row["set"]} has no image of classes {row["extra"][_NOT_IN_SET]}'
      for row in rows if row['extra'].get(_NOT_IN_SET)))
  if gaps := rows[0]['extra'].get('classes_not_in_test'):
    parts.append(f'there are no test images of classes {gaps}')
  for model in models_of(results):
    own = [row for row in rows if row['model'] == model]
    best = max(distilled(own), key=lambda r: r['metrics']['accuracy'].value)
    whole = next(r for r in own if r['method'] == 'all')
    random = next((r for r in own if (r['method'], r['size']) == (
        'random', best['size'])), None)
    text = (f'{called(model)} is right on {told(best["metrics"]["accuracy"])} '
            f'of test images with the best small set ({best["set"]}), on '
            f'{told(whole["metrics"]["accuracy"])} with all '
            f'{whole["images"]} images')
    if random is not None and random is not best:
      text += (', and on '
               f'{told(random["metrics"]["accuracy"])} with a random subset of '
               'that size')
    parts.append(text)
  series = {model: {row['set']: row['metrics']['accuracy'] for row in rows
                    if row['model'] == model}
            for model in models_of(results)}
  pictures = [Picture(
      results.later('accuracy.png', dots.intervals, series,
                    title='Test accuracy on '
                    f'{names_lib.dataset(results.config.dataset)}'),
      'Test accuracy by set and model, with 95 % intervals.')]
  pictures += _images(results)
  return Section(
      'Is it good?', sentence(parts),
      'The best of several sets is named after looking at the test set, so it '
      'flatters a little; and how well other architectures, or the same with '
      'longer training, would do is not measured.',
      [Table('Test accuracy', [
          SET, MODEL, tables.Column('images'),
          tables.Column('accuracy', title='accuracy', percent=True),
          tables.Column('seconds', title='seconds of the method', digits=1)],
             rows, 'Intervals over networks and test images.')],
      pictures)


def _images(results) -> list[Picture]:
  grids, classes = {}, []
  for name, subject in results.plan.subjects.items():
    if subject.method in ('all', 'dp'):
      continue
    arrays = records.read_arrays(
        subject.where if subject.where.endswith('.npz') else
        pathlib.Path(subject.where))
    images = arrays['images']
    images = images / 255 if images.dtype == np.uint8 else images
    images = images[..., None] if images.ndim == 3 else images
    grids[name], classes = by_class(images, arrays['labels'], most=_ACROSS)
  shapes = {grid.shape[0] for grid in grids.values()}
  if len(shapes) != 1:
    return []
  pictures, number = [], -(-len(grids) // _ABREAST)
  for i, names in enumerate(np.array_split(list(grids), number)):
    part = {str(name): grids[name] for name in names}
    pictures.append(Picture(
        results.later(f'images_{i}.png', figures.side_by_side, part, classes,
                      title=names_lib.dataset(results.config.dataset)),
        f'Images of {", ".join(part)}; a row for each class.'))
  return pictures


def robust(results: Results) -> Section:
  """Attacks and corruptions."""
  rows, model = results.rows('robustness'), main_model(results)
  first = rows[0]
  attacks = evaluation.names(results.config.attacks)
  kept = [n for n in ('worst_linf', 'worst_l2', 'transfer', 'corrupted')
           if any(f'{n}_accuracy' in row['metrics'] for row in rows)]
  columns = [SET, MODEL, tables.Column('clean_accuracy', 'clean', True)]
  columns += [tables.Column(f'{n}_accuracy', n.replace('_', ' '), True)
              for n in kept + attacks]
  key = f'{kept[0]}_accuracy' if kept else 'clean_accuracy'
  own = [row for row in rows if row['model'] == model]
  best = max(distilled(own), key=lambda r: r['metrics'][key].value)
  whole = next(r for r in own if r['method'] == 'all')
  radii = first['extra']['radii']
  answer = (
      f'Under the strongest of the attacks within epsilon = '
      f'{radii["linf"]:.3g} (linf), {called(model)} keeps '
      f'{told(best["metrics"][key])} accuracy on {best["set"]}, the best of '
      f'the small sets, and {told(whole["metrics"][key])} on all images')
  if 'corrupted' in kept:
    answer += (
        '; under common corruptions '
        f'{told(best["metrics"]["corrupted_accuracy"])} and '
        f'{told(whole["metrics"]["corrupted_accuracy"])}')
  kinds = [n for n in robustness.corruptions.CORRUPTIONS
           if f'{n}_accuracy' in first['metrics']]
  found = [Table(
      'Accuracy under attack', columns, rows,
      f'{first["extra"]["num_attacked"]} test images; epsilon '
      f'{radii["linf"]:.3g} (linf), {radii["l2"]:.3g} (l2), pixels in [0, 1]. '
      '`worst` is what withstands every untargeted attack of that norm; '
      '`transfer` what withstands examples made for another network of the '
      'same set; `corrupted` the mean over kinds and severities.')]
  if kinds:
    found.append(Table(
        'Accuracy on corrupted images',
        [SET, MODEL, *(tables.Column(f'{n}_accuracy', n.replace('_', ' '),
                                       True) for n in kinds)], rows,
        'Mean over severities '
        f'{first["config"]["severities"].replace(",", ", ")} of 5.'))
  mine = [f'under the strongest attack on {text}' for text in of_own(rows, key)]
  return Section(
      'Is it robust?', sentence([*mine, answer]),
      'These accuracies are upper bounds: attacks that were not tried may do '
      'better, and none of this is a certificate. Models that were trained '
      'with adversarial examples are in `experiments.adversarial`.', found,
      _curves(results, model))


def _curves(results, model) -> list[Picture]:
  series = {}
  for row in results.rows('robustness'):
    arrays = records.read_arrays(pathlib.Path(row['folder']))
    if row['model'] != model or 'curve_epsilons' not in arrays:
      continue
    points = [row['metrics']['clean_accuracy'], *(
        row['metrics'][f'curve_{i}_accuracy']
        for i in range(len(arrays['curve_epsilons'])))]
    series[row['set']] = (
        np.r_[0, arrays['curve_epsilons']],
        *np.transpose([(p.value, p.low, p.high) for p in points]))
  if not series:
    return []
  attack = results.rows('robustness')[0]['config']['curve']
  return [Picture(
      results.later(
          'epsilon.png', answers.against_epsilon, series,
          xlabel=f'epsilon of {attack}',
          title=f'{names_lib.dataset(results.config.dataset)}, {model}'),
      f'Accuracy of {model} under {attack} at growing radii.')]


def fair(results: Results) -> Section:
  """Classes and groups."""
  rows, model = results.rows('fairness'), main_model(results)
  rows = [row | {'worst_class': row['extra']['worst_class']} for row in rows]
  own = distilled([row for row in rows if row['model'] == model])
  whole = next(r for r in rows
               if (r['model'], r['method']) == (model, 'all'))
  wider = [r for r in own if r['metrics']['change_between'].low > 0]
  evener = [r for r in own if r['metrics']['change_between'].high < 0]
  worst = min(own, key=lambda r: r['metrics']['worst'].value)
  answer = (
      f'Across classes, {called(model)} is less even than with all images on '
      f'{len(wider)} of {len(own)} small sets, more even on {len(evener)}, '
      'and for the rest the interval holds 0. The worst class falls to '
      f'{told(worst["metrics"]["worst"])} on {worst["set"]} (class '
      f'{worst["worst_class"]}), from {told(whole["metrics"]["worst"])} on all '
      'images')
  numbers = [tables.Column('mean', 'mean', True),
             tables.Column('worst', 'worst class', True),
             tables.Column('spread', 'max - min', True),
             tables.Column('deviation', 'deviation', True),
             tables.Column('variation', 'coefficient of variation', digits=3),
             tables.Column('between', 'deviation beyond chance', True),
             tables.Column('change_between', 'its change', True)]
  found = [Table(
      'Evenness across classes', [SET, MODEL, *numbers], rows,
      'Change: against the same model of all training images, on the same '
      'test images. Chance alone makes classes differ; the deviation beyond '
      f'chance has that share taken off.{_few(rows[0])}')]
  classes = [name.removeprefix('leak_') for name in rows[0]['metrics']
             if name.startswith('leak_')]
  for prefix, title, note, percent in (
      ('leak', 'Membership AUC by class', 'In the original training set.',
       False), ('robust', 'Accuracy under attack by class', '', True)):
    if any(f'{prefix}_{c}' in rows[0]['metrics'] for c in classes):
      found.append(Table(title, [SET, MODEL, *(
          tables.Column(f'{prefix}_{c}', c, percent, None if percent else 2)
          for c in classes)], rows, note))
  grouped = [row for row in rows if 'group_mean' in row['metrics']]
  if grouped:
    found.append(Table('Evenness across the groups given', [SET, MODEL, *(
        tables.Column(f'group_{c.key}', c.title, c.percent, c.digits)
        for c in numbers), tables.Column(
            'group_odds_difference', 'equalised odds difference', digits=3),
        tables.Column('group_odds_ratio', 'ratio', digits=3)], grouped))
  series = {}
  for row in rows:
    if row['model'] == model:
      own_names = [n for n in row['metrics'] if n.startswith('accuracy_')]
      series[row['set']] = (
          [n.removeprefix('accuracy_') for n in own_names],
          *np.transpose([tuple(row['metrics'][n])[:3] for n in own_names]))
  picture = Picture(
      results.later('classes.png', answers.by_group, series,
                    title=f'{names_lib.dataset(results.config.dataset)}, '
                          f'{model}'),
      f'Test accuracy of {model} by class.{_few(rows[0])}')
  mine = [f'the worst class on {text}' for text in of_own(rows, 'worst')]
  return Section(
      'Is it fair?', sentence([*mine, answer]),
      'Evenness across classes of one test set is no statement about people '
      'or groups that it does not name; give an attribute by `--groups`. A '
      'model can be even by being equally bad.', found, [picture])


def _few(row) -> str:
  """A warning of classes whose intervals say little."""
  few = [f'{name} ({num})' for name, num in row['extra'].get(
      'class_sizes', {}).items() if num < _FEW]
  return (f' Fewer than {_FEW} test images, so that little can be said: class '
          f'{", ".join(few)}.' if few else '')


def published(results: Results) -> Section:
  """The claims of arXiv:2305.03355."""
  record = results.claims
  said = {'size': 'a set of more images per class leaks more',
          'init': 'a start from real images leaks more than one from noise',
          'spread': 'a distilled set widens the spread across classes'}
  counts = record['extra']['tally']
  parts = [
      f'"{said[claim]}": {c["supported"]} of {sum(c.values())} cases support '
      f'it, {c["contradicted"]} contradict it, {c["open"]} leave it open'
      for claim, c in counts.items() if sum(c.values())]
  rows = [case | {'difference': record['metrics'][case['metric']],
                  'claim': said[case['claim']], 'command': record['command']}
          for case in record['extra']['cases']]
  answer = '; '.join(parts) if parts else (
      'this audit has no two sets that the claims compare')
  return Section(
      'Do the published claims hold here?',
      f'Of arXiv:2305.03355: {answer}.',
      'A case is a method at a size with one model; cases of one dataset are '
      'not independent of each other, and open does not mean false.',
      [Table('Differences that a claim says are above 0', [
          SET, tables.Column('other', 'against'), MODEL,
          tables.Column('question', 'about'),
          tables.Column('difference', digits=3), tables.Column('claim')],
             rows, 'AUC of membership (size, init), or deviation of accuracy '
             'across classes beyond chance (spread).')] if rows else (),
      (), 'Attacks were named before they were run: squared error of krr, loss '
      'of networks.')


SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    good, audit_privacy.private, robust, fair, given_back.reconstruction,
    published)
