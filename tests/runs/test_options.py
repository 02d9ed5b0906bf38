"""Values by the types of their fields."""
from typing import Literal, NamedTuple

import pytest

from dsr.attack import finite, kkt
from dsr.runs import options


class _Config(NamedTuple):
  steps: int = 3
  rate: float | None = None
  span: bool | int | None = None
  form: Literal['a', 'b'] = 'a'
  other: tuple = ()


def test_parses_by_type_and_leaves_out_what_no_text_can_give():
  kinds = options.kinds(_Config)
  assert set(kinds) == {'steps', 'rate', 'span', 'form'}
  parse = lambda name, text: options.parse(name, text, kinds[name])
  assert parse('steps', '7') == 7
  assert parse('rate', '1e-3') == 1e-3
  assert parse('span', 'true') is True
  assert parse('span', '1') == 1
  assert type(parse('span', '1')) is int
  assert parse('form', 'b') == 'b'
  assert options.split(' a=1,,b = x=2 ,c') == [('a', '1'), ('b', 'x=2'),
                                               ('c', '')]


def test_attacks_offer_their_optional_fields():
  assert 'batch' in options.kinds(finite.Config)
  assert {'vertices', 'subspace'} <= set(options.kinds(kkt.Config))
  assert 'prior' not in options.kinds(kkt.Config)


@pytest.mark.errors
@pytest.mark.parametrize(('name', 'text', 'message'), [
    ('steps', '1.5', '`options` must give steps as int'),
    ('span', 'yes', '`options` must give span as bool or int'),
    ('form', 'c', '`options form` must be one of a, b'),
])
def test_refuses_other_texts(name, text, message):
  with pytest.raises(ValueError, match=message):
    options.parse(name, text, options.kinds(_Config)[name])
