"""What an audit says of robustness: adversarial attacks and corruptions."""
import pathlib

import numpy as np

from dsr.report import answers, tables
from dsr.report.page import Picture, Section, Table
from dsr.runs import records
from dsr.studies.audit import robustness, terms
from dsr.studies.audit.results import (
  MODEL,
  SET,
  Results,
  called,
  distilled,
  main_model,
  of_own,
  sentence,
  told,
)
from dsr.studies.distillation import evaluation, names as names_lib

TABLE = 'Accuracy under attack'


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
      TABLE, columns, rows,
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
      _curves(results, model), short=sentence(mine[:2] or [answer]),
      threats=terms.adversaries(results.config))


def _curves(results, model) -> list[Picture]:
  series, rows = {}, []
  for row in results.rows('robustness'):
    arrays = records.read_arrays(pathlib.Path(row['folder']))
    if row['model'] != model or 'curve_epsilons' not in arrays:
      continue
    points = [row['metrics']['clean_accuracy'], *(
        row['metrics'][f'curve_{i}_accuracy']
        for i in range(len(arrays['curve_epsilons'])))]
    rows.append(row)
    series[row['set']] = (
        np.r_[0, arrays['curve_epsilons']],
        *np.transpose([(p.value, p.low, p.high) for p in points]))
  if not series:
    return []
  attack = results.rows('robustness')[0]['config']['curve']
  epsilons = next(iter(series.values()))[0][1:]
  table = Table(f'Accuracy under {attack} at growing radii', [
      SET, tables.Column('clean_accuracy', 'epsilon 0', True), *(
          tables.Column(f'curve_{i}_accuracy', f'epsilon {epsilon:.3g}', True)
          for i, epsilon in enumerate(epsilons))], rows)
  return [Picture(
      results.later(
          'epsilon.png', answers.against_epsilon, series,
          xlabel=f'epsilon of {attack}',
          title=f'{names_lib.dataset(results.config.dataset)}, {model}'),
      f'Accuracy of {model} under {attack} at growing radii.', data=table)]
