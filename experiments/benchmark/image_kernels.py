"""Pooled image kernels on an accelerator: XLA, fused stages, joint maps.

Each side takes as many entries as suit it, so the figures are entries a
second. `joint` is neural-tangents' way to compute, see `joint_maps`, with as
many pairs at once as were fastest on one H100.
"""
import functools
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp

from dsr import kernels
from dsr.kernels.fused import build
from dsr.runs import records
from experiments.benchmark import joint_maps, measure

_SIDE, _CHANNELS = 32, 3


class Case(NamedTuple):
  """One kernel.

  Attributes:
    name: for `kernels.by_name`.
    joint: rows and columns of its matrix for joint maps.
    xla: those for the kernel as XLA compiles it.
    fused: those for fused stages.
  """

  name: str
  joint: int
  xla: int
  fused: int


CASES = (Case('convnet3', 8, 24, 160), Case('myrtle5', 6, 16, 128),
         Case('myrtle10', 6, 12, 96))


def rate_row(name: str, gradient: bool, config: Any) -> dict[str, Any]:
  """Entries a second of each side, and their ratios; one of `CASES`."""
  case, = (case for case in CASES if case.name == name)
  found = {'case': case.name + ('_gradient' if gradient else '')}
  rates = {}
  for side, (size, call) in _calls(case, config, gradient).items():
    logging.info('%s: %s', found['case'], side)
    with measure.alone():
      _, seconds = measure.race(
          {side: call}, repeats=config.repeats, seconds=config.seconds)
    rates[side] = size**2 / seconds[side]
    found[side] = measure.quartiles(rates[side])
  for one, other in (('xla', 'joint'), ('fused', 'joint'), ('fused', 'xla')):
    if one in found:
      found[f'{one}_per_{other}'] = records.metric(
          found[one].value / found[other].value)
  return found


def _calls(case, config, gradient):
  """{side: (rows and columns, call)}."""
  platform = 'cpu' if jax.default_backend() == 'cpu' else 'cuda'
  ways = {'joint': (case.joint, functools.partial(
              joint_maps.kernel, case.name)),
          'xla': (case.xla, kernels.by_name(case.name).cross)}
  if build.compiler(platform) is not None:
    ways['fused'] = case.fused, kernels.by_name(case.name + '_fused').cross
  side = max(8, _SIDE // config.shrink)

  def call(size, fn):
    """Compiled before the clock runs, and beside what others compile."""
    size = max(2, size // config.shrink)
    x1, x2 = (jax.random.normal(
        key, (size, side, side, _CHANNELS), jnp.float32)
        for key in jax.random.split(jax.random.key(config.seed)))
    if gradient:
      fn = jax.value_and_grad(lambda x1, x2, fn=fn: jnp.sum(fn(x1, x2)))
    compiled = jax.jit(fn).lower(x1, x2).compile()
    return size, functools.partial(compiled, x1, x2)

  return {side: call(*way) for side, way in ways.items()}
