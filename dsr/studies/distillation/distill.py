"""Distils a dataset and says what the result is worth.

The command is `experiments.distill`; its docstring has an example, and what
it writes.
"""
import dataclasses
from typing import Any, Literal

from absl import logging

from dsr import checks, data as data_lib, kernels, nets
from dsr.runs import records, stopwatch as stopwatch_lib
from dsr.studies.distillation import evaluation, methods, results
from dsr.studies.distillation.problem import prepare
from dsr.types import Status


@dataclasses.dataclass(frozen=True)
class Config:
  """Distils a dataset and evaluates the result."""

  dataset: str = 'digits'  # A known name, a task, name[classes] or an .npz.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  method: Literal[
      'kip', 'rkip', 'rkip_finite', 'label_solve', 'dm', 'random', 'herding',
      'kcenter', 'kmedoids', 'el2n', 'mfc'] = 'kip'
  images_per_class: int = 10  # Size of the distilled set.
  kernel: str = 'fcn1'  # fcn2, convnet3, convnet3_nopool, myrtle5, ...
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  init: Literal['real', 'noise'] = 'real'  # What the images start from.
  learn_labels: bool = False  # Whether the labels are learned too (kip, rkip).
  loss: Literal['mse', 'cross_entropy'] = 'mse'  # Of kip.
  augment: str | None = None  # kip: flip+shift2+...; dm: dsa, color_crop, ...
  corruption: float = 0.0  # Share of pixels frozen to noise (kip, rkip, dm).
  min_distance: float = 0.0  # Least RMS difference to training images (kip).
  ridge: float = 1e-6  # Relative to tr(K)/n.
  steps: int | None = None  # Of the optimizer; unset: 1000.
  learning_rate: float | None = None  # Unset: Adam 0.04, SGD of dm 1.0.
  schedule: Literal['constant', 'cosine'] = 'constant'  # cosine: to 1/50.
  batch_size: int | None = None  # Examples a step; of dm for each class.
  eval_every: int = 100  # Steps between two looks at the validation split.
  keep: Literal['auto', 'best', 'last'] = 'auto'  # best: on validation.
  ema: float = 0.0  # Decay of a moving average that is kept; 0 for none.
  validation: float = 0.1  # Share of the training set, at most 5000 examples.
  network_width: int = 1024  # Of the MLP that rkip_finite attacks.
  dm_network: str = 'convnet3'  # Whose random features dm matches.
  features: Literal['pixels', 'network'] = 'pixels'  # herding, kcenter, ...
  norm: Literal['l1', 'l2', 'linf'] = 'l2'  # Of distances (kcenter, mfc, ...).
  cover: Literal['exact', 'lp', 'greedy'] = 'exact'  # How mfc is solved.
  budget: Literal['per_class', 'total'] = 'per_class'  # total: mfc divides it.
  eta: float | None = None  # Radius for mfc, instead of images_per_class.
  time_limit: float = 60.0  # Seconds a class for mfc.
  score_network: str = 'convnet3'  # Of features=network and el2n.
  score_epochs: int = 2  # Of its training on the whole training set.
  score_networks: int = 3  # Random starts that el2n averages.
  el2n_keep: Literal['hardest', 'easiest'] = 'hardest'  # Of each class.
  networks: str = 'mlp,convnet3'  # Trained on the result; '' for none.
  num_networks: int = 5  # Random starts of each.
  protocol: Literal['frepo', 'condensation', 'dsa'] = 'frepo'  # Of training.
  network_epochs: int | None = None  # On the distilled set; unset: protocol's.
  network_learning_rate: float | None = None  # Unset: the protocol's.
  seed: int = 0
  workdir: str = 'out/distill'  # Where the results go.


def resolve(config: Config) -> Config:
  """`config` with nothing left to the method or the protocol."""
  config = methods.resolve(config)
  recipe = evaluation.protocol(config)
  return dataclasses.replace(
      config, network_epochs=recipe.epochs,
      network_learning_rate=recipe.learning_rate)


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  config = resolve(config)
  check(config)
  kernel_fn = evaluation.kernel_named(config.kernel)
  problem = prepare(
      config.dataset, data_dir=config.data_dir, transform=config.transform,
      images_per_class=config.images_per_class, max_train=config.max_train,
      validation=config.validation, seed=config.seed)
  baseline = problem.examples(problem.start)
  stopwatch = stopwatch_lib.Stopwatch(config.workdir)
  learned = methods.METHODS[config.method].run(
      config, kernel_fn, problem, baseline)
  seconds = stopwatch.seconds
  metrics = {
      'krr_accuracy': evaluation.krr_accuracy(
          kernel_fn, learned.examples, problem, config.ridge),
      'krr_accuracy_start': evaluation.krr_accuracy(
          kernel_fn, baseline, problem, config.ridge),
      'method_seconds': records.metric(seconds)}
  if learned.status == Status.INTERRUPTED:
    logging.warning('Interrupted: no networks are trained.')
  else:
    try:
      metrics |= evaluation.network_accuracies(
          config, learned.examples, problem)
    except KeyboardInterrupt:  # The distilled set is worth keeping.
      learned = learned._replace(status=Status.INTERRUPTED)
  results.write(config, problem, learned, metrics,
                wall_time=stopwatch.save(now=True))
  for name, value in metrics.items():
    if not name.endswith('seconds'):
      logging.info('%s = %.2f %% [%.2f, %.2f]', name,
                   *(100 * v for v in (value.value, value.low, value.high)))
  return metrics


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read.

  Args:
    config: resolved or not.
  """
  config = resolve(config)
  checks.at_least('images_per_class', config.images_per_class, 1)
  checks.at_least('max_train', config.max_train, 0)
  checks.at_least('steps', config.steps, 1)
  checks.at_least('batch_size', config.batch_size, 0)
  checks.at_least('eval_every', config.eval_every, 1)
  checks.at_least('network_epochs', config.network_epochs, 1)
  checks.at_least('num_networks', config.num_networks, 2)  # For an interval.
  checks.positive('learning_rate', config.learning_rate)
  checks.positive('network_learning_rate', config.network_learning_rate)
  checks.positive('ridge', config.ridge)
  checks.within('corruption', config.corruption, 0, 1)
  checks.within('validation', config.validation, 0, 0.9)
  methods.check(config)
  for name in evaluation.names(config.networks):
    nets.check_name(name)
  for name in config.transform.split('+'):
    checks.one_of('transform', name, data_lib.transforms.known())
  kernels.by_name(config.kernel)
