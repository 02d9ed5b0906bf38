"""Sets and models of an audit: what is read, what is refused, what is kept."""
import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.runs import records
from dsr.studies.audit import fit, models as models_lib, subjects
from dsr.studies.distillation import distill, evaluation

DATA = {'dataset': 'digits[0,3,8]', 'max_train': 90}
BASE = subjects.SubjectConfig(**DATA)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A workdir of `experiments.distill` with k-centre's choice."""
  folder = tmp_path_factory.mktemp('kcenter')
  distill.run(distill.Config(
      **DATA, method='kcenter', images_per_class=2, networks='',
      validation=BASE.validation, workdir=str(folder)))
  return folder


def _file(tmp_path, **changes):
  rng = np.random.default_rng(0)
  arrays = {'images': rng.random((6, 8, 8, 1)).astype(np.float32),
            'labels': np.repeat(np.arange(3), 2)} | changes
  path = tmp_path / 'own.npz'
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  return path


def test_chosen_images_are_rows_of_the_training_set(folder):
  config = dataclasses.replace(BASE, set=str(folder))
  shown, problem = subjects.load_set(config)
  assert (shown.init, shown.name) == ('chosen', 'kcenter')
  np.testing.assert_allclose(
      shown.pixels, problem.train.x[shown.init_rows], atol=1e-6)
  np.testing.assert_array_equal(
      shown.labels, problem.train.y[shown.init_rows])
  assert subjects.load_problem(config) is subjects.load_problem(config)


def test_without_a_set_it_is_all_training_images():
  shown, problem = subjects.load_set(BASE)
  assert shown.name == 'all'
  assert len(shown.labels) == len(problem.train) == 81
  outside, whence = subjects.outsiders(problem)
  assert whence == 'unused training images'
  assert len(outside) == len(problem.unused) > 300
  joint = np.concatenate([problem.train.x, problem.validation.x, outside.x])
  whole = subjects.load_problem(dataclasses.replace(
      BASE, max_train=0, validation=0.0)).train.x
  both = [a[np.lexsort(a.reshape(len(a), -1).T)] for a in (joint, whole)]
  np.testing.assert_array_equal(*both)  # Every image is in one part only.


def test_the_whole_training_set_has_the_test_set_outside():
  problem = subjects.load_problem(dataclasses.replace(BASE, max_train=0))
  outside, whence = subjects.outsiders(problem)
  assert whence == 'test set'
  assert outside is problem.test


def test_reads_a_set_of_ones_own(tmp_path):
  problem = subjects.load_problem(BASE)
  shown = subjects.from_file(_file(tmp_path), problem)
  assert shown.name == 'own'
  assert shown.init_rows is None
  np.testing.assert_allclose(
      np.asarray(problem.transform.invert(shown.examples.x)), shown.pixels,
      atol=1e-6)
  assert np.asarray(shown.examples.y).argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
  eight_bits = _file(tmp_path, images=np.full((6, 8, 8), 51, np.uint8))
  np.testing.assert_allclose(
      subjects.from_file(eight_bits, problem).pixels, 0.2, rtol=1e-6)
  soft = np.full((6, 3), 0.1)
  own = subjects.from_file(_file(tmp_path, targets=soft), problem)
  np.testing.assert_allclose(own.examples.y, soft, rtol=1e-6)


class _Seen(Exception):
  """Ends a test where networks would be trained; holds the protocol."""


@pytest.mark.parametrize(('changes', 'rate'), [
    ({'network_learning_rate': 0.2}, 0.2), ({}, 0.05),
    ({'protocol': 'frepo'}, 3e-4)])
def test_a_rate_learned_with_the_set_trains_networks_by_sgd(
    tmp_path, monkeypatch, changes, rate):
  def evaluate(*args, protocol, **kwargs):
    raise _Seen(protocol.learning_rate)

  monkeypatch.setattr(fit.train, 'evaluate', evaluate)
  path = _file(tmp_path, student_rate=0.05)
  with pytest.raises(_Seen, match=f'^{rate}$'):
    fit.run(fit.Config(**DATA, set=str(path), model='mlp',
                       workdir=str(tmp_path / 'fit'), **changes))


@pytest.mark.errors
@pytest.mark.parametrize(('changes', 'message'), [
    ({'student_rate': -1.0}, '`student_rate` must be positive'),
    ({'student_rate': np.ones(2)}, '`student_rate` must be positive'),
    ({'images': None}, '`set` must have the arrays images and labels'),
    ({'images': np.zeros((6, 8, 9, 1), 'f')}, '`images` has examples of shape'),
    ({'images': np.zeros((5, 8, 8, 1), 'f')}, 'the same number of rows'),
    ({'images': np.full((6, 8, 8, 1), np.nan)}, '`images` must be finite'),
    ({'images': np.full((6, 8, 8, 1), 200.0)}, r'`images` must be near \[0, 1'),
    ({'images': np.zeros((6, 8, 8, 1), int)}, '`images` must be floating'),
    ({'labels': np.repeat(np.arange(3), 2) + 1}, r'`labels` must be in \[0, 3'),
    ({'labels': np.zeros(6)}, '`labels` must be a vector of integers'),
    ({'targets': np.zeros((6, 2))}, '`targets` has D=2, expected D=3'),
    ({'targets': np.full((6, 3), np.inf)}, '`targets` must be finite'),
    ({'rows': np.full(6, 100)}, r'`rows` must be in \[0, 81'),
    ({'rows': np.arange(5)}, 'the same number of rows'),
    ({'rows': np.zeros(6, int)}, '`rows` must be different.*5 repeated'),
    ({'labels': np.repeat(np.arange(3), 2) + 2**32}, r'`labels` must be in'),
    ({'images': np.zeros((6, 1, 8, 8), 'f')}, r'np.moveaxis\(images, 1, -1\)'),
])
def test_wrong_files_are_refused(tmp_path, changes, message):
  problem = subjects.load_problem(BASE)
  with pytest.raises(ValueError, match=message):
    subjects.from_file(_file(tmp_path, **changes), problem)


