"""The audit: its parts, its report, going on, and what it refuses."""
import dataclasses
import json
import os
import pathlib
import re
import shutil

from absl import logging
import numpy as np
import pytest

from dsr import data as data_lib
from dsr.runs import jobs, parts, records
from dsr.studies.audit import (
  audit,
  cells,
  fit,
  leakage,
  membership,
  overview,
  plan as audit_plan,
  privacy,
  robustness,
  sections,
  subjects,
  timing,
)
from tests.runs import test_schema

SMALL = audit.Config(
    dataset='digits[0,3,8]', max_train=90, methods='random,kip',
    images_per_class='2', networks='mlp', num_networks=2, network_epochs=5,
    full_epochs=2, options='kip.steps=4,kip.eval_every=2', num_probed=60,
    learned='logistic', dp_epsilon=0.0, lira_shadows=0, num_attacked=6,
    attacks='fgsm,pgd_linf', attack_steps=2, curve='fgsm',
    corruptions='contrast', leak_train=0)
SETS = ('all', 'random_2', 'kip_2', 'kip_noise_2')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """An audit that has run, and its metrics."""
  folder = tmp_path_factory.mktemp('audit')
  names = np.array(['a', 'b<i>'])
  rows = names[np.arange(108) % 2]  # Of the test images.
  other = np.where(np.arange(108) < 7, 'y', 'x')
  other[0] = 'z'  # Alone.
  np.save(folder / 'groups.npy', np.stack([rows, other], 1))
  np.save(folder / 'train_groups.npy', names[np.arange(427) % 2])
  config = dataclasses.replace(
      SMALL, workdir=str(folder), groups=str(folder / 'groups.npy'),
      train_groups=str(folder / 'train_groups.npy'))
  return config, audit.run(config)


def test_every_set_and_model_is_asked_everything(finished):
  config, metrics = finished
  folder = pathlib.Path(config.workdir)
  for name in SETS:
    for model in ('krr', 'mlp'):
      accuracy = metrics[f'{name}_{model}_accuracy']
      assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1
      attack = 'squared_error' if model == 'krr' else 'loss'
      assert f'{name}_{model}_train_{attack}_auc' in metrics
      attacked = records.read(folder / name / model / 'robustness')['metrics']
      assert attacked['worst_linf_accuracy'].value <= min(
          attacked[f'{n}_accuracy'].value for n in ('clean', 'fgsm'))
      for stage in ('membership', 'robustness', 'fairness'):
        record = records.read(folder / name / model / stage)
        assert f'experiments.{stage}' in record['command']
  # The same model is no more even than itself.
  assert metrics['all_krr_change_between'] == (0, 0, 0)
  assert 'kip_2_set_init_pixel_distance_auc' in metrics
  own = records.read(folder / 'kip_2' / 'mlp' / 'fairness')['metrics']
  assert {'group_odds_difference', 'group_change_mean', 'leak_0', 'robust_2',
          'accuracy_1', 'group_accuracy_a & x', 'group_leak_a',
          'group_leak_b<i>'} <= set(own)


def test_groups_are_crossed_and_small_ones_marked(finished):
  config, _ = finished
  folder = pathlib.Path(config.workdir)
  record = records.read(folder / 'all' / 'krr' / 'fairness')
  assert record['extra']['group_sizes'] == {
      'a & x': 50, 'a & y': 3, 'b<i> & x': 51, 'b<i> & y': 3}
  assert record['extra']['groups_left_out'] == {'a & z': 1}
  html = (folder / 'report.html').read_text()
  assert 'group a &amp; y (3), b&lt;i&gt; &amp; y (3)' in html
  assert 'a &amp; y (few: 3)' in html
  assert 'Left out, with a single image: a &amp; z.' in html
  # Members and others of a group, as the rows of the images say.
  probe = records.read_arrays(folder / 'all' / 'krr' / 'membership')
  problem = subjects.load_problem(config, images_per_class=1)
  whole = np.concatenate([problem.train.x, problem.unused.x])
  rows = np.concatenate([problem.rows, problem.unused_rows])
  train = data_lib.load(config.dataset).train
  np.testing.assert_array_equal(whole, train.x[rows])
  np.testing.assert_array_equal(
      train.y[probe['train_rows']], probe['train_labels'])
  assert np.isin(probe['train_rows'][probe['train_member']],
                 problem.rows).all()


