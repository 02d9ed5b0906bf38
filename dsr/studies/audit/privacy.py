"""What an audit says of privacy: membership, and copies of training images."""
from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from dsr.probes import membership as membership_lib
from dsr.report import answers, tables
from dsr.report.page import Picture, Section, Table
from dsr.runs import records
from dsr.studies.audit import copies, strongest, subjects, terms
from dsr.studies.audit.results import (
  MODEL,
  SET,
  Results,
  attack_of,
  called,
  distilled,
  models_of,
  own_sets,
  sentence,
  told,
)

STRONGEST = {'train': 'The strongest attack on each set',
             'init': 'The strongest attack on the start of each set'}
_COPIES = 'Does the set hold copies of training images?'
_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # FPR of the table of a curve.
_REAL = ('random', 'kcenter', 'herding', 'kmedoids', 'el2n', 'mfc')


def private(results: Results) -> Section:
  """Membership, and near-copies of training images."""
  every = results.rows('membership')
  seen = [row for row in every if row['model'] == 'set']
  rows = [row | {'auc': row['metrics'][f'train_{a}_auc'],
                 'low_fpr': row['metrics'][f'train_{a}_tpr_at_fpr_1e2'],
                 'lower_fpr': row['metrics'][f'train_{a}_tpr_at_fpr_1e3'],
                 'advantage': row['metrics'][f'train_{a}_advantage'],
                 'learned': _best_learned(row['metrics']),
                 'below': backwards(row['metrics'], 'train')}
          for row in every if row['model'] != 'set'
          for a in [attack_of(row['model'])]]
  best, starts = (_strongest_rows(results, q) for q in ('train', 'init'))
  inits = [row | {'auc': row['metrics'][f'init_{a}_auc'],
                  'low_fpr': row['metrics'][f'init_{a}_tpr_at_fpr_1e2'],
                  'below': backwards(row['metrics'], 'init')}
           for row in every for a in [attack_of(row['model'])]
           if f'init_{a}_auc' in row['metrics']]
  below = tables.Column('below', title='worse than guessing')
  columns = [
      SET, MODEL, tables.Column('auc', title='AUC', digits=3),
      tables.Column('low_fpr', title='TPR at 1 % FPR', percent=True),
      tables.Column('lower_fpr', title='at 0.1 %', percent=True),
      tables.Column('advantage', digits=3),
      tables.Column('learned', title='AUC of a learned attack', digits=3),
      below]
  found = [Table(
      STRONGEST['train'], [
          SET, tables.Column('attack'), tables.Column('on'), *columns[2:5],
          tables.Column('tried', title='attacks tried')], best,
      'Was an image in the original training set? The attack was chosen by its '
      'AUC on one half of the images, and measured on the other. LiRA: against '
      'the method, repeated on random halves of the training images.'), Table(
      'One attack on all models, named before any was run', columns, rows,
      'By the squared error of krr and the loss of networks; a learned '
      'attack knows some memberships. Non-members: '
      f'{rows[0]["extra"]["outsiders"]}. The advantage is taken at the best '
      f'threshold, hence above 0 by chance. {_BELOW}')]
  if starts:
    found.append(Table(
        STRONGEST['init'], [
            SET, tables.Column('attack'), tables.Column('on'), *columns[2:4],
            tables.Column('tried', title='attacks tried')], starts,
        'Did the set start from an image, or does it consist of it? Chosen and '
        'measured as above.'))
  if inits:
    found.append(Table(
        'Was a training image one that the set started from, or consists of?',
        [SET, MODEL, tables.Column('init', title='start'), *columns[2:4],
         below],
        inits, 'Sets from noise never saw the images asked about: they are the '
        'control. Sets of real images show theirs to everybody. '
        f'{_BELOW}'))
  if seen:
    found += [Table(
        'Was an image in the original training set? Asked of the set alone',
        [SET, *(tables.Column(f'train_{name}_auc', title=title, digits=3)
                 for name, title in (
                     ('pixel_distance', 'AUC, pixel distance'),
                     ('kernel_distance', 'kernel distance'),
                     ('pixel_density', 'density')))], seen,
        'Real images of the set itself are at distance 0.'), _copies(seen)]
  lira_rows = _lira_rows(results)
  if lira_rows:
    found.append(Table(
        'Shadow models (LiRA, RMIA)', [
            tables.Column('method'),
            tables.Column('size', title='images per class'), MODEL,
            tables.Column('attack'), tables.Column('auc', 'AUC', digits=3),
            tables.Column('tpr', 'TPR at 1 % FPR', percent=True)], lira_rows,
        'Every shadow repeats the whole method on a random half of the '
        'training images, and trains the model on what comes out. Online and '
        'offline are LiRA, arXiv:2112.03570; rmia is arXiv:2312.03262; '
        'threshold uses no shadow.'))
  return Section(
      'Is it private?', sentence(_private_answer(best, seen, inits)),
      'An attack that finds nothing proves nothing: a stronger one may. An AUC '
      'near 0.5 can hide a few images that are given away surely, which is why '
      'the rate of true positives at few false ones stands beside it. Only '
      'DP-SGD has a guarantee, and only for its network. Sets of real images '
      'publish these images.', found,
      [*_copied(results, seen), *_roc(results)], _privacy(results),
      sentence(_short(best, seen)), terms.MEMBERSHIP)


