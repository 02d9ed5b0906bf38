"""What the benchmark times: kernels of ours, of neural-tangents, and a matmul.

Each builder makes the inputs of a case and, on them, the calls of all sides:
{'matmul': ..., 'ours': ..., 'nt': ...}, the last where it is installed.
"""
from collections.abc import Callable
import functools
from importlib import metadata
import math
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from dsr import data as data_lib, kernels, krr
from dsr.distill import kip
from dsr.kernels import stax
from dsr.types import Examples, KernelFn
from experiments.benchmark.measure import Call

ABSENT = 'not installed'
_CLASSES = 10


class Case(NamedTuple):
  """One line of a table.

  Attributes:
    name: also the prefix of its metrics.
    kernel: for `kernels.by_name`.
    rows: of the kernel matrix.
    cols: of the kernel matrix.
    shape: of one input.
    nt_size: rows and cols for neural-tangents, if it cannot take all.
    goal: what we hope to see.
  """

  name: str
  kernel: str
  rows: int
  cols: int
  shape: tuple[int, ...]
  nt_size: int | None = None
  goal: str = ''

  def shrunk(self, factor: int) -> Self:
    """The same with all sizes divided by `factor`."""
    fewer = lambda size: None if size is None else max(2, size // factor)
    shape = self.shape
    if len(shape) == 3:
      side = max(8, shape[0] // factor)  # Three times halved by pooling.
      shape = (side, side, shape[2])
    return self._replace(rows=fewer(self.rows), cols=fewer(self.cols),
                         nt_size=fewer(self.nt_size), shape=shape)


Builder = Callable[[Case, int], dict[str, Call]]


def product_calls(case: Case, seed: int) -> dict[str, Call]:
  """K(x1, x2) of vectors beside x1 @ x2.T."""
  one, two = _inputs(case, seed)
  sides = {'matmul': _matmul} | {
      side: kernel_fn.cross for side, kernel_fn in _kernels(case.kernel)}
  return {side: functools.partial(jax.jit(f), one.x, two.x)
          for side, f in sides.items()}


def loss_calls(case: Case, seed: int) -> dict[str, Call]:
  """KIP's loss and its gradient in the support, beside batch @ support.T."""
  batch, support = _inputs(case, seed)

  def value_and_gradient(kernel_fn):
    def loss(x, y, batch):
      predict = krr.fit(kernel_fn, Examples(x, y))
      return kip.batch_loss(predict(batch.x), batch.y, 'mse')
    return functools.partial(
        jax.jit(jax.value_and_grad(loss)), support.x, support.y, batch)

  return {'matmul': functools.partial(jax.jit(_matmul), batch.x, support.x)} | {
      side: value_and_gradient(kernel_fn)
      for side, kernel_fn in _kernels(case.kernel)}


def image_calls(case: Case, seed: int) -> dict[str, Call]:
  """K(x1, x2) of images; neural-tangents gets the first `nt_size` of each."""
  one, two = _inputs(case, seed)
  sizes = {'ours': None, 'nt': case.nt_size}
  return {side: functools.partial(
              jax.jit(kernel_fn.cross), one.x[:sizes[side]],
              two.x[:sizes[side]])
          for side, kernel_fn in _kernels(case.kernel)}


def gram_calls(case: Case, seed: int) -> dict[str, Call]:
  """`kernels.gram`, K(x, x) tile by tile, beside x @ x.T."""
  x = _inputs(case, seed)[0].x
  return {'matmul': functools.partial(jax.jit(_matmul), x, x),
          'ours': functools.partial(
              kernels.gram, kernels.by_name(case.kernel), x)}


def _matmul(x1, x2):
  """x1 @ x2.T in full float32, as the kernels need it, on accelerators too."""
  return jnp.matmul(x1, x2.T, precision='highest')


def _inputs(case: Case, seed: int) -> tuple[Examples, Examples]:
  """Noisy copies of one centre a class: (N, ...) and (M, ...) of them."""
  n, m = case.rows, case.cols
  key_y, key_centre, key_noise = jax.random.split(jax.random.key(seed), 3)
  y = jax.random.randint(key_y, (n + m,), 0, _CLASSES)
  x = jax.random.normal(
      key_centre, (_CLASSES, *case.shape), jnp.float32)[y]
  x += jax.random.normal(key_noise, x.shape, jnp.float32)
  targets = data_lib.encode(np.asarray(y), _CLASSES)
  return Examples(x[:n], targets[:n]), Examples(x[n:], targets[n:])


def _kernels(name: str) -> list[tuple[str, KernelFn]]:
  """('ours', kernel) and, where installed, ('nt', the same network's)."""
  found = [('ours', kernels.by_name(name))]
  if nt_version() != ABSENT:
    nt = stax.load()
    _, _, kernel_fn = nt.stax.serial(*_nt_layers(nt.stax, name))
    found.append(('nt', stax.kernel(kernel_fn)))
  return found


def _nt_layers(s, name: str) -> list:
  """The layers of `kernels.by_name(name)`, as neural-tangents has them."""
  scales = {'W_std': math.sqrt(2), 'b_std': 0.1}
  dense = s.Dense(1, **scales)
  hidden = [dense, s.Relu()]
  block = [s.Conv(1, (3, 3), padding='SAME', **scales), s.Relu()]
  pool = s.AvgPool((2, 2), (2, 2))
  return {
      'fcn1': [*hidden, dense],
      'fcn2': [*hidden * 2, dense],
      'convnet3_nopool': [*block * 3, s.Flatten(), dense],
      'convnet3': [*[*block, pool] * 3, s.Flatten(), dense],
      'myrtle5': [*block * 2, pool, *block, pool, *block, s.GlobalAvgPool(),
                  dense],
  }[name]


def nt_version() -> str:
  """Of neural-tangents, or `ABSENT`."""
  try:
    return metadata.version('neural-tangents')
  except metadata.PackageNotFoundError:
    return ABSENT
