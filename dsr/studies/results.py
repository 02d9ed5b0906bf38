"""A page of tables, made of the records in a folder.

The command is `experiments.results`; its docstring has an example, and what
it writes.
"""
from collections.abc import Iterable
import dataclasses
import itertools
import os
import pathlib
import shlex
from typing import Any

from absl import logging

from dsr.report import tables
from dsr.runs import jobs, records, screen

BEGIN = '<!-- tables of records: begin -->'
END = '<!-- tables of records: end -->'
_COPY = 'network_accuracy'  # Of the first network's, which has its own name.
# In names of what is shown in percent.
_SHARES = ('accuracy', 'recovered', 'precision')
_RUN = ('record', 'data', 'settings', 'seed', 'date', 'device', 'command')
_MEASURED = ('record', 'metric', 'claimed', 'ours', 'interval')
# Of commands with many runs that are compared: a row for each run instead, and
# a column for each of these.
_COMPARED = {
    'python -m experiments.distill': (
        'krr_accuracy', 'krr_accuracy_start', 'mlp_accuracy',
        'method_seconds'),
    'python -m experiments.reconstruct': (
        'recovered_rmse_0.01', 'recovered_rmse_0.05', 'median_rmse', 'claimed',
        'claim_precision', 'others_median_rmse', 'kernel_distance',
        'unexplained_final', 'unexplained_both', 'unexplained_path',
        'greedy_l2_first', 'greedy_l2_half', 'greedy_l2_three_quarters',
        'seconds')}
# Flags that have a column of their own, or say nothing of the result.
_NO_SETTINGS = ('dataset', 'data_dir', 'seed', 'attack_seed', 'workdir')


@dataclasses.dataclass(frozen=True)
class Config:
  """Writes tables of records into a page."""

  records: str = 'notebooks/records'  # Folder that is searched for records.
  out: str = 'notebooks/results.md'  # The page; the rest of it is kept.


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the number of records."""
  folder, out = pathlib.Path(config.records), pathlib.Path(config.out)
  if out.suffix != '.md':
    raise ValueError(f'`out` must end in .md, got {config.out!r}.')
  before, after = _around(out)
  found = find(folder)
  text = page(found, out.parent)
  out.parent.mkdir(parents=True, exist_ok=True)
  with records.replacing(out) as part:
    part.write_text(f'{before}{BEGIN}\n\n{text}\n{END}{after}', 'utf-8')
  screen.show(f'{len(found)} records: {out}')
  return {'num_records': len(found)}


def find(folder: str | os.PathLike) -> list[dict[str, Any]]:
  """The records of finished runs below `folder`, in the order of their paths.

  Returns:
    Records as `records.read` gives them, with their `path`.

  Raises:
    ValueError: there are none.
  """
  found = []
  for path in sorted(pathlib.Path(folder).rglob('*.json')):
    try:
      record = records.read(path)
    except ValueError as error:  # Clocks and flags are JSON as well.
      logging.info('left out: %s', error)
      continue
    if jobs.is_complete(record):
      found.append(record | {'path': path})
    else:
      logging.warning('left out: %s is of a run that was stopped', path)
  if not found:
    raise ValueError(f'`records` must be a folder with records of finished '
                     f'runs, got {os.fspath(folder)!r}.')
  return found


def page(found: Iterable[dict[str, Any]], base: str | os.PathLike) -> str:
  """A heading and two tables for each command, in Markdown.

  The first has a row for each run, with what it takes to repeat it; the second
  one for each number: published for these settings, ours, and the ends of our
  95 % interval, which an exact number lacks. Where many runs of a command are
  compared, the second has a row for each run as well.

  Args:
    found: records, by `find`.
    base: the folder that links to the records start from.
  """
  parts = []
  by_command = sorted(found, key=_command)
  for command, group in itertools.groupby(by_command, key=_command):
    rows = [_row(record, base) for record in group]
    parts += [f'## `{command}`', '', tables.markdown(rows, _RUN), '']
    if command in _COMPARED:
      parts += [tables.markdown(rows, _columns(rows, command)), '']
    else:
      measured = [line for row in rows for line in _measured(row)]
      parts += [tables.markdown(measured, _MEASURED), '']
  return '\n'.join(parts)


def _command(record) -> str:
  """'python -m experiments.distill' of the command that repeats the run."""
  return ' '.join(shlex.split(record['command'])[:3])


def _row(record, base) -> dict[str, Any]:
  config, versions = record['config'], record['versions']
  link = pathlib.Path(os.path.relpath(record['path'], base)).as_posix()
  seeds = [f'{name}={value}' for name, value in record['seeds'].items()]
  metrics = {name: metric for name, metric in record['metrics'].items()
             if not name.endswith(_COPY)}
  return {
      'data': config.get('dataset', ''),
      'settings': '<br>'.join(_settings(record)) or 'defaults',
      'metrics': metrics,
      'claimed': record.get('claimed') or {},
      'seed': ', '.join(seeds).removeprefix('seed='),
      'date': record.get('date', '').partition('T')[0],
      'device': f'{record["device"]["kind"]}, jax {versions.get("jax", "?")}',
      'command': f'`{record["command"]}`',
      'record': f'[{record["path"].stem}]({link})'}


def _settings(record) -> list[str]:
  """The flags of the command that say how the result was made."""
  kept, keep = [], True
  for word in shlex.split(record['command'])[3:]:
    if word.startswith('--'):
      keep = word[2:].partition('=')[0] not in _NO_SETTINGS
      if keep:
        kept.append(word[2:])
    elif keep:  # One of several values of the flag before it.
      kept[-1] += f' {word}'
  return kept


def _columns(rows, command) -> list[str | tables.Column]:
  """Those of `_COMPARED`, each with its published value where there is one."""
  columns = ['record']
  for name in _COMPARED[command]:
    title = name.replace('_', ' ')
    columns.append(_column(f'metrics.{name}')._replace(title=title))
    if any(name in row['claimed'] for row in rows):
      columns.append(_column(f'claimed.{name}')._replace(
          title=f'{title}, published'))
  return columns


def _column(key) -> tables.Column:
  return tables.Column(
      key, percent=any(share in key for share in _SHARES),
      digits=1 if key.endswith('seconds') else None)


def _measured(row) -> list[dict[str, str]]:
  """The metrics of a row, a line each, beside published values."""
  lines = []
  for name in row['metrics']:
    column = _column(f'metrics.{name}')
    found = {'metrics': row['metrics'],
             'claimed': {name: row['claimed'].get(name)}}
    (ours, told), = tables.grid([found], [
        column, column._replace(key=f'claimed.{name}')]).body
    lines.append({
        'record': row['record'],
        'metric': name.replace('_', ' ') + (' (%)' if column.percent else ''),
        'claimed': told.text, 'ours': ours.text, 'interval': ours.interval})
  return lines


def _around(out: pathlib.Path) -> tuple[str, str]:
  """What stands before and after the tables: of the page, or of a new one.

  Raises:
    ValueError: a page without the two marks, one after the other.
  """
  if not out.exists():
    return '# Results\n\n', '\n'
  text = out.read_text('utf-8')
  before, begin, rest = text.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not (begin and end) or BEGIN in rest or END in before + after:
    raise ValueError(f'`out` must have the lines {BEGIN!r} and {END!r} once '
                     f'each, between which tables are written; {out} has not.')
  return before, after
