"""The published schema of a record: what is written fits, what is not does not.

Records of a whole audit are held against it in `tests/studies/audit`.
"""
import copy
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from dsr.runs import records

jsonschema = pytest.importorskip('jsonschema')
ROOT = pathlib.Path(__file__).resolve().parents[2]
PUBLISHED = sorted((ROOT / 'notebooks/records').glob('*.json'))


def validator():
  """Of records; used by tests of studies as well."""
  schema = json.loads(
      pathlib.Path(records.__file__).with_name('schema.json').read_text())
  jsonschema.Draft202012Validator.check_schema(schema)
  return jsonschema.Draft202012Validator(schema)


@dataclasses.dataclass(frozen=True)
class Config:
  """An experiment's."""

  seeds: tuple[int, ...] = (1, 2)
  workdir: str = ''


@pytest.fixture
def written(tmp_path):
  path = records.write(
      tmp_path, config=Config(workdir=str(tmp_path)), wall_time=0.5,
      metrics={'krr_accuracy': records.metric(0.5, 0.25, 0.75)},
      claimed={'krr_accuracy': 0.6}, arrays={'images': np.zeros(3)},
      contents={'dataset': '0a1b'}, extra={'anything': [None, 'x']})
  return json.loads(path.read_text())


def test_what_is_written_fits(written):
  validator().validate(written)
  assert set(written) == set(validator().schema['properties'])


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda p: p.stem)
def test_published_records_fit(path):
  validator().validate(json.loads(path.read_text()))


@pytest.mark.errors
@pytest.mark.parametrize('change', [
    lambda r: r.pop('command'), lambda r: r.update(format=2),
    lambda r: r.update(more=1), lambda r: r.update(arrays='a/b.npz'),
    lambda r: r['metrics']['krr_accuracy'].pop('low'),
    lambda r: r['metrics'].update(krr_accuracy=0.5),
    lambda r: r['contents'].update(dataset='no digest'),
    lambda r: r['device'].pop('x64'), lambda r: r.update(date='today'),
    lambda r: r['seeds'].update(seeds='one'), lambda r: r.update(wall_time=-1),
    lambda r: r['versions'].pop('dsr')])
def test_what_does_not_fit_is_refused(written, change):
  wrong = copy.deepcopy(written)
  change(wrong)
  assert not validator().is_valid(wrong)
