"""The benchmark: right answers, ratios that mean something, clean errors."""
import dataclasses
import functools
from importlib import metadata
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels, numerics
from dsr.kernels.fused import build
from dsr.runs import records
from experiments.benchmark import (
  __main__ as benchmark,
  accelerator_suite,
  attack_claims,
  clipping,
  device_checks,
  joint_maps,
  measure,
  rows,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = benchmark.Config(shrink=16, repeats=3, seconds=1.0, memory=False)


def _config(workdir, **fields):
  return dataclasses.replace(SMALL, workdir=str(workdir), **fields)


def _rows(workdir):
  return {row['case']: row
          for row in records.read(workdir)['extra']['rows']}


def test_vector_kernels_and_kip_agree_with_neural_tangents(tmp_path, capsys):
  metrics = benchmark.run(_config(tmp_path, only='500'))
  assert set(metrics) == {
      f'{case}_{side}_per_matmul' for side in ('ours', 'nt')
      for case in ('fcn2_5000x500', 'kip_500')}
  assert all(0 < m.low <= m.value <= m.high for m in metrics.values())
  rows = _rows(tmp_path)
  assert 0 < rows['fcn2_5000x500']['difference'] < 1e-4
  assert 0 < rows['kip_500']['difference'] < 1e-2  # NT: 3e-4 off, amplified.
  assert records.read(tmp_path)['device']['x64'] is False
  out = capsys.readouterr().out
  assert 'ours / matmul' in out
  assert 'kip_500' in out


def test_image_kernels_report_time_and_memory(tmp_path, monkeypatch):
  peaks = {'ours': 2.0, 'nt': 6.0}
  monkeypatch.setattr(measure, 'peak_mb', lambda *args: peaks[args[-1]])
  metrics = benchmark.run(
      _config(tmp_path, only='nopool', memory=True, shrink=4))
  assert set(metrics) == {
      f'convnet3_nopool_{key}' for key in ('nt_per_ours', 'memory_nt_per_ours')}
  assert metrics['convnet3_nopool_memory_nt_per_ours'].value == 3
  assert 0 < _rows(tmp_path)['convnet3_nopool']['difference'] < 1e-4


def test_without_neural_tangents_its_columns_say_so(
    tmp_path, monkeypatch, capsys):
  def missing(name):
    raise metadata.PackageNotFoundError(name)

  monkeypatch.setattr(metadata, 'version', missing)
  metrics = benchmark.run(_config(tmp_path, only='fcn2_2000'))
  assert list(metrics) == ['fcn2_2000x2000_ours_per_matmul']
  row = _rows(tmp_path)['fcn2_2000x2000']
  assert row['nt_ms'] == row['difference'] == 'not installed'
  assert 'not installed' in capsys.readouterr().out


@pytest.mark.slow
def test_accelerator_rates_of_image_kernels(tmp_path):
  config = _config(tmp_path, suite='accelerator', only='convnet3_gradient')
  metrics = benchmark.run(dataclasses.replace(config, shrink=4))
  case = 'convnet3_gradient'
  joint, xla = metrics[f'{case}_joint'], metrics[f'{case}_xla']
  assert 0 < joint.low <= joint.value <= joint.high
  assert metrics[f'{case}_xla_per_joint'].value == pytest.approx(
      xla.value / joint.value)
  if build.compiler('cpu') is not None:
    assert metrics[f'{case}_fused_per_xla'].value > 0


@pytest.mark.parametrize('only', [
    'check_vector', pytest.param('check_', marks=pytest.mark.slow)])
def test_accelerator_checks(tmp_path, only, monkeypatch, capsys):
  """Made once, kept, and failing where the device computes something else."""
  config = _config(tmp_path, suite='accelerator', only=only)
  benchmark.run(config)
  rows = _rows(tmp_path)
  assert all(row['passed'] for row in rows.values())
  assert rows['check_vector_kernels']['same_bits']
  monkeypatch.setattr(accelerator_suite, '_call', None)
  benchmark.run(config)
  assert _rows(tmp_path) == rows
  capsys.readouterr()


def test_accelerator_check_fails_where_the_device_differs(monkeypatch):
  def check(seed):
    del seed
    return {'a': np.array([1.0, 2.0 + 1e-3 * (not numerics.on_cpu())])}

  monkeypatch.setitem(device_checks.CHECKS, 'vector_kernels', (check, 1e-4))
  row = accelerator_suite.PARTS['check_vector_kernels'].fn(
      benchmark.Config(suite='accelerator'))
  assert not row['passed']
  assert row['same_bits']
  assert row['difference'] == pytest.approx(5e-4)


def test_a_part_that_takes_too_long_or_fails_is_named(
    tmp_path, monkeypatch, capsys):
  part = accelerator_suite.PARTS['check_vector_kernels']
  monkeypatch.setitem(accelerator_suite.PARTS, 'check_vector_kernels',
                      part._replace(limit=0.01))
  benchmark.run(_config(tmp_path, suite='accelerator', only='check_vector'))
  assert 'check_vector_kernels is missing: took over 0.04 s' in (
      capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize('only', [
    'dm', 'kip', 'networks', 'shadow_sets', 'published', 'regression',
    'ceilings', 'attack_100'])
def test_accelerator_loops(tmp_path, only):
  """At a small part of their size, in the process of the tests."""
  config = dataclasses.replace(
      _config(tmp_path, suite='accelerator'), shrink=16 if only != 'regression'
      else 4, repeats=3, seconds=0.1)
  row = accelerator_suite.PARTS[only].fn(config)
  assert all(value.value > 0 for value in row.values()
             if isinstance(value, records.Metric))


@pytest.mark.parametrize('name', [
    pytest.param('convnet3', marks=pytest.mark.slow), 'myrtle5'])
def test_joint_maps_are_the_kernel(name):
  x1, x2 = (np.random.default_rng(seed).normal(size=(n, 8, 8, 2))
            for seed, n in ((0, 2), (1, 3)))
  np.testing.assert_allclose(
      joint_maps.kernel(name, x1, x2), kernels.by_name(name)(x1, x2),
      rtol=1e-10)


def test_gram_suite(tmp_path):
  metrics = benchmark.run(_config(tmp_path, suite='gram'))
  assert metrics['gram_fcn2_20000_ours_per_matmul'].value > 0
  if sys.platform == 'linux':  # 1250 x 1250, and the tile that is all of it.
    assert 0.9 < metrics['gram_fcn2_20000_peak_per_result'].value < 20


@pytest.mark.parametrize('case', [
    pytest.param('dm_cifar10_10', marks=pytest.mark.slow), 'distances_6000'])
def test_set_suite(tmp_path, case):
  metrics = benchmark.run(_config(tmp_path, suite='sets', only=case))
  assert metrics[f'{case}_ours_per_matmul'].value > 0
  assert _rows(tmp_path)[case]['ours_cpu_s'] > 0


def test_rivals_take_turns_and_ratios_are_of_the_same_round():
  order = []

  def call(side, seconds):
    order.append(side)
    time.sleep(seconds)
    return jnp.zeros(1)

  calls = {'matmul': functools.partial(call, 'a', 0.004),
           'ours': functools.partial(call, 'b', 0.02)}
  _, seconds = measure.race(
      calls, repeats=SMALL.repeats, seconds=SMALL.seconds)
  assert ''.join(order) == 'ab' * (1 + SMALL.repeats)
  assert np.median(seconds['ours'] / seconds['matmul']) > 2
  assert {len(s) for s in seconds.values()} == {SMALL.repeats}


def test_a_slow_case_stops_early_but_not_before_three_rounds():
  _, seconds = measure.race(
      {'ours': lambda: jnp.zeros(1)}, repeats=50, seconds=0.0)
  assert len(seconds['ours']) == 3


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_peak_memory_is_that_of_the_call():
  peak = measure.peak_mb(_thirty_two_mb, (), 'ours')
  assert 30 < peak < 40


def _thirty_two_mb():
  make = jax.jit(lambda x: x + jnp.zeros((8_000_000,), jnp.float32))
  return {'ours': lambda: make(jnp.ones((), jnp.float32))}


def test_difference_is_relative_and_of_the_common_block():
  theirs = {'k': jnp.array([[2.0, 4.0]])}
  ours = {'k': jnp.array([[2.0, 5.0, 9.0], [7.0, 7.0, 7.0]])}
  assert rows._difference(ours, theirs) == 0.25


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'message'), [
    ({'suite': 'bogus'}, '`suite` must be one of kernels, gram, sets'),
    ({'only': 'bogus'}, '`only` must be part of one of fcn2_2000x2000'),
    ({'suite': 'claims', 'only': 'bogus'}, '`only` must be part of one of'),
    ({'repeats': 0}, '`repeats` must be an integer of at least 1'),
    ({'shrink': 0}, '`shrink` must be an integer of at least 1'),
])
def test_bad_options(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    benchmark.run(_config(tmp_path, **fields))


@pytest.mark.errors
@pytest.mark.parametrize(('flag', 'message'), [
    ('--suite=bogus', 'invalid choice'), ('--bogus=1', 'bogus')])
def test_bad_flags_end_with_the_usage(flag, message):
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmark', flag],
      capture_output=True, text=True, cwd=ROOT)
  text = done.stdout + done.stderr
  assert done.returncode != 0
  assert message in text
  assert 'usage' in text.lower()
  assert 'Traceback' not in text


