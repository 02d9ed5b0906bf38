"""The table at the top of an audit's page: sets by questions, with marks.

A mark is the sign of the interval of the difference from a random subset of as
many images, see `cells.compare`; where that holds 0 it is 'cannot tell', and
how many images or networks would tell. Every sentence follows from marks.
"""
from dsr.probes import differences
from dsr.report import overview as overview_lib, tables
from dsr.report.page import Table
from dsr.runs import records
from dsr.studies.audit import cells as cells_lib, pairs as pairs_lib
from dsr.studies.audit.cells import QUESTIONS, Cell, Compared
from dsr.studies.audit.results import (
  Results,
  called,
  main_model,
  models_of,
  sentence,
)

TITLE = 'At a glance'
_NAMED = 3  # Sets in a sentence; the table has them all.
_WORDS = {1: 'better', -1: 'worse', 0: 'cannot tell'}


def make(results: Results, found: dict[tuple[str, str], Cell],
         evidence: dict[str, str]) -> overview_lib.Overview:
  """The table of an audit.

  No interval is corrected for the number of marks: the legend tells how many
  would be wrong by chance. Marks are against random subsets; `pairs` holds the
  sets against each other.

  Args:
    results: of the audit.
    found: of `cells.collect`.
    evidence: question -> title of the table of the page that it links to.
  """
  subjects = results.plan.subjects
  random = references(results)
  tested = {
      (name, question): other for (name, question), cell in found.items()
      if subjects[name].method not in ('all', 'dp', 'random')
      and (ref := random.get(name)) is not None and (ref, question) in found
      and pairs_lib.comparable(cell, found[ref, question])
      and (other := cells_lib.compare(
          question, cell, found[ref, question])) is not None}
  rows = []
  for name, subject in subjects.items():
    cells = []
    for question in QUESTIONS:
      cell, test = found.get((name, question)), tested.get((name, question))
      mark = 'reference' * (subject.method == 'random' and cell is not None)
      note = ''
      if test is not None:
        mark, note = marked(question, test)
      cells.append(overview_lib.Cell(
          None if cell is None else cell.metric, mark, note,
          evidence.get(question, '') if cell is not None else '',
          'no start' if question == 'start' and subject.method in (
              'all', 'dp') else ''))
    rows.append(overview_lib.Row(subject.title, cells))
  published = {name: s for name, s in subjects.items()
               if s.method not in ('all', 'dp')}
  pairs = pairs_lib.compare(
      list(published), [name for name, s in published.items()
                        if s.method == 'own'], found)
  titles = {name: subject.title for name, subject in subjects.items()}
  data = [differences_table(
      'Sets less a random subset of as many images', 'random', [
          ({'set': titles[name]}, question, test)
          for (name, question), test in tested.items()])] if tested else []
  if pairs:
    data.append(pairs_lib.table(pairs, titles))
  return overview_lib.Overview(
      TITLE, _legend(results, tested), columns('set'), rows,
      _sentences(results, found, tested, pairs), data)


def columns(first: str) -> list[tables.Column]:
  """Of the names, and of each question with what is better."""
  return [tables.Column('set', first), *(
      tables.Column(name, f'{q.title}, {"more" if q.better > 0 else "less"} is '
                    'better', q.percent, None if q.percent else 3)
      for name, q in QUESTIONS.items())]


def references(results: Results) -> dict[str, str]:
  """Set -> the random subset of as many images, where the audit has one."""
  sizes = {row['name']: row['extra']['num_images']
           for row in results.rows('fits')}
  random = {sizes[name]: name for name, s in results.plan.subjects.items()
            if s.method == 'random'}
  return {name: random[size] for name, size in sizes.items() if size in random}


def marked(question: str, test: Compared) -> tuple[str, str]:
  """(mark, what would tell)."""
  sign = test.difference.sign * QUESTIONS[question].better
  return _WORDS[sign], '' if sign else would_tell(question, test)


def would_tell(question: str, test: Compared) -> str:
  """How many images, or models, would tell the difference; '' if unknown."""
  if not test.difference.value:
    return 'no difference seen'
  need = differences.needed(test.difference)
  if need is None:
    return 'no number of images or networks known to tell'
  parts = [f'{_rounded(number)} {unit}' for number, unit in (
      (need.images, QUESTIONS[question].unit), (need.models, test.unit))
           if number is not None]
  also = ', and networks in proportion,' * any(
      part.unit == differences.BOTH for part in test.difference.parts)
  return f'about {" and ".join(parts)}{also} would tell'


def _rounded(number) -> str:
  """Two digits, up, as more would be pretence."""
  scale = 10 ** max(len(str(number)) - 2, 0)
  return f'{-(-number // scale) * scale:,}'


def differences_table(title: str, other: str, tests) -> Table:
  """The values, difference, interval and kind of every comparison.

  Args:
    title: of the table.
    other: heading of what was subtracted.
    tests: (row, question, `Compared`) of each.
  """
  rows = [row | {
      'question': QUESTIONS[question].title, 'a': records.metric(test.a),
      'b': records.metric(test.b),
      'difference': records.metric(*ends(test.difference)),
      'mark': marked(question, test)[0], 'how': _how(test),
      'need': marked(question, test)[1]} for row, question, test in tests]
  return Table(
      title, ['set', 'question', tables.Column('a', 'value'),
              tables.Column('b', other),
              tables.Column('difference', digits=3), 'mark',
              tables.Column('how', 'compared'),
              tables.Column('need', 'would tell, if it is as it looks')], rows,
      'Shares as fractions. Networks count as drawn at random, images as well; '
      'a method is not repeated. Attacks on membership were chosen on one half '
      'of the images, among those made on both sides, and compared on the '
      'other. The worst class: percentiles of a bootstrap, narrow where '
      'networks are few. Numbers that would tell: on each side, in four of '
      'five repetitions.')


