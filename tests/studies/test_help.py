"""What `--help` says of every flag of every study."""
import dataclasses
import importlib
import pathlib
import re

from etils import eapp
import pytest

from dsr.studies.audit import robustness
from dsr.studies.distillation.methods import table

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _studies():
  for path in sorted((ROOT / 'dsr' / 'studies').rglob('*.py')):
    text = path.read_text()
    if '\nclass Config' in text and '\ndef run(config: Config)' in text:
      yield '.'.join(path.relative_to(ROOT).with_suffix('').parts)


STUDIES = list(_studies())


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


def test_flags_that_take_names_list_them(capsys):
  compared = _help('dsr.studies.distillation.compare', capsys)
  for flag, known in (('methods', table.names()),
                      ('protocol', ('frepo', 'condensation', 'dsa'))):
    assert not [name for name in known if name not in compared[flag]]
  attacked = _help('dsr.studies.audit.robustness', capsys)
  assert not [n for n in robustness.ATTACKS if n not in attacked['attacks']]
