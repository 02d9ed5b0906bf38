"""Runs notebooks and keeps their outputs; says how long each took.

  python -m notebooks.execute          # all, one after the other
  python -m notebooks.execute 02 05    # those whose names begin so

The source of a notebook is its `.py` file (jupytext, `py:percent`); the `.ipynb`
beside it is written anew. Nothing is written if a cell or a check fails; others
are executed all the same, and the command then ends with 1.
"""
import argparse
import datetime
import os
import pathlib
import sys
import time

import jupytext
import nbclient
from nbclient import exceptions
import nbformat

HERE = pathlib.Path(__file__).resolve().parent
# Where Colab's badges and the install cells point; `__owner__` is no name yet.
REPOSITORY = 'github.com/__owner__/dsr'
SECONDS = 60  # That a cell may take on two quiet cores; `--slow` for others.
_KERNEL = {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}


def sources() -> list[pathlib.Path]:
  """The notebooks' sources, in order."""
  return sorted(HERE.glob('[0-9][0-9]_*.py'))


def read(path: pathlib.Path) -> nbformat.NotebookNode:
  """The notebook of a source, without outputs; ids are places of cells."""
  notebook = jupytext.read(path, fmt='py:percent')
  notebook.metadata = nbformat.from_dict({'kernelspec': _KERNEL})
  for i, cell in enumerate(notebook.cells):
    cell.id = f'cell-{i}'
  return notebook


def run(notebook: nbformat.NotebookNode, folder: pathlib.Path, *,
        timeout: int) -> list[float]:
  """Executes all cells in place, in `folder`: seconds of each code cell.

  Args:
    notebook: of `read`.
    folder: the working directory.
    timeout: seconds that a cell may take.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell raised.
    nbclient.exceptions.CellTimeoutError: a cell took longer.
  """
  os.environ['DSR_COMPILED'] = 'off'
  nbclient.NotebookClient(
      notebook, timeout=timeout, kernel_name='python3',
      resources={'metadata': {'path': str(folder)}}).execute()
  notebook.metadata.pop('language_info', None)
  seconds = []
  for cell in notebook.cells:
    if times := cell.metadata.pop('execution', None):
      start, end = (datetime.datetime.fromisoformat(times[f'iopub.{name}'])
                    for name in ('execute_input', 'status.idle'))
      seconds.append((end - start).total_seconds())
  return seconds


def write(notebook: nbformat.NotebookNode, path: pathlib.Path) -> None:
  """Writes an `.ipynb` under another name first."""
  part = path.with_suffix('.part')
  nbformat.write(notebook, part)
  part.replace(path)


def main() -> None:
  """See the text of the module."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('names', nargs='*', help='beginnings; all without')
  parser.add_argument('--slow', type=int, default=1, metavar='TIMES',
                      help='as much more time for each cell; default: 1')
  args = parser.parse_args()
  chosen = [path for path in sources() if not args.names
            or path.name.startswith(tuple(args.names))]
  if not chosen:
    parser.error(f'`names` must be beginnings of {HERE.name}, got {args.names}')
  failed = False
  for path in chosen:
    began, used = time.monotonic(), _cpu()
    notebook = read(path)
    try:
      seconds = run(notebook, HERE, timeout=args.slow * SECONDS)
    except (exceptions.CellExecutionError,
            exceptions.CellTimeoutError) as error:
      failed = True
      print(f'{path.stem}: {error}', file=sys.stderr, flush=True)
      continue
    write(notebook, path.with_suffix('.ipynb'))
    print(f'{path.stem}: {time.monotonic() - began:.0f} s, '
          f'{_cpu() - used:.0f} of a core; cells: '
          f'{", ".join(f"{s:.1f}" for s in seconds)}', flush=True)
  sys.exit(failed)


def _cpu() -> float:
  """Seconds of a core that kernels took that have ended; 0 on Windows."""
  times = os.times()
  return times.children_user + times.children_system


if __name__ == '__main__':
  main()
