"""The figure of accuracies by method."""
import numpy as np
import pytest

from dsr.report import dots
from dsr.runs.records import Metric


def test_draws_every_setting_and_published_numbers(tmp_path):
  series = {'1 per class': {'kip': Metric(0.8, 0.7, 0.9),
                            'dm': Metric(0.5, 0.5, 0.5)},
            '10 per class': {'kip': Metric(0.9, 0.88, 0.93)}}
  path = dots.intervals(tmp_path / 'a.png', series, title='t')
  plain = path.read_bytes()
  assert plain[:8] == b'\x89PNG\r\n\x1a\n'
  told = dots.intervals(
      tmp_path / 'b.png', series, title='t',
      published={'1 per class': {'dm': 0.6, 'unknown': 0.1}}).read_bytes()
  assert told != plain
  assert not list(tmp_path.glob('.*'))
  taller = dots.intervals(
      tmp_path / 'c.png', {'a': {str(i): Metric(0.1, 0, 1) for i in range(9)}})
  from matplotlib import image

  assert image.imread(taller).shape[0] > image.imread(path).shape[0]
  assert np.isfinite(image.imread(path)).all()


@pytest.mark.errors
def test_refuses_to_draw_nothing(tmp_path):
  with pytest.raises(ValueError, match='`series` must have a metric'):
    dots.intervals(tmp_path / 'a.png', {'1': {}})
  assert not (tmp_path / 'a.png').exists()