def test_images_of_a_random_subset_are_found_in_it(finished):
  """By construction: their distance to the set is 0, and no other's is."""
  _, metrics = finished
  assert metrics['random_2_set_init_pixel_distance_auc'].value == 1
  loss = metrics['random_2_krr_init_squared_error_auc'].value
  assert loss > 0.9  # Six images are interpolated.


def test_noise_never_saw_the_images_that_it_is_asked_about(finished):
  config, _ = finished
  record = records.read(
      pathlib.Path(config.workdir) / 'kip_noise_2' / 'krr' / 'membership')
  assert record['extra']['init'] == 'noise'
  assert record['metrics']['init_members'].value == 6
  assert record['extra']['outsiders'] == 'unused training images'


def test_the_report_answers_with_numbers_and_commands(finished):
  config, metrics = finished
  folder = pathlib.Path(config.workdir)
  html = (folder / 'report.html').read_text()
  text = (folder / 'report.md').read_text()
  short = text[text.index('## Answers in short'):text.index('## What was aud')]
  cards = [line for line in short.splitlines() if line.startswith('- [')]
  assert len(cards) == 5
  assert all(len(re.findall(r'\.(?= |$)', card)) <= 2 for card in cards)
  for question in ('Is it good?', 'Is it private?', 'Is it robust?',
                   'Is it fair?', 'Do the published claims hold here?'):
    assert question in html
    assert question in text
  value = metrics['kip_2_mlp_accuracy']
  assert f'{100 * value.value:.1f}' in html
  for stage in ('fit', 'membership', 'robustness', 'fairness', 'claims'):
    assert f'python -m experiments.{stage} ' in text
    assert f'experiments.{stage} ' in html
  assert 'src="http' not in html
  assert 'data:image/' in html
  for name in ('accuracy', 'images_0', 'roc_krr', 'roc_mlp', 'epsilon',
               'classes'):
    assert (folder / f'{name}.png').stat().st_size > 1000
    assert f'{name}.' in text
  for name in ('roc_krr', 'epsilon', 'classes'):
    assert (folder / f'{name}.svg').exists()
  assert (folder / 'table.csv').read_text().count('\n') == 1 + 2 * len(SETS)
  assert records.read(folder)['metrics'] == metrics


def test_every_record_fits_the_published_schema(finished):
  folder = pathlib.Path(finished[0].workdir)
  paths = [*folder.rglob('record.json'), folder / 'cells.json']
  assert len(paths) > 30
  for path in paths:
    test_schema.validator().validate(json.loads(path.read_text()))


def test_cells_at_the_top_are_those_of_the_records_and_of_the_tests(finished):
  """Accuracy and its mark from the outputs, by no code of the table's."""
  config, metrics = finished
  record, found = cells.load(config.workdir)
  assert set(name for name, _ in found) == set(SETS)
  for name in SETS:
    for question, key in (('accuracy', 'accuracy'), ('worst', 'worst')):
      assert found[name, question].metric == metrics[f'{name}_mlp_{key}']
    assert found[name, 'robustness'].metric == metrics[
        f'{name}_mlp_worst_linf_accuracy']
  right = [found[name, 'accuracy'].arrays['right'] for name in (
      'kip_2', 'random_2')]
  test = cells.compare(
      'accuracy', found['kip_2', 'accuracy'], found['random_2', 'accuracy'])
  assert test.paired
  assert test.difference.value == pytest.approx(
      right[0].mean() - right[1].mean())
  for question in cells.QUESTIONS:
    if (side := found.get(('kip_2', question))) is not None:
      assert cells.compare(question, side, side).difference.value == 0
  # Sets from noise would have started from the same images as those from real.
  start = [found[name, 'start'] for name in SETS[1:]]
  assert len({cell.images for cell in start}) == 1
  assert record['metrics']['random_2_start'].value == 1
  text = (pathlib.Path(config.workdir) / 'report.md').read_text()
  top = text[text.index('## At a glance'):text.index('## Answers in short')]
  sign = test.difference.sign
  assert overview.marked('accuracy', test)[0] == {
      1: 'better', -1: 'worse', 0: 'cannot tell'}[sign]
  assert top.count('reference') == 5  # Of the questions that were asked.
  assert len(re.findall('▲ better|▼ worse|≈ cannot tell', top)) >= 10
  assert 'Not asked: training images given back of' in top


