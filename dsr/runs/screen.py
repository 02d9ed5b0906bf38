"""The one place that writes to the screen."""
from collections.abc import Iterator, Mapping
import contextlib
import contextvars
from typing import Any

from dsr import hosts

_QUIET = contextvars.ContextVar('quiet', default=False)
_shown: list[bool] = []  # Whether this process has shown something.


def show(*parts: object, sep: str = '\n') -> None:
  """Prints `parts`, unless inside `quiet`; of many processes the first does."""
  if not _QUIET.get():
    _shown[:] = [True]
    if hosts.is_first():
      print(*parts, sep=sep)


def has_shown() -> bool:
  """Whether anything was shown, outside `quiet`, by this process."""
  return bool(_shown)


def metrics(found: Mapping[str, Any]) -> str:
  """Metrics of a record as aligned lines: name, value and 95 % interval.

  Args:
    found: name -> anything with `value`, `low` and `high`.
  """
  wide = max(map(len, found), default=0)
  lines = []
  for name, metric in found.items():
    ends = ('' if metric.low == metric.high == metric.value else
            f' [{metric.low:.4g}, {metric.high:.4g}]')
    lines.append(f'{name.ljust(wide)}  {metric.value:.4g}{ends}')
  return '\n'.join(lines) or 'No metric was measured.'


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Studies that are called in here show nothing, as in a notebook."""
  token = _QUIET.set(True)
  try:
    yield
  finally:
    _QUIET.reset(token)
