"""Records: one JSON and at most one npz a run, never a pickle.

A record tells what was run (config, seeds, versions, device, the command that
repeats it) and what came out: each metric as {"value", "low", "high"}, where
[low, high] is its 95 % interval. Tables and figures read records and never
compute anything anew. The JSON is strict: it has no NaN and no infinity.
"""
from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import datetime
import enum
from importlib import metadata
import json
import os
import pathlib
import platform
import shlex
import socket
import sys
from typing import Any
import zipfile

import jax
import numpy as np

import dsr
from dsr import hosts
from dsr.data import files
from dsr.runs import checked, contents as contents_lib
from dsr.runs.checked import Metric

FORMAT = 1  # Of the JSON; a reader refuses what it does not know.
_PACKAGES = ('jax', 'jaxlib', 'numpy', 'flax', 'optax')
_REQUIRED = ('format', 'config', 'metrics', 'seeds', 'versions', 'device')


def metric(value: Any, low: Any = None, high: Any = None) -> Metric:
  """A checked metric; without `low` and `high`, a number known exactly.

  Raises:
    ValueError: not a finite number, or low > high.
  """
  if (low is None) != (high is None):
    raise ValueError(f'`low` and `high` go together, got {low!r}, {high!r}.')
  low, high = (value, value) if low is None else (low, high)
  return checked.one('metric', Metric(value, low, high))


def write(
    workdir: str | os.PathLike, *,
    config: Any,
    metrics: Mapping[str, Any],
    arrays: Mapping[str, Any] | None = None,
    name: str = 'record',
    arrays_name: str = 'distilled',
    seeds: Mapping[str, Any] | None = None,
    wall_time: float | int | None = None,
    claimed: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    contents: Mapping[str, str] | None = None,
) -> pathlib.Path:
  """Writes `name`.json and, given `arrays`, `arrays_name`.npz in `workdir`.

  Files appear under their name only when complete.

  Args:
    workdir: made if need be.
    config: a study's dataclass, whose module has the name of the command.
    metrics: name to anything with `value`, `low`, `high`, such as a `metric`
      or an `Interval`; accuracies are fractions in [0, 1].
    arrays: name to array, of numbers, booleans or texts.
    name: of the record.
    arrays_name: of the npz.
    seeds: default: the fields of `config` called `seed` or `seeds`.
    wall_time: seconds that the run took.
    claimed: published values of some of the metrics, to stand beside ours.
    extra: anything else that JSON can hold.
    contents: flag -> digest of the data that it names (`dsr.runs.contents`);
      with it, `extra` has as `data` what `contents.described` tells.

  Returns:
    The path of the record.

  Raises:
    ValueError: a NaN or infinity, a metric without interval, a name that is
      no string, or a value that JSON or npz cannot hold.
  """
  folder = pathlib.Path(workdir)
  metrics = checked.metrics(metrics)
  fields = _fields(config)
  if seeds is None:
    seeds = {k: v for k, v in fields.items() if k in ('seed', 'seeds')}
  if unknown := sorted(set(claimed or {}) - set(metrics)):
    raise ValueError(f'`claimed` must name metrics, got {unknown}.')
  extra = dict(extra or {})
  if contents and (told := contents_lib.described(config)):
    extra['data'] = told
  record = {
      'format': FORMAT,
      'name': name,
      'command': command(config),
      'config': fields,
      'contents': contents or {},
      'metrics': {k: m._asdict() for k, m in metrics.items()},
      'claimed': claimed or {},
      'seeds': seeds,
      'versions': _versions(),
      'device': _device(),
      'wall_time': wall_time,
      'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'arrays': None if arrays is None else f'{arrays_name}.npz',
      'extra': extra,
  }
  text = json.dumps(checked.plain('record', record), indent=2, allow_nan=False)
  if arrays is not None:
    arrays = checked.arrays(arrays)
  folder.mkdir(parents=True, exist_ok=True)
  if arrays is not None:
    with replacing(folder / f'{arrays_name}.npz') as part:
      _save_npz(part, arrays)
  path = folder / f'{name}.json'
  with replacing(path) as part:
    part.write_text(text + '\n', encoding='utf-8')
  return path


