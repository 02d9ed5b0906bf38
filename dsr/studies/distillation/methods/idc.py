"""Efficient parameterisation, IDC, by the flags of `experiments.distill`."""
import functools
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from dsr import checks, data as data_lib, nets
from dsr.distill import formations, idc as idc_lib, support as support_lib
from dsr.studies.distillation import evaluation
from dsr.studies.distillation.methods import learning
from dsr.studies.distillation.methods.method import (
    Learned,
    Method,
    convnet,
    family,
    optimizer,
    options_of,
)
from dsr.studies.distillation.problem import Problem, refuse_tables
from dsr.types import Examples

_MOMENTUM = 0.5


class Options(NamedTuple):
  """Of IDC.

  Attributes:
    network: whose gradients are matched; None: of `method.convnet`.
    factor: tiles a side of a stored image; 1 is IDC-I, without formations;
      None: 2, but 1 for digits, of whose 8 x 8 pixels a tile would have 4 x 4.
    metric: between gradients; auto: published for the data.
    inner: rounds of all classes with one network.
    network_rate: of gradient descent on the network.
    network_examples: training images that it sees after each round; None:
      published for the data.
    cutmix: probability that its batches are mixed; None: published.
  """

  network: str | None = None
  factor: int | None = None
  metric: Literal['auto', 'mse', 'l1'] = 'auto'
  inner: int = 100
  network_rate: float = 0.01
  network_examples: int | None = None
  cutmix: float | None = None


def options(config: Any) -> Options:
  """The options with what is left open, by the data.

  Published: on CIFAR-10 'mse' and 2,000 examples, on MNIST 'l1' and 500;
  batches mixed with probability 1/2, but for MNIST with a factor above 1.

  Raises:
    ValueError: no such option, or a value of another type.
  """
  own = options_of(IDC, config.options)
  photographs = family(config.dataset) == 'cifar'
  if own.factor is None:
    own = own._replace(factor=1 if family(config.dataset) == 'digits' else 2)
  if own.metric == 'auto':
    own = own._replace(metric='mse' if photographs else 'l1')
  if own.network_examples is None:
    own = own._replace(network_examples=2000 if photographs else 500)
  if own.cutmix is None:
    own = own._replace(cutmix=0.5 if photographs or own.factor == 1 else 0.0)
  return own._replace(network=own.network or convnet(config.dataset))


def _augment(config: Any) -> str:
  """The published strategy: cutout but for MNIST with a factor above 1."""
  photographs = family(config.dataset) == 'cifar'
  cut = photographs or options(config).factor == 1
  return 'color_crop_cutout' if cut else 'color_crop'


def _distil(config, kernel_fn, problem, baseline) -> Learned:
  own, classes = options(config), problem.train.num_classes
  training = config.augment
  if own.cutmix:  # Which covers enough.
    training = '_'.join(
        o for o in training.split('_') if o != 'cutout') or 'none'
  solver = idc_lib.idc(
      nets.build(own.network, classes),
      optimizer(config, functools.partial(optax.sgd, momentum=_MOMENTUM)),
      factor=own.factor, metric=own.metric, inner=own.inner,
      transform=problem.transform.apply, batch_size=config.batch_size,
      network_rate=own.network_rate, network_examples=own.network_examples,
      augment=_layered(config.augment, shared=True),
      augment_training=_layered(training, shared=False), cutmix=own.cutmix)

  def view(stored: Examples) -> Examples:
    shown = formations.decode_classes(*stored, own.factor, classes)
    return shown._replace(x=problem.transform.apply(shown.x))

  data = learning.targets_of(problem)
  learned = learning.learn(
      config, kernel_fn, problem, baseline, solver, data, data,
      remedies=('learning_rate', 'network_rate'),
      first=_start(config, own, problem, baseline), view=view)
  return learned._replace(labels=np.repeat(np.arange(classes), len(
      learned.examples.x) // classes).astype(problem.start.y.dtype))


def _start(config, own, problem, baseline) -> support_lib.Support:
  """Pixels: the random subset, small copies of more images, or noise."""
  key = jax.random.key(config.seed + 1)
  x = problem.start.x
  if config.init == 'noise':
    x = np.clip(0.5 + support_lib.noise_like(key, x, 0.25), 0, 1)
  elif own.factor > 1:
    rows = data_lib.balanced_rows(
        key, problem.train.y, _images(config, own), problem.train.num_classes)
    images = problem.train.x[rows].reshape(
        problem.train.num_classes, -1, *x.shape[1:])
    x = np.concatenate([formations.mixed(i, own.factor) for i in images])
  return support_lib.support(x, baseline.y)


def _images(config, own) -> int:
  """Images of a class that networks see."""
  return config.images_per_class * own.factor**2


def _layered(strategy: str, *, shared: bool):
  if strategy == 'none':
    return None
  return data_lib.siamese.layered(strategy, shared=shared)


def _check(config: Any) -> None:
  own = options(config)
  checks.at_least('batch_size', config.batch_size, 1)
  checks.at_least('options factor', own.factor, 1)
  checks.at_least('options inner', own.inner, 1)
  checks.at_least('options network_examples', own.network_examples, 0)
  checks.positive('options network_rate', own.network_rate)
  checks.within('options cutmix', own.cutmix, 0, 1)
  with checks.renamed(name='options network'):
    nets.check_name(own.network)
  if config.corruption:
    raise ValueError('`corruption` must be 0 with idc, which keeps pixels in '
                     f'[0, 1], got {config.corruption}.')
  _layered(config.augment, shared=True)


def _check_data(config: Any, problem: Problem) -> None:
  own = options(config)
  refuse_tables('method', config.method, problem)
  evaluation.check_network(
      'options network', own.network, problem.train.x.shape[1:],
      problem.train.num_classes)
  smallest = np.bincount(
      problem.train.y, minlength=problem.train.num_classes).min()
  if config.init == 'real' and _images(config, own) > smallest:
    raise ValueError(
        f'`images_per_class` must be at most {smallest // own.factor**2} with '
        f'{own.factor**2} images in a stored one, as a class has no more than '
        f'{smallest}; got {config.images_per_class}.')


# Of pixels in [0, 1], with ten images a class; in proportion to their number,
# as published, but for digits: see BUILD_NOTES.
_RATE = {'digits': 3e-4, 'mnist': 1e-4, 'cifar': 5e-3}


def _of_data(config: Any) -> dict[str, Any]:
  rate = _RATE[family(config.dataset)] * config.images_per_class / 10
  return {'learning_rate': rate, 'augment': _augment(config)}


IDC = Method(
    _distil, 'gradient matching of enlarged tiles (arXiv:2205.14959)',
    {'batch_size': 64, 'keep': 'last'},
    frozenset({'augment', 'ema', 'max_minutes'}),
    options=Options, check=_check, check_data=_check_data, from_noise=True,
    of_data=_of_data)
