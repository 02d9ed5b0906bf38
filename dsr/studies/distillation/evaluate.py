"""What a set of images is worth, wherever it comes from.

The command is `experiments.evaluate`; its docstring has an example, and what
it writes.
"""
import dataclasses
import os
import pathlib
import time
from typing import Any, Literal

from absl import logging
import numpy as np

from dsr import checks, data as data_lib, kernels, nets
from dsr.runs import contents, records
from dsr.studies.distillation import evaluation, sets
from dsr.studies.distillation.problem import Problem, prepare, refuse_tables

_MOST = 25_000  # Images in a kernel regression, whose matrix takes 8 T^2 bytes.


@dataclasses.dataclass(frozen=True)
class Config:
  """Evaluates all training images, or a set from elsewhere."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  set: str = ''  # .npz, .pt or folder, see README; '' for all training images.
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  validation: float = 0.0  # Share of the training set that is left out.
  kernel: str = 'fcn1'  # Of an infinite network: fcn2, convnet3, myrtle5, ...
  ridge: float = 1e-6  # Relative to tr(K)/n.
  networks: str = 'mlp,convnet3'  # Trained on the set; '' for none.
  num_networks: int = 5  # Random starts of each.
  # How networks are trained. frepo: Adam on soft labels; condensation: SGD, 300
  # epochs (of mnist 1000, of moved images); dsa: SGD, 1000 epochs of augmented
  # images; idc: that, in batches of 64, with CutMix for photographs.
  protocol: Literal['frepo', 'condensation', 'dsa', 'idc'] = 'frepo'
  network_epochs: int | None = None  # On the set; unset: protocol's.
  # Unset: the protocol's; where that is SGD, the one learned with the set.
  network_learning_rate: float | None = None
  seed: int = 0  # Of all that is drawn.
  workdir: str = 'out/evaluate'  # Where the results go.

  @staticmethod
  def describe() -> str:
    """The end of the help: all networks."""
    return nets.describe()


def run(config: Config) -> dict[str, Any]:
  """Everything but flags; returns the metrics of the record."""
  began = time.monotonic()
  shown, problem = prepared(config)
  metrics = {}
  if len(shown.labels) <= _MOST:
    kernel_fn = evaluation.kernel_named(config.kernel)
    metrics['krr_accuracy'] = evaluation.krr_accuracy(
        kernel_fn, shown.examples, problem, config.ridge)
    hard = evaluation.hard_labels(shown.examples, shown.labels, problem)
    if hard is not None:
      metrics['krr_hard_accuracy'] = evaluation.krr_accuracy(
          kernel_fn, hard, problem, config.ridge)
  else:
    logging.warning('No kernel regression on %d images, whose kernel takes 8 '
                    'T^2 bytes: with `max_train` up to %d there is one.',
                    len(shown.labels), _MOST)
  metrics |= evaluation.network_accuracies(
      config, shown.examples, problem, shown.student_rate, shown.labels)
  records.write(
      config.workdir, config=config, contents=contents.of(config),
      metrics=metrics, wall_time=time.monotonic() - began,
      extra={'num_images': len(shown.labels), 'name': shown.name,
             'set_notes': list(shown.notes),
             'images_per_class': np.bincount(
                 shown.labels, minlength=problem.train.num_classes).tolist(),
             'num_test': len(problem.test)})
  evaluation.tell(metrics)
  return metrics


def prepared(config: Config) -> tuple[sets.Shown, Problem]:
  """The set and the data, held against each other.

  Raises:
    ValueError: a flag out of its range, data that cannot be loaded, a set that
      is none of theirs, or a network that cannot take them.
  """
  check(config)
  problem = prepare(
      config.dataset, data_dir=config.data_dir, transform=config.transform,
      images_per_class=1, max_train=config.max_train,
      validation=config.validation, seed=config.seed)
  shown = sets.whole(problem) if not config.set else sets.from_file(
      pathlib.Path(os.path.expanduser(config.set)), problem)
  shape = problem.train.x.shape[1:]
  evaluation.check_kernel(
      evaluation.kernel_named(config.kernel), config.kernel, shape)
  for name in evaluation.names(config.networks):
    evaluation.check_network(
        'networks', name, shape, shown.examples.y.shape[1])
  augment = evaluation.protocol(config).augment
  if evaluation.names(config.networks) and augment != 'none':
    refuse_tables('protocol', config.protocol, problem)
  return shown, problem


def check(config: Config) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.at_least('max_train', config.max_train, 0)
  checks.within('validation', config.validation, 0, 0.9)
  checks.positive('ridge', config.ridge)
  checks.at_least('num_networks', config.num_networks, 2)  # For an interval.
  recipe = evaluation.protocol(config)
  checks.at_least('network_epochs', recipe.epochs, 1)
  checks.positive('network_learning_rate', recipe.learning_rate)
  for name in evaluation.names(config.networks):
    with checks.renamed(name='networks'):
      nets.check_name(name)
  for name in config.transform.split('+'):
    checks.one_of('transform', name, data_lib.transforms.known())
  kernels.by_name(config.kernel)
