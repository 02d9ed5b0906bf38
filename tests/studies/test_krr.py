"""The krr binary against a NumPy solve, by every solver."""
import dataclasses

import numpy as np
import pytest

from dsr import data
from dsr.runs import records
from dsr.studies import krr
from tests.reference import distill as oracle, krr as krr_oracle

SMALL = krr.Config(kernel='fcn1', num_train=200, ridge=1e-3)


def _run(folder, **fields):
  return krr.run(dataclasses.replace(SMALL, workdir=str(folder), **fields))


def test_accuracy_is_that_of_a_numpy_solve(tmp_path):
  metrics = _run(tmp_path, num_train=0)
  train, test = data.load('digits', seed=0)
  x, x_test = ((d.x.astype(float) - train.x.mean()) / train.x.std()
               for d in (train, test))
  outputs = krr_oracle.ridge_predict(
      oracle.fcn1(x_test, x), oracle.fcn1(x, x), np.eye(10)[train.y] - 0.1,
      ridge=1e-3)
  # Float32 kernels may flip an image or two at the decision boundary.
  right = (outputs.argmax(1) == test.y).mean()
  assert metrics['krr_accuracy'].value == pytest.approx(right, abs=2.5 / 360)
  record = records.read(tmp_path)
  assert record['extra']['subset'] == 'all'
  assert record['extra']['num_train'] == len(train)
  assert set(record['extra']['seconds']) == {'load', 'gram', 'solve', 'predict'}
  assert all(s > 0 for s in record['extra']['seconds'].values())
  assert 5e7 < record['extra']['peak_bytes'] < 1e11
  assert record['extra']['worst_residual'] < 1e-9


@pytest.mark.slow
def test_solvers_agree(tmp_path):
  fields = ({}, {'dtype': 'float32'}, {'solver': 'cg'})
  values = [_run(tmp_path / str(i), **f)['krr_accuracy'].value
            for i, f in enumerate(fields)]
  np.testing.assert_allclose(values, values[0], atol=2.5 / 360)
  assert values[0] > 0.9
  extra = records.read(tmp_path / '2')['extra']
  assert 0 < extra['solver_steps'] <= 500
  assert set(extra['seconds']) == {'load', 'solve', 'predict'}


def test_subsets_are_balanced_if_they_can_be(tmp_path):
  train = data.load('digits', seed=0).train
  for count, how in ((50, 'balanced'), (53, 'random'), (len(train), 'all')):
    config = dataclasses.replace(SMALL, num_train=count)
    part, name = krr._subset(config, train)
    again, _ = krr._subset(config, train)
    other, _ = krr._subset(dataclasses.replace(config, seed=1), train)
    assert (name, len(part)) == (how, count)
    assert len(np.unique(part.x.reshape(count, -1), axis=0)) == count
    np.testing.assert_array_equal(part.x, again.x)
    if how != 'all':
      assert not np.array_equal(part.x, other.x)
    if how == 'balanced':
      assert (np.bincount(part.y) == 5).all()


def test_binary_task(tmp_path):
  metrics = _run(tmp_path, dataset='digits[3,8]')
  assert metrics['krr_accuracy'].value > 0.95


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'num_train': 2000}, '`num_train` must be at most 1438'),
    ({'num_train': -1}, '`num_train` must be an integer of at least 0'),
    ({'ridge': 0.0}, '`ridge` must be positive'),
    ({'kernel': 'rbf'}, '`kernel` must be a family'),
    ({'transform': 'whiten'}, '`transform` must be one of none'),
])
def test_bad_values_are_named_and_leave_no_files(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    _run(tmp_path / 'out', **fields)
  assert not (tmp_path / 'out').exists()


@pytest.mark.errors
def test_a_solve_that_stops_short_is_an_error(tmp_path):
  with pytest.raises(FloatingPointError, match='after 1 steps'):
    _run(tmp_path / 'out', solver='cg', steps=1, num_train=400,
         ridge=1e-9)
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_mnist(tmp_path, tfds_dir):
  metrics = _run(tmp_path, dataset='mnist', data_dir=tfds_dir, kernel='fcn2',
                 num_train=2000, ridge=1e-4)
  assert metrics['krr_accuracy'].value > 0.93
