"""Distils a dataset and says what the result is worth.

The command is `experiments.distill`; its docstring has an example, and what
it writes.
"""
import dataclasses
import time
from typing import Any, Literal, NamedTuple

from absl import logging
import jax

from dsr import checks, data as data_lib, hosts, kernels, nets
from dsr.runs import jobs, records
from dsr.studies.distillation import evaluation, results
from dsr.studies.distillation.methods import table
from dsr.studies.distillation.methods.method import Learned
from dsr.studies.distillation.problem import (
    Problem,
    encoded,
    prepare,
    refuse_tables,
)
from dsr.types import KernelFn, Status


@dataclasses.dataclass(frozen=True)
class Config:
  """Distils a dataset and evaluates the result."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  method: str = 'kip'  # One of those listed at the end of --help.
  images_per_class: int | str = 10  # Or a number for each class: 3:1:2.
  kernel: str = 'fcn1'  # Of an infinite network: fcn2, convnet3, myrtle5, ...
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  # Whether the images start from real ones or from noise.
  init: Literal['real', 'noise'] = 'real'
  learn_labels: bool = False  # Whether the labels are learned too (kip, rkip).
  # Between the targets and the predictions of kip.
  loss: Literal['mse', 'cross_entropy'] = 'mse'
  # kip: flip+shift2+...; dm, dsa, mtt: dsa, color_crop, ...; idc: color_crop,
  # cutout, ...
  augment: str | None = None
  corruption: float = 0.0  # Share of pixels frozen to noise (kip, rkip, dm).
  min_distance: float = 0.0  # Least RMS difference to training images (kip).
  ridge: float = 1e-6  # Relative to tr(K)/n.
  steps: int | None = None  # Of the optimizer; unset: 1000.
  max_minutes: float | None = None  # That the steps may take; unset: any time.
  # Unset: Adam 0.04, SGD of dm 1.0; of frepo, dc, dsa, idc, mtt by data set.
  learning_rate: float | None = None
  # Of the learning rate; cosine: down to 1/50 of it, with frepo to 1/10.
  schedule: Literal['constant', 'cosine'] = 'constant'
  # Examples a step, 0 for all; of dm, dc, dsa and idc for each class, of mtt
  # distilled ones.
  batch_size: int | None = None
  eval_every: int = 100  # Steps between two looks at the validation split.
  # The set after the last step, or the one that is best on the validation
  # split; auto: what is usual for the method.
  keep: Literal['auto', 'best', 'last'] = 'auto'
  ema: float = 0.0  # Decay of a moving average that is kept; 0 for none.
  # Share of the training set that is held out, at most 5000 examples; unset:
  # 0.1, but 0 with methods that pick nothing on it (mfc, kcenter, ...).
  validation: float | None = None
  network_width: int = 1024  # Of the MLP that rkip_finite attacks.
  dm_network: str = 'convnet3'  # Whose random features dm matches.
  # What herding, kcenter and kmedoids measure distances of.
  features: Literal['pixels', 'network'] = 'pixels'
  norm: Literal['l1', 'l2', 'linf'] = 'l2'  # Of distances (kcenter, mfc, ...).
  cover: Literal['exact', 'lp', 'greedy'] = 'exact'  # How mfc is solved.
  # Whether each class has as many images, or mfc divides them.
  budget: Literal['per_class', 'total'] = 'per_class'
  eta: float | None = None  # Radius for mfc, instead of images_per_class.
  time_limit: float = 60.0  # Seconds a class for mfc.
  score_network: str = 'convnet3'  # Of features=network and el2n.
  score_epochs: int = 2  # Of its training on the whole training set.
  score_networks: int = 3  # Random starts that el2n averages.
  # Which images of each class el2n keeps.
  el2n_keep: Literal['balanced', 'easiest', 'hardest'] = 'balanced'
  networks: str = 'mlp,convnet3'  # Trained on the result; '' for none.
  num_networks: int = 5  # Random starts of each.
  # How networks are trained. frepo: Adam on soft labels; condensation: SGD, 300
  # epochs (of mnist 1000, of moved images); dsa: SGD, 1000 epochs of augmented
  # images; idc: that, in batches of 64, with CutMix for photographs.
  protocol: Literal['frepo', 'condensation', 'dsa', 'idc'] = 'frepo'
  network_epochs: int | None = None  # On the distilled set; unset: protocol's.
  # Unset: the protocol's; of mtt, where that is SGD, the one it has learned.
  network_learning_rate: float | None = None
  # Options that the method alone has: name=value with commas between them, e.g.
  # rate=0.1,size=3. An unknown one lists those of the method.
  options: str = ''
  seed: int = 0  # Of all that is drawn.
  fresh: bool = False  # Whether to start over, whatever the workdir has.
  workdir: str = 'out/distill'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all methods and networks."""
    return f'{table.describe()}\n{nets.describe()}'


# What a workdir cannot have two of. Other flags are guarded by checkpoints, and
# a selection of real images with other flags is made anew.
_ONE = ('method', 'dataset')


