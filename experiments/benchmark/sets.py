"""What the benchmark times of distilled sets: DM's step, coreset distances.

Each builder makes the inputs of a case and the calls of both sides, as in
`experiments.rivals`: {'matmul': ..., 'ours': ...}.
"""
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsr import data as data_lib, nets
from dsr.distill import distances, dm, support, targets
from experiments.benchmark.kernels import Case
from experiments.benchmark.measure import Call

_CLASSES = 10
_BLOCK = 8  # Images whose patches are one factor of a product.


def step_calls(case: Case, seed: int) -> dict[str, Call]:
  """A DM step beside the matrix products that its convolutions are.

  The rows of the case are training images a class, its columns distilled
  images a class. The training images take one product a layer; distilled ones
  take three, as both factors get gradients.
  """
  rng = np.random.default_rng(seed)
  one_hot = lambda labels: data_lib.encode(labels, _CLASSES)
  draw = lambda n: rng.normal(size=(n * _CLASSES, *case.shape)).astype('f4')
  labels = np.repeat(np.arange(_CLASSES), case.rows)
  data = targets.targets(draw(case.rows), one_hot(labels), labels)
  labels = np.repeat(np.arange(_CLASSES), case.cols)
  start = support.support(draw(case.cols), one_hot(labels))
  module = nets.build(case.kernel, _CLASSES)
  solver = dm.dm(
      module, optax.sgd(1.0, momentum=0.5), batch_size=case.rows,
      augment=data_lib.siamese.siamese('mnist'))
  state = solver.init(jax.random.key(seed), start, data)
  images = _CLASSES * (case.rows + 3 * case.cols)
  return {'matmul': _products(module, case.shape, images, rng),
          'ours': functools.partial(jax.jit(solver.step), state, data)}


def _products(module, shape, images, rng) -> Call:
  """Products as large as those of `images` forward passes of a ConvNet."""
  pairs, side, channels = [], shape[0], shape[2]
  for _ in range(module.depth):
    pixels, size = _BLOCK * side * side, 9 * channels
    pairs.append(tuple(jnp.asarray(rng.normal(size=s).astype('f4')) for s in (
        (pixels, size), (size, module.width))))
    side, channels = side // 2, module.width

  @jax.jit
  def run(pairs):
    def body(total, _):
      outs = [jnp.matmul(a, b + total, precision='highest') for a, b in pairs]
      return sum(out[0, 0] for out in outs) * 1e-9, None  # None is hoisted.

    return jax.lax.scan(
        body, jnp.float32(0), None, length=math.ceil(images / _BLOCK))[0]

  return functools.partial(run, pairs)


def distance_calls(case: Case, seed: int) -> dict[str, Call]:
  """All l2 distances of a class beside x @ x.T; both end on the host."""
  x = np.random.default_rng(seed).random(
      (case.rows, *case.shape), dtype=np.float32)
  product = jax.jit(lambda x: jnp.matmul(x, x.T, precision='highest'))
  return {'matmul': lambda: np.asarray(product(x)),
          'ours': functools.partial(distances.pairwise, x)}
