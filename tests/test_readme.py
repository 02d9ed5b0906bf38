"""What the README and the docstrings of commands say can be run as it is."""
import ast
import importlib
import pathlib
import re
import shlex
import subprocess
import sys

from etils import eapp
import pytest

from dsr.runs import distributed

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMAND = 'python -m experiments.'


def _commands(text: str) -> list[str]:
  """Commands in code: on lines of their own, or between backquotes."""
  text = text.replace('\\\n', ' ')
  lines = re.findall(rf'^ *({re.escape(COMMAND)}[^\n]*)', text, re.M)
  inline = re.findall(rf'`({re.escape(COMMAND)}[^`]*)`', text)
  return [' '.join(found.partition(' #')[0].split())
          for found in (*lines, *inline)]


def _all_commands():
  for path in (ROOT / 'README.md', ROOT / 'BUILD_NOTES.md',
               ROOT / 'notebooks' / 'results.md'):
    for command in _commands(path.read_text()):
      yield path.stem, command
  for path in sorted((ROOT / 'experiments').rglob('*.py')):
    text = ast.get_docstring(ast.parse(path.read_text())) or ''
    for command in _commands(text):
      yield path.stem, command


COMMANDS = sorted(set(_all_commands()))


def test_there_are_commands():
  assert len(COMMANDS) > 30


@pytest.mark.parametrize(('where', 'command'), COMMANDS)
def test_commands_have_flags_that_exist(where, command):
  name, *flags = shlex.split(command)[2:]
  folder = (ROOT / name.replace('.', '/')).is_dir()
  module = importlib.import_module(f'{name}.__main__' if folder else name)
  study = getattr(module, name.split('.')[-1], module)
  # What a page leaves open, such as `--method=M`, is text for its flag.
  _, words = distributed.parse(['command', *flags])
  config = eapp.make_flags_parser(study.Config)(words)
  assert isinstance(config, study.Config)


@pytest.mark.slow
def test_examples_run_one_after_the_other(tmp_path):
  text = (ROOT / 'README.md').read_text()
  examples = re.findall(r'```python\n(.*?)```', text, re.S)
  assert len(examples) == 3
  for code in examples:
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, text=True,
        capture_output=True, check=False,
        env={'PYTHONPATH': str(ROOT), 'PATH': ''})
    assert done.returncode == 0, done.stderr[-2000:]
  assert (tmp_path / 'out' / 'audit' / 'report.html').exists()


def test_readme_is_short_and_its_files_exist():
  text = (ROOT / 'README.md').read_text()
  assert len(text.splitlines()) <= 200
  for page in ('README.md', 'notebooks/results.md'):
    text = (ROOT / page).read_text()
    for target in re.findall(r'\]\(([^)#:]+)\)', text):
      assert (ROOT / page).parent.joinpath(target).exists(), target
