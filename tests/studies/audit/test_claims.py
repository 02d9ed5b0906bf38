"""Claims: differences of the right pairs, and verdicts by their intervals."""
import dataclasses

import numpy as np
import pytest

from dsr.runs import records
from dsr.studies.audit import claims, membership
from dsr.studies.distillation import distill

SETS = {'kip_1': ('kip', 1, 'real'), 'kip_10': ('kip', 10, 'real'),
        'kip_noise_10': ('kip', 10, 'noise'),
        'random_10': ('random', 10, 'real')}
# How far scores of members are shifted: what leaks.
SHIFTS = {'kip_1': 0.0, 'kip_10': 1.0, 'kip_noise_10': 2.0, 'random_10': 0.0}


@pytest.fixture
def audit(tmp_path):
  """An audit of kernel regression, with scores made up."""
  rng = np.random.default_rng(0)
  member = np.arange(400) < 200
  hard = rng.normal(size=400)
  for name, (method, size, init) in SETS.items():
    folder = tmp_path / name
    records.write(folder, metrics={}, config=distill.Config(
        method=method, images_per_class=size, init=init, workdir=str(folder)))
    scores = (hard + SHIFTS[name] * member)[None]
    arrays = {f'{q}_{n}': v for q in ('train', 'init') for n, v in (
        ('squared_error', scores), ('member', member))}
    records.write(
        folder / 'krr' / 'membership', config=membership.Config(), metrics={},
        arrays=arrays, arrays_name='membership')
  return claims.Config(
      audit=str(tmp_path), subjects=','.join(SETS), models='krr',
      num_resamples=50, workdir=str(tmp_path / 'claims'))


def test_compares_what_the_claims_are_about(audit):
  metrics = claims.run(audit)
  assert set(metrics) == {
      'size_kip_10_krr_train', 'init_kip_10_krr_train', 'init_kip_10_krr_init'}
  larger = metrics['size_kip_10_krr_train']
  assert 0.15 < larger.low < larger.value < larger.high < 0.35
  assert metrics['init_kip_10_krr_init'].high < 0  # The noisy one leaks more.
  extra = records.read(audit.workdir)['extra']
  assert extra['tally'] == {
      'size': {'supported': 1, 'contradicted': 0, 'open': 0},
      'init': {'supported': 0, 'contradicted': 2, 'open': 0},
      'spread': {'supported': 0, 'contradicted': 0, 'open': 0}}
  assert [case['other'] for case in extra['cases']] == [
      'kip_1', 'kip_noise_10', 'kip_noise_10']


def test_an_interval_that_holds_0_leaves_a_claim_open():
  metrics = {'a': records.metric(0.1, -0.1, 0.3),
             'b': records.metric(0.2, 0.1, 0.3)}
  cases = [{'claim': 'size', 'metric': name} for name in 'ab']
  assert claims.tally(metrics, cases)['size'] == {
      'supported': 1, 'contradicted': 0, 'open': 1}


def test_all_sets_of_an_audit_are_the_default(audit):
  named = claims.run(audit)
  assert claims.run(dataclasses.replace(audit, subjects='')) == named


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'subjects': 'kip_1,kip_3'}, '`subjects` must be one of kip_1, kip_10'),
    ({'models': 'krr,mlp'}, '`models` must be those of .*, got .mlp'),
    ({'audit': 'krr'}, '`audit` must be the workdir'),
])
def test_what_an_audit_lacks_is_refused(audit, fields, message):
  with pytest.raises(ValueError, match=message):
    claims.run(dataclasses.replace(audit, **fields))


@pytest.mark.errors
def test_a_folder_without_an_audit_is_refused(tmp_path):
  with pytest.raises(ValueError, match='`audit` must hold the records'):
    claims.run(claims.Config(audit=str(tmp_path), workdir=str(tmp_path / 'a')))


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'models': ''}, 'must name one or more'),
    ({'num_resamples': 1}, '`num_resamples` must be an integer of at least 2'),
])
def test_bad_flags_are_named(tmp_path, fields, message):
  config = dataclasses.replace(
      claims.Config(workdir=str(tmp_path / 'out')), **fields)
  with pytest.raises(ValueError, match=message):
    claims.run(config)
  assert not (tmp_path / 'out').exists()
