"""The one place that writes to the screen."""
from collections.abc import Iterator
import contextlib
import contextvars

_QUIET = contextvars.ContextVar('quiet', default=False)


def show(*parts: object, sep: str = '\n') -> None:
  """Prints `parts`, unless inside `quiet`."""
  if not _QUIET.get():
    print(*parts, sep=sep)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Studies that are called in here show nothing, as in a notebook."""
  token = _QUIET.set(True)
  try:
    yield
  finally:
    _QUIET.reset(token)
