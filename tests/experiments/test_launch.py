"""Flags of the binaries as a user meets them: in a process of their own."""
import dataclasses
import pathlib
import subprocess
import sys

from etils import eapp
import pytest

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
  assert '{kip,rkip,rkip_finite,label_solve,dm,random,' in ''.join(text.split())
