"""What `--help` says of every flag of every study."""
import dataclasses
import importlib
import pathlib
import re

from etils import eapp
import pytest

from dsr import nets
from dsr.studies.audit import robustness
from dsr.studies.distillation.methods import table
from dsr.studies.reconstruction import table as attacks

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _studies():
  for path in sorted((ROOT / 'dsr' / 'studies').rglob('*.py')):
    text = path.read_text()
    if '\nclass Config' in text and '\ndef run(config: Config)' in text:
      yield '.'.join(path.relative_to(ROOT).with_suffix('').parts)


STUDIES = [*_studies(), 'experiments.benchmark.__main__']


def _help(name: str, capsys) -> dict[str, str]:
  """Flag -> its text, without the default and in one line, as users see it."""
  config_class = importlib.import_module(name).Config
  with pytest.raises(SystemExit):
    eapp.make_flags_parser(config_class)(['command', '--help'])
  flags = capsys.readouterr().out.partition("Config ['args']:")[2]
  texts = {}
  for part in re.split(r'\n(?=  --)', flags)[1:]:
    text = part.partition('\n\n')[0]  # What ends the help is not of the flag.
    head = re.match(r'  --(\w+)[^\n]*?(?:  |\n|$)', text)
    said = ' '.join(text[head.end():].split())
    texts[head[1]] = re.sub(r' ?\(default: .*\)$', '', said)
  assert set(texts) == {f.name for f in dataclasses.fields(config_class)}
  return texts


@pytest.mark.parametrize('name', STUDIES, ids=lambda name: name.split('.')[-1])
def test_every_flag_has_a_text(name, capsys):
  texts = _help(name, capsys)
  assert [flag for flag, text in texts.items() if len(text) < 5] == []
  for flag in texts.keys() & {'options'}:
    assert re.search(r', e\.g\. [\w.]+=\w+', texts[flag]), texts[flag]


@pytest.mark.parametrize(('study', 'flags', 'names'), [
    ('distillation.distill', ('method', 'networks'),
     (*table.names(), *nets.names())),
    ('distillation.compare', ('methods', 'networks'),
     (*table.names(), *nets.names())),
    ('audit.audit', ('methods', 'networks', 'attacks'),
     (*table.names(), *nets.names(), *robustness.ATTACKS)),
    ('audit.robustness', ('attacks',), tuple(robustness.ATTACKS)),
    ('reconstruction.reconstruct', ('attack',), tuple(attacks.ATTACKS)),
    ('hardening.adversarial', ('methods',), table.names()),
    ('audit.leakage', ('methods',), table.names()),
], ids=lambda value: value if isinstance(value, str) else '')
def test_flags_that_take_names_list_them(study, flags, names, capsys):
  texts = _help(f'dsr.studies.{study}', capsys)
  for flag in flags:
    assert 'end of --help' in texts[flag] or flag == 'networks'
  config_class = importlib.import_module(f'dsr.studies.{study}').Config
  lines = config_class.describe().splitlines()
  assert max(map(len, lines)) < 110  # The end of the help is not wrapped.
  assert set(names) <= {line.partition(':')[0].strip() for line in lines}


@pytest.mark.parametrize('study', [
    'distillation.compare', 'distillation.distill', 'audit.audit', 'audit.fit'])
def test_protocols_are_told_apart(study, capsys):
  said = _help(f'dsr.studies.{study}', capsys)['protocol']
  for name in ('frepo: ', 'condensation: ', 'dsa: '):
    assert name in said
