"""Sets that users bring: names, soft labels, copies, attacks, gaps."""
import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
from PIL import Image
import pytest

from dsr import data as data_lib
from dsr.runs import contents, records
from dsr.studies.audit import (
  copies,
  leak_data,
  leakage,
  own_leak,
  plan as audit_plan,
  robustness,
  strongest,
  subjects,
)
from dsr.studies.distillation import names
from tests.runs import test_schema
from tests.studies.audit.test_audit import SMALL

HOSTILE = ('...npz', '..npz', '$x^{.npz', '<script>alert(1)<.npz',
           '.hidden.npz', 'a\nb.npz', 'com"quote\'.npz', 'all.npz', 'lira.npz',
           'é' * 90 + '.npz')


def _problem(**changes):
  return subjects.load_problem(subjects.SubjectConfig(
      dataset='digits[0,3,8]', **changes))


def _save(path, num=6, **changes):
  problem = _problem()
  arrays = {'images': problem.train.x[:num], 'labels': problem.train.y[:num]}
  np.savez(path, **arrays | changes)
  return str(path)


def test_every_name_is_a_folder_inside_the_workdir(tmp_path):
  found = names.folders(HOSTILE)
  assert len(set(map(str.lower, found.values()))) == len(HOSTILE)
  for path, name in found.items():
    assert names.inside(tmp_path, name).resolve().parent == tmp_path.resolve()
    assert len(name) < 80
    assert not name.startswith('.')
    assert '\n' not in names.title(path)
  assert names.folder('my-set_1.v2.npz') == 'my-set_1.v2'
  assert names.title('/far/away/$x^{.npz') == '$x^{'
  assert names.dataset('/far/away/x.npz[3,8]') == 'x[3,8]'
  assert names.dataset('digits[3,8]') == 'digits[3,8]'
  for name in ('..', '', 'a/b'):
    with pytest.raises(ValueError, match='`workdir` must hold all'):
      names.inside(tmp_path, name)
  with pytest.raises(ValueError, match='`distilled` must have a name of its'):
    names.folders(['a/x.npz', 'b/X.npz'])


def test_plans_write_below_the_workdir_alone(tmp_path):
  paths = [_save(tmp_path / name) for name in ('...npz', '$x^{.npz', 'all.npz')]
  root = tmp_path / 'work'
  plan = audit_plan.make(dataclasses.replace(
      SMALL, distilled=','.join(paths), workdir=str(root)))
  for _, job, *_ in plan.stages():
    assert root in pathlib.Path(job.workdir).resolve().parents
  assert [s.title for s in plan.subjects.values()][:4] == [
      'all images', '..', '$x^{', 'all']  # One's own first.


def test_a_changed_set_is_noticed_by_its_contents(tmp_path):
  path = _save(tmp_path / 'a.npz')
  job = leakage.Config(dataset='digits', own=path)
  before = contents.of(job)['own']
  assert contents.of(job)['own'] == before
  _save(tmp_path / 'a.npz', images=np.zeros((6, 8, 8), np.float32))
  assert contents.of(job)['own'] != before


def test_soft_labels_are_targets_and_classes(tmp_path):
  problem = _problem()
  soft = np.full((6, 3), 0.1) + 0.7 * np.eye(3)[[0, 1, 2, 2, 1, 0]]
  shown = subjects.from_file(_save(tmp_path / 'a.npz', labels=soft), problem)
  np.testing.assert_array_equal(shown.labels, [0, 1, 2, 2, 1, 0])
  np.testing.assert_allclose(shown.examples.y, soft - 1 / 3, atol=1e-6)
  for wrong in (soft * 2, soft[:, :2], -soft):
    with pytest.raises(ValueError, match='go into the array `targets`'):
      subjects.from_file(_save(tmp_path / 'b.npz', labels=wrong), problem)
  with pytest.raises(ValueError, match='`labels` must be classes'):
    subjects.from_file(_save(tmp_path / 'c.npz', labels=soft,
                             targets=soft - 1 / 3), problem)


def test_labels_are_what_the_data_call_their_classes(tmp_path):
  problem = _problem()
  named = problem._replace(train=dataclasses.replace(
      problem.train, classes=('3', '7', '9')))
  texts = problem._replace(train=dataclasses.replace(
      problem.train, classes=('ant', 'bee', 'wolf')))
  soft = np.eye(3)[[0, 1, 2, 2, 1, 0]]
  own = {'classes': np.array(['wolf', 'ant', 'bee'])}
  for of, changes, expected in (
      (named, {'labels': np.array([3, 7, 9, 9, 7, 3])}, [0, 1, 2, 2, 1, 0]),
      (texts, {'labels': np.array([0, 1, 2, 2, 1, 0])}, [0, 1, 2, 2, 1, 0]),
      (texts, {'labels': np.array(['bee', 'ant'] * 3)}, [1, 0] * 3),
      (texts, own | {'labels': np.arange(6) % 3}, [2, 0, 1] * 2),
      (texts, own | {'labels': np.array(['bee', 'ant'] * 3)}, [1, 0] * 3),
      (texts, own | {'labels': soft}, [2, 0, 1, 1, 0, 2]),
      (problem, {'labels': np.array(['2', '0'] * 3)}, [2, 0] * 3)):
    shown = subjects.from_file(_save(tmp_path / 'a.npz', **changes), of)
    assert shown.labels.tolist() == expected
    np.testing.assert_array_equal(
        np.asarray(shown.examples.y).argmax(1), expected)
  for of, labels in ((named, [0, 1] * 3), (texts, ['bird'] * 6)):
    with pytest.raises(ValueError, match='`labels` must be of the classes'):
      subjects.from_file(
          _save(tmp_path / 'a.npz', labels=np.array(labels)), of)


