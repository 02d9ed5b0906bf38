"""Marks and sentences of the table at the top, from differences made up."""
import math
import types

import numpy as np

from dsr.probes import differences
from dsr.runs import records
from dsr.studies.audit import cells, overview, pairs, plan

IMAGES = differences.Part('images', 0.02**2, 10**6, 100)


def _test(value, *, unit='networks', parts=(IMAGES,), paired=True):
  half = 1.96 * math.sqrt(sum(part.variance for part in parts))
  return cells.Compared(0.5 + value, 0.5, differences.Difference(
      value, value - half, value + half, parts), paired, unit)


def test_marks_follow_the_sign_and_what_is_better():
  assert overview.marked('accuracy', _test(0.1)) == ('better', '')
  assert overview.marked('accuracy', _test(-0.1)) == ('worse', '')
  assert overview.marked('membership', _test(0.1)) == ('worse', '')
  assert overview.marked('rebuilt', _test(-0.1)) == ('better', '')
  # 100 images, (1.96 + 0.84)^2 0.02^2 / 0.01^2 times as many.
  assert overview.marked('worst', _test(0.01)) == (
      'cannot tell', 'about 3,200 test images would tell')
  assert overview.marked('start', _test(0.0)) == (
      'cannot tell', 'no difference seen')
  targets = differences.Part('models', 1e-4, 3, 4)
  mark, note = overview.marked(
      'membership', _test(0.015, unit='targets', parts=(targets,)))
  assert mark == 'cannot tell'
  assert note.endswith(' targets would tell')
  both = IMAGES._replace(unit='images and models')
  assert overview.would_tell('worst', _test(0.01, parts=(both,))) == (
      'about 3,200 test images, and networks in proportion, would tell')


def _results(names):
  subject = lambda name: plan.Subject(name, f'the {name}', name, 1, 'real', '')
  return types.SimpleNamespace(
      networks=['mlp'], leakage=None, config=types.SimpleNamespace(
          lira_shadows=0, groups='', leak_train=0),
      plan=types.SimpleNamespace(
          sets={}, lira={}, subjects={name: subject(name) for name in names}))


def test_sentences_tell_who_wins_who_pays_and_what_was_not_asked(monkeypatch):
  monkeypatch.setattr(overview, '_other_models', lambda *_: '')
  found = {(name, question): None for name in 'abcd'
           for question in cells.QUESTIONS if question != 'rebuilt'}
  tested = {
      ('a', 'accuracy'): _test(0.1), ('a', 'membership'): _test(0.001),
      ('b', 'accuracy'): _test(0.1), ('b', 'membership'): _test(0.1),
      ('c', 'accuracy'): _test(-0.1), ('d', 'accuracy'): _test(0.001)}
  told = overview._sentences(_results('abcd'), found, tested)
  assert told == [
      'Better than a random subset in something and worse in nothing that '
      'could be told: the a (accuracy).',
      'Worse in something: the b (better in accuracy, worse in membership); '
      'the c (worse in accuracy).',
      'Not asked: training images given back of the a; the b; the c; and 1 '
      'more; attacks by shadow models; groups of people; other seeds of a '
      'method.']
  only_b = {key: test for key, test in tested.items() if key[0] == 'b'}
  assert overview._sentences(_results('b'), {}, only_b)[0].startswith(
      'No set was seen to be better than a random subset in one thing without')
  assert len(overview._sentences(_results('abcd'), found, {})) == 1


def test_attacks_made_on_one_side_alone_are_not_compared():
  cell = cells.Cell(records.metric(0.5), 'x', {}, (
      cells.strongest.Source('krr', 'loss', 'f', 's', 'm', 'c'),))
  other = cell._replace(sources=(cell.sources[0]._replace(name='margin'),))
  assert cells.compare('membership', cell, other) is None


def test_shares_of_other_images_are_marked_in_audits_alone():
  """A set is not held against a random subset that was asked of others."""
  right = np.arange(40).reshape(1, 40) % 2 == 0
  one = cells.Cell(records.metric(0.5), 'x', {'right': right})
  other = one._replace(images='y')
  assert pairs.comparable(one, one)
  assert not pairs.comparable(one, other)
  test = cells.compare('rebuilt', one, other)
  assert not test.paired
  paired = cells.compare('rebuilt', one, one)
  assert test.difference.high > 2 * paired.difference.high


def test_a_set_dominates_where_it_is_better_and_nowhere_worse():
  """By intervals widened for the number of questions that were asked."""
  pair = lambda **values: pairs.Pair('a', 'b', {
      question: _test(value) for question, value in values.items()})
  assert pair(accuracy=0.1, membership=0.001).verdict == 'better'
  assert pair(accuracy=0.001, membership=0.1).verdict == 'worse'
  assert pair(accuracy=0.1, membership=0.1).verdict == 'a trade'
  assert pair(accuracy=0.001).verdict == 'cannot tell'
  # 0.04 is 2 standard errors: 1.96 of one question, 2.24 of two are needed.
  assert pair(accuracy=0.04).verdict == 'better'
  assert pair(accuracy=0.04, worst=0.0).verdict == 'cannot tell'
  found = [pair(accuracy=0.1), pairs.Pair('c', 'b', {'worst': _test(-0.1)})]
  assert pairs.dominated(found) == {'b': ['a'], 'c': ['b']}
  row, other = pairs.table(found, {'a': 'A', 'b': 'B', 'c': 'C'}).rows
  assert row == {'set': 'A', 'against': 'B', 'verdict': 'better',
                 'accuracy': '▲ +10.0'}
  assert other['worst'] == '▼ -10.0'


def test_pairs_are_those_of_questions_asked_of_both():
  right = np.arange(40).reshape(1, 40) % 4 > 0
  cell = cells.Cell(records.metric(0.75), 'x', {'right': right})
  worse = cell._replace(arrays={'right': right & (np.arange(40) > 30)})
  found = {('a', 'accuracy'): cell, ('b', 'accuracy'): worse,
           ('a', 'robustness'): cell, ('c', 'accuracy'): cell._replace(
               images='y')}
  (pair,) = pairs.compare('abc', [], found)
  assert (pair.one, pair.other, list(pair.tests)) == ('a', 'b', ['accuracy'])
  assert pair.verdict == 'better'
  many = {(str(i), 'accuracy'): cell for i in range(13)}
  names = [str(i) for i in range(13)]
  assert len(pairs.compare(names, [], many)) == 0
  assert len(pairs.compare(names, ['3'], many)) == 12