_BELOW = ('Attacks under "worse than guessing" have an interval wholly below '
          '0.5: a fault of the attack, or a set chosen against it, and no sign '
          'of privacy.')


def backwards(metrics: Mapping[str, Any], question: str) -> str:
  """Attacks whose whole interval of the AUC lies below 1/2, by name."""
  prefix, suffix = f'{question}_', '_auc'
  return ', '.join(
      name.removeprefix(prefix).removesuffix(suffix).replace('_', ' ')
      for name, metric in metrics.items()
      if name.startswith(prefix) and name.endswith(suffix)
      and metric.high < 0.5)


def _strongest_rows(results, question) -> list[dict[str, Any]]:
  rows = []
  for name, subject in results.plan.subjects.items():
    found = strongest.of_set(results, name, question)
    if found is None:
      continue
    rows.append({
        'set': subject.title, 'name': name, 'method': subject.method,
        'attack': found.attack, 'on': found.model, 'auc': found.auc,
        'low_fpr': found.tpr, 'lower_fpr': found.lower_tpr,
        'tried': found.tried, 'finds': found.finds, 'command': found.command})
  return rows


def _private_answer(best, seen, inits) -> list[str]:
  """One's own sets first, then the set that gives most away."""
  parts = []
  for row in own_sets(best):
    copied = next(r for r in seen if r['name'] == row['name'])
    parts.append(f'{row["set"]}: {copies.sentence(copied["metrics"])}')
    parts.append(_told_strongest(row))
  others = [row for row in distilled(best) if row['method'] != 'own']
  if others:
    worst = max(others, key=lambda row: row['auc'].value)
    parts.append('of the sets made here, most is given away by '
                 + _told_strongest(worst))
  whole = [f'{row["set"]}: AUC {told(row["auc"], percent=False)}, TPR '
           f'{told(row["low_fpr"])}'
           for row in best if row['method'] in ('all', 'dp')]
  if whole:
    parts.append('for comparison, ' + '; '.join(whole))
  learned = [r for r in inits if r['method'] not in _REAL]
  if learned:
    top = max(learned, key=lambda r: r['auc'].value)
    parts.append(
        f'of the images that a learned set started from, {top["set"]} gives '
        f'the most away, AUC {told(top["auc"], percent=False)} by '
        f'{called(top["model"])}')
  return parts


def _short(best, seen) -> list[str]:
  """Of one's own sets, or else of the set that gives most away."""
  mine = own_sets(best, most=2)
  chosen = mine or [max(distilled(best), key=lambda row: row['auc'].value)]
  parts = [f'{row["set"]}: AUC {told(row["auc"], percent=False)}, TPR '
           f'{told(row["low_fpr"])} at 1 % FPR' for row in chosen]
  if not mine:
    return [f'most is given away by {parts[0]}']
  copied = next(r for r in seen if r['name'] == mine[0]['name'])
  return ['; '.join(parts),
          f'{mine[0]["set"]}: {copies.sentence(copied["metrics"])}']


