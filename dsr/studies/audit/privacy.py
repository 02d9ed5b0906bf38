"""What an audit says of privacy: membership, and what networks give back."""
from collections.abc import Mapping
import pathlib
from typing import Any

from dsr.probes import membership as membership_lib
from dsr.report import answers, tables
from dsr.report.page import Picture, Section, Table
from dsr.runs import records
from dsr.studies.audit.results import (
  MODEL,
  SET,
  Results,
  attack_of,
  called,
  distilled,
  models_of,
  sentence,
  told,
)

_REAL = ('random', 'kcenter', 'herding', 'kmedoids', 'el2n', 'mfc')
_LEVEL = '0.05'  # RMSE below which an image came back.


def private(results: Results) -> Section:
  """Membership."""
  rows = [row for row in results.rows('membership') if row['model'] != 'set']
  seen = [row for row in results.rows('membership') if row['model'] == 'set']
  rows = [row | {'auc': row['metrics'][f'train_{a}_auc'],
                 'low_fpr': row['metrics'][f'train_{a}_tpr_at_fpr_1e2'],
                 'lower_fpr': row['metrics'][f'train_{a}_tpr_at_fpr_1e3'],
                 'advantage': row['metrics'][f'train_{a}_advantage'],
                 'learned': _best_learned(row['metrics'])}
          for row in rows for a in [attack_of(row['model'])]]
  parts = []
  for model in models_of(results):
    own = [row for row in rows if row['model'] == model]
    worst = max(distilled(own), key=lambda r: r['auc'].value)
    text = (f'asked whether an image was a training image, {called(model)} '
            f'gives most away on {worst["set"]}, of the small sets: AUC '
            f'{told(worst["auc"], percent=False)} (0.5 is guessing)')
    others = [f'{told(row["auc"], percent=False)} on {row["set"]}'
              for row in own if row['method'] in ('all', 'dp')]
    parts.append(text + (f', against {" and ".join(others)}' if others else ''))
  inits = [row | {'auc': row['metrics'][f'init_{a}_auc'],
                  'low_fpr': row['metrics'][f'init_{a}_tpr_at_fpr_1e2']}
           for row in results.rows('membership')
           for a in [attack_of(row['model'])]
           if f'init_{a}_auc' in row['metrics']]
  learned = [r for r in inits if r['method'] not in _REAL]
  if learned:
    top = max(learned, key=lambda r: r['auc'].value)
    parts.append(
        f'of the images that a learned set started from, {top["set"]} gives '
        f'the most away, AUC {told(top["auc"], percent=False)} by '
        + ('its images alone' if top['model'] == 'set' else
           called(top['model'])))
  columns = [
      SET, MODEL, tables.Column('auc', title='AUC', digits=3),
      tables.Column('low_fpr', title='TPR at 1 % FPR', percent=True),
      tables.Column('lower_fpr', title='at 0.1 %', percent=True),
      tables.Column('advantage', digits=3),
      tables.Column('learned', title='AUC of a learned attack', digits=3)]
  found = [Table(
      'Was an image in the original training set? Asked of a model', columns,
      rows, 'By the squared error of krr and the loss of networks; a learned '
      'attack knows some memberships. Non-members: '
      f'{rows[0]["extra"]["outsiders"]}. The advantage is taken at the best '
      'threshold, hence above 0 by chance.')]
  if inits:
    found.append(Table(
        'Was a training image one that the set started from, or consists of?',
        [SET, MODEL, tables.Column('init', title='start'), *columns[2:4]],
        inits, 'Sets from noise never saw the images asked about: they are the '
        'control. Sets of real images show theirs to everybody.'))
  if seen:
    found.append(Table(
        'Was an image in the original training set? Asked of the set alone',
        [SET, *(tables.Column(f'train_{name}_auc', title=title, digits=3)
                 for name, title in (
                     ('pixel_distance', 'AUC, pixel distance'),
                     ('kernel_distance', 'kernel distance'),
                     ('pixel_density', 'density')))], seen,
        'Real images of the set itself are at distance 0.'))
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
      'Is it private?', sentence(parts),
      'An attack that finds nothing proves nothing: a stronger one may. An AUC '
      'near 0.5 can hide a few images that are given away surely, which is why '
      'the rate of true positives at few false ones stands beside it. Only '
      'DP-SGD has a guarantee, and only for its network. Sets of real images '
      'publish these images.', found, _roc(results), _privacy(results))


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
          'logarithmic.'))
  return pictures


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


def reconstruction(results: Results) -> Section | None:
  """What networks give back."""
  record = results.leakage
  if record is None:
    return None
  folder = pathlib.Path(results.plan.leakage.workdir)
  rows = []
  for part in sorted(folder.glob('*/*/record.json')):
    own = records.read(part)
    method, regime = part.parent.parent.name, part.parent.name
    if f'{method}_{regime}_accuracy' in record['metrics']:
      rows.append(own | {'set': method, 'regime': regime})
  columns = [
      SET, tables.Column('regime'),
      tables.Column('accuracy', 'test accuracy', True),
      tables.Column(f'own_recovered_rmse_{_LEVEL}', 'set that came back', True),
      tables.Column(f'train_recovered_rmse_{_LEVEL}',
                    'training images that came back', True),
      tables.Column(f'given_recovered_rmse_{_LEVEL}',
                    'training images in the set', True),
      tables.Column(f'others_recovered_rmse_{_LEVEL}',
                    'by other real images', True),
      tables.Column('set_nearest_rmse_median',
                    'set to nearest training image, RMSE', digits=3),
      tables.Column('fresh_nearest_rmse_median',
                    'fresh image to nearest', digits=3)]
  pictures = [Picture(
      folder / 'leakage.png',
      'Test accuracy against the share of training images that came back.')]
  return Section(
      'What does a network give back?', record['extra']['sentence'],
      'The attacks know the architecture and either the function or the '
      'parameters before and after training; at infinite width, or after plain '
      'gradient descent of an MLP. Images of a distilled set can still be '
      'close to training images: compare the two last columns.',
      [Table(f'Of {results.config.leak_train} training images, one distilled '
             'image per class', columns, rows,
             'An image came back if the RMSE of its candidate is below '
             f'{_LEVEL}, pixels in [0, 1].')],
      pictures)


