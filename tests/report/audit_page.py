"""A page as an audit would hand it over; every number in it is invented."""
import pathlib

import numpy as np

from dsr.report import figures, overview, page, tables
from dsr.runs import records

SETS = {  # Name: accuracy, robust accuracy, AUC, worst class, rebuilt images.
    'kip, 10 per class': (0.9467, 0.312, 0.523, 0.901, 0),
    'rkip, 10 per class, 50 % corrupted': (0.9312, 0.287, 0.509, 0.874, 0),
    'distribution matching, 10 per class, differentiable augmentation':
        (0.9665, 0.274, 0.541, 0.935, 0),
    'label solve, 10 per class': (0.8991, 0.198, 0.627, 0.812, 100),
    'minimum finite cover (l2), 50 per class': (0.9423, 0.224, 0.688, 0.889,
                                                500),
    'herding, 50 per class': (0.9218, 0.207, 0.671, 0.853, 500),
    'random, 10 per class': (0.8127, 0.151, 0.594, 0.664, 100),
    'all 60,000 training images': (0.9921, 0.418, 0.552, 0.984, 3),
}
SHORT = ('kip', 'rkip', 'dm', 'label solve', 'cover', 'herding', 'random',
         'all images')


def _metric(share, n=10_000):
  """With an interval as wide as that of a share of `n`."""
  half = 1.96 * (share * (1 - share) / n) ** 0.5
  return records.Metric(share, max(share - half, 0), min(share + half, 1))


def _command(name, question):
  return (
      f"python -m experiments.audit --question={question} --dataset=mnist "
      f"--released='out/sets/{name}/distilled.npz' --num_members=5000 "
      f'--num_shadows=64 --architecture=convnet3 --epochs=300 --seeds 0 1 2 3 '
      f'--workdir=out/audit/{question}')


def rows(question):
  """The table of a question."""
  return [{
      'set': name, 'images': [100, 100, 100, 100, 500, 500, 100, 60_000][i],
      'accuracy': _metric(accuracy), 'robust_accuracy': _metric(robust, 1000),
      'auc': _metric(auc, 4000), 'tpr': _metric(max(auc - 0.5, 0) / 9, 4000),
      'worst_accuracy': _metric(worst, 1000), 'rebuilt': rebuilt,
      'ratio': None if i == 3 else accuracy / 0.9921,
      'command': _command(name, question),
  } for i, (name, (accuracy, robust, auc, worst, rebuilt)) in enumerate(
      SETS.items())]


def pictures(folder: pathlib.Path):
  """Figures of the same numbers: name to path."""
  rng = np.random.default_rng(0)
  epsilons = np.array([0.0, 0.05, 0.1, 0.2, 0.3])
  curves, attacked, classes, points = {}, {}, {}, {}
  for short, row in zip(SHORT, rows('all'), strict=True):
    fpr = np.concatenate([[0], np.geomspace(1e-4, 1, 60)])
    curves[short] = fpr, fpr ** (1 / row['auc'].value - 1)
    value = row['accuracy'].value * np.exp(-epsilons * 6 * (1 - 0.5 * row[
        'robust_accuracy'].value))
    attacked[short] = epsilons, value, value - 0.02, value + 0.02
    value = np.clip(rng.normal(row['accuracy'].value, 0.02, 10), 0, 0.99)
    value[8] = row['worst_accuracy'].value
    classes[short] = range(10), value, value - 0.01, value + 0.01
    points[short] = row['accuracy'], row['auc']
  images = np.clip(rng.normal(0.4, 0.3, (20, 14, 14, 1)), 0, 1)
  return {
      'roc': figures.roc(folder / 'roc.png', curves,
                         title='Membership inference'),
      'epsilon': figures.against_epsilon(
          folder / 'against epsilon.png', attacked,
          xlabel='epsilon (l-infinity, pixels of [0, 1])',
          title='Accuracy under attack'),
      'classes': figures.by_group(folder / 'classes.png', classes,
                                  title='Accuracy by class'),
      'points': figures.trade_off(
          folder / 'points.png', points, xlabel='test accuracy (%)',
          ylabel='AUC of membership inference', percent_x=True, chance=0.5,
          title='Accuracy and leakage'),
      'near': figures.neighbours(
          folder / 'near.png', images, images[::-1], rng.uniform(2, 9, 20),
          title='Nearest training images, l2'),
  }


def at_a_glance() -> overview.Overview:
  """The table at the top; every kind of cell is in it."""
  lines = []
  for i, row in enumerate(rows('all')):
    mark = ('better', 'worse', 'cannot tell', 'reference', '')[i % 5]
    lines.append(overview.Row(row['set'], [
        overview.Cell(row['accuracy'], mark, 'about 1,200 images would tell'
                      * (mark == 'cannot tell'), 'Test accuracy'),
        overview.Cell(row['auc'], '', '', 'Membership inference')
        if i else overview.Cell()]))
  return overview.Overview(
      'At a glance', 'By the MLP; AUC of the strongest attack.', [
          tables.Column('set'),
          tables.Column('accuracy', 'accuracy, more is better', percent=True),
          tables.Column('auc', 'membership, AUC', digits=3)], lines,
      ['Better in something: kip.', 'Not asked: groups of people.'],
      [page.Table('Sets less random', ['set', 'accuracy'], [
          row | {'command': None} for row in rows('all')])])