def test_what_changed_between_two_audits_is_told(finished, tmp_path):
  config, _ = finished
  audits = tmp_path / 'one', tmp_path / 'other'
  for folder, change in zip(audits, (lambda right: right[[0, 0]],
                                     np.ones_like)):  # No network differs.
    shutil.copytree(config.workdir, folder)
    arrays = dict(np.load(folder / 'cells.npz'))
    record = json.loads((folder / 'cells.json').read_text())
    place = next(i for i, row in enumerate(record['extra']['cells']) if (
        row['set'], row['question']) == ('kip_2', 'accuracy'))
    share = arrays[f'cell_{place}_right'][0].mean()
    arrays[f'cell_{place}_right'] = change(arrays[f'cell_{place}_right'])
    record['metrics']['kip_2_accuracy']['value'] = float(
        arrays[f'cell_{place}_right'].mean())
    np.savez(folder / 'cells.npz', **arrays)
    (folder / 'cells.json').write_text(json.dumps(record))
  # Only its cells and what they point to are read: nothing of the data.
  compared = dataclasses.replace(
      config, compare=','.join(map(str, audits)), dataset='nothing',
      workdir=str(tmp_path / 'out'))
  changed = audit.run(compared)
  assert changed['kip_2_accuracy'].value == pytest.approx(1 - share)
  assert changed['kip_2_accuracy'].low > 0
  assert changed['random_2_accuracy'].value == 0
  text = (tmp_path / 'out' / 'compare.md').read_text()
  assert f'{100 * share:.1f} → 100.0' in text
  assert text.count('unchanged') > 10
  assert 'kip, 2 per class: accuracy better.' in text
  assert '<table' in (tmp_path / 'out' / 'compare.html').read_text()
  test_schema.validator().validate(json.loads(
      (tmp_path / 'out' / 'compare.json').read_text()))
  for wrong in (config.workdir, f'{config.workdir},{tmp_path}',
                f'{config.workdir},/nope', 'a,b,c'):
    with pytest.raises(ValueError, match='`compare` must name the workdirs of'):
      audit.run(dataclasses.replace(compared, compare=wrong))


def test_what_fails_is_missing_and_nothing_else(
    finished, monkeypatch):
  config, metrics = finished
  folder = pathlib.Path(config.workdir)
  (folder / 'kip_2' / 'mlp' / 'robustness' / 'record.json').unlink()

  def broken(job):
    raise MemoryError('no room')

  with monkeypatch.context() as patch:
    patch.setattr(robustness, 'run', broken)
    with pytest.raises(parts.Incomplete) as end:
      audit.run(config)
  lost = 'robustness: kip_2/mlp'
  lines = str(end.value).splitlines()
  assert lines[0].startswith(f'{lost}: MemoryError: no room (')
  assert lines[1:] == [
      f"fairness: kip_2/mlp: needs '{lost}', which failed",
      "claims: needs 'fairness: kip_2/mlp', which failed", lines[-1]]
  record = records.read(folder)
  assert record['extra']['missing'][lost] == 'MemoryError: no room'
  assert {name for name in metrics if not name.startswith(
      ('kip_2_', 'claims_'))} == set(record['metrics'])
  for page in ('report.md', 'report.html'):
    text = (folder / page).read_text()
    assert 'Missing, as 3 of' in text
    assert 'MemoryError: no room' in text
    assert 'kip, from noise, 2 per class' in text
    assert 'kip, 2 per class' not in text
  # The next call makes that part; now a picture fails.
  def no_picture(path, *args, **options):
    assert records.read(folder)['metrics'] == metrics  # Written before.
    assert (folder / 'table.csv').exists()
    raise OSError('no space left')

  for name in ('record.json', 'table.csv', 'report.md'):
    (folder / name).unlink()
  with monkeypatch.context() as patch:
    patch.setattr(sections.answers, 'by_group', no_picture)
    assert audit.run(config) == metrics
  assert 'Missing' not in (folder / 'report.md').read_text()
  assert 'no space left' in records.read(folder)['extra']['failed_pictures'][
      'classes.png']
  assert 'classes.png' not in (folder / 'report.md').read_text()
  assert 'accuracy.png' in (folder / 'report.md').read_text()
  audit.run(config)
  assert 'classes.png' in (folder / 'report.md').read_text()