def _told_strongest(row) -> str:
  text = (f'{row["set"]}: the strongest of {row["tried"]} attacks on '
          f'membership ({row["attack"]}, on {row["on"]}) has AUC '
          f'{told(row["auc"], percent=False)} (0.5 is guessing) and finds '
          f'{told(row["low_fpr"])} of the members at 1 % false positives')
  return text if row['finds'] else (
      f'{text}, so that none was seen to tell members from others')


def _copies(seen) -> Table:
  columns = [SET, tables.Column('copies_share', 'near-copies', percent=True),
             tables.Column('copies_expected', 'of unrelated, at most',
                           percent=True),
             tables.Column('copies_chance', 'p', digits=4)]
  for name, title in copies.NAMES.items():
    columns += [tables.Column(f'copies_{name}', f'{title} to the nearest',
                              digits=3),
                tables.Column(f'copies_{name}_unrelated', 'unrelated image',
                              digits=3)]
  return Table(
      _COPIES, columns, seen,
      'An image is a near-copy if one training image is so much nearer than '
      'the next ten as it is for 1 of 100 unrelated images, by two of the '
      'distances. Medians over the set; p: probability of as many among '
      'unrelated images. Sets of real images consist of copies.')


def _copied(results, seen) -> list[Picture]:
  """Pairs of each of one's own sets."""
  pictures = []
  for i, row in enumerate(own_sets(seen)):
    config = results.plan.membership[row['name'], 'set']
    shown, problem = subjects.load_set(config)
    arrays = records.read_arrays(pathlib.Path(row['folder']))
    pictures.append(Picture(
        results.later(f'copies_{i}.png', copies.draw, shown.pixels,
                      copies.pool(problem), arrays, title=row['set']),
        f'Images of {row["set"]} above the training image nearest to each, '
        'those that stand out most first.', data=_COPIES))
  return pictures


def _best_learned(metrics: Mapping[str, Any]):
  own = [m for name, m in metrics.items()
         if name.startswith('train_learned_') and name.endswith('_auc')]
  return max(own, key=lambda m: m.value, default='')


def _lira_rows(results) -> list[dict[str, Any]]:
  return [row | {'command': record['command']}
          for record in results.lira.values()
          for row in _lira_of(record)]


def _lira_of(record):
  return [{'method': row['method'], 'attack': row['attack'],
           'model': row['model'],
           'size': '' if row['size'] is None else row['size'],
           'auc': record['metrics'][f'{row["name"]}_auc'],
           'tpr': record['metrics'][f'{row["name"]}_tpr_at_fpr_1e2']}
          for row in record['extra']['rows']]


def _roc(results) -> list[Picture]:
  pictures = []
  for model in models_of(results):
    curves, name = {}, f'train_{attack_of(model)}'
    for row in results.rows('membership'):
      if row['model'] != model:
        continue
      arrays = records.read_arrays(pathlib.Path(row['folder']))
      curves[row['set']] = membership_lib.roc(
          arrays[name][0], arrays['train_member'])[:2]
    if curves:
      pictures.append(Picture(
          results.later(f'roc_{model}.png', answers.roc, curves,
                        title=f'Membership in the training set, {model}'),
          f'ROC curves of the attack on {model} (the first network), both axes '
          'logarithmic.', data=_rates(model, curves)))
  return pictures


def _rates(model, curves) -> Table:
  """TPR where the curves of the figure pass some FPR."""
  columns = [tables.Column(f'at_{rate}', f'TPR at {100 * rate:g} % FPR', True)
             for rate in _RATES]
  return Table(f'ROC curves, {model}', [SET, *columns], [
      {'set': name} | {column.key: float(np.interp(rate, *curve))
                       for column, rate in zip(columns, _RATES)}
      for name, curve in curves.items()])


def _privacy(results) -> str:
  dp = [row for row in results.rows('fits') if row['method'] == 'dp']
  if not dp:
    return ''
  told_ = dp[0]['extra']['privacy']
  return (f'DP-SGD: epsilon {told_["epsilon"]:.3g} at delta '
          f'{told_["delta"]:g}, noise multiplier '
          f'{told_["noise_multiplier"]:.3g}, Poisson sampling at rate '
          f'{told_["sampling_rate"]:.3g}. It holds for one network, takes the '
          'mean and deviation of the pixels as public, and the settings as '
          'chosen without the data.')
