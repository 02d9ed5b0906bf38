"""What is said to be left of a long run, from parts that were seen."""
import contextlib

from absl import logging
import pytest

from dsr.runs import progress

EXPECTED = {'set': 10.0, 'fit': 20.0}


class Run:
  """Parts on a clock that is set by hand."""

  def __init__(self, monkeypatch, parts, expected=None):
    self.now, self.lines = 0.0, []
    monkeypatch.setattr(progress.time, 'monotonic', lambda: self.now)
    monkeypatch.setattr(
        logging, 'info', lambda text, *args: self.lines.append(text % args))
    self.progress = progress.Progress(
        'audit', [(kind, f'{kind}{i}') for i, kind in enumerate(parts)],
        EXPECTED if expected is None else expected)

  def part(self, seconds, ran=True):
    with self.progress.part():
      if ran:
        self.progress.runs(self._take)(seconds)
    return self.progress.seconds_left()

  def _take(self, seconds):
    self.now += seconds


def test_before_anything_was_seen_it_is_what_was_expected(monkeypatch):
  run = Run(monkeypatch, ['set', 'fit', 'fit'])
  run.part(1)
  assert run.lines == ['audit 1 of 3: set0 (about 50 s left)']


def test_parts_seen_count_and_the_first_of_a_kind_until_the_second(monkeypatch):
  run = Run(monkeypatch, ['fit'] * 5)
  assert run.part(30) == 4 * 30
  assert run.part(2) == 3 * 2  # The first compiled, too.
  assert run.part(4) == 2 * 3
  assert run.lines[-1] == 'audit 3 of 5: fit2 (about 6 s left)'


def test_kinds_not_seen_follow_the_speed_of_those_seen(monkeypatch):
  run = Run(monkeypatch, ['set', 'set', 'fit'])
  first = run.part(20)  # As slow again as was expected: half believed.
  assert first == 20 + 20 * 1.5
  assert run.part(20) == pytest.approx(20 * 50 / 30)  # More so by and by.


def test_finished_parts_and_failed_ones_tell_nothing(monkeypatch):
  run = Run(monkeypatch, ['fit'] * 4)
  assert run.part(0, ran=False) == 60
  with contextlib.suppress(RuntimeError):
    with run.progress.part():
      run.progress.runs(run._take)(1000)
      raise RuntimeError
  assert run.progress.seconds_left() == 40


def test_a_kind_that_nobody_expects_takes_as_long_as_the_mean(monkeypatch):
  assert Run(monkeypatch, ['odd']).progress.seconds_left() == 15
  assert Run(monkeypatch, ['odd'], {}).progress.seconds_left() == 10


@pytest.mark.errors
def test_nothing_takes_no_time():
  with pytest.raises(ValueError, match="`expected` must be above 0, got 0 for"):
    progress.Progress('audit', [], {'set': 0})


def test_words():
  seconds = [0, 5.4, 59.7, 84, 119, 599, 3599, 3600, 7500]
  assert [progress.in_words(s) for s in seconds] == [
      '1 s', '5 s', '1 min', '1 min 20 s', '2 min', '10 min', '1 h', '1 h',
      '2 h 5 min']