def test_it_tells_what_runs_and_what_is_left(finished, monkeypatch):
  lines = []
  monkeypatch.setattr(
      logging, 'info', lambda text, *args: lines.append(text % args))
  audit.run(finished[0])
  told = [line for line in lines if line.startswith('audit ')]
  assert 'results go to' in told[0]
  number = len(list(audit_plan.make(finished[0]).stages()))
  for i, line in enumerate(told[1:number + 1]):
    assert re.fullmatch(
        f'audit {i + 1} of {number}: .* \\(about [\\dhmins ]+ left\\)', line)
  assert any(': fits: kip_2/mlp (' in line for line in told)


def test_kinds_of_parts_are_those_that_take_as_long():
  plan = audit_plan.make(dataclasses.replace(
      SMALL, dp_epsilon=8.0, lira_shadows=8, leak_train=6))
  kinds = {name: timing.kind(name, job)
           for name, job, *_ in plan.stages()}
  assert kinds['sets: kip_2'] == kinds['sets: kip_noise_2'] == 'sets/kip'
  assert kinds['fits: random_2/mlp'] == 'fits/mlp'
  assert kinds['fits: dp/mlp'] == 'fits/dp'
  assert kinds['membership: kip_2/set'] == 'membership/set'
  assert kinds['shadows: kip, 2 per class, sets 1 to 8'] == 'shadows/kip'
  assert (kinds['lira: kip'], kinds['leakage']) == ('lira/kip', 'leakage')
  assert kinds['leakage: images: T'] == 'leakage/images'
  assert kinds['leakage: set: kip_corrupted'] == 'leakage/set of kip'
  assert kinds['leakage: kip, infinite'] == 'leakage/infinite'
  assert set(kinds.values()) <= set(timing.SECONDS)


def _dates(config):
  return {name: (pathlib.Path(job.workdir) / 'record.json').stat().st_mtime_ns
          for name, job, *_ in audit_plan.make(config).stages()}


def test_shadow_attacks_have_the_networks_of_the_audit(tmp_path):
  config = dataclasses.replace(
      SMALL, lira_shadows=8, networks='mlp', workdir=str(tmp_path))
  found = audit_plan.make(config).lira
  assert {name: (job.model, job.network_epochs)
          for name, job in found.items()} == {
              'all': ('krr,mlp', 2), 'random': ('krr,mlp', 5),
              'kip': ('krr,mlp', 5)}
  alone = audit_plan.make(dataclasses.replace(config, lira_networks=''))
  assert {job.model for job in alone.lira.values()} == {'krr'}


