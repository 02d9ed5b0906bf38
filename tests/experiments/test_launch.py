"""Flags of the binaries as a user meets them: in a process of their own."""
import dataclasses
import pathlib
import signal
import subprocess
import sys
import time

from etils import eapp
import pytest

from dsr.runs import launch, records
from dsr.studies import krr
from dsr.studies.audit import (
  audit,
  claims,
  fairness,
  fit,
  leakage,
  membership,
  robustness,
)
from dsr.studies.distillation import distill
from dsr.studies.hardening import adversarial
from experiments.benchmark import __main__ as benchmark

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _call(*words):
  return subprocess.run(
      [sys.executable, '-m', *words], cwd=ROOT, capture_output=True, text=True,
      check=False)


@pytest.mark.errors
@pytest.mark.parametrize(('words', 'message'), [
    (('experiments.distill', '--methud=kip'), 'Unknown command line flag'),
    (('experiments.audit', '--full_epochs=many'), 'many'),
    (('experiments.krr', '--solver=lu'), 'lu'),
    (('experiments.distill', '--images_per_class=0'),
     '`images_per_class` must be an integer of at least 1, got 0.'),
], ids=['unknown', 'no number', 'no choice', 'out of range'])
def test_bad_flags_end_with_the_usage_line(tmp_path, words, message):
  out = tmp_path / 'out'
  done = _call(*words, f'--workdir={out}')
  assert done.returncode in (1, 2)
  assert f'usage: python -m {words[0]} ' in done.stderr
  assert message in done.stderr
  assert 'Traceback' not in done.stderr
  assert done.stdout == ''
  assert not out.exists()


def test_a_word_that_belongs_to_no_flag_is_stray():
  for words, stray in (
      ('--a=1 --b 2 3 --fresh', ''), ('--a=1 b', 'b'), ('x --a=1', 'x'),
      ("'--dataset=digits[0,3]'", "'--dataset=digits[0,3]'")):
    assert launch._stray(['', *words.split()]) == stray


@pytest.mark.parametrize('binary', [
    adversarial, audit, benchmark, claims, distill, fairness, fit, krr, leakage,
    membership, robustness], ids=lambda module: module.__name__.split('.')[-1])
def test_help_lists_every_flag_with_its_default(binary, capsys):
  # A lone percent sign in the comment of a field would be a traceback.
  with pytest.raises(SystemExit) as end:
    eapp.make_flags_parser(binary.Config)(['binary', '--help'])
  assert end.value.code == 0
  text = ''.join(capsys.readouterr().out.split())  # Long ones are wrapped.
  for field in dataclasses.fields(binary.Config):
    assert f'--{field.name}' in text
    default = ''.join(str(field.default).split())
    assert f'(default:{default})' in text


def test_help_has_the_meaning_and_the_choices(capsys):
  with pytest.raises(SystemExit):
    eapp.make_flags_parser(distill.Config)(['binary', '--help'])
  text = capsys.readouterr().out
  assert 'Share of pixels frozen to noise' in ' '.join(text.split())
  assert '{constant,cosine}' in ''.join(text.split())


def test_help_ends_with_the_methods():
  done = _call('experiments.distill', '--help')
  assert done.returncode == 0
  text = ' '.join(done.stdout.split())
  assert 'mfc: minimal finite covering, with a certificate' in text


@pytest.mark.errors
@pytest.mark.parametrize(('flag', 'message'), [
    ('--workdir=', '`workdir` must be a folder'),
    ('--seed=100000000000000000000', '`seed` must be at most 2147483647'),
    ('--ridge=1e300', '`ridge` must be finite and at most 1e+30'),
    ('--ridge=nan', '`ridge` must be finite'),
    ('--workdir=/dev/null/x', 'Not a directory: /dev/null'),
    ('--workdir=/proc/x', 'error: '),
], ids=['empty', 'wide', 'huge', 'nan', 'no folder', 'not writable'])
def test_what_no_command_can_take_is_one_line(tmp_path, flag, message):
  done = _call('experiments.krr', f'--workdir={tmp_path / "out"}', flag)
  assert done.returncode == 1
  assert message in done.stderr
  assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('number', 'status'), [
    (signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=['int', 'term'])
def test_a_stopped_command_ends_with_the_signal(tmp_path, number, status):
  with subprocess.Popen(
      [sys.executable, '-c', 'import signal, runpy, sys;'
       'signal.signal(signal.SIGINT, signal.default_int_handler);'
       'sys.argv = ["distill", "--networks=", "--steps=100000",'
       '"--eval_every=5", "--dataset=digits[0,1]",'
       f'"--workdir={tmp_path}"];'
       'runpy.run_module("experiments.distill", run_name="__main__")'],
      cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
    deadline = time.monotonic() + 100
    while not any(tmp_path.glob('checkpoints/*')):  # Into the loop.
      assert time.monotonic() < deadline
      time.sleep(0.1)
    run.send_signal(number)
    run.communicate(timeout=60)
  assert run.returncode == status
  assert records.read(tmp_path)['extra']['status'] == 'INTERRUPTED'
  assert not (tmp_path / '.lock').exists()


@pytest.mark.slow
@pytest.mark.parametrize('how', [(), ('--workers=2',)], ids=['one', 'workers'])
def test_a_command_tells_of_what_it_has_and_ends_with_1(tmp_path, how):
  words = ('experiments.compare', '--methods=random,kip', '--networks=mlp',
           '--images_per_class=1', '--max_train=60', '--network_epochs=2',
           '--num_networks=2', '--dataset=digits[0,3]', f'--workdir={tmp_path}')
  broken = _call(*words, '--options=kip.steps=4,kip.learning_rate=1e25', *how)
  assert broken.returncode == 1
  lines = broken.stderr.splitlines()[-2:]
  assert lines[0].startswith('kip, 1 per class: FloatingPointError: ')
  assert lines[0].endswith(f'({tmp_path}/kip_1)')
  assert lines[1] == ('error: 1 of 2 jobs are missing; the same command makes '
                      'them')
  assert 'Traceback' not in broken.stderr
  assert 'random' in broken.stdout
  assert 'kip, 1 per class (Float' in (tmp_path / 'table.md').read_text()
  plan = _call(*words, '--options=kip.steps=4,kip.learning_rate=1e25', '--plan')
  assert 'failed: FloatingPointError' in plan.stdout
  before = (tmp_path / 'random_1' / 'record.json').stat().st_mtime_ns
  mended = _call(*words, '--options=kip.steps=4', *how)
  assert mended.returncode == 0, mended.stderr[-2000:]
  assert before == (tmp_path / 'random_1' / 'record.json').stat().st_mtime_ns
  assert not (tmp_path / 'kip_1' / 'failed.txt').exists()