def resolve(config: Config) -> Config:
  """`config` with nothing left to the method or the protocol."""
  config = table.resolve(config)
  recipe = evaluation.protocol(config)
  return dataclasses.replace(
      config, network_epochs=recipe.epochs,
      network_learning_rate=recipe.learning_rate)


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record.

  The set and a record are written as soon as the method has ended, then come
  networks, the whole record, and pictures.
  """
  began = time.monotonic()
  config = resolve(config)
  check(config)
  jobs.claim(config, only=_ONE)
  kernel_fn, problem = prepared(config)
  learned, metrics = _learn(config, kernel_fn, problem)
  if learned.status == Status.INTERRUPTED:
    logging.warning('Interrupted: no networks are trained.')
  elif evaluation.names(config.networks):
    results.write(config, problem, learned, metrics, status=Status.INTERRUPTED,
                  wall_time=time.monotonic() - began)
    try:
      metrics |= _networks(config, problem, learned)
    except KeyboardInterrupt:  # The distilled set is written, as interrupted.
      logging.warning('Interrupted: the same command goes on with networks.')
      raise
  results.write(config, problem, learned, metrics,
                wall_time=time.monotonic() - began)
  results.draw(config, problem, learned)
  evaluation.tell(metrics)
  return metrics


class Made(NamedTuple):
  """A distilled set in memory.

  Attributes:
    problem: the data that it was made of.
    learned: the set, its inputs and targets.
    metrics: as of `run`.
  """

  problem: Problem
  learned: Learned
  metrics: dict[str, Any]


def distil(config: Config) -> Made:
  """As `run`, in memory: nothing is read from a workdir, nothing is written.

  Args:
    config: whose `workdir` does not count.

  Raises:
    ValueError: as `check` and `prepared`.
    FloatingPointError: the loss is not finite.
  """
  config = dataclasses.replace(resolve(config), workdir='')
  check(config)
  kernel_fn, problem = prepared(config)
  learned, metrics = _learn(config, kernel_fn, problem)
  metrics |= _networks(config, problem, learned)
  return Made(problem, learned, metrics)


def prepared(config: Config) -> tuple[KernelFn, Problem]:
  """Kernel and data of a resolved config, held against each other.

  Raises:
    ValueError: the data cannot be loaded, or a part of the run cannot take
      them.
  """
  kernel_fn = evaluation.kernel_named(config.kernel)
  problem = prepare(
      config.dataset, data_dir=config.data_dir, transform=config.transform,
      images_per_class=config.images_per_class, max_train=config.max_train,
      validation=config.validation, seed=config.seed)
  check_data(config, kernel_fn, problem)
  return kernel_fn, problem


def _learn(config, kernel_fn, problem) -> tuple[Learned, dict[str, Any]]:
  """What the method makes, and what kernel regression on it is worth."""
  baseline = problem.examples(problem.start)
  began = time.monotonic()
  learned = table.METHODS[config.method].run(
      config, kernel_fn, problem, baseline)
  seconds = (time.monotonic() - began if learned.seconds is None else
             learned.seconds)
  hard = evaluation.hard_labels(
      learned.examples, results.labels_of(problem, learned), problem)
  return learned, {
      'krr_accuracy': evaluation.krr_accuracy(
          kernel_fn, learned.examples, problem, config.ridge),
      'krr_accuracy_start': evaluation.krr_accuracy(
          kernel_fn, baseline, problem, config.ridge),
      'method_seconds': records.metric(seconds)} | (
          {} if hard is None else {'krr_hard_accuracy': evaluation.krr_accuracy(
              kernel_fn, hard, problem, config.ridge)})


def _networks(config, problem, learned) -> dict[str, Any]:
  """What networks are worth: those of the flags, and the method's own."""
  labels = results.labels_of(problem, learned)
  found = evaluation.network_accuracies(
      config, learned.examples, problem, learned.student_rate, labels)
  own = table.METHODS[config.method].own_network
  if own is None or not found:
    return found
  name, protocol = own
  scores = evaluation.trained_on(
      jax.random.key(config.seed + 7), name, learned.examples, problem,
      evaluation.protocol(evaluation.under(config, protocol)),
      config.num_networks, labels)
  return found | {f'own_network_{what}': metric
                  for what, metric in scores.items()}


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read.

  Args:
    config: resolved or not.
  """
  config = resolve(config)
  checks.at_least('max_train', config.max_train, 0)
  checks.at_least('steps', config.steps, 1)
  if config.max_minutes is not None:
    checks.positive('max_minutes', config.max_minutes)
  checks.at_least('batch_size', config.batch_size, 0)
  checks.at_least('eval_every', config.eval_every, 1)
  checks.at_least('network_epochs', config.network_epochs, 1)
  checks.at_least('num_networks', config.num_networks, 2)  # For an interval.
  checks.positive('learning_rate', config.learning_rate)
  checks.positive('network_learning_rate', config.network_learning_rate)
  checks.positive('ridge', config.ridge)
  if config.method != 'kip' and hosts.several():
    raise ValueError('`method` must be kip over many processes, got '
                     f'{config.method}.')
  checks.within('corruption', config.corruption, 0, 1)
  checks.within('validation', config.validation, 0, 0.9)
  table.check(config)
  for name in evaluation.names(config.networks):
    with checks.renamed(name='networks'):
      nets.check_name(name)
  for name in config.transform.split('+'):
    checks.one_of('transform', name, data_lib.transforms.known())
  kernels.by_name(config.kernel)


def check_data(config: Config, kernel_fn: KernelFn, problem: Problem) -> None:
  """Raises a ValueError for data that a part of the run cannot take.

  Kernel, networks and method are held against the shape of the images before
  the first step.
  """
  method = table.METHODS[config.method]
  shape = problem.train.x.shape[1:]
  evaluation.check_kernel(kernel_fn, config.kernel, shape)
  num_outputs = encoded(problem.start).shape[1]
  chosen = evaluation.names(config.networks)
  for name in chosen:
    evaluation.check_network('networks', name, shape, num_outputs)
  if chosen and method.own_network:
    evaluation.check_network(
        'method', method.own_network[0], shape, num_outputs)
  recipe = evaluation.protocol(config)
  if chosen and recipe.augment not in (None, 'none'):
    refuse_tables('protocol', config.protocol, problem)
  for flag in method.networks(config):
    evaluation.check_network(flag, getattr(config, flag), shape, num_outputs)
  method.check_data(config, problem)
