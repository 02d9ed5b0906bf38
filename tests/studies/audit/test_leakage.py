"""The leakage experiment: its sets, victims, scores, files and refusals."""
import csv
import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import data as data_lib
from dsr.attack.result import Reconstruction
from dsr.runs import compiled, parts, records
from dsr.runs.engines import schedule
from dsr.studies.audit import attack_set, leak_jobs, leakage
from dsr.studies.distillation import distill
from dsr.studies.reconstruction import attacks, table, victims
from dsr.types import Status
from tests.studies.reconstruction import attackers

OFFSET = 0.02  # In pixels, of what the stand-in returns.
SMALL = leakage.Config(
    dataset='digits[0,3]', num_train=6, methods='all,random,kip',
    kernel='fcn1', width=16, distill_steps=20, distill_learning_rate=0.2)
REAL = leakage.Config(
    dataset='digits[0,3]', num_train=8, methods='all,kip', kernel='fcn1',
    width=512, distill_steps=50)


class Insider:
  """An attack that knows the set, and returns it moved by `OFFSET`."""

  def __init__(self, patch):
    self.released, self.tasks, self.interrupt = [], [], False
    self._task = attack_set._task
    patch.setattr(attack_set, '_task', self._spy)
    for name, attack in table.ATTACKS.items():
      patch.setitem(table.ATTACKS, name, attack._replace(
          reconstruct=self.reconstruct, config=attackers.Config))

  def _spy(self, config):
    found = self._task(config)
    self.tasks.append(found[1])
    return found

  def reconstruct(self, key, released, config, **kwargs):
    del key, config, kwargs
    self.released.append(released)
    found = np.asarray(self.tasks[-1].examples.x)[::-1] + OFFSET
    return Reconstruction(
        found, np.full((len(found), released.num_outputs), np.nan), np.nan,
        np.ones(1),
        Status.INTERRUPTED if self.interrupt else Status.FINISHED, {})


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('leakage')
  with pytest.MonkeyPatch.context() as patch:
    insider = Insider(patch)
    config = dataclasses.replace(SMALL, workdir=str(folder))
    metrics = leakage.run(config)
  return config, folder, metrics, insider


def _set(folder, method):
  return records.read_arrays(folder / method / 'distilled.npz')['images']


def _train(folder):
  return data_lib.load(folder / 'T' / 'train.npz')


def _assigned(truth, candidates):
  """RMSE of each true image under the best pairing, by trying all of them."""
  gaps = np.sqrt(((truth[:, None] - candidates[None])**2).mean((2, 3, 4)))
  if len(truth) < len(candidates):
    choices = itertools.permutations(range(len(candidates)), len(truth))
    best = min(choices, key=lambda c: gaps[np.arange(len(truth)), c].sum())
    return gaps[np.arange(len(truth)), best]
  choices = itertools.permutations(range(len(truth)), len(candidates))
  best = min(choices, key=lambda c: gaps[c, np.arange(len(candidates))].sum())
  out = np.full(len(truth), np.inf)
  out[list(best)] = gaps[best, np.arange(len(candidates))]
  return out


@pytest.mark.parametrize('regime', ['infinite', 'linearized'])
@pytest.mark.parametrize('method', ['all', 'random', 'kip'])
def test_counts_are_those_of_known_candidates(finished, method, regime):
  _, folder, metrics, _ = finished
  train = _train(folder).train.x
  images = train if method == 'all' else _set(folder, method)
  value = lambda name: metrics[f'{method}_{regime}_{name}'].value
  assert value('own_recovered_rmse_0.05') == 1
  assert value('own_recovered_rmse_0.01') == 0
  assert value('own_median_rmse') == pytest.approx(OFFSET, rel=1e-3)
  errors = {'train': _assigned(train, np.clip(images + OFFSET, 0, 1)),
            'given': _assigned(train, np.clip(images, 0, 1))}
  for who, rmse in errors.items():
    for level in (0.01, 0.05):
      metric = metrics[f'{method}_{regime}_{who}_recovered_rmse_{level}']
      assert metric.value == pytest.approx(np.mean(rmse < level))
      assert metric.low <= metric.value <= metric.high
  # In a box clipping can but help: half of the pixels of a digit are black.
  if method == 'random':
    assert value('train_recovered_rmse_0.05') == pytest.approx(2 / 6)
  if method == 'kip':  # Moved by 20 steps of 0.2.
    assert value('given_recovered_rmse_0.05') == 0
  assert value('others_recovered_rmse_0.05') == 0


