"""Records: what is written is read back, strict, complete and all at once."""
import dataclasses
import datetime
import enum
import json
import os
import pathlib
import shlex
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsr
from dsr.probes import intervals
from dsr.runs import records


class Kind(enum.Enum):
  FULL = 1


@dataclasses.dataclass(frozen=True)
class Config:
  """An experiment's."""

  dataset: str = 'digits'
  ridge: float = 1e-6
  clip: float | None = 1.0
  widths: tuple[int, ...] = (1, 2)
  options: dict = dataclasses.field(default_factory=dict)
  centre: bool = True
  seed: int = 0
  workdir: str = 'out'


METRICS = {'krr_accuracy': records.metric(0.855, 0.848, 0.862)}


def test_a_record_tells_everything(tmp_path):
  arrays = {'x': jnp.ones((2, 3), 'float32'), 'file': np.arange(3)}
  path = records.write(
      tmp_path / 'new' / 'folder', config=Config(ridge=1e-3, seed=7),
      metrics=METRICS | {'eta': records.metric(jnp.float32(0.5))},
      arrays=arrays, wall_time=np.float64(1.5), claimed={'krr_accuracy': 0.85},
      extra={'curve': np.arange(2), 'kind': Kind.FULL,
             'from': pathlib.PurePosixPath('a/b')})
  assert path == tmp_path / 'new' / 'folder' / 'record.json'
  raw = json.loads(path.read_text())
  assert raw['metrics'] == {
      'krr_accuracy': {'value': 0.855, 'low': 0.848, 'high': 0.862},
      'eta': {'value': 0.5, 'low': 0.5, 'high': 0.5}}
  record = records.read(path.parent)
  assert record == records.read(path)
  assert record['metrics']['krr_accuracy'] == METRICS['krr_accuracy']
  assert record['config'] == {
      'dataset': 'digits', 'ridge': 1e-3, 'clip': 1.0, 'widths': [1, 2],
      'options': {}, 'centre': True, 'seed': 7, 'workdir': 'out'}
  assert record['seeds'] == {'seed': 7}
  assert record['wall_time'] == 1.5
  assert record['claimed'] == {'krr_accuracy': 0.85}
  assert record['extra'] == {'curve': [0, 1], 'kind': 'FULL', 'from': 'a/b'}
  assert record['versions'].keys() == {
      'dsr', 'python', 'jax', 'jaxlib', 'numpy', 'flax', 'optax'}
  assert record['versions']['jax'] == jax.__version__
  assert record['versions']['dsr'] == dsr.__version__
  assert record['device']['platform'] == jax.devices()[0].platform
  assert record['device']['kind'] == jax.devices()[0].device_kind
  date = datetime.datetime.fromisoformat(record['date'])
  age = datetime.datetime.now(datetime.UTC) - date
  assert date.utcoffset() == datetime.timedelta(0)
  assert age < datetime.timedelta(minutes=1)
  found = records.read_arrays(path)
  assert found.keys() == arrays.keys()
  assert found['x'].dtype == 'float32'
  np.testing.assert_array_equal(found['file'], arrays['file'])
  np.testing.assert_array_equal(
      np.load(path.parent / 'distilled.npz')['x'], arrays['x'])
  assert sorted(p.name for p in path.parent.iterdir()) == [
      'distilled.npz', 'record.json']


def test_metrics_come_from_intervals_and_from_dicts(tmp_path):
  given = {'a': intervals.wilson(9, 10), 'b': dict(value=1, low=0, high=2)}
  found = records.read(records.write(
      tmp_path, config=Config(), metrics=given, name='other'))['metrics']
  assert found['a'] == tuple(given['a'])
  assert found['b'] == (1, 0, 2)


