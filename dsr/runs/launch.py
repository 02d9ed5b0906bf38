"""What every command does first: flags, lock, errors without tracebacks."""
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import logging as std_logging
import math
import signal
import sys
from typing import Any

from absl import app, flags, logging
from etils import eapp
import jax

from dsr import loop
from dsr.runs import compiled, distributed, parts, screen
from dsr.runs.engines import flags as engine_flags
from dsr.runs.plan import Job

_LARGEST = 2**31 - 1  # What seeds, sizes and numbers of steps may be.
_WIDEST = 1e30  # Beyond it a float32 is infinite once it is squared or summed.


def launch(config_class: type, run: Callable[[Any], Any], *,
           jobs: Callable[[Any], Sequence[Job]] | None = None,
           many_hosts: bool = False) -> None:
  """Parses the flags of `config_class` and calls `run` on the result.

  Turns x64 on: small solves then use float64, data stay float32. While it runs
  the workdir is locked, and compiled programs are kept for later commands, see
  `compiled.keep`. Unknown flags and bad values end with a usage line and
  exit status 2 or 1, not with a traceback; `--verbosity=1` shows it. A run that
  Ctrl-C or SIGTERM stopped ends with 130 or 143, whatever it could save. One
  some of whose jobs have failed ends with 1, and a line for each. A study that
  has shown nothing has the metrics that it returns shown.

  Args:
    config_class: dataclass of flags, as a rule with `workdir`. If it has a
      static method `describe`, its text ends the help.
    run: the study.
    jobs: config -> the jobs of the study: then the command has the flags of
      `engines.flags`, which show the jobs or choose who makes them.
    many_hosts: whether the command has the flags of `distributed`, by which
      several processes run it together.
  """
  how, net = engine_flags.Flags(), distributed.Flags()
  parse = eapp.make_flags_parser(config_class, prog=command_name(), **_more(
      config_class, jobs, many_hosts))

  def parse_or_exit(argv):
    nonlocal how, net
    try:
      if many_hosts:
        net, argv = distributed.parse(argv)
      if jobs is not None:
        how, argv = engine_flags.parse(argv)
      if stray := _stray(argv):
        raise flags.Error(f'unknown argument {stray!r}')
      return parse(argv)
    except flags.Error as error:
      _exit_with_usage(error, status=2)

  def main(config):
    jax.config.update('jax_enable_x64', True)
    try:
      check_flags(config)
      chosen = engine_flags.check(how)
      if many_hosts:
        distributed.start(net)
      compiled.keep()
      if chosen.plan:
        engine_flags.show(chosen, config, jobs)
        return
      workdir = getattr(config, 'workdir', None)
      with (contextlib.nullcontext() if workdir is None else
            distributed.held(workdir)):
        _tell(engine_flags.run(chosen, config, jobs, run) if chosen.engine
              else run(config), workdir)
    except ValueError as error:
      _explain()
      _exit_with_usage(error, status=1)
    except parts.Incomplete as error:
      sys.exit(str(error))
    except KeyboardInterrupt:  # As shells have it: 128 + signal.
      sys.exit(128 + (loop.stopped_by() or signal.SIGINT))
    except (FloatingPointError, ImportError) as error:  # They say what to do.
      _explain()
      sys.exit(f'error: {error}')
    except BlockingIOError as error:  # Somebody else's workdir.
      sys.exit(f'error: {error}')
    except OSError as error:
      _explain()
      where = f': {error.filename}' if error.filename else ''
      sys.exit(f'error: {error.strerror or error}{where}')
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      _explain()
      if distributed.is_lost(error):
        distributed.end(error)
      if not _out_of_memory(error):
        raise
      sys.exit('error: out of memory: '
               + (str(error).partition('\n')[0] or 'choose smaller sizes'))
    if loop.stopped_by():
      sys.exit(128 + loop.stopped_by())

  logging.set_verbosity(logging.INFO)
  # At this level jax lists the accelerators that it did not find.
  std_logging.getLogger('jax').setLevel(std_logging.WARNING)
  app.run(main, flags_parser=parse_or_exit)


def _stray(argv: list[str]) -> str:
  """The first word that is no value of a flag; '' if there is none."""
  open_flag = False  # --name without '=': its values follow.
  for word in argv[1:]:
    if word.startswith('-'):
      open_flag = '=' not in word
    elif not open_flag:
      return word
  return ''


def _tell(metrics, workdir) -> None:
  """No command ends without a word: its metrics, if it has shown nothing."""
  if isinstance(metrics, dict) and not screen.has_shown():
    screen.show(screen.metrics(metrics))
    if workdir is not None:
      screen.show(f'  {workdir}')


def check_flags(config: Any) -> None:
  """What is wrong with a flag of any command, by its type alone.

  Raises:
    ValueError: an empty `workdir`, an integer beyond 2^31 - 1, a seed below
      0, a number that is not finite or beyond 1e30.
  """
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if field.name == 'workdir' and not value:
      raise ValueError('`workdir` must be a folder, got an empty name.')
    if isinstance(value, bool):
      continue
    if isinstance(value, int) and abs(value) > _LARGEST:
      raise ValueError(f'`{field.name}` must be at most {_LARGEST}, got '
                       f'{value}.')
    if field.name.endswith('seed') and isinstance(value, int) and value < 0:
      raise ValueError(f'`{field.name}` must be at least 0, got {value}.')
    if isinstance(value, float) and not (
        math.isfinite(value) and abs(value) <= _WIDEST):
      raise ValueError(f'`{field.name}` must be finite and at most '
                       f'{_WIDEST:g}, got {value}.')


def command_name() -> str:
  """As the user typed it: 'python -m experiments.distill'."""
  module = sys.modules['__main__'].__spec__
  name = module.name.removesuffix('.__main__') if module else ''
  return f'python -m {name}' if module else sys.argv[0]


def _more(config_class, jobs, many_hosts) -> dict[str, Any]:
  describe = getattr(config_class, 'describe', None)
  told = [] if describe is None else [describe()]
  told += [] if jobs is None else [engine_flags.HELP]
  told += [distributed.HELP] if many_hosts else []
  return {'epilog': '\n'.join(told)} if told else {}


def _out_of_memory(error) -> bool:
  return isinstance(error, MemoryError) or (
      'RESOURCE_EXHAUSTED' in str(error) or 'ut of memory' in str(error))


def _explain() -> None:
  logging.debug('The error came from here:', exc_info=True)


def _exit_with_usage(error: Exception, *, status: int) -> None:
  sys.stderr.write(f'usage: {command_name()} [--flag=value ...]; --help lists '
                   f'the flags\nerror: {error}\n')
  sys.exit(status)