def test_distances_to_training_images_are_those_of_brute_force(finished):
  _, folder, metrics, _ = finished
  train, test = _train(folder)
  far = lambda x: np.sqrt(((np.clip(x, 0, 1)[:, None] - train.x[None])**2).mean(
      (2, 3, 4))).min(1)
  own, fresh = far(_set(folder, 'kip')), far(test.x)
  value = lambda name: metrics[f'kip_infinite_{name}']
  np.testing.assert_allclose(
      [value(f'set_nearest_rmse_{name}').value
       for name in ('mean', 'min', 'median', 'max')],
      [own.mean(), own.min(), np.median(own), own.max()], rtol=1e-6)
  assert value('fresh_nearest_rmse_mean').value == pytest.approx(fresh.mean())
  nearer = value('set_nearer')
  assert nearer.value == pytest.approx(np.mean(own[:, None] < fresh))
  assert nearer.low <= nearer.value <= nearer.high
  flat = lambda x: x.reshape(len(x), -1)
  alike = lambda x: np.corrcoef(flat(x), flat(train.x))[:len(x), len(x):].max(1)
  own, fresh = alike(np.clip(_set(folder, 'kip'), 0, 1)), alike(test.x)
  assert value('set_nearest_corr_mean').value == pytest.approx(own.mean())
  assert value('set_more_alike').value == pytest.approx(
      np.mean(own[:, None] > fresh))
  for measure, best in (('rmse', 0), ('ssim', 1), ('corr', 1)):
    metric = metrics[f'random_infinite_set_nearest_{measure}_mean']
    assert metric.value == pytest.approx(best, abs=1e-7)
  assert metrics['random_infinite_set_nearer'].value == 1
  assert value('set_nearest_ssim_max').value < 0.999


def test_victims_predict_as_they_should(finished):
  """Interpolating the set is the ridge regression of the distillation."""
  _, folder, metrics, _ = finished
  for method in ('random', 'kip'):
    claimed = records.read(folder / method)['metrics']['krr_accuracy'].value
    found = metrics[f'{method}_infinite_accuracy']
    assert found.value == pytest.approx(claimed, abs=0.03)
    assert found.low < found.value <= found.high
  assert metrics['all_linearized_accuracy'].value > 0.8


def test_attackers_are_told_the_range_of_the_set_and_no_more(finished):
  _, folder, _, insider = finished
  train = _train(folder).train.x
  kip = _set(folder, 'kip')
  assert kip.min() < 0 < 1 < kip.max()
  images = [train] * 2 + [_set(folder, 'random')] * 2 + [kip] * 2
  for released, own in zip(insider.released, images, strict=True):
    assert released.num_train == len(own)
    assert released.num_outputs == 1
    for end, pixel in ((released.low, own.min()), (released.high, own.max())):
      np.testing.assert_allclose(end, pixel - train.mean(), atol=1e-6)
  assert [r.threat for r in insider.released] == ['query', 'parameters'] * 3


def test_writes_tables_pictures_and_commands(finished, capsys):
  config, folder, metrics, insider = finished
  rows = list(csv.DictReader((folder / 'table.csv').read_text().splitlines()))
  wanted = [(method, regime, '6' if method == 'all' else '2')
            for method in ('all', 'random', 'kip')
            for regime in ('infinite', 'linearized')]
  assert [(row['method'], row['regime'], row['num_images'])
          for row in rows] == wanted
  for row in rows:
    name = f'{row["method"]}_{row["regime"]}_accuracy'
    assert float(row['accuracy']) == metrics[name].value
    assert (folder / row['method'] / row['regime'] / 'reconstructions.png'
            ).stat().st_size > 1000
  assert 'nearer than fresh' in (folder / 'nearest.md').read_text()
  assert (folder / 'leakage.png').stat().st_size > 1000
  record = records.read(folder)
  modules = [command.split()[2] for command in record['extra']['runs'].values()]
  assert sorted(modules) == ['experiments.attack_set'] * 6 + [
      'experiments.distill'] * 2 + ['experiments.leak_data']
  todo = leakage.jobs_of(config)
  assert {job.config.workdir for job in todo} == set(record['extra']['runs'])
  assert all(schedule.is_current(job) for job in todo)
  with pytest.MonkeyPatch.context() as patch:  # All is kept, and shown again.
    again = Insider(patch)
    assert leakage.run(config) == metrics
  assert not again.released
  assert len(insider.released) == 6
  shown = capsys.readouterr().out
  assert 'networks trained on all of T gave back 6 of its 6 images' in shown
  assert 'networks trained on learned images 0 of them, but 100 % of' in shown
  assert 'networks trained on 2 images of T 2.' in shown
  assert record['extra']['sentence'] in shown


