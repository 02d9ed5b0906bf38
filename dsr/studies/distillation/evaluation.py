"""What a distilled set is worth: kernel regression and trained networks."""
import functools
import pathlib
import time
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp

from dsr import kernels, krr, nets, train
from dsr.probes import intervals
from dsr.runs import records
from dsr.studies.distillation.problem import Problem
from dsr.types import Examples, KernelFn

# One program for each shape: several runs in a process then compile once.
fit = jax.jit(krr.fit, static_argnums=0)
kernel_named = functools.lru_cache(kernels.by_name)


def krr_accuracy(kernel_fn: KernelFn, support: Examples, problem: Problem,
                 ridge: float) -> intervals.Interval:
  """Test accuracy of ridge regression on `support`, with a Wilson interval."""
  right = accuracy(kernel_fn, support, problem.inputs(problem.test),
                   problem.test.y, ridge)
  return intervals.wilson(round(right * len(problem.test)), len(problem.test))


def accuracy(kernel_fn: KernelFn, support: Examples, x, y, ridge) -> float:
  """Share of (x, y) that ridge regression on `support` gets right."""
  predict = fit(kernel_fn, support, ridge=ridge)
  try:
    outputs = krr.predict_in_tiles(predict, x, tile=2500)
  except FloatingPointError:  # Of a set that diverged, no prediction is right.
    return 0.0
  return float(krr.accuracy(outputs, y))


def check_kernel(kernel_fn: KernelFn, name: str, shape: tuple[int, ...]
                 ) -> None:
  """Raises a ValueError if the kernel cannot take inputs of `shape`."""
  x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  try:
    jax.eval_shape(kernel_fn.symmetric, x)
  except (ValueError, TypeError, ZeroDivisionError, IndexError) as error:
    raise ValueError(f'`kernel` must take inputs of shape {shape}, and {name} '
                     f'does not: {_first_line(error)}') from error


def check_network(flag: str, name: str, shape: tuple[int, ...],
                  num_outputs: int) -> None:
  """Raises a ValueError if the network cannot take inputs of `shape`.

  Args:
    flag: that names the network, for the message.
    name: for `nets.build`.
    shape: of one input.
    num_outputs: C.
  """
  module = nets.build(name, num_outputs)
  x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  try:
    jax.eval_shape(module.init, jax.random.key(0), x)
  except Exception as error:  # flax, and networks, raise anything.
    raise ValueError(f'`{flag}` must take inputs of shape {shape}, and {name} '
                     f'does not: {_first_line(error)}') from error


def _first_line(error: Exception) -> str:
  return str(error).strip().partition('\n')[0] or type(error).__name__


def siamese(name: str, dataset: str) -> str:
  """'dsa' as the published strategy for `dataset`: digits are not mirrored."""
  if name != 'dsa':
    return name
  name = pathlib.Path(dataset).name
  return 'cifar10' if name.startswith(('cifar', 'stl')) else 'mnist'


_PROTOCOLS = {'frepo': train.FREPO, 'condensation': train.CONDENSATION,
              'dsa': train.SIAMESE, 'idc': train.IDC}


def protocol(config: Any, student_rate: float | None = None) -> train.Protocol:
  """How networks are trained on the set, as the flags have it.

  Args:
    config: of `experiments.distill`, or of another command with its flags.
    student_rate: learned with the set: it is the rate of protocols by SGD,
      unless the flag gives another than the protocol's own.
  """
  chosen = _PROTOCOLS[config.protocol]
  if config.protocol == 'dsa':
    chosen = chosen._replace(
        augment=f'siamese_{siamese("dsa", config.dataset)}')
  if config.protocol == 'idc' and siamese('dsa', config.dataset) == 'mnist':
    chosen = chosen._replace(
        augment=chosen.augment.replace('_flip', ''), cutmix=0.0)
  if config.network_epochs is not None:
    chosen = chosen._replace(epochs=config.network_epochs)
  if config.network_learning_rate not in (None, chosen.learning_rate):
    chosen = chosen._replace(learning_rate=config.network_learning_rate)
  elif student_rate is not None and chosen.optimizer == 'sgd':
    chosen = chosen._replace(learning_rate=student_rate)
  if getattr(config, 'network_batch_size', None) is not None:
    chosen = chosen._replace(batch_size=config.network_batch_size)
  return chosen


def network_accuracies(
    config: Any, examples: Examples, problem: Problem,
    student_rate: float | None = None) -> dict[str, Any]:
  """Test accuracies of networks trained on `examples`, with t intervals.

  Args:
    config: an `experiments.distill.Config`.
    examples: inputs and targets of the distilled set.
    problem: whose test set is used.
    student_rate: see `protocol`.

  Returns:
    `<network>_accuracy` and `<network>_seconds`, of training one and testing
    it, for each of the config; `network_accuracy` is the first's.
  """
  metrics, x_test = {}, problem.inputs(problem.test)
  recipe = protocol(config, student_rate)
  if recipe.loss == 'cross_entropy':
    examples = examples._replace(y=probabilities(examples.y))
  for i, name in enumerate(names(config.networks)):
    began = time.monotonic()
    scores = train.evaluate(
        jax.random.fold_in(jax.random.key(config.seed + 3), i),
        nets.build(name, examples.y.shape[1]), examples, x_test,
        problem.test.y, protocol=recipe, num_networks=config.num_networks)
    seconds = (time.monotonic() - began) / config.num_networks
    mean, low, high = intervals.mean_t(scores.accuracy)
    metrics[f'{name}_accuracy'] = records.metric(  # A share, even for R = 2.
        mean, max(low, 0.0), min(high, 1.0))
    metrics.setdefault('network_accuracy', metrics[f'{name}_accuracy'])
    metrics[f'{name}_seconds'] = records.metric(seconds)
    logging.info('%s: %.1f s a network', name, seconds)
  return metrics


@jax.jit
def probabilities(y: jax.Array) -> jax.Array:
  """Targets of a distilled set as class probabilities (S, K), for softmax.

  The encodings of `problem.encoded` are taken back: +-1 becomes two
  columns, one-hot less 1/C becomes one-hot. What learned labels have below 0
  or above 1 is cut off, and rows are divided by their sum.
  """
  if y.shape[1] == 1:
    p = jnp.concatenate([1 - y, 1 + y], axis=1) / 2
  else:
    p = y + 1 / y.shape[1]
  p = jnp.clip(p, 0, 1)
  total = jnp.sum(p, axis=1, keepdims=True)
  return jnp.where(total > 0, p / jnp.where(total > 0, total, 1),
                   1 / p.shape[1])


def names(flag: str) -> list[str]:
  """The parts of a flag with commas."""
  return [name for name in (part.strip() for part in flag.split(',')) if name]
