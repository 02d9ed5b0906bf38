"""Notebooks run, their checks hold and can fail, and their files agree.

Executing all of them takes minutes; `FAST` are those that `make test` runs, in
one kernel, which imports once. Each in a kernel of its own, and the broken
claims, are slow.
"""
import json
import pathlib
import re

import nbclient
import nbformat
import pytest

from notebooks import execute

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = execute.sources()
each = pytest.mark.parametrize('path', SOURCES, ids=lambda p: p.stem)
FAST = ('02_attack_is_mmd', '03_unique_at_infinite_width', '05_outliers',
        '09_covers_and_robustness', '10_fairness', '11_from_neural_tangents')
LARGEST = 1.5e6  # Bytes of an executed notebook.
SECONDS = 600  # A cell may take here: tests share their cores.
# Paths of a machine: a home, a temporary or a site folder.
MACHINE = re.compile(
    r'(?<![\w.])(/(home|root|tmp|Users|work)/|[A-Z]:\\\\Users)|'
    r'site-packages|dist-packages')

# A claim made false in one place, and the check that must then fail.
BROKEN = {
    '00_start_here': (
        "dataset='digits', regime='standard'))",
        "dataset='digits', regime='standard', options='max_rounds=1,'\n"
        "    'num_starts=1'))",
        'training images given back'),
    '01_ntk_limit': (
        'W_std=base.w_std, b_std=base.b_std)(z)',
        'W_std=1.0, b_std=base.b_std)(z)',
        "slope of the kernel's error against width"),
    '02_attack_is_mmd': (
        '- 2 * np.vdot(a, k_xz @ b)',
        '- 1.9 * np.vdot(a, k_xz @ b)',
        'loss over parameters against MMD'),
    '03_unique_at_infinite_width': (
        'k[0, 0] - 2 * k[0, j] / c + k[j, j] / c**2',
        'k[0, 0] - 2 * k[0, j] / c + k[j, j] / c',
        'without biases: loss at'),
    '04_deviation_from_the_kernel': (
        'attack = finite.Config(steps=300)',
        'attack = finite.Config(steps=1)',
        "rank correlation of kernel distance and the attack's error"),
    '05_outliers': (
        'value = outliers.leave_one_out(duals, kernel)',
        'value = (duals**2).sum(axis=1) * kernel.diagonal()',
        'value against refits'),
    '06_reconstruction_is_distillation': (
        'losses.append((attack_loss(x), distilled_loss(x, predict(x))))',
        'losses.append((attack_loss(x), distilled_loss(x, predict(x) + 0.01)))',
        'relative difference of losses'),
    '07_defences': (
        "key, released['the images'], NOISE)",
        "key, released['the images'], 1e-6 * NOISE)",
        'given back at noise 0.001'),
    '08_membership': (
        '  return k[i, rest] @ np.linalg.solve(shifted,',
        '  return k[i, rest] @ np.linalg.solve(k[np.ix_(rest, rest)],',
        'outputs without each image against refits'),
    '09_covers_and_robustness': (
        'reshape(*2 * (len(images),), -1), axis=2)',
        'reshape(*2 * (len(images),), -1), ord=1, axis=2)',
        'radii against brute force'),
    '10_fairness': (
        'expected = 0.8 * 0.2 / 36',
        'expected = 0.8 / 36',
        'simulated, nothing differs: variance between classes'),
    '11_from_neural_tangents': (
        'theta = ntk(x_train)', 'theta = nngp(x_train)',
        'ensemble: mean of drawn networks, in standard errors'),
}

# zmq's sockets and asyncio's loops of a kernel that has ended.
quiet = pytest.mark.filterwarnings(
    'ignore::ResourceWarning',
    'ignore::pytest.PytestUnraisableExceptionWarning',
    'ignore::RuntimeWarning')


def _executed(path):
  return nbformat.read(path.with_suffix('.ipynb'), as_version=4)


def _run(notebook, folder, monkeypatch, *, optimised=True):
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv(
      'JAX_DISABLE_MOST_OPTIMIZATIONS', str(int(not optimised)))
  execute.run(notebook, folder, timeout=SECONDS)


def _texts(node):
  """All strings of a notebook's outputs but its pictures."""
  if isinstance(node, str):
    yield re.sub(r'base64,[A-Za-z0-9+/=]*', '', node)
  elif isinstance(node, dict):
    for name, value in node.items():
      if name != 'image/png':
        yield from _texts(value)
  elif isinstance(node, list):
    for value in node:
      yield from _texts(value)


def test_there_are_notebooks():
  assert SOURCES
  assert {p.stem for p in SOURCES} == {
      p.stem for p in (ROOT / 'notebooks').glob('*.ipynb')}
  assert set(BROKEN) == {p.stem for p in SOURCES}