def test_an_interrupted_attack_goes_on_and_only_it(tmp_path, monkeypatch):
  insider = Insider(monkeypatch)
  config = dataclasses.replace(
      SMALL, methods='random', regimes='linearized', workdir=str(tmp_path))
  insider.interrupt = True
  with pytest.raises(KeyboardInterrupt):
    leakage.run(config)
  assert not (tmp_path / 'record.json').exists()
  insider.interrupt = False
  made = []
  monkeypatch.setattr(distill, 'run', made.append)
  leakage.run(config)
  assert (len(insider.released), made) == (2, [])


def test_another_set_is_attacked_anew_and_the_same_is_not(
    tmp_path, monkeypatch):
  insider = Insider(monkeypatch)
  config = dataclasses.replace(
      SMALL, methods='random', regimes='linearized', workdir=str(tmp_path))
  first = leakage.run(config)
  assert leakage.run(config) == first
  assert len(insider.released) == 1
  path = tmp_path / 'random' / 'distilled.npz'
  arrays = records.read_arrays(path)
  np.savez(path, **arrays | {'images': arrays['images'] + 0.1})
  second = leakage.run(config)
  assert len(insider.released) == 2
  name = 'random_linearized_given_recovered_rmse_0.05'
  assert first[name].value > second[name].value == 0


@pytest.mark.slow
def test_an_attack_that_fails_is_missing_and_made_by_the_next_call(
    tmp_path, monkeypatch):
  insider = Insider(monkeypatch)
  config = dataclasses.replace(
      SMALL, methods='random', workdir=str(tmp_path))
  run = attack_set.run

  def broken(job):
    if job.regime == 'infinite':
      raise FloatingPointError('not finite')
    return run(job)

  with monkeypatch.context() as patch:
    patch.setattr(attack_set, 'run', broken)
    with pytest.raises(parts.Incomplete, match='1 of 4 jobs are missing'):
      leakage.run(config)
  record = records.read(tmp_path)
  assert record['extra']['missing'] == {
      'random, infinite': 'FloatingPointError: not finite'}
  assert {name.split('_')[1] for name in record['metrics']} == {'linearized'}
  for name in ('table.md', 'nearest.md'):
    assert 'random, infinite (FloatingPointError' in (
        tmp_path / name).read_text()
  assert 'random_infinite_accuracy' in leakage.run(config)
  assert len(insider.released) == 2


def test_sets_and_digests_must_be_those_of_the_flags(tmp_path, monkeypatch):
  Insider(monkeypatch)
  config = dataclasses.replace(
      SMALL, methods='random', regimes='linearized', workdir=str(tmp_path))
  leakage.run(config)
  job = attack_set.Config(**records.read(tmp_path / 'random/linearized')[
      'config'] | {'save_losses': (), 'save_steps': (),
                   'workdir': str(tmp_path / 'again')})
  assert attack_set.run(job).keys() == attack_set.run(job).keys()
  for fields, message in (
      ({'digest': 'x'}, '`digest` must be [0-9a-f]{12}, which the set has'),
      ({'num_train': 4}, '`num_train` must be the number of images of the set'),
      ({'dataset': 'digits'}, '')):
    other = dataclasses.replace(
        job, workdir=str(tmp_path / 'other'), **fields)
    if message:
      with pytest.raises(ValueError, match=message):
        attack_set.run(other)
      assert not (tmp_path / 'other').exists()
  whole = dataclasses.replace(job, images='', num_train=6, digest='')
  assert attack_set.run(dataclasses.replace(
      whole, workdir=str(tmp_path / 'all')))['own_recovered_rmse_0.05'].value


