"""The questions of an audit, each answered from records in a sentence."""
from collections.abc import Callable

import numpy as np

from dsr.report import answers, dots, figures, tables
from dsr.report.page import Picture, Section, Table
from dsr.runs import records
from dsr.studies.audit import (
  given_back,
  groups,
  membership,
  privacy as audit_privacy,
  subjects,
  under_attack,
)
from dsr.studies.audit.results import (
  MODEL,
  SET,
  Results,
  called,
  class_of,
  distilled,
  main_model,
  models_of,
  of_own,
  sentence,
  told,
)
from dsr.studies.distillation import names as names_lib
from dsr.studies.distillation.results import by_class

ACCURACY, EVENNESS = 'Test accuracy', 'Evenness across classes'
_NOT_IN_SET = 'classes_not_in_set'  # Of the record of experiments.fit.
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
  parts += list(dict.fromkeys(
      f'{row["set"]}: {note}' for row in rows
      for note in row['extra'].get('set_notes', ())))
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
  short = parts[:2] if any(row['method'] == 'own' for row in rows) else (
      parts[-len(models_of(results)):][:2])
  series = {model: {row['set']: row['metrics']['accuracy'] for row in rows
                    if row['model'] == model}
            for model in models_of(results)}
  pictures = [Picture(
      results.later('accuracy.png', dots.intervals, series,
                    title='Test accuracy on '
                    f'{names_lib.dataset(results.config.dataset)}'),
      'Test accuracy by set and model, with 95 % intervals.',
      data=ACCURACY)]
  pictures += _images(results)
  return Section(
      'Is it good?', sentence(parts),
      'The best of several sets is named after looking at the test set, so it '
      'flatters a little; and how well other architectures, or the same with '
      'longer training, would do is not measured.',
      [Table(ACCURACY, [
          SET, MODEL, tables.Column('images'),
          tables.Column('accuracy', title='accuracy', percent=True),
          tables.Column('seconds', title='seconds of the method', digits=1)],
             rows, 'Intervals over networks and test images.')],
      pictures, short=sentence(short))


def _images(results) -> list[Picture]:
  grids, classes = {}, []
  for name, subject in results.plan.subjects.items():
    if subject.method in ('all', 'dp'):
      continue
    shown, problem = subjects.load_set(
        results.plan.membership[name, membership.SET])
    grids[name], found = by_class(shown.pixels, shown.labels, most=_ACROSS)
    classes = [problem.train.called(c) for c in found]
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


def fair(results: Results) -> Section:
  """Classes and groups."""
  rows, model = results.rows('fairness'), main_model(results)
  rows = [row | {'worst_class': class_of(row, row['extra']['worst_class'])}
          for row in rows]
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
      EVENNESS, [SET, MODEL, *numbers], rows,
      'Change: against the same model of all training images, on the same '
      'test images. Chance alone makes classes differ; the deviation beyond '
      f'chance has that share taken off.{_few(rows[0])}')]
  classes = [name.removeprefix('accuracy_') for name in rows[0]['metrics']
             if name.startswith('accuracy_')]
  for prefix, title, note, percent in (
      ('leak', 'Membership AUC by class', 'In the original training set.',
       False), ('robust', 'Accuracy under attack by class', '', True)):
    if any(f'{prefix}_{c}' in rows[0]['metrics'] for c in classes):
      found.append(Table(title, [SET, MODEL, *(
          tables.Column(f'{prefix}_{c}', class_of(rows[0], c), percent,
                        None if percent else 2)
          for c in classes)], rows, note))
  found += _by_group(rows, numbers)
  series = {}
  for row in rows:
    if row['model'] == model:
      own_names = [n for n in row['metrics'] if n.startswith('accuracy_')]
      series[row['set']] = (
          [class_of(row, n.removeprefix('accuracy_')) for n in own_names],
          *np.transpose([tuple(row['metrics'][n])[:3] for n in own_names]))
  picture = Picture(
      results.later('classes.png', answers.by_group, series,
                    title=f'{names_lib.dataset(results.config.dataset)}, '
                          f'{model}'),
      f'Test accuracy of {model} by class.{_few(rows[0])}',
      data=Table(f'Test accuracy by class, {model}', [SET, *(
          tables.Column(f'accuracy_{c}', class_of(rows[0], c), True)
          for c in classes)],
                 [row for row in rows if row['model'] == model]))
  mine = [f'the worst class on {text}' for text in of_own(rows, 'worst')]
  return Section(
      'Is it fair?', sentence([*mine, answer]),
      'Evenness across classes of one test set is no statement about people '
      'or groups that it does not name; give an attribute by `--groups`. A '
      'model can be even by being equally bad.', found, [picture],
      short=sentence(mine[:2] or [answer.partition('. ')[2]]))


def _by_group(rows, numbers) -> list[Table]:
  """What there is of the groups given; small ones are marked."""
  found = []
  grouped = [row for row in rows if 'group_mean' in row['metrics']]
  if grouped:
    extra = grouped[0]['extra']
    sizes, out = extra.get('group_sizes', {}), extra.get('groups_left_out')
    note = groups.few(sizes, 'group') + (
        f' Left out, with a single image: {", ".join(out)}.' if out else '')
    found = [Table('Evenness across the groups given', [SET, MODEL, *(
        tables.Column(f'group_{c.key}', c.title, c.percent, c.digits)
        for c in numbers), tables.Column(
            'group_odds_difference', 'equalised odds difference', digits=3),
        tables.Column('group_odds_ratio', 'ratio', digits=3)], grouped,
                   note.strip()),
             Table('Test accuracy by group', [SET, MODEL, *(
                 tables.Column(f'group_accuracy_{name}', (
                     f'{name} (few: {num})' if num < groups.FEW else name),
                               True) for name, num in sizes.items())],
                   grouped, note.strip())]
  leaks = [name for name in rows[0]['metrics'] if name.startswith('group_leak')]
  if leaks:
    found.append(Table('Membership AUC by group', [SET, MODEL, *(
        tables.Column(name, name.removeprefix('group_leak_'), digits=2)
        for name in leaks)], rows, 'In the original training set.'))
  return found


def _few(row) -> str:
  """A warning of classes whose intervals say little."""
  return groups.few({class_of(row, name): num for name, num in row['extra'].get(
      'class_sizes', {}).items()}, 'class')


def published(results: Results) -> Section | None:
  """The claims of arXiv:2305.03355, if they were tested."""
  record = results.claims
  if record is None:
    return None
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
  counts = ', '.join(
      f'{sum(c[verdict] for c in counts.values())} {told_as}'
      for verdict, told_as in (('supported', 'support a claim'),
                               ('contradicted', 'contradict one'),
                               ('open', 'leave it open')))
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
      'of networks.', f'Of all cases {counts}.' if parts else '')


SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    good, audit_privacy.private, under_attack.robust, fair,
    given_back.reconstruction, published)