def test_command_gives_the_flags_that_differ(monkeypatch):
  words = shlex.split(records.command(Config(
      dataset="it's here/a b.npz", clip=None, widths=(3, 4), centre=False)))
  assert words == ['python', '-m', __name__, "--dataset=it's here/a b.npz",
                   '--clip', '--widths', '3', '4', '--centre=False']
  assert records.command(Config()) == f'python -m {__name__}'
  monkeypatch.setattr(Config, '__module__', '__main__')
  main = types.SimpleNamespace(__spec__=types.SimpleNamespace(
      name='experiments.distill'))
  monkeypatch.setitem(sys.modules, '__main__', main)
  assert records.command(Config()) == 'python -m experiments.distill'


def test_the_binaries_flags_read_the_command_back():
  from etils import eapp

  config = Config(dataset='a b', clip=None, widths=(3, 4), centre=False, seed=5)
  words = shlex.split(records.command(config))
  parse = eapp.make_flags_parser(Config)
  assert parse(['program', *words[3:]]) == config


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('old')

  def fail():
    with records.replacing(path) as part:
      part.write_text('half')
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert path.read_text() == 'old'
  with records.replacing(path) as part:
    part.write_text('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new'
  assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.errors
@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(metrics={'a': 0.5}), r"`metrics\['a'\]` must have value, low and"),
    (dict(metrics={1: METRICS['krr_accuracy']}), 'strings as names, got 1'),
    (dict(metrics={'a': records.Metric(np.nan, 0, 1)}),
     r"`metrics\['a'\].value` must be finite, got nan"),
    (dict(metrics={'a': records.Metric(1, 0, np.inf)}), 'high` must be finite'),
    (dict(metrics={'a': records.Metric(1, 2, 0)}), r'low <= high, got \[2'),
    (dict(metrics={'a': records.Metric('1', 0, 1)}), "be a number, got '1'"),
    (dict(metrics={'a': records.Metric(np.ones(2), 0, 1)}), 'must be a number'),
    (dict(extra={'a': [1.0, np.nan]}), r'`record.extra.a\[1\]` must be finite'),
    (dict(extra={'a': object()}), '`record.extra.a` must fit into JSON'),
    (dict(extra={'a': {1: 2}}), '`record.extra.a` must have strings as names'),
    (dict(config=Config(ridge=np.inf)), '`record.config.ridge` must be finite'),
    (dict(config={'a': 1}), '`config` must be a dataclass'),
    (dict(claimed={'b': 1.0}), r"`claimed` must name metrics, got \['b'\]"),
    (dict(arrays={'a': np.array([object()])}), r"`arrays\['a'\]` must hold"),
    (dict(arrays={'../a': np.ones(1)}), '`arrays` must have identifiers'),
])
def test_what_a_record_cannot_hold_is_refused_before_writing(
    tmp_path, kwargs, message):
  with pytest.raises(ValueError, match=message):
    records.write(tmp_path / 'w', **{'config': Config(), 'metrics': METRICS,
                                     'arrays': {'x': np.ones(1)}} | kwargs)
  assert not (tmp_path / 'w').exists()


@pytest.mark.errors
def test_metric_wants_both_ends():
  with pytest.raises(ValueError, match='`low` and `high` go together'):
    records.metric(1.0, 0.5)


@pytest.mark.errors
@pytest.mark.parametrize(('text', 'message'), [
    ('{', 'is not JSON'),
    ('[]', 'holds no JSON object'),
    ('{"format": 1}', r"lacks \['config'"),
    ('{"format": NaN}', 'must have finite numbers only, got NaN'),
])
def test_read_refuses_what_is_no_record(tmp_path, text, message):
  path = tmp_path / 'record.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    records.read(path)


@pytest.mark.errors
def test_read_refuses_other_formats_and_missing_arrays(tmp_path):
  path = records.write(tmp_path, config=Config(), metrics=METRICS)
  with pytest.raises(ValueError, match='`path` must have arrays'):
    records.read_arrays(tmp_path)
  raw = json.loads(path.read_text())
  path.write_text(json.dumps(raw | {'format': 99}))
  with pytest.raises(ValueError, match='of format 1, .* has format 99'):
    records.read(path)
