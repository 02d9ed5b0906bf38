"""What an audit says of training images that networks give back."""
import pathlib
import re

from dsr.report import tables
from dsr.report.page import Picture, Section, Table
from dsr.runs import records
from dsr.studies.audit import terms
from dsr.studies.audit.results import SET, Results

QUESTION = 'What does a network give back?'
_LEVEL = '0.05'  # RMSE below which an image came back.


def reconstruction(results: Results) -> Section | None:
  """What networks give back; whether one's own sets were tested."""
  record = results.leakage
  mine = [s.title for s in results.plan.subjects.values() if s.method == 'own']
  if record is None:
    return _not_asked(mine) if mine else None
  folder = pathlib.Path(results.plan.leakage.workdir)
  rows = []
  for part in [*sorted(folder.glob('own/*/*/record.json')),
               *sorted(folder.glob('*/*/record.json'))]:
    own = records.read(part)
    method, regime = part.parent.parent.name, part.parent.name
    brought = part.parents[2].name == 'own'
    name = f'own_{method}' if brought else method
    if f'{name}_{regime}_accuracy' in record['metrics']:
      rows.append(own | {
          'set': _title(results, method) if brought else method,
          'regime': regime})
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
  title = (f'Of {results.config.leak_train} training images, one distilled '
           'image per class' + ', and of your own sets' * bool(mine))
  pictures = [Picture(
      folder / 'leakage.png',
      'Test accuracy against the share of training images that came back.',
      data=title)]
  answer = ' '.join(filter(None, (record['extra'].get(key) for key in (
      'own', 'untested', 'sentence'))))
  return Section(
      QUESTION, answer,
      'The attacks know the architecture and either the function or the '
      'parameters before and after training; at infinite width, or after plain '
      'gradient descent of an MLP. Images of a distilled set can still be '
      'close to training images: compare the two last columns.',
      [Table(title, columns, rows,
             'An image came back if the RMSE of its candidate is below '
             f'{_LEVEL}, pixels in [0, 1].'
             + (' Your own sets are held against the training images nearest '
                'to theirs and up to 1,000 others.' if mine else ''))],
      pictures, threats=terms.rebuilding(results.config), short=' '.join(
          re.findall(r'[^.]+(?:\.(?=\S)[^.]*)*\.', answer)[:2]).strip())


def _title(results, folder) -> str:
  """Of one's own set, by its folder."""
  subject = results.plan.subjects.get(folder)
  return folder if subject is None else subject.title


def _not_asked(mine) -> Section:
  return Section(
      QUESTION, 'Not tested: no network trained on '
      f'{", ".join(mine)} or on any other set was attacked.',
      'That nothing was tried is no sign of safety.',
      details='`--leak_train` above 0 attacks networks that were trained on '
      'sets, those of `--distilled` among them.')
