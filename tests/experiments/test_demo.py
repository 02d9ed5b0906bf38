"""The demo: its table, its pictures, and going on where it stopped."""
import dataclasses
import pathlib
import signal

import numpy as np
import pytest

from dsr.report import records
from experiments import demo, distill

SMALL = demo.Config(
    dataset='digits[0,3,8]', methods='random,kip', images_per_class='1,2',
    steps=2, num_networks=2, network_epochs=2)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A demo that has run, and its metrics."""
  config = dataclasses.replace(
      SMALL, workdir=str(tmp_path_factory.mktemp('demo')))
  return config, demo.run(config)


def _dates(config):
  """Of every run's record: when it was written."""
  return {name: (pathlib.Path(demo._folder(config, name))
                 / 'record.json').stat().st_mtime_ns
          for name in ('all', 'random_1', 'random_2', 'kip_1', 'kip_2')}


def test_second_run_prints_the_same_table_from_the_records(finished, capsys):
  config, metrics = finished
  before = _dates(config)
  assert demo.run(config) == metrics
  assert _dates(config) == before
  out = capsys.readouterr().out
  rows = [line for line in out.splitlines() if '[' in line and '%' not in line]
  assert [row.split()[0] for row in rows] == [
      'all', 'random', 'KIP', 'random', 'KIP']
  assert 'KRR accuracy (%)' in out
  value = metrics['kip_2_network_accuracy']
  assert (f'{100 * value.value:.1f} [{100 * value.low:.1f}, '
          f'{100 * value.high:.1f}]') in rows[-1]
  folder = pathlib.Path(config.workdir)
  assert f'{folder / "table.md"}' in out
  assert (folder / 'table.md').read_text().count('\n') == 2 + len(rows)


def test_writes_a_picture_and_its_own_record(finished):
  config, metrics = finished
  folder = pathlib.Path(config.workdir)
  assert (folder / 'images.png').read_bytes()[:4] == b'\x89PNG'
  record = records.read(folder)
  assert record['metrics'].keys() == metrics.keys() >= {
      'all_krr_accuracy', 'random_1_krr_accuracy', 'kip_2_network_accuracy'}
  assert record['extra']['pictures'] == [str(folder / 'images.png')]
  assert metrics['all_krr_accuracy'].value > 0.97
  assert records.read(folder / 'kip_2')['config']['images_per_class'] == 2


def test_other_settings_repeat_only_what_they_change(finished):
  config, _ = finished
  before = _dates(config)
  job = demo._job(config, 'kip', 1)
  demo._finished(config, distill.run, dataclasses.replace(
      job, learning_rate=0.02))
  after = _dates(config)
  assert {name for name in before if before[name] != after[name]} == {'kip_1'}
  fresh = dataclasses.replace(config, fresh=True)
  demo._finished(fresh, distill.run, job)
  record = records.read(job.workdir)
  assert record['config']['learning_rate'] == config.learning_rate
  assert record['extra']['steps_done'] == 2


def test_interrupted_demo_stops_and_goes_on(tmp_path, monkeypatch):
  config = dataclasses.replace(
      SMALL, workdir=str(tmp_path), methods='kip', images_per_class='1',
      networks='')
  accuracy = distill._accuracy

  def interrupted(*args):
    signal.raise_signal(signal.SIGINT)
    return accuracy(*args)

  with monkeypatch.context() as patch:
    patch.setattr(distill, '_accuracy', interrupted)
    with pytest.raises(KeyboardInterrupt):
      demo.run(config)
  assert not (tmp_path / 'table.md').exists()
  metrics = demo.run(config)
  assert np.isfinite(metrics['kip_1_krr_accuracy'].value)
  assert (tmp_path / 'table.md').exists()


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'methods': 'random,frepo'}, '`methods` must be one of random, kip'),
    ({'methods': ''}, '`methods` must name one or more'),
    ({'images_per_class': '1,ten'}, '`images_per_class` must be positive int'),
    ({'images_per_class': '0'}, '`images_per_class` must be positive int'),
    ({'num_networks': 1}, '`num_networks` must be an integer of at least 2'),
])
def test_bad_values_are_named_before_the_first_run(tmp_path, fields, message):
  config = dataclasses.replace(SMALL, workdir=str(tmp_path / 'out'), **fields)
  with pytest.raises(ValueError, match=message):
    demo.run(config)
  assert not (tmp_path / 'out').exists()
