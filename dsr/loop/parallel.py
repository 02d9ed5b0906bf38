"""How many equal jobs an accelerator works on at once.

On CPUs one job fills the cores, and a batched matrix product is slower than
its parts. An accelerator wants many, but what they hold must fit its memory.
"""
from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params
from jaxtyping import PyTree

from dsr import checks, numerics

_MOST = 128  # Jobs at once: more of them keep a device no busier.


def pick_parallel(
    parallel: int | None, num: int, step: Callable, state: PyTree, data: Any
) -> int:
  """Jobs in one vmap; the others wait their turn.

  None is 1 on CPUs. On accelerators it is all of them, or as many in equal
  rounds as are at most 128 and keep what their steps write within
  `numerics.working_memory`. That is an upper bound of what they hold, for the
  compiler writes less, and what is not used any more makes room.

  Args:
    parallel: what the user wants; None: see above.
    num: of all jobs.
    step: (state, data) -> (state, info), of one job.
    state: of one job, or its shapes and dtypes.
    data: of one job, or its shapes and dtypes.

  Raises:
    ValueError: `parallel` below 1.
  """
  if parallel is not None:
    checks.at_least('parallel', parallel, 1)
    return min(parallel, num)
  if numerics.on_cpu():
    return 1
  each = _bytes_written(jax.make_jaxpr(step)(state, data).jaxpr)
  most = min(_MOST, num, max(1, numerics.working_memory() // max(each, 1)))
  return math.ceil(num / math.ceil(num / most))


def one_of(stacked: PyTree) -> PyTree:
  """Shape and dtype of one job of those stacked along the first axis."""
  return jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), stacked)


def _bytes_written(jaxpr: Jaxpr) -> int:
  """Of all results; a loop's body counts once, as its turns share memory."""
  total = 0
  for eqn in jaxpr.eqns:
    total += sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize
                 for v in eqn.outvars)
    total += sum(map(_bytes_written, jaxprs_in_params(eqn.params)))
  return total
