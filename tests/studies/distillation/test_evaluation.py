"""How sets are judged: protocols by data, intervals, own set, hard labels."""
import dataclasses

import jax
import numpy as np
import pytest

from dsr import train
from dsr.studies.distillation import distill, evaluation, sets
from dsr.studies.distillation.methods import table
from dsr.studies.distillation.problem import prepare
from dsr.types import Examples


def _resolved(**fields):
  return distill.resolve(distill.Config(**fields))


def _problem(**changes):
  return prepare('digits[0,3,8]', data_dir=None, transform='standardise', **{
      'images_per_class': 1, 'max_train': 30, 'validation': 0.0, 'seed': 0}
      | changes)


def test_what_picks_nothing_on_a_validation_split_holds_none_out():
  held_out = {name: _resolved(method=name).validation for name in table.names()}
  assert {name for name, share in held_out.items() if not share} == {
      'herding', 'kcenter', 'kmedoids', 'el2n', 'mfc', 'label_solve',
      'rkip_finite'}
  assert {share for share in held_out.values() if share} == {0.1}
  assert _resolved(method='mfc', validation=0.2).validation == 0.2


@pytest.mark.parametrize(('dataset', 'epochs', 'rate', 'augment'), [
    ('mnist', 1000, 0.01, 'shift4|stretch0.2|rotate45'),
    ('mnist[3,8]', 1000, 0.01, 'shift4|stretch0.2|rotate45'),
    ('fashion_mnist', 300, 0.01, 'none'), ('cifar10', 300, 0.01, 'none'),
    ('digits', 300, 0.1, 'none')])
def test_condensation_is_that_of_its_authors_for_the_data(
    dataset, epochs, rate, augment):
  config = _resolved(dataset=dataset, method='dc', protocol='condensation')
  assert (config.network_epochs, config.network_learning_rate) == (epochs, rate)
  assert evaluation.protocol(config).augment == augment
  short = _resolved(dataset=dataset, network_epochs=5, protocol='condensation')
  own = evaluation.protocol(evaluation.under(short, 'frepo'))
  assert own == train.FREPO._replace(epochs=5)
  assert evaluation.protocol(evaluation.under(config, 'frepo')) == train.FREPO


def test_equal_scores_have_an_interval_and_a_bad_fit_is_told(monkeypatch):
  right = np.arange(20) % 5 > 0
  monkeypatch.setattr(evaluation.train, 'evaluate', lambda *a, **k: (
      train.Evaluation(right.mean() * np.ones(2), np.stack([right, right]), 0.8,
                       0.0, train.Trained(None, {}, np.full((40, 2), 1.5)))))
  monkeypatch.setattr(
      evaluation.train, 'accuracy', lambda *args: np.array([0.9, 0.9]))
  told = []
  monkeypatch.setattr(
      evaluation.logging, 'warning', lambda text, *args: told.append(
          text % args))
  problem = _problem()
  examples = problem.examples(problem.start)
  soft = examples._replace(y=0.5 * examples.y)
  fields = {'networks': 'mlp', 'num_networks': 2}
  found = evaluation.network_accuracies(
      _resolved(**fields), soft, problem, None, problem.start.y)
  for name in ('mlp', 'mlp_hard'):  # Hard labels beside the learned ones.
    share = found[f'{name}_accuracy']
    assert 0 < share.low < share.value == 0.8 < share.high < 1
    assert found[f'{name}_train_accuracy'].value == 0.9
    assert found[f'{name}_train_loss'].value == 1.5
  assert len(told) == 2
  assert 'does not fit its own set: 90.0 %' in told[0]
  assert not any('hard' in name for name in evaluation.network_accuracies(
      _resolved(**fields), examples, problem, None, problem.start.y))


def test_hard_labels_are_encoded_as_all_are():
  problem = _problem()
  y = np.array([2, 0, 1])
  examples = Examples(problem.examples(problem.start).x, np.zeros((3, 3)))
  hard = evaluation.hard_labels(examples, y, problem)
  np.testing.assert_allclose(hard.y, np.eye(3)[y] - 1 / 3, atol=1e-6)
  assert evaluation.hard_labels(hard, y, problem) is None


def test_the_start_has_a_number_of_images_for_each_class():
  problem = _problem(images_per_class='2:1:3')
  np.testing.assert_array_equal(problem.start.y, [0, 0, 1, 2, 2, 2])
  with pytest.raises(ValueError, match='11 but class 1 has 10'):
    _problem(images_per_class='2:11:3')


@pytest.mark.errors
@pytest.mark.parametrize('method', ['dm', 'dc', 'dsa', 'idc'])
def test_methods_that_match_classes_of_one_size_refuse_others(method):
  config = distill.Config(method=method, images_per_class='2:1:3')
  with pytest.raises(ValueError, match='must be one number with ' + method):
    distill.check(config)
  with pytest.raises(ValueError, match='one number with budget=total'):
    distill.check(dataclasses.replace(config, method='mfc', budget='total'))


def test_rows_of_another_split_are_refused(tmp_path):
  problem = _problem()
  arrays = {'images': problem.start.x, 'labels': problem.start.y,
            'rows': problem.start_rows, 'num_train': 30}
  np.savez(tmp_path / 'a.npz', **arrays)
  assert sets.from_file(tmp_path / 'a.npz', problem).init == 'real'
  with pytest.raises(ValueError, match='`validation` and `max_train` must be'):
    sets.from_file(tmp_path / 'a.npz', _problem(validation=0.2))


@pytest.mark.slow
def test_two_moved_digits_are_as_the_authors_move_them():
  """One change an image: by pixels, by factors of each axis, or turned."""
  fn = train.protocol._named_augmentation('shift4|stretch0.2|rotate45')
  x = np.zeros((64, 28, 28, 1), np.float32)
  x[:, 10:18, 12:16] = 1
  moved = np.asarray(fn(jax.random.key(0), x))
  whole = (np.abs(moved - moved.round()) < 1e-6).all((1, 2, 3))
  assert 10 < whole.sum() < 34  # A third moves by whole pixels.
  assert (moved.sum((1, 2, 3)) > 15).all()