def amend(path: str | os.PathLike, extra: Mapping[str, Any]) -> None:
  """Adds `extra` to that of the record at `path`, a file or its folder."""
  path = pathlib.Path(path)
  path = path / 'record.json' if path.is_dir() else path
  record = json.loads(path.read_text('utf-8'))
  record['extra'] |= checked.plain('extra', extra)
  text = json.dumps(record, indent=2, allow_nan=False)
  with replacing(path) as part:
    part.write_text(text + '\n', encoding='utf-8')


def read(path: str | os.PathLike) -> dict[str, Any]:
  """A record as a dict, its metrics as `Metric`s.

  Args:
    path: of the JSON, or of the folder that holds `record.json`.

  Raises:
    ValueError: the file is no record, or has numbers that are not finite.
  """
  path = pathlib.Path(path)
  path = path / 'record.json' if path.is_dir() else path
  try:
    record = json.loads(path.read_text('utf-8'), parse_constant=_refuse)
  except OSError as error:
    raise ValueError(f'`path` must be a record, {path}: {error.strerror}.'
                     ) from error
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f'`path` must be a record, {path} is not JSON.') from error
  if not isinstance(record, dict):
    raise ValueError(f'`path` must be a record, {path} holds no JSON object.')
  if missing := [k for k in _REQUIRED if k not in record]:
    raise ValueError(f'`path` must be a record, {path} lacks {missing}.')
  if record['format'] != FORMAT:
    raise ValueError(f'`path` must be a record of format {FORMAT}, {path} has '
                     f'format {record["format"]!r}.')
  return record | {'metrics': checked.metrics(record['metrics'])}


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arrays beside the record at `path`, or in the npz at `path`.

  Raises:
    ValueError: the record has no arrays, or the file cannot be read.
  """
  path = pathlib.Path(path)
  if path.suffix != '.npz':
    record = path / 'record.json' if path.is_dir() else path
    arrays = read(record).get('arrays')
    if arrays is None:
      raise ValueError(f'`path` must have arrays, {record} names none.')
    path = record.parent / arrays
  return files.read_npz('path', path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path; on success it becomes `path`, else it goes.

  It goes as well in all processes of many but the first.
  """
  path = pathlib.Path(path)
  part = path.with_name(
      f'.{path.name}.{socket.gethostname()}.{os.getpid()}.part')
  try:
    yield part
    if hosts.is_first():
      os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def command(config: Any) -> str:
  """The shell command that repeats the run: flags that differ from defaults.

  A flag without value stands for None, as the flags of the binaries read it.
  """
  words = ['python', '-m', _module(config)]
  for field in dataclasses.fields(config):
    value, default = getattr(config, field.name), field.default
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
    if default is not dataclasses.MISSING and value == default:
      continue
    if isinstance(value, (tuple, list)):
      words += [f'--{field.name}', *map(str, value)]
    elif value is None:
      words.append(f'--{field.name}')
    else:
      value = value.name if isinstance(value, enum.Enum) else value
      words.append(f'--{field.name}={value}')
  return shlex.join(words)


def _module(config) -> str:
  module = type(config).__module__
  if module.startswith('dsr.studies.'):  # Of the command of that name.
    return f'experiments.{module.rpartition(".")[2]}'
  if module != '__main__':
    return module.removesuffix('.__main__')
  main = sys.modules['__main__']
  spec = getattr(main, '__spec__', None)
  if spec is None:
    return pathlib.Path(sys.argv[0]).stem
  return spec.name.removesuffix('.__main__')


def _fields(config) -> dict[str, Any]:
  if not dataclasses.is_dataclass(config) or isinstance(config, type):
    raise ValueError(f'`config` must be a dataclass, got {config!r}.')
  return dataclasses.asdict(config)


def _versions() -> dict[str, str]:
  found = {'dsr': dsr.__version__, 'python': platform.python_version()}
  for package in _PACKAGES:
    with contextlib.suppress(metadata.PackageNotFoundError):
      found[package] = metadata.version(package)
  return found


def _device() -> dict[str, Any]:
  devices = jax.devices()
  return {'platform': devices[0].platform, 'kind': devices[0].device_kind,
          'count': len(devices), 'x64': bool(jax.config.jax_enable_x64)}


def _save_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """As `np.savez_compressed`, which reserves some names and adds suffixes."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, array in arrays.items():
      with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _refuse(constant: str):
  raise ValueError(f'A record must have finite numbers only, got {constant}.')