GLOSSARY = {'AUC': 'Area under the ROC curve.', 'ROC': 'TPR against FPR.',
            'MLP': 'Multilayer perceptron.', 'LiRA': 'Not on this page.'}


def build(folder: pathlib.Path) -> page.Page:
  """The page; its pictures are drawn in `folder`."""
  drawn = pictures(folder)
  accuracy = tables.Column('accuracy', 'test accuracy', percent=True)
  auc = tables.Column('auc', 'AUC', digits=3)
  svg = lambda name: drawn[name].with_suffix('.svg')
  good = page.Section(
      'Is it good?',
      'A network trained on 100 distilled images is right on 96.7 % of the '
      'test images (95.0 to 96.9 % over four seeds), against 99.2 % for all '
      '60,000 images and 81.3 % for 100 random ones.',
      'A high accuracy of one architecture says nothing about others; '
      '`convnet3` was also the network that the set was distilled for.',
      tables=[page.Table(
          'Test accuracy', ['set', 'images', accuracy, tables.Column(
              'ratio', 'share of the full set', percent=True)], rows('good'),
          note='Wilson intervals at 95 % over 10,000 test images.')],
      pictures=[page.Picture(
          svg('points'), 'Test accuracy against the AUC of the best '
          'membership attack. Bars are 95 % intervals.',
          data='Test accuracy')],
      details='Four networks a set, 300 epochs each.\n\nThe learning rate is '
      'that of the condensation protocols.')
  private = page.Section(
      'Is it private?',
      'The best of five attacks tells members from others with an AUC of 0.541 '
      '[0.526, 0.556] on distilled sets, and finds 0.5 % of the members at one '
      'false alarm in a thousand.',
      'An attack that fails is no proof of privacy: a stronger one may exist. '
      'Only the noise of a differentially private method gives a bound.',
      tables=[page.Table(
          'Membership inference', [
              'set', auc, tables.Column('tpr', 'TPR at 0.1 % FPR', percent=True,
                                        digits=2), accuracy],
          rows('private'), groups=[('', 1), ('leakage', 2), ('use', 1)],
          note='Bootstrap intervals over 5,000 members and as many others.')],
      pictures=[page.Picture(
          svg('roc'), 'ROC curves on logarithmic axes.'), page.Picture(
              svg('points'), 'The same trade-off as above.')])
  robust = page.Section(
      'Is it robust?',
      'Under PGD with epsilon 0.1, accuracy falls from 94.7 % to 31.2 % for '
      'kip, and from 99.2 % to 41.8 % for the full training set.',
      'Accuracy under these attacks is an upper bound of the true robust '
      'accuracy.',
      tables=[page.Table('Accuracy under PGD', [
          'set', accuracy, tables.Column('robust_accuracy', 'under PGD, 0.1',
                                         percent=True)], rows('robust'))],
      pictures=[page.Picture(
          drawn['epsilon'], 'Accuracy under PGD with 40 steps; bands are '
          '95 % intervals.', data=page.Table('Curves', [
              'set', 'robust_accuracy'], rows('robust')))],
      short='It is not.', threats={'pgd': 'Knows the network.'})
  fair = page.Section(
      'Is it fair?',
      'The worst class of distribution matching is the 8 with 93.5 % [91.8, '
      '94.9], 3.2 points below its mean; random images lose 14.9 points there.',
      'Classes are not groups of people: equal accuracy by class does not make '
      'a decision about people fair.',
      tables=[page.Table('Worst class', [
          'set', accuracy, tables.Column('worst_accuracy', 'worst class',
                                         percent=True)], rows('fair'))],
      pictures=[page.Picture(
          svg('classes'), 'Accuracy by class, with 95 % intervals.')])
  rebuilt = page.Section(
      'Can training images be rebuilt?',
      'No image of the distilled sets lies within RMSE 0.05 of a training '
      'image; cover and herding publish 500 training images as they are.',
      'Distance in pixels misses resemblances that people would see.',
      tables=[page.Table(
          'Images shown as they are',
          ['set', 'images', 'rebuilt', accuracy, auc, tables.Column(
              'robust_accuracy', 'under PGD', percent=True), tables.Column(
                  'worst_accuracy', 'worst class', percent=True),
           tables.Column('tpr', 'TPR at 0.1 % FPR', percent=True)],
          rows('rebuilt'))],
      pictures=[page.Picture(
          drawn['near'], 'Distilled images above their nearest training '
          'images, closest first.')])
  return page.Page(
      'Audit of distilled MNIST', 'Eight training sets for the same task are '
      'compared: four distilled ones, two coresets, random images and all '
      'images. All numbers of this page are invented.',
      [good, private, robust, fair, rebuilt],
      facts={'dataset': 'MNIST, 60,000 training and 10,000 test images',
             'sizes': '100 to 60,000 images', 'device': '1 CPU, 2 cores',
             'versions': 'dsr 0.1.0, jax 0.10.2', 'date': '2026-01-31',
             'command': _command('*', 'all')},
      footnotes=['Intervals are at 95 %.', 'AUC 0.5 is guessing.'],
      overview=at_a_glance(), glossary=GLOSSARY)
