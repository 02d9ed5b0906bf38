"""Sets against each other: which one is at least as good in all that was asked.

For every pair of sets each question has the difference with its interval, as
in `cells.compare`. A set *dominates* another where it is better in something
and worse in nothing, both after Bonferroni: of m questions each interval is
stretched by z(1 - 0.025 / m) / z(0.975), the ratio of normal quantiles, so that
a pair of equal sets is told apart in at most about one of twenty cases.
"""
from collections.abc import Mapping, Sequence
import dataclasses
import itertools

from scipy import stats

from dsr.report import overview as overview_lib, tables
from dsr.report.page import Table
from dsr.studies.audit import cells as cells_lib
from dsr.studies.audit.cells import QUESTIONS, Cell, Compared

TITLE = 'Sets against each other'
_MOST = 12  # Sets; of more only those of one's own meet all others.
_WORDS = {(True, False): 'better', (False, True): 'worse',
          (True, True): 'a trade', (False, False): 'cannot tell'}


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two sets, and the questions that were asked of both.

  Attributes:
    one: name of a set.
    other: name of another.
    tests: question -> one less other.
  """

  one: str
  other: str
  tests: Mapping[str, Compared]

  @property
  def verdict(self) -> str:
    """'better', 'worse', 'a trade' or 'cannot tell', of the first set."""
    number = max(len(self.tests), 1)
    wider = float(stats.norm.ppf(1 - 0.025 / number) / stats.norm.ppf(0.975))
    signs = {QUESTIONS[question].better * _sign(test.difference, wider)
             for question, test in self.tests.items()}
    return _WORDS[1 in signs, -1 in signs]


def _sign(difference, wider) -> int:
  value, low, high = difference[:3]
  return difference._replace(low=value - wider * (value - low),
                             high=value + wider * (high - value)).sign


def compare(names: Sequence[str], own: Sequence[str],
            found: Mapping[tuple[str, str], Cell]) -> list[Pair]:
  """All pairs that some question was asked of.

  Args:
    names: of the sets. Of more than twelve only pairs with one of `own` are
      made, since their number grows as the square.
    own: those of them that are of one's own.
    found: of `cells.collect`.
  """
  pairs = []
  for one, other in itertools.combinations(names, 2):
    if len(names) > _MOST and not {one, other} & set(own):
      continue
    tests = {}
    for question in QUESTIONS:
      a, b = (found.get((name, question)) for name in (one, other))
      if a is None or b is None or not comparable(a, b):
        continue
      if (test := cells_lib.compare(question, a, b)) is not None:
        tests[question] = test
    if tests:
      pairs.append(Pair(one, other, tests))
  return pairs


def comparable(a: Cell, b: Cell) -> bool:
  """Whether both are shares of the same images, or AUCs, which need not."""
  return bool(a.sources) or a.images == b.images


def dominated(pairs: Sequence[Pair]) -> dict[str, list[str]]:
  """Set -> the sets that dominate it, of those that are dominated."""
  out: dict[str, list[str]] = {}
  for pair in pairs:
    if pair.verdict == 'better':
      out.setdefault(pair.other, []).append(pair.one)
    elif pair.verdict == 'worse':
      out.setdefault(pair.one, []).append(pair.other)
  return out


def table(pairs: Sequence[Pair], titles: Mapping[str, str]) -> Table:
  """A row for each pair: the verdict, and each difference with its mark.

  Args:
    pairs: of `compare`.
    titles: name of a set -> what the page calls it.
  """
  rows = [{'set': titles[pair.one], 'against': titles[pair.other],
           'verdict': pair.verdict} | {
               question: _shown(question, test)
               for question, test in pair.tests.items()} for pair in pairs]
  return Table(
      TITLE, ['set', 'against', 'verdict', *(
          tables.Column(name, question.title)
          for name, question in QUESTIONS.items())], rows,
      'The first set less the second, shares in percentage points. ▲ better, ▼ '
      'worse: the 95 % interval, paired where both were asked of the same '
      'images, leaves 0 out; ≈ it does not. Verdict: better in something and '
      'worse in nothing, or the reverse, or both (a trade), with intervals '
      'widened for the number of questions (Bonferroni); each verdict is at '
      '95 % by itself.')


def _shown(question, test) -> str:
  asked = QUESTIONS[question]
  mark = {1: 'better', -1: 'worse', 0: 'cannot tell'}[
      test.difference.sign * asked.better]
  value = (f'{100 * test.difference.value:+.1f}' if asked.percent
           else f'{test.difference.value:+.3f}')
  return f'{overview_lib.MARKS[mark]} {value}'
