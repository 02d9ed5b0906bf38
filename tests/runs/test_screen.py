"""What commands say at their end."""
import dataclasses

import pytest

from dsr.runs import launch, screen
from dsr.runs.records import Metric


@dataclasses.dataclass
class _Config:
  workdir: str


def test_metrics_are_lines_with_intervals():
  text = screen.metrics({'auc': Metric(0.5, 0.25, 0.75),
                         'images': Metric(12, 12, 12)})
  assert text.splitlines() == ['auc     0.5 [0.25, 0.75]', 'images  12']
  assert screen.metrics({}) == 'No metric was measured.'


@pytest.mark.parametrize('said', [True, False])
def test_a_study_that_shows_nothing_has_its_metrics_shown(
    said, monkeypatch, capsys):
  monkeypatch.setattr(screen, '_shown', [])
  with screen.quiet():
    screen.show('of a part')
  assert not screen.has_shown()
  if said:
    screen.show('a table')
  launch._tell({'auc': Metric(0.5, 0.25, 0.75)}, 'out/x')
  told = capsys.readouterr().out
  assert ('auc  0.5' in told) != said
  assert ('out/x' in told) != said
