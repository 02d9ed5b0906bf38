"""Protocols of evaluation: what networks trained on a distilled set score."""
from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float, Int, Key
import numpy as np
import optax

from dsr import checks
from dsr.data import augment as augmentations
from dsr.train.networks import Trained, correct, fit_networks
from dsr.types import Examples

OPTIMIZERS = ('sgd', 'adam')
SCHEDULES = ('constant', 'cosine', 'step', 'late')


class Protocol(NamedTuple):
  """How a distilled set is turned into networks: plain, hashable values.

  The defaults, `FREPO`, are those of arXiv:2206.00719 and fit learned,
  real-valued labels. `CONDENSATION` is that of arXiv:2006.05929; `SIAMESE` is
  its longer, augmented variant for DSA, DM and MTT (arXiv:2102.08259). `IDC` is
  that of arXiv:2205.14959.

  Attributes:
    epochs: passes over the set; steps, if it fits one batch.
    batch_size: B; sets of at most B examples are trained in full batches.
    optimizer: 'sgd' or 'adam'.
    learning_rate: at the start.
    schedule: 'constant', 'cosine' (to 0), 'step' (a tenth from half-time on) or
      'late' (a fifth from 2/3 of the steps on, a fifth of that from 5/6 on).
    momentum: of 'sgd'; Adam has its usual 0.9 and 0.999.
    weight_decay: added to the gradient in 'sgd', decoupled in 'adam'.
    loss: 'mse' on the encoded targets, or 'cross_entropy' on probabilities:
      one-hot or soft labels.
    augment: drawn anew at each step; a name that `data.augment.by_name` knows.
      What moves into view is 0, the mean of standardised images.
    init_scale: factor on all kernels at the start, see `gradient_descent`. A
      norm cancels it but for the rate of learning, which its inverse square
      multiplies: published figures rest on it.
    cutmix: probability that a batch is mixed, see `data.cutmix`.
  """

  epochs: int = 1000
  batch_size: int = 256
  optimizer: str = 'adam'
  learning_rate: float = 3e-4
  schedule: str = 'constant'
  momentum: float = 0.9
  weight_decay: float = 0.0
  loss: str = 'mse'
  augment: str = 'none'
  init_scale: float = 1.0
  cutmix: float = 0.0


FREPO = Protocol()
CONDENSATION = Protocol(
    epochs=300, optimizer='sgd', learning_rate=0.01, schedule='step',
    weight_decay=5e-4, loss='cross_entropy',
    init_scale=1 / math.sqrt(3))  # As PyTorch starts.
# Digits must not be flipped: `._replace(augment='siamese_mnist')`.
SIAMESE = CONDENSATION._replace(epochs=1000, augment='siamese_cifar10')
# On MNIST without mixing and flips: `._replace(cutmix=0.0, augment=...)`.
IDC = CONDENSATION._replace(
    epochs=1000, batch_size=64, schedule='late', cutmix=0.5,
    augment='layered_color_crop_flip_scale_rotate')


class Evaluation(NamedTuple):
  """Test accuracy of R networks trained on one set.

  Attributes:
    accuracy: (R,) in [0, 1].
    right: (R, N) whether a network is right about an example.
    mean: over the R networks.
    deviation: standard deviation over networks (R - 1 below); NaN for R = 1.
    trained: the networks.
  """

  accuracy: np.ndarray
  right: np.ndarray
  mean: float
  deviation: float
  trained: Trained


@functools.lru_cache(maxsize=64)  # Equal protocols give one compiled program.
def make_optimizer(
    protocol: Protocol, *, num_steps: int) -> optax.GradientTransformation:
  """The optax optimizer of `protocol` for a run of `num_steps` updates.

  Raises:
    ValueError: a field out of its range.
  """
  checks.one_of('optimizer', protocol.optimizer, OPTIMIZERS)
  checks.one_of('schedule', protocol.schedule, SCHEDULES)
  checks.positive('learning_rate', protocol.learning_rate)
  checks.within('momentum', protocol.momentum, 0, 1)
  checks.non_negative('weight_decay', protocol.weight_decay)
  rate = {
      'constant': lambda r: r,
      'cosine': lambda r: optax.cosine_decay_schedule(r, num_steps),
      'step': lambda r: optax.piecewise_constant_schedule(
          r, {max(1, num_steps // 2): 0.1}),
      'late': lambda r: optax.piecewise_constant_schedule(
          r, {max(1, 2 * num_steps // 3): 0.2,
              max(2, 5 * num_steps // 6): 0.2}),
  }[protocol.schedule](protocol.learning_rate)
  if protocol.optimizer == 'adam':
    return optax.adamw(rate, weight_decay=protocol.weight_decay)
  return optax.chain(optax.add_decayed_weights(protocol.weight_decay),
                     optax.sgd(rate, momentum=protocol.momentum))


@functools.lru_cache(maxsize=64)  # One function for a name: compiled once.
def _named_augmentation(name):
  return augmentations.by_name(name)


def evaluate(
    key: Key[Array, ''], module: nn.Module, data: Examples,
    x: Float[Any, 'N ...'], labels: Int[Any, 'N'], *,
    protocol: Protocol = FREPO, num_networks: int = 5,
    augment: Callable | None = None) -> Evaluation:
  """Trains R networks on `data` by `protocol`; scores them on (x, labels).

  Args:
    key: of all that is random.
    module: e.g. `nets.build('convnet3', num_outputs)`.
    data: the distilled set, after `data.transforms`.
    x: test inputs, transformed alike.
    labels: (N,) integers, the true classes of `x`.
    protocol: see `Protocol`; change single values by `_replace`.
    num_networks: R.
    augment: see `gradient_descent`; in place of the name in `protocol`, for
      augmentations with a background of their own.

  Raises:
    ValueError, FloatingPointError: see `fit_networks`; two augmentations.
  """
  checks.inputs('x', x, like=data.x)
  checks.at_least('epochs', protocol.epochs, 1)
  checks.at_least('batch_size', protocol.batch_size, 1)
  named = _named_augmentation(protocol.augment)
  if named is not None and augment is not None:
    raise ValueError("`augment` must be None or the protocol's 'none', got "
                     f'a function and {protocol.augment!r}.')
  num_steps = protocol.epochs * math.ceil(len(data.x) / protocol.batch_size)
  trained = fit_networks(
      key, module, data,
      optimizer=make_optimizer(protocol, num_steps=num_steps),
      num_steps=num_steps, num_networks=num_networks,
      batch_size=protocol.batch_size, loss=protocol.loss,
      augment=augment or named, init_scale=protocol.init_scale,
      cutmix=protocol.cutmix)
  right = correct(trained, x, labels)
  score = np.mean(right, axis=1)
  deviation = float(np.std(score, ddof=1)) if num_networks > 1 else math.nan
  return Evaluation(score, right, float(np.mean(score)), deviation, trained)
