"""What every binary does first: flags, precision, errors without tracebacks."""
from collections.abc import Callable
import logging as std_logging
import sys
from typing import Any

from absl import app, flags, logging
from etils import eapp
import jax


def launch(config_class: type, run: Callable[[Any], Any]) -> None:
  """Parses the flags of `config_class` and calls `run` on the result.

  Turns x64 on: small solves then use float64, data stay float32. Unknown
  flags and bad values end with a usage line and exit status 2 or 1, not with a
  traceback; `--verbosity=1` shows it.
  """
  parse = eapp.make_flags_parser(config_class, prog=_command())

  def parse_or_exit(argv):
    try:
      return parse(argv)
    except flags.Error as error:
      _exit_with_usage(error, status=2)

  def main(config):
    jax.config.update('jax_enable_x64', True)
    try:
      run(config)
    except ValueError as error:
      logging.debug('The error came from here:', exc_info=True)
      _exit_with_usage(error, status=1)
    except (FloatingPointError, ImportError) as error:  # They say what to do.
      logging.debug('The error came from here:', exc_info=True)
      sys.exit(f'error: {error}')
    except KeyboardInterrupt:
      sys.exit(130)  # As shells have it: 128 + SIGINT.

  logging.set_verbosity(logging.INFO)
  # At this level jax lists the accelerators that it did not find.
  std_logging.getLogger('jax').setLevel(std_logging.WARNING)
  app.run(main, flags_parser=parse_or_exit)


def _command() -> str:
  module = sys.modules['__main__'].__spec__
  name = module.name.removesuffix('.__main__') if module else ''
  return f'python -m {name}' if module else sys.argv[0]


def _exit_with_usage(error: Exception, *, status: int) -> None:
  sys.stderr.write(f'usage: {_command()} [--flag=value ...]; --help lists the '
                   f'flags\nerror: {error}\n')
  sys.exit(status)