def ends(found: differences.Difference) -> list[float]:
  """Value, low and high, as far as differences of shares can be."""
  return [min(max(value, -1.0), 1.0) for value in found[:3]]


def _how(test) -> str:
  if not test.paired:
    return 'two samples'
  return 'target by target' if test.unit == 'targets' else 'image by image'


def _legend(results, tested) -> str:
  text = (
      f'By {called(main_model(results))}, with 95 % intervals; membership by '
      'the strongest of all attacks. ')
  if results.leakage is not None:
    text += ('Given back: by networks trained on sets that the same methods '
             f'made of {results.config.leak_train} training images. ')
  if not tested:
    return text + ('Nothing is marked: no random subset of as many images was '
                   'audited (`--methods=random`).')
  return text + (
      '▲ better, ▼ worse: the interval of the difference from a random subset '
      'of as many images (◆), paired where both were asked of the same images, '
      'leaves 0 out; ≈ cannot tell: it holds 0. '
      f'Each of the {len(tested)} marks is at 95 % by itself: if no set '
      f'differed, {len(tested) / 20:.2g} of them would be wrong on average.')


def _sentences(results, found, tested, pairs=()) -> list[str]:
  signs: dict[str, dict[int, list[str]]] = {}
  for (name, question), test in tested.items():
    sign = test.difference.sign * QUESTIONS[question].better
    signs.setdefault(name, {1: [], -1: [], 0: []})[sign].append(
        QUESTIONS[question].title.partition(',')[0])
  title = lambda name: results.plan.subjects[name].title
  wins = [f'{title(name)} ({", ".join(sign[1])})'
          for name, sign in signs.items() if sign[1] and not sign[-1]]
  pays = [f'{title(name)} ({_trade(sign)})'
          for name, sign in signs.items() if sign[-1]]
  told = []
  if signs:
    told.append(
        f'Better than a random subset in something and worse in nothing that '
        f'could be told: {_some(wins)}.' if wins else
        'No set was seen to be better than a random subset in one thing '
        'without being worse in another.')
  other = _other_models(results, tested)
  if pays or other or pairs:
    worse = f'worse in something: {_some(pays)}' if pays else ''
    told.append(sentence(['; '.join(filter(None, [
        worse, other, _among_each_other(pairs, title)]))]))
  return [*told, *filter(None, [_cost(results)]), _not_asked(results, found)]


def _trade(sign) -> str:
  better = f'better in {", ".join(sign[1])}, ' if sign[1] else ''
  return f'{better}worse in {", ".join(sign[-1])}'


def _among_each_other(pairs, title) -> str:
  """Which sets another one dominates."""
  if not pairs:
    return ''
  beaten = [f'{title(name)} (by {_some([title(other) for other in others])})'
            for name, others in pairs_lib.dominated(pairs).items()]
  if not beaten:
    return 'no set was seen to dominate another'
  return ('between sets, dominated (another is better in something and worse '
          f'in nothing): {_some(beaten)}')


def _other_models(results, tested) -> str:
  """Where another model gives accuracy another mark."""
  told, random = [], references(results)
  for model in models_of(results):
    if model == main_model(results):
      continue
    found = cells_lib.accuracies(results, model)
    differ = []
    for name, question in tested:
      if question != 'accuracy':
        continue
      test = cells_lib.compare(question, found[name], found[random[name]])
      mark = marked(question, test)[0]
      if mark != marked(question, tested[name, question])[0]:
        differ.append(f'{results.plan.subjects[name].title} ({mark})')
    if differ:
      told.append(f'by {called(model)} the accuracy says otherwise of '
                  f'{_some(differ)}')
  return '; '.join(told)


def _some(names) -> str:
  more = len(names) - _NAMED
  return '; '.join(names[:_NAMED]) + (f'; and {more} more' if more > 0 else '')


def _cost(results) -> str:
  """What the sets took to make; of one's own it is not known."""
  seconds = {results.plan.subjects[name].title: records.read(job.workdir)[
      'metrics']['method_seconds'].value
             for name, job in results.plan.sets.items()}
  if not seconds:
    return ''
  dear, cheap = (f(seconds, key=seconds.get) for f in (max, min))
  return (f'To make, the sets took from {_seconds(seconds[cheap])} ({cheap}) '
          f'to {_seconds(seconds[dear])} ({dear}).')


def _seconds(value) -> str:
  return f'{value:,.1f} s' if value >= 0.05 else 'less than 0.1 s'


def _not_asked(results, found) -> str:
  config, gaps = results.config, []
  for question, ask in QUESTIONS.items():
    without = [s.title for name, s in results.plan.subjects.items()
               if s.method not in ('all', 'dp')
               and (name, question) not in found]
    if without:
      gaps.append(f'{ask.title.partition(",")[0]} of {_some(without)}')
  if not config.lira_shadows:
    gaps.append('attacks by shadow models')
  elif all(job.model == 'krr' for job in results.plan.lira.values()):
    gaps.append('attacks by shadow networks')
  if not config.groups:
    gaps.append('groups of people')
  gaps.append('other seeds of a method')
  return f'Not asked: {"; ".join(gaps)}.'
