"""Values in a flag of `name=value` parts, by the types of a configuration."""
import types
import typing
from typing import Any, Literal

from dsr import checks

_BOOLS = {'true': True, 'false': False}
_PLAIN = (bool, int, float, str)


def split(flag: str) -> list[tuple[str, str]]:
  """(name, value) of each part; the value is '' where there is no '='."""
  parts = (part.partition('=') for part in flag.split(',') if part.strip())
  return [(name.strip(), value.strip()) for name, _, value in parts]


def kinds(config_class: type) -> dict[str, Any]:
  """Fields of a dataclass or NamedTuple that a text can give, with types."""
  hints = typing.get_type_hints(config_class)
  return {name: kind for name, kind in hints.items() if _plain(kind)}


def parse(name: str, text: str, kind: Any) -> Any:
  """`text` as a value of `kind`: plain, one of several, optional or a choice.

  Raises:
    ValueError: it is none; names `options` and the option.
  """
  if typing.get_origin(kind) is Literal:
    checks.one_of(f'options {name}', text, typing.get_args(kind))
    return text
  for plain in _plain(kind):
    try:
      return _BOOLS[text.lower()] if plain is bool else plain(text)
    except (KeyError, ValueError):
      continue
  wanted = ' or '.join(plain.__name__ for plain in _plain(kind))
  raise ValueError(f'`options` must give {name} as {wanted}, got {text!r}.')


def _plain(kind) -> list[type]:
  """The plain types that `kind` allows."""
  if typing.get_origin(kind) is Literal:
    return [str]
  union = isinstance(kind, types.UnionType)
  return [k for k in (typing.get_args(kind) if union else (kind,))
          if k in _PLAIN]