def test_every_shadow_attack_is_a_row_of_the_page():
  metric = records.metric
  record = {
      'extra': {'rows': [
          {'method': 'kip', 'size': 2, 'model': 'mlp', 'attack': 'rmia_offline',
           'name': 'kip_2_mlp_rmia_offline'},
          {'method': 'all', 'size': None, 'model': 'krr', 'attack': 'online',
           'name': 'all_online'}]},
      'metrics': {f'{name}_{key}': metric(value) for name, value in (
          ('kip_2_mlp_rmia_offline', 0.7), ('all_online', 0.9))
                  for key in ('auc', 'tpr_at_fpr_1e2')}}
  rows = privacy._lira_of(record)
  assert [(r['method'], r['size'], r['model'], r['attack'], r['auc'].value)
          for r in rows] == [('kip', 2, 'mlp', 'rmia_offline', 0.7),
                             ('all', '', 'krr', 'online', 0.9)]


def test_finished_parts_are_kept_and_old_ones_made_anew(finished):
  config, metrics = finished
  before = _dates(config)
  assert audit.run(config) == metrics
  assert _dates(config) == before
  newer = pathlib.Path(config.workdir) / 'random_2' / 'record.json'
  os.utime(newer)
  audit.run(config)
  after = _dates(config)
  changed = {name for name in before if before[name] != after[name]}
  assert changed == {
      f'{stage}: random_2/{model}' for stage, models in (
          ('fits', ('krr', 'mlp')), ('membership', ('krr', 'mlp', 'set')),
          ('robustness', ('krr', 'mlp')), ('fairness', ('krr', 'mlp')))
      for model in models} | {'sets: random_2', 'claims'}


def test_an_audit_that_was_stopped_goes_on(finished, tmp_path, monkeypatch):
  config = dataclasses.replace(
      SMALL, workdir=str(tmp_path), methods='', networks='mlp',
      distilled=str(_own_set(tmp_path)))
  run = membership.run

  def stopped(job):
    if job.model == 'mlp':
      raise KeyboardInterrupt
    return run(job)

  with monkeypatch.context() as patch:
    patch.setattr(membership, 'run', stopped)
    with pytest.raises(KeyboardInterrupt):
      audit.run(config)
  assert not (tmp_path / 'report.html').exists()
  made = []
  train = fit.run
  monkeypatch.setattr(fit, 'run', lambda job: made.append(job) or train(job))
  metrics = audit.run(config)
  assert not made  # Models were finished.
  assert 'mine_mlp_accuracy' in metrics
  assert 'mine' in (tmp_path / 'report.html').read_text()


def _own_set(folder, **changes):
  rng = np.random.default_rng(0)
  arrays = {'images': rng.random((6, 8, 8)).astype(np.float32),
            'labels': np.repeat(np.arange(3), 2)} | changes
  path = folder / 'mine.npz'
  np.savez(path, **arrays)
  return path