def test_membership_suite(tmp_path):
  metrics = benchmark.run(_config(tmp_path, suite='membership'))
  assert metrics['leave_one_out_2000_refits_per_ours'].value > 1
  rows = _rows(tmp_path)
  assert rows['leave_one_out_2000']['difference'] < 1e-4
  assert rows['shadows_256']['ours_s'] > 0


def test_clipping_suite(tmp_path):
  """By one process without PyTorch; sums are those of single examples."""
  metrics = benchmark.run(
      _config(tmp_path, suite='clipping', only='mlp', repeats=1))
  assert metrics['clip_mlp_mnist_ours_per_plain'].value > 0
  case = clipping.CASES[-1].shrunk(64)
  total = clipping.calls_of(case, 0)['ours']()
  norm = np.sqrt(sum(np.sum(np.square(a)) for a in jax.tree.leaves(total)))
  assert 0.9 * clipping.CLIP < norm <= case.images * clipping.CLIP


@pytest.mark.slow
def test_clipped_sums_are_those_of_opacus(tmp_path):
  pytest.importorskip('opacus')
  benchmark.run(_config(tmp_path, suite='clipping', repeats=1))
  rows = _rows(tmp_path)
  assert len(rows) == len(clipping.CASES)
  for row in rows.values():
    assert row['difference'] < 1e-5


def test_claims_are_counted_and_kept(tmp_path, monkeypatch, capsys):
  seen = []

  def attack(case, seed):
    seen.append((case.attack, seed))
    return 8, 5, 4 if seed == 12 else 5

  monkeypatch.setattr(attack_claims, 'attack', attack)
  config = _config(tmp_path, suite='claims', only='simulate', shrink=1)
  metrics = benchmark.run(config)
  assert seen == [('simulate', 11), ('simulate', 12)] * 2
  assert metrics['all_precision'].value == 18 / 20
  assert metrics['all_found'].value == 32
  benchmark.run(config)
  assert len(seen) == 4
  assert '90.0 [' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('wrong', ['', 'activation', 'start'])
def test_claims_of_a_small_victim(wrong):
  case = attack_claims.Case(
      'finite', {'recipe': 'flow', 'width': 256, 'depth': 1}, 1,
      {'steps': 150}, wrong)
  found, claimed, right = attack_claims.attack(case, 1)
  assert right == claimed
  assert (claimed > 0) == (wrong == '')
  assert found > 0 or wrong
