"""What a distilled set is worth: kernel regression and trained networks."""
import dataclasses
import functools
import pathlib
import time
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr import data as data_lib, kernels, krr, nets, train
from dsr.probes import intervals
from dsr.runs import records
from dsr.studies.distillation.methods.method import family
from dsr.studies.distillation.problem import Problem, encoded
from dsr.types import Examples, KernelFn

FITS = 0.95  # Of its own set, what a network should be right about.

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
# Of MNIST alone, as published: each image gets one of these, 1,000 epochs.
_MOVED = {'augment': 'shift4|stretch0.2|rotate45', 'epochs': 1000}
_DIGITS_RATE = 0.1  # Of SGD, with which networks fit 8 x 8 images.


def protocol(config: Any, student_rate: float | None = None) -> train.Protocol:
  """How networks are trained on the set, as the flags have it.

  Args:
    config: of `experiments.distill`, or of another command with its flags.
    student_rate: learned with the set: it is the rate of protocols by SGD,
      unless the flag gives another than the protocol's own.
  """
  chosen = _PROTOCOLS[config.protocol]
  noisy = getattr(config, 'dp_epsilon', 0)  # DP-SGD was not tried with it.
  if (chosen.optimizer == 'sgd' and family(config.dataset) == 'digits'
      and not noisy):
    chosen = chosen._replace(learning_rate=_DIGITS_RATE)
  if config.protocol == 'condensation' and pathlib.Path(
      config.dataset).name.startswith('mnist'):
    chosen = chosen._replace(**_MOVED)
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


def under(config: Any, name: str) -> Any:
  """`config` with another protocol, whose own rate and epochs it then has.

  Unless its flags ask for another number of epochs than that of theirs.
  """
  if name == config.protocol:
    return config
  usual = protocol(dataclasses.replace(
      config, network_epochs=None, network_learning_rate=None)).epochs
  epochs = None if config.network_epochs == usual else config.network_epochs
  return dataclasses.replace(
      config, protocol=name, network_epochs=epochs, network_learning_rate=None)


def network_accuracies(
    config: Any, examples: Examples, problem: Problem,
    student_rate: float | None = None, labels: np.ndarray | None = None
) -> dict[str, Any]:
  """Test accuracies of networks trained on `examples`, with intervals.

  Args:
    config: an `experiments.distill.Config`.
    examples: inputs and targets of the distilled set.
    problem: whose test set is used.
    student_rate: see `protocol`.
    labels: (S,) classes of the set: where they do not encode to the targets,
      networks are trained on them as well, as hard labels.

  Returns:
    For each network of the config `<network>_accuracy`, over networks and test
    examples; `<network>_train_accuracy` and `<network>_train_loss`, on the
    set itself; `<network>_seconds`, of training one and testing it. With hard
    labels `<network>_hard_accuracy` and so on. `network_accuracy` is the
    first's.
  """
  metrics, recipe = {}, protocol(config, student_rate)
  key = jax.random.key(config.seed + 3)
  for i, name in enumerate(names(config.networks)):
    found = trained_on(jax.random.fold_in(key, i), name, examples, problem,
                       recipe, config.num_networks, labels)
    metrics |= {f'{name}_{what}': metric for what, metric in found.items()}
    metrics.setdefault('network_accuracy', found['accuracy'])
  return metrics


def trained_on(
    key: jax.Array, name: str, examples: Examples, problem: Problem,
    recipe: train.Protocol, num_networks: int,
    labels: np.ndarray | None = None) -> dict[str, Any]:
  """The metrics of one network, as in `network_accuracies`."""
  found = _scores(key, name, examples, problem, recipe, num_networks)
  if labels is not None:
    hard = hard_labels(examples, labels, problem)
    if hard is not None:
      found |= {f'hard_{what}': metric for what, metric in _scores(
          key, name, hard, problem, recipe, num_networks).items()}
  return found


def hard_labels(examples: Examples, labels: np.ndarray, problem: Problem
                ) -> Examples | None:
  """`examples` with encoded classes as targets, or None if they have those."""
  y = encoded(dataclasses.replace(problem.train, y=labels))
  same = np.allclose(y, examples.y, atol=1e-5)
  return None if same else examples._replace(y=y.astype(examples.y.dtype))


def _scores(key, name, examples, problem, recipe, num_networks):
  began = time.monotonic()
  if recipe.loss == 'cross_entropy':
    examples = examples._replace(y=probabilities(examples.y))
  scores = train.evaluate(
      key, nets.build(name, examples.y.shape[1]), examples,
      problem.inputs(problem.test), problem.test.y, protocol=recipe,
      num_networks=num_networks)
  own = train.accuracy(
      scores.trained, examples.x, np.asarray(data_lib.decode(examples.y)))
  loss = scores.trained.curve[-max(1, len(scores.trained.curve) // 20):]
  seconds = (time.monotonic() - began) / num_networks
  logging.info('%s: %.1f s a network, %.1f %% on the set itself', name,
               seconds, 100 * own.mean())
  if own.mean() < FITS:
    logging.warning(
        '%s does not fit its own set: %.1f %% of it after training (loss '
        '%.3g), so its test accuracy says little of the set. Raise '
        '`network_epochs` or `network_learning_rate`, or choose another '
        '`protocol`.', name, 100 * own.mean(), loss.mean())
  share = lambda mean, low, high: records.metric(  # Even for two networks.
      mean, max(low, 0.0), min(high, 1.0))
  return {'accuracy': share(*intervals.crossed(scores.right)),
          'train_accuracy': share(*intervals.mean_t(own)),
          'train_loss': records.metric(*intervals.mean_t(loss.mean(0))),
          'seconds': records.metric(seconds)}


def tell(metrics: dict[str, Any]) -> None:
  """Logs all accuracies with their intervals."""
  for name, value in metrics.items():
    if name.endswith('accuracy'):
      logging.info('%s = %.2f %% [%.2f, %.2f]', name,
                   *(100 * v for v in (value.value, value.low, value.high)))


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