def test_reconstructions_are_told(finished, monkeypatch):
  config, _ = finished
  shares = {f'{who}_recovered_rmse_0.05': records.metric(0.5, 0.4, 0.6)
            for who in ('own', 'train', 'given', 'others')}
  shares |= {'accuracy': records.metric(0.5, 0.4, 0.6)}
  shares |= {f'{who}_nearest_rmse_median': records.metric(0.1)
             for who in ('set', 'fresh')}

  def run(job):
    folder = pathlib.Path(job.workdir)
    records.write(folder / 'kip' / 'infinite', config=job, metrics=shares,
                  arrays={'train': np.array([0.01, 0.2, 0.04, 0.3, 0.2, 0.1])},
                  contents={'dataset': '0a'})
    records.write(folder, config=job, metrics={
        f'kip_infinite_{k}': v for k, v in shares.items()},
        extra={'sentence': 'Half of them came back.'})
    source = pathlib.Path(config.workdir) / 'accuracy.png'
    (folder / 'leakage.png').write_bytes(source.read_bytes())

  monkeypatch.setattr(leakage, 'run', run)
  monkeypatch.setattr(leakage, 'jobs_of', lambda job: [])  # It makes all here.
  audit.run(dataclasses.replace(config, leak_train=6))
  html = (pathlib.Path(config.workdir) / 'report.html').read_text()
  assert 'Half of them came back.' in html
  _, found = cells.load(config.workdir)
  assert found['kip_2', 'rebuilt'].of == '2 of 6'
  assert ('kip_noise_2', 'rebuilt') not in found  # It was made of real images.


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'methods': 'random,magic'}, '`methods` must be one of kip'),
    ({'methods': ''}, '`methods` or `distilled` must name a set'),
    ({'images_per_class': 'ten'}, '`images_per_class` must be positive'),
    ({'inits': 'real,zeros'}, '`inits` must be one of real, noise'),
    ({'inits': 'noise'}, '`inits` must have real'),
    ({'networks': 'vit'}, '`networks` must be one of mlp'),
    ({'num_networks': 1}, '`num_networks` must be an integer of at least 2'),
    ({'attacks': 'magic'}, '`attacks` must be one of fgsm'),
    ({'curve': 'magic'}, '`curve` must be one of fgsm'),
    ({'corruptions': 'fog9'}, '`corruptions` must be one of'),
    ({'learned': 'forest'}, '`learned` must be one of logistic'),
    ({'options': 'kip.speed=1'}, r'`options` must be \[method.\]flag=value'),
    ({'distilled': 'none.npz'}, '`distilled` must be a readable .npz'),
    ({'groups': 'none.npy'}, '`groups` must be a readable .npy'),
    ({'train_groups': 'none.npy'}, '`train_groups` must be a readable .npy'),
    ({'dataset': 'digitz'}, '`dataset` must be one of'),
    ({'kernel': 'fcnx'}, '`kernel` must be'),
    ({'transform': 'zcb'}, '`transform` must be one of'),
    ({'images_per_class': '5000'}, '`images_per_class` must be at most'),
    ({'max_train': 1}, '`max_train` must be'),
    ({'leak_train': 6, 'leak_methods': 'kop'}, '`leak_methods` must be one of'),
    ({'leak_train': 6, 'leak_regimes': 'x'}, '`leak_regimes` must be one of'),
    ({'leak_train': 1}, '`leak_train` must be'),
    ({'leak_train': 7}, '`leak_train` must be a multiple of the 3 classes'),
])
def test_bad_flags_are_named_before_anything_runs(tmp_path, fields, message):
  config = dataclasses.replace(SMALL, workdir=str(tmp_path / 'out'), **fields)
  with pytest.raises(ValueError, match=message):
    audit.run(config)
  assert not (tmp_path / 'out').exists()


@pytest.mark.errors
def test_groups_of_other_images_are_refused(tmp_path):
  np.save(tmp_path / 'groups.npy', np.arange(107) % 2)
  config = dataclasses.replace(SMALL, workdir=str(tmp_path / 'out'),
                               groups=str(tmp_path / 'groups.npy'))
  with pytest.raises(ValueError, match='each of 108 test images, got 107'):
    audit.run(config)
  assert not (tmp_path / 'out').exists()


@pytest.mark.errors
@pytest.mark.parametrize(('changes', 'message'), [
    ({'images': np.full((6, 8, 8, 1), np.nan)}, '`images` must be finite'),
    ({'images': np.zeros((6, 9, 9), 'f')}, '`images` has examples of shape'),
    ({'labels': np.full(6, 3)}, r'`labels` must be in \[0, 3'),
])
def test_bad_sets_are_refused_before_anything_runs(tmp_path, changes, message):
  config = dataclasses.replace(
      SMALL, workdir=str(tmp_path / 'out'),
      distilled=str(_own_set(tmp_path, **changes)))
  with pytest.raises(ValueError, match=message):
    audit.run(config)
  assert not (tmp_path / 'out').exists()


def test_a_run_is_older_than_what_it_was_made_of(tmp_path):
  job = fit.Config(workdir=str(tmp_path / 'a'))
  source = tmp_path / 'set.npz'
  calls = []

  def run(job):
    calls.append(job)
    records.write(job.workdir, config=job, metrics={})

  jobs.finished(job, run, after=[source])  # Not there: nothing to wait for.
  source.write_text('new')
  for _ in range(2):
    jobs.finished(job, run, after=[source])
  assert len(calls) == 2
