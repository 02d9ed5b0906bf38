"""How fast an accelerator runs this library's loops: steps, solves, attacks.

Each function makes one row. Loops run in chunks of steps, as in all commands;
`busy` is the share of time in which the device ran some program, as
`nvidia-smi` samples it, where that is installed.
"""
from collections.abc import Callable
import functools
import shutil
import subprocess
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsr import data as data_lib, kernels, krr, nets, train
from dsr.attack import published as published_lib, release
from dsr.distill import dm as dm_lib, kip as kip_lib, shadows, support, targets
from dsr.loop import run_chunk
from dsr.runs import records
from dsr.studies.reconstruction import reconstruct
from dsr.types import Examples
from experiments.benchmark import measure

_CLASSES = 10
_SAMPLE = 100  # Milliseconds between two looks at the device.


def ceilings(config: Any) -> dict[str, Any]:
  """TFLOP/s of products, by precision, and GB/s of a copy, read and write."""
  n = 8192 // config.shrink
  key = jax.random.key(config.seed)
  found = {}
  for name, dtype, precision in (
      ('float32', 'float32', 'highest'), ('tf32', 'float32', 'default'),
      ('float64', 'float64', 'highest')):
    a, b = jax.random.normal(key, (2, n, n), dtype)
    call = jax.jit(functools.partial(jnp.matmul, precision=precision))
    found[f'{name}_tflops'] = _rate(
        functools.partial(call, a, b), 2e-12 * n**3, config)
  x = jax.random.normal(key, (2**28 // config.shrink**2,), jnp.float32)
  found['copy_gb_s'] = _rate(
      functools.partial(jax.jit(lambda x: -x), x), 8e-9 * x.size, config)
  return found


def regression(config: Any) -> dict[str, Any]:
  """Dense kernel of all training images, and its exact solve in float64.

  The second matrix is timed: programs are compiled with the first.
  """
  splits = _images(config)
  x = jnp.asarray(splits.train.x.reshape(len(splits.train), -1), jnp.float32)
  x = (x - x.mean()) / x.std()
  y = jnp.asarray(data_lib.encode(splits.train.y, _CLASSES), jnp.float32)
  kernel_fn = kernels.fcn(2)
  with measure.alone():
    kernels.gram(kernel_fn, x).delete()
    began = time.perf_counter()
    gram = kernels.gram(kernel_fn, x).block_until_ready()
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    fit = krr.fit_on_device(gram, kernel_fn, Examples(x, y), ridge=1e-4)
    jax.block_until_ready(fit.dual)
    solve = time.perf_counter() - began
  gram.delete()
  test = splits.test.x.reshape(len(splits.test), -1).astype('f4')
  test = (test - splits.train.x.mean()) / splits.train.x.std()
  outputs = krr.predict_in_tiles(fit, test.astype('f4'))
  right = int(np.sum(np.argmax(outputs, axis=1) == splits.test.y))
  return {'examples': len(x), 'gram_s': seconds, 'solve_s': solve,
          'accuracy': records.metric(right / len(test)),
          'residual': float(np.max(fit.info.residual))}


def kip(config: Any, kernel: str = 'fcn1', per_class: int = 10,
        batch: int = 5000) -> dict[str, Any]:
  """Steps of KIP a second, on images of 32 x 32 x 3."""
  batch = max(20, batch // config.shrink**2)
  solver = kip_lib.kip(kernels.by_name(kernel), optax.adam(0.04),
                       batch_size=batch)
  given, start = _random(config, 2 * batch // _CLASSES, per_class)
  return _steps(solver.step, solver.init(jax.random.key(0), start), given,
                config, 100 if kernel == 'fcn1' else 2)


def dm(config: Any) -> dict[str, Any]:
  """Steps of DM a second: 1 image and 256 training images a class."""
  given, start = _random(config, 512 // config.shrink, 1)
  module = nets.ConvNet(_CLASSES, width=128 // config.shrink)
  solver = dm_lib.dm(module, optax.sgd(1.0, momentum=0.5),
                     batch_size=256 // config.shrink,
                     augment=data_lib.siamese.siamese('cifar10'))
  return _steps(solver.step, solver.init(jax.random.key(0), start, given),
                given, config, 20)


def networks(config: Any) -> dict[str, Any]:
  """Network steps a second: ConvNets of width 128 on ten images each."""
  num, steps = max(2, 128 // config.shrink), 100 // config.shrink
  _, start = _random(config, 1, 1)
  run = functools.partial(
      train.fit_networks, jax.random.key(0),
      nets.ConvNet(_CLASSES, width=128 // config.shrink),
      Examples(start.x, start.y), optimizer=optax.adam(1e-3),
      num_steps=steps, num_networks=num)
  run()
  with measure.alone(), _Busy() as busy:
    began = time.perf_counter()
    jax.block_until_ready(run().params)
    seconds = time.perf_counter() - began
  return {'per_s': records.metric(num * steps / seconds), 'busy': busy.share}


def shadow_sets(config: Any) -> dict[str, Any]:
  """Shadow distillations a second: 100 steps of KIP on halves of 2,000."""
  num = max(2, 256 // config.shrink)
  given, _ = _random(config, max(4, 200 // config.shrink), 1)
  x, y = np.asarray(given.x), np.asarray(given.y)
  labels = np.argmax(y, axis=1).astype(np.int32)
  key = jax.random.key(config.seed)
  member = shadows.stratified_halves(key, labels, num)
  solver = kip_lib.kip(kernels.fcn(1), optax.adam(0.04), batch_size=0)
  run = functools.partial(
      shadows.distill_shadows, key, solver, x, y, labels, member,
      images_per_class=1, num_steps=max(10, 100 // config.shrink))
  run()
  with measure.alone(), _Busy() as busy:
    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
  return {'per_s': records.metric(num / seconds), 'busy': busy.share}


def published(config: Any) -> dict[str, Any]:
  """Steps a second of the published attack: N = 200, width 2048, 784 pixels."""
  num, width = 200 // config.shrink, 2048 // config.shrink
  module = nets.MLP(1, widths=(width, width))
  key = jax.random.key(config.seed)
  theta = lambda k: module.init(k, jnp.zeros((1, 28, 28, 1)))['params']
  released = release.parameters(
      module, theta(key), theta(jax.random.fold_in(key, 1)), num_train=num,
      input_shape=(28, 28, 1), num_outputs=1, low=-0.5, high=0.5)
  solver = published_lib.published(released)
  given = published_lib.given(released)
  return _steps(solver.step, solver.init(key, given), given, config, 200)


def attack(config: Any, num: int = 1000) -> dict[str, Any]:
  """The attack on an infinitely wide network: images found, and seconds."""
  num = max(1, num // config.shrink // _CLASSES) * _CLASSES
  with measure.alone(), _Busy() as busy:
    began = time.perf_counter()
    rebuilt = reconstruct.rebuild(reconstruct.Config(
        dataset=config.arrays or 'digits', regime='infinite', num_train=num,
        seed=config.seed))
    seconds = time.perf_counter() - began
  error = rebuilt.scored.score.rmse
  return {'images': num, 'below_0.05': int(np.sum(error < 0.05)),
          'below_0.01': int(np.sum(error < 0.01)), 'seconds': seconds,
          'busy': busy.share}


def _rate(call: Callable, work: float, config) -> records.Metric:
  with measure.alone():
    _, seconds = measure.race({'call': call}, repeats=config.repeats,
                              seconds=config.seconds)
  return measure.quartiles(work / seconds['call'])


def _steps(step, state, data, config, num) -> dict[str, Any]:
  """Steps a second in chunks of `num`, and how busy the device was."""
  num = max(2, num // config.shrink)
  chunk = run_chunk.lower(step, state, data, num_steps=num).compile()
  call = functools.partial(chunk, state, data)
  with measure.alone(), _Busy() as busy:
    _, seconds = measure.race({'call': call}, repeats=10**6,
                              seconds=config.seconds)
  return {'per_s': measure.quartiles(num / seconds['call']),
          'busy': busy.share}


class _Busy:
  """Samples how busy the device is; `share` in [0, 1], None if unknown."""

  share: float | None = None

  def __enter__(self) -> '_Busy':
    self._watch = None
    if jax.default_backend() == 'gpu' and shutil.which('nvidia-smi'):
      self._watch = subprocess.Popen(
          ['nvidia-smi', '--query-gpu=utilization.gpu', '-lms', str(_SAMPLE),
           '--format=csv,noheader,nounits'],
          stdout=subprocess.PIPE, text=True)
    return self

  def __exit__(self, *_) -> None:
    if self._watch is None:
      return
    self._watch.terminate()
    text, _ = self._watch.communicate()
    seen = [float(word) for word in text.split() if word.isdigit()]
    # The driver's number is an average over up to a second before.
    seen = seen[10:] or seen
    self.share = float(np.mean(seen)) / 100 if seen else None


def _images(config) -> Any:
  """The `arrays` of the flags, or digits."""
  splits = data_lib.load(config.arrays or 'digits', seed=config.seed)
  if config.shrink == 1:
    return splits
  rows = slice(len(splits.train) // config.shrink)
  return splits._replace(train=splits.train.take(
      np.arange(len(splits.train))[rows]))


def _random(config, rows, per_class) -> tuple[Any, Any]:
  """(targets, a start) of random images: `rows` and `per_class` a class."""
  side = max(8, 32 // config.shrink)
  rng = np.random.default_rng(config.seed)
  found = []
  for num in (rows, per_class):
    labels = np.repeat(np.arange(_CLASSES), num)
    x = rng.normal(size=(len(labels), side, side, 3)).astype('f4')
    y = np.asarray(data_lib.encode(labels, _CLASSES), 'f4')
    found.append((x, y, labels.astype(np.int32)))
  (x, y, labels), (start, start_y, _) = found
  return targets.targets(x, y, labels), support.support(start, start_y)