def test_programs_with_equal_shapes_are_compiled_once(tmp_path, monkeypatch):
  """Two functions of one form: the second comes out of the cache."""
  # However quickly the first was compiled.
  monkeypatch.setitem(
      compiled._CACHE, 'jax_persistent_cache_min_compile_time_secs', 0.0)
  hits = []
  names = ('jax_compilation_cache_dir',
           'jax_persistent_cache_min_compile_time_secs')

  def listen(event, **kwargs):
    del kwargs
    if event == '/jax/compilation_cache/cache_hits':
      hits.append(event)

  def call(x):
    return jax.jit(lambda x: jnp.linalg.qr(jnp.sin(x @ x.T) + x)[0])(x)

  before = [getattr(jax.config, name) for name in names]
  jax.monitoring.register_event_listener(listen)
  try:
    jax.config.update(names[0], None)
    with compiled.once():
      assert jax.config.jax_compilation_cache_dir
      call(jnp.ones((31, 31)))
      first = len(hits)
      call(2 * jnp.ones((31, 31)))
      assert len(hits) > first
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update(names[0], str(tmp_path))
    with compiled.once():  # A folder that is set is kept.
      assert jax.config.jax_compilation_cache_dir == str(tmp_path)
  finally:
    jax.monitoring.unregister_event_listener(listen)
    for name, value in zip(names, before):
      jax.config.update(name, value)


@pytest.mark.slow
def test_networks_of_distilled_sets_give_back_no_training_image(tmp_path):
  """The claim, with attacks that know nothing but what is released."""
  metrics = leakage.run(dataclasses.replace(REAL, workdir=str(tmp_path)))
  for regime in ('infinite', 'linearized'):
    for name, value in {'all': {'train': 1}, 'kip': {
        'own': 1, 'train': 0, 'given': 0}}.items():
      for who, wanted in value.items():
        key = f'{name}_{regime}_{who}_recovered_rmse_0.05'
        assert metrics[key].value == wanted, key
      assert metrics[f'{name}_{regime}_accuracy'].value > 0.85


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'methods': ''}, '`methods` must name one or more, each once'),
    ({'methods': 'kip,kip'}, '`methods` must name one or more, each once'),
    ({'methods': 'all,gan'}, '`methods` must be one of all, kip_corrupted'),
    ({'regimes': ''}, '`regimes` must name one or more'),
    ({'regimes': 'wide'}, '`regimes` must be one of infinite, linearized'),
    ({'num_train': 7}, '`num_train` must be a multiple of the 2 classes'),
    ({'num_train': 1}, '`num_train` must be an integer of at least 2'),
    ({'images_per_class': 0}, '`images_per_class` must be an integer'),
    ({'images_per_class': 4}, '`images_per_class` must be at most 3, as many'),
    ({'width': 6}, '`num_train` must make fewer than 6 images for networks of'),
    ({'width': 4, 'methods': 'kip', 'images_per_class': 2},
     '`images_per_class` must make fewer than 4 images'),
    ({'num_train': 66}, '`num_train` must make fewer than 16 images'),
    ({'corruption': 2.0}, r'`corruption` must be in \[0, 1\]'),
    ({'distill_steps': 0}, '`distill_steps` must be an integer of at least 1'),
    ({'attack_steps': 0}, '`attack_steps` must be an integer of at least 1'),
    ({'kernel': 'rbf'}, '`kernel` must be a family'),
])
def test_bad_flags_are_named_before_anything_is_written(
    tmp_path, fields, message):
  config = dataclasses.replace(SMALL, workdir=str(tmp_path / 'out'), **fields)
  with pytest.raises(ValueError, match=message):
    leakage.run(config)
  assert not (tmp_path / 'out').exists()


@pytest.mark.errors
def test_a_trained_victim_is_no_set():
  job = attacks.resolve(leak_jobs.attack_job(
      SMALL, 'kip', 'linearized', 'T.npz', ''))
  with pytest.raises(ValueError, match='`victim` must be unset with a set'):
    attack_set.check(dataclasses.replace(job, victim='out/train'))


def test_training_images_are_those_that_reconstruct_attacks(finished):
  _, folder, _, _ = finished
  task = victims.prepare_victim_task(victims.VictimConfig(
      dataset=SMALL.dataset, num_train=6))
  train, test = _train(folder)
  np.testing.assert_array_equal(train.x, task.train.x)
  np.testing.assert_array_equal(train.y, task.train.y)
  assert len(test) == len(task.test)
  assert math.prod(train.x.shape) == 6 * 64
