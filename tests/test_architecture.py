"""The layering of the house, read from the source with `ast`."""
import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
LAYERS = {
    'types': 0, 'checks': 0, 'numerics': 0, 'hosts': 0,
    'linalg': 1, 'loop': 1, 'data': 1,
    'kernels': 2, 'nets': 2,
    'krr': 3, 'train': 3,
    'distill': 4, 'attack': 4,
}
# The top room may import every other one. Of its own rooms, those on the left.
STUDIES = ('distillation', 'reconstruction', 'audit', 'hardening')
COMMANDS = sorted(p for p in (ROOT / 'experiments').glob('*.py')
                  if p.stem != '__init__')
# Side rooms see layer 0, and these. They get arrays, functions, records.
SIDE_ROOMS = {'probes': set(), 'runs': {'data', 'loop'},
              'report': {'runs'}}
MODULES = sorted((ROOT / 'dsr').rglob('*.py'))
each_module = pytest.mark.parametrize(
    'path', MODULES, ids=lambda p: str(p.relative_to(ROOT)))
# Imported on the first use of what it holds: classes of scikit-learn.
LATE = {ROOT / 'dsr/krr/estimators.py'}
HEAVY = {'tensorflow', 'tensorflow_datasets', 'neural_tangents', 'matplotlib',
         'skimage', 'sklearn', 'jinja2', 'markupsafe', 'fairlearn',
         'dp_accounting', 'pandas', 'PIL'}


def _room(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / 'dsr').parts[0].removesuffix('.py')


def _imports(path: pathlib.Path, top_level_only: bool = False):
  tree = ast.parse(path.read_text())
  for node in tree.body if top_level_only else ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      for alias in node.names:
        yield f'{node.module}.{alias.name}'


def _rooms_imported(path: pathlib.Path) -> set[str]:
  names = [n.split('.') for n in _imports(path)]
  return {n[1] for n in names if n[0] == 'dsr' and len(n) > 1}


@each_module
def test_imports_point_down(path):
  room = _room(path)
  if room == '__init__':
    return
  assert 'experiments' not in {n.split('.')[0] for n in _imports(path)}
  for other in _rooms_imported(path) - {room, '__version__'}:
    assert other != 'studies', f'{room} imports studies'
    if room == 'studies':
      continue
    if room in SIDE_ROOMS:
      assert LAYERS.get(other) == 0 or other in SIDE_ROOMS[room], (
          f'{room} imports {other}')
    else:
      assert LAYERS[other] < LAYERS[room], f'{room} imports {other}'


@pytest.mark.parametrize(
    'path', [p for p in MODULES if _room(p) == 'studies' and
             p.parent.name in STUDIES], ids=lambda p: p.stem)
def test_studies_import_those_before_them(path):
  for name in _imports(path):
    parts = name.split('.')
    if parts[:2] == ['dsr', 'studies']:
      assert STUDIES.index(parts[2]) <= STUDIES.index(path.parent.name), name


@pytest.mark.parametrize('path', COMMANDS, ids=lambda p: p.stem)
def test_a_command_is_a_docstring_and_one_call_of_its_study(path):
  tree = ast.parse(path.read_text())
  assert f'python -m experiments.{path.stem}' in ast.get_docstring(tree)
  assert [type(node) for node in tree.body] == [
      ast.Expr, ast.ImportFrom, ast.ImportFrom, ast.If]
  assert len(path.read_text().splitlines()) <= 120
  study = [p for p in MODULES if _room(p) == 'studies' and p.stem == path.stem
           and '\nclass Config' in p.read_text()]
  assert len(study) == 1  # Records name the command by its study's module.


def test_every_study_that_has_flags_has_a_command():
  named = {p.stem for p in MODULES if _room(p) == 'studies'
           and '\nclass Config' in p.read_text()
           and '\ndef run(config: Config)' in p.read_text()}
  assert named == {p.stem for p in COMMANDS}


# What compares with the truth, after an attack.
SCORING = {'match', 'baselines', 'outliers', 'pairwise'}


@pytest.mark.parametrize(
    'path', [p for p in MODULES
             if _room(p) == 'attack' and p.stem not in SCORING],
    ids=lambda p: p.stem)
def test_attacks_cannot_reach_the_truth(path):
  assert 'data' not in _rooms_imported(path)
  for name in _imports(path):
    if name.startswith('dsr.attack'):
      assert not set(name.split('.')) & SCORING, f'{path.stem} imports {name}'


@each_module
def test_heavy_packages_are_imported_inside_functions(path):
  top = {n.split('.')[0] for n in _imports(path, top_level_only=True)}
  assert path in LATE or not top & HEAVY


@each_module
def test_public_names_have_docstrings(path):
  tree = ast.parse(path.read_text())
  assert ast.get_docstring(tree) or path.name == '__init__.py'
  for node in tree.body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      if not node.name.startswith('_'):
        assert ast.get_docstring(node), f'{path.name}: {node.name}'


def test_import_is_light_and_pulls_in_nothing_heavy():
  code = (
      'import jax, sys, time; t = time.perf_counter(); import dsr;'
      'from dsr import checks, krr, linalg, numerics, types;'
      'from dsr.kernels import architectures, gram;'
      'print(time.perf_counter() - t);'
      f'bad = {sorted(HEAVY)!r};'
      'print([m for m in bad if m in sys.modules])')
  seconds, heavy = subprocess.run(
      [sys.executable, '-c', code], check=True, capture_output=True, text=True,
      cwd=ROOT).stdout.splitlines()
  assert heavy == '[]'
  assert float(seconds) < 1.5


@pytest.mark.parametrize(
    'path', [*MODULES, *(ROOT / 'experiments').rglob('*.py')],
    ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_too_long_to_read(path):
  assert len(path.read_text().splitlines()) <= 300