def test_pixels_outside_are_told_and_kept(tmp_path):
  problem = _problem()
  images = problem.train.x[:6] * 1.5 - 0.2
  shown = subjects.from_file(_save(tmp_path / 'a.npz', images=images), problem)
  np.testing.assert_array_equal(shown.pixels, images)
  assert shown.notes[0].startswith('its pixels go from -0.20 to 1.30, ')
  assert not subjects.from_file(_save(tmp_path / 'b.npz'), problem).notes


def test_folders_of_pictures_are_data_and_sets(tmp_path):
  problem = _problem()
  for part, rows in (('data', range(40)), ('set', (0, 1, 2, 3))):
    for i in rows:
      folder = tmp_path / part / f'<b>{problem.train.y[i]}'
      folder.mkdir(parents=True, exist_ok=True)
      Image.fromarray(np.uint8(255 * problem.train.x[i, ..., 0])).save(
          folder / f'{i}.png')
  config = subjects.SubjectConfig(
      dataset=str(tmp_path / 'data'), set=str(tmp_path / 'set'))
  shown, own = subjects.load_set(config)
  assert own.train.classes == ('<b>0', '<b>1', '<b>2')
  assert sorted(shown.labels) == sorted(problem.train.y[:4])
  digests = contents.of(config)
  assert set(digests) == {'dataset', 'set'}
  described = contents.described(config)
  assert described['classes'] == list(own.train.classes)
  assert 'are the test set' in described['notes'][0]
  path = records.write(tmp_path / 'out', config=config, metrics={},
                       contents=digests)
  assert records.read(path)['extra'] == {'data': described}
  test_schema.validator().validate(json.loads(path.read_text()))
  kept = dataclasses.replace(config, dataset='digits[0,3,8]')
  assert contents.described(kept) == {}
  os.utime(folder / f'{i}.png', (0, 0))  # Dates alone change nothing.
  assert contents.of(config) == digests
  Image.new('L', (8, 8)).save(folder / f'{i}.png')
  assert contents.of(config)['set'] != digests['set']
  assert contents.of(config)['dataset'] == digests['dataset']


@pytest.mark.slow
def test_noisy_training_images_are_told_as_copies(tmp_path):
  problem = _problem(max_train=240, validation=0.0)
  rng = np.random.default_rng(0)
  noisy = (problem.train.x[:12] + 0.05 * rng.normal(
      size=problem.train.x[:12].shape)).astype(np.float32)
  config = subjects.SubjectConfig()
  for images, held in ((noisy, True), (problem.test.x[:12], False)):
    shown = subjects.from_file(
        _save(tmp_path / 'a.npz', images=images, labels=np.arange(12) % 3),
        problem)
    metrics, arrays = copies.measure(config, shown, problem)
    assert ('it holds near-copies' in copies.sentence(metrics)) == held
    if held:
      assert metrics['copies_share'].value > 0.8
      np.testing.assert_array_equal(arrays['copies_index'], np.arange(12))
      assert metrics['copies_l2'].value < metrics['copies_l2_unrelated'].value


def test_large_sets_are_said_not_to_be_attacked(tmp_path):
  config = leakage.Config(dataset='digits[0,3,8]', width=2048,
                          own=_save(tmp_path / 'a.npz', 70),
                          regimes='infinite,linearized',
                          workdir=str(tmp_path / 'w'))
  sets = own_leak.load(config)
  assert own_leak.untested(config, sets).startswith(
      'a was not attacked in the regime linearized: its 70 images are more')
  assert not (tmp_path / 'w').exists()
  _, *others = leakage.jobs_of(dataclasses.replace(
      config, methods='all', num_train=48))
  assert [job.name for job in others] == [
      'all, infinite', 'all, linearized', 'images: a', 'a, infinite']
  leak_data.run(others[2].config)
  # Its own images are among those that it is held against.
  train = data_lib.load(
      pathlib.Path(others[2].config.workdir, 'train.npz')).train
  gaps = np.abs(train.x[:, None] - sets[0][1].pixels[None])
  assert (gaps.max((2, 3, 4)).min(0) == 0).all()


def test_the_best_of_many_attacks_is_not_flattered():
  """Of 40 attacks that know nothing one looks good where it was chosen."""
  rng = np.random.default_rng(0)
  member = np.broadcast_to(np.arange(200) < 100, (1, 200))
  attack = lambda name, shift: strongest.Attack(
      'krr', name, rng.normal(size=(1, 200)) + shift * member, member, 'run')
  aucs, flattered = [], []
  for seed in range(20):
    nothing = [attack(str(i), 0.0) for i in range(40)]
    found = strongest.choose(jax.random.key(seed), nothing)
    aucs.append(found.auc.value)
    flattered.append(max(strongest._auc(a.scores, a.member) for a in nothing))
  assert np.mean(flattered) > 0.58
  assert abs(np.mean(aucs) - 0.5) < 3 * np.std(aucs) / np.sqrt(19)
  real = strongest.choose(jax.random.key(0), [*nothing, attack('real', 2.0)])
  assert (real.attack, real.tried, real.finds) == ('real', 41, True)


def test_a_class_without_test_images_is_left_out_of_attacks():
  test = _problem().test
  test = test.take(np.flatnonzero(test.y != 1))
  problem = _problem()._replace(test=test)
  images = robustness.victims(robustness.Config(num_attacked=9), problem)
  assert set(images.y.tolist()) == {0, 2}
