"""Which products of a program leave their precision to the device.

On accelerators the default rounds float32 factors to TF32 or bfloat16, ten or
seven bits, which is none of the digits that distances of kernels keep.
"""
from collections.abc import Callable, Iterator
import contextlib
import traceback

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params, primitives
import pytest

PRODUCTS = ('dot_general', 'conv_general_dilated')
_HIGHEST = jax.lax.Precision.HIGHEST


def _is_exact(precision) -> bool:
  both = precision if isinstance(precision, tuple) else (precision,) * 2
  return both == (_HIGHEST, _HIGHEST)


def products(jaxpr: Jaxpr) -> Iterator:
  """All products, also those within loops, branches, calls and solves."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in PRODUCTS:
      yield eqn
    for inner in jaxprs_in_params(eqn.params):
      yield from products(inner)


def check_program(fn: Callable, *args, fewest: int = 1) -> None:
  """Every product of `fn` says HIGHEST, and there are some.

  Args:
    fn: to be traced.
    *args: its arguments; shapes and dtypes will do.
    fewest: products that there must be, or the test would show nothing.
  """
  found = list(products(jax.make_jaxpr(fn)(*args).jaxpr))
  assert len(found) >= fewest
  vague = [eqn for eqn in found if not _is_exact(eqn.params['precision'])]
  assert not vague, '\n'.join(
      f'{eqn}\n  in {eqn.source_info.traceback}' for eqn in vague)


@contextlib.contextmanager
def checked_run(fewest: int = 1):
  """Every product that is traced within says HIGHEST, and there are some.

  For what is driven from the host: programs, and what is computed op by op.
  """
  jax.clear_caches()  # What is traced already would not be seen.
  vague, count = [], 0
  with pytest.MonkeyPatch.context() as patch:
    for name in PRODUCTS:
      primitive = getattr(primitives, f'{name}_p')

      def bind(*args, bind=primitive.bind, **params):
        nonlocal count
        count += 1
        if not _is_exact(params['precision']):
          stack = traceback.extract_stack()
          if any(frame.name == 'eval_shape' for frame in stack):
            return bind(*args, **params)  # It is never computed.
          own = [frame for frame in stack if 'site-packages' not in frame[0]]
          vague.append(''.join(traceback.format_list(own[-4:-1])))
        return bind(*args, **params)

      patch.setattr(primitive, 'bind', bind)
    yield
  assert count >= fewest
  assert not vague, '\n'.join(dict.fromkeys(vague))