def _check_ran(cells, folder):
  assert '| check | measured | needed |' in str(cells[-1].outputs)
  assert not list(folder.iterdir())  # Nothing is left behind.


@quiet
@pytest.mark.slow
@each
def test_a_notebook_runs_and_its_checks_hold(path, tmp_path, monkeypatch):
  notebook = execute.read(path)
  _run(notebook, tmp_path, monkeypatch)
  _check_ran(notebook.cells, tmp_path)


@quiet
def test_the_fast_half_runs_in_one_kernel(tmp_path, monkeypatch):
  joined = nbformat.v4.new_notebook()
  for name in FAST:
    cells = execute.read(ROOT / 'notebooks' / f'{name}.py').cells
    for cell in cells:
      cell.id = f'{name}-{cell.id}'
    joined.cells += cells
  # Compilation is most of it.
  _run(joined, tmp_path, monkeypatch, optimised=False)
  for name in FAST:
    _check_ran([c for c in joined.cells if c.id.startswith(name)], tmp_path)


@quiet
@pytest.mark.slow
@each
def test_a_false_claim_fails_its_check(path, tmp_path, monkeypatch):
  old, new, check = BROKEN[path.stem]
  notebook = execute.read(path)
  changed = [c for c in notebook.cells if old in c.source]
  assert len(changed) == 1
  changed[0].source = changed[0].source.replace(old, new)
  with pytest.raises(nbclient.exceptions.CellExecutionError) as raised:
    _run(notebook, tmp_path, monkeypatch)
  assert raised.value.ename == 'AssertionError'
  assert check in raised.value.evalue  # The source beside it names all checks.


@each
def test_source_and_executed_notebook_agree(path):
  source, executed = execute.read(path), _executed(path)
  assert [(c.cell_type, c.source) for c in source.cells] == [
      (c.cell_type, c.source) for c in executed.cells]


@each
def test_outputs_are_there_in_order_and_name_no_machine(path):
  notebook = _executed(path)
  code = [c for c in notebook.cells if c.cell_type == 'code']
  assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
  outputs = [o for c in code for o in c.outputs]
  assert not [o for o in outputs if o.output_type == 'error'
              or o.get('name') == 'stderr']
  for text in _texts(outputs):
    assert not MACHINE.search(text), text[:200]
  assert path.with_suffix('.ipynb').stat().st_size < LARGEST


@each
def test_pictures_have_a_text(path):
  data = [o.data for c in _executed(path).cells if c.cell_type == 'code'
          for o in c.outputs if 'image/png' in o.get('data', {})]
  assert data
  for shown in data:
    alt = re.search(r'<img alt="([^"]+)"', shown['text/html'])
    assert len(alt[1]) > 40  # A sentence, not a name.


@each
def test_each_says_claim_source_and_time_and_installs_once(path):
  notebook = execute.read(path)
  first = notebook.cells[0].source
  for part in ('# ', '**Claim.**', '**Source.**', 'arxiv.org/abs/',
               '**Time on 2 CPU cores.**'):
    assert part in first
  colab = 'https://colab.research.google.com'
  where = execute.REPOSITORY.replace('.com', '', 1)
  assert (f'[![Open in Colab]({colab}/assets/colab-badge.svg)]({colab}/{where}/'
          f'blob/main/notebooks/{path.stem}.ipynb)') in first
  install = [c.source for c in notebook.cells if 'subprocess.run' in c.source]
  assert len(install) == 1
  assert f"'git+https://{execute.REPOSITORY}'" in install[0]
  assert install == [c.source for c in execute.read(SOURCES[0]).cells
                     if 'subprocess.run' in c.source]
  headings = [line for c in notebook.cells if c.cell_type == 'markdown'
              for line in c.source.splitlines() if line.startswith('## ')]
  assert headings[-2:] == ['## What this does not say', '## Checks']
  assert 'notebook.verify(' in notebook.cells[-1].source


@each
def test_other_notebooks_that_are_named_exist(path):
  text = path.read_text('utf-8')
  for name in re.findall(r'`(\d\d_\w+)`', text):
    assert (path.parent / f'{name}.py').exists(), name
  prose = '\n'.join(c.source for c in execute.read(path).cells
                    if c.cell_type == 'markdown')
  for target in re.findall(r'\]\(([^)#:]+)\)', prose):
    assert (path.parent / target).exists(), target


def test_the_form_of_the_files_is_that_of_jupyter():
  for path in SOURCES:
    nbformat.validate(_executed(path))
    raw = json.loads(path.with_suffix('.ipynb').read_text('utf-8'))
    assert raw['metadata'] == {'kernelspec': {
        'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}}