@pytest.mark.errors
def test_what_is_no_set_is_refused(tmp_path, folder):
  with pytest.raises(ValueError, match='`set` must be an .npz or the workdir'):
    subjects.load_set(dataclasses.replace(BASE, set=str(tmp_path)))
  other = dataclasses.replace(BASE, set=str(folder), seed=1)
  with pytest.raises(ValueError, match='`seed` must be 0, as in the record'):
    subjects.load_set(other)
  (tmp_path / 'bad.npz').write_text('no npz')
  with pytest.raises(ValueError, match='`set` must be a readable .npz'):
    subjects.load_set(dataclasses.replace(BASE, set=str(tmp_path / 'bad.npz')))


def test_packed_variables_come_back():
  module = nets.build('convnet3_batch', 3, width=4)
  shapes = jax.eval_shape(
      module.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda a: rng.normal(size=a.shape), dict(shapes))
  variables[nets.BATCH_STATS] = {'Norm_0': {'mean': np.ones((2, 4))}}
  packed = models_lib.pack(variables)
  again = models_lib.unpack(packed | {'outputs': np.ones(2)})
  jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.fixture(scope='module')
def fitted(folder, tmp_path_factory):
  config = fit.Config(
      **DATA, set=str(folder), model='mlp', num_networks=2, network_epochs=10,
      workdir=str(tmp_path_factory.mktemp('mlp')))
  return config, fit.run(config)


def test_networks_are_kept_with_their_outputs(fitted):
  config, metrics = fitted
  problem = subjects.load_problem(config, images_per_class=2)
  models = subjects.networks(config, config.workdir, problem)
  outputs = models_lib.outputs(models, problem.test.x)
  saved = records.read_arrays(config.workdir)['outputs']
  np.testing.assert_allclose(outputs, saved, atol=1e-4)
  right = models_lib.decisions(outputs) == problem.test.y
  assert metrics['accuracy'].value == pytest.approx(right.mean())
  assert metrics['accuracy'].value > 0.5
  assert not np.allclose(outputs[0], outputs[1])


def test_training_goes_on_with_the_next_network(fitted, tmp_path, monkeypatch):
  config, metrics = fitted
  config = dataclasses.replace(config, workdir=str(tmp_path))
  train, calls = fit._train, []

  def stopped(key, *args):
    if len(calls) == 1:
      raise KeyboardInterrupt
    calls.append(key)
    return train(key, *args)

  monkeypatch.setattr(fit, '_train', stopped)
  with pytest.raises(KeyboardInterrupt):
    fit.run(config)
  assert not (tmp_path / 'record.json').exists()
  calls.append(None)  # From now on everything is trained; one is there.
  assert fit.run(config) == metrics
  assert len(calls) == 3


def test_kernel_regression_is_that_of_the_distillation(folder, tmp_path):
  config = fit.Config(**DATA, set=str(folder), workdir=str(tmp_path))
  metrics = fit.run(config)
  there = json.loads((pathlib.Path(folder) / 'record.json').read_text())
  assert metrics['accuracy'].value == pytest.approx(
      there['metrics']['krr_accuracy']['value'])
  (model,) = fit.models(config, str(tmp_path))
  shown, problem = subjects.load_set(config)
  predict = evaluation.fit(evaluation.kernel_named('fcn1'), shown.examples,
                           ridge=config.ridge)
  np.testing.assert_allclose(
      model(jnp.asarray(problem.test.x[:9])),
      predict(problem.inputs(problem.test.take(np.arange(9)))), atol=1e-5)


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'model': 'vit'}, '`model` must be one of mlp'),
    ({'dp_epsilon': 1.0}, '`dp_epsilon` must be 0 with model krr'),
    ({'ridge': 0.0}, '`ridge` must be positive'),
    ({'network_epochs': 0}, '`network_epochs` must be an integer of at least'),
    ({'transform': 'blur'}, '`transform` must be one of'),
])
def test_bad_flags_are_named(tmp_path, fields, message):
  config = fit.Config(**DATA | fields, workdir=str(tmp_path / 'out'))
  with pytest.raises(ValueError, match=message):
    fit.run(config)
  assert not (tmp_path / 'out').exists()
