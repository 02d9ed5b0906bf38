"""What is running, what is left, and about how long that takes.

Parts are of kinds. A part of a kind that was seen takes as long as those seen;
the first of a kind also compiles its programs, and counts only until a second
one was seen. Kinds not seen yet take what is expected of them beforehand, times
what the parts seen took in comparison with what was expected of those.
"""
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import functools
import time

from absl import logging

_TRUST = 10.0  # Seconds expected beforehand that weigh as much as seconds seen.


class Progress:
  """Tells of each part of a long run, as it begins, how much is left.

  Args:
    name: of the run, which begins each line.
    parts: (kind, name) of every part, in order.
    expected: kind -> seconds of one part, roughly; what is not named takes as
      long as the mean of those named.

  Raises:
    ValueError: seconds that are not above 0.
  """

  def __init__(self, name: str, parts: Sequence[tuple[str, str]],
               expected: Mapping[str, float]):
    for kind, seconds in expected.items():
      if not seconds > 0:
        raise ValueError(
            f'`expected` must be above 0, got {seconds} for {kind!r}.')
    self._name, self._parts = name, list(parts)
    self._expected = dict(expected)
    self._usual = (
        sum(expected.values()) / len(expected) if expected else _TRUST)
    self._seen: dict[str, list[float]] = {}
    self._begun, self._ran = 0, False

  @contextlib.contextmanager
  def part(self) -> Iterator[None]:
    """The next part: a line as it begins, and a look at the clock at its end.

    It counts if it ends, and if the body called a function of `runs`: other
    parts were finished before.
    """
    kind, name = self._parts[self._begun]
    logging.info('%s %d of %d: %s (about %s left)', self._name,
                 self._begun + 1, len(self._parts), name,
                 in_words(self.seconds_left()))
    began, self._ran = time.monotonic(), False
    self._begun += 1
    yield
    if self._ran:
      self._seen.setdefault(kind, []).append(time.monotonic() - began)

  def runs(self, run: Callable) -> Callable:
    """`run`, for `jobs.finished`: by a call of it a part counts."""
    @functools.wraps(run)
    def counted(*args, **options):
      self._ran = True
      return run(*args, **options)
    return counted

  def seconds_left(self) -> float:
    """Of all parts that have not begun, by what is known now."""
    return sum(self._guess(kind) for kind, _ in self._parts[self._begun:])

  def _guess(self, kind) -> float:
    seen = self._seen.get(kind)
    if seen:
      later = seen[1:] or seen
      return sum(later) / len(later)
    return self._before(kind) * self._ratio()

  def _before(self, kind) -> float:
    return self._expected.get(kind, self._usual)

  def _ratio(self) -> float:
    """Seconds seen over those expected of the same parts."""
    took = sum(map(sum, self._seen.values()))
    expected = sum(
        self._before(kind) * len(seen) for kind, seen in self._seen.items())
    return (took + _TRUST) / (expected + _TRUST)


def in_words(seconds: float) -> str:
  """'5 s', '1 min 20 s' or '2 h 5 min': no finer than it is known."""
  if round(seconds) < 60:
    return f'{max(1, round(seconds))} s'
  tens = round(seconds / 10)
  if tens < 360:
    return _pair(tens // 6, 'min', 10 * (tens % 6), 's')
  minutes = round(seconds / 60)
  return _pair(minutes // 60, 'h', minutes % 60, 'min')


def _pair(large, unit, small, below) -> str:
  return f'{large} {unit} {small} {below}' if small else f'{large} {unit}'
