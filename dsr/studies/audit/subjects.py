"""What an audit looks at: a set of images, and models trained on it.

Every stage of an audit has the flags of `SubjectConfig`: the data, the set and
the model. A model is kernel ridge regression ('krr'), or R networks of one
architecture that `experiments.fit` has trained. All models are functions of
pixels in [0, 1], since that is the space in which attacks are measured.
"""
from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
import numpy as np

from dsr import checks, data as data_lib, kernels, nets
from dsr.data import released
from dsr.runs import records
from dsr.studies.audit import models as models_lib
from dsr.studies.distillation import evaluation, problem as problem_lib
from dsr.studies.distillation.sets import (
    ALL as ALL,
    Shown as Shown,
    from_file as from_file,
    rate_of,
    whole,
)
from dsr.types import Dataset, Examples, Status

KRR = 'krr'  # The model.


@dataclasses.dataclass(frozen=True)
class SubjectConfig:
  """A set and a model that is trained on it."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  transform: str = 'standardise'  # none, mean, standardise, zca; or a+b.
  max_train: int = 0  # Training examples used, balanced; 0 means all.
  validation: float = 0.1  # Share of the training set, at most 5000 examples.
  set: str = ''  # Workdir of experiments.distill, or a set; '': all images.
  model: str = KRR  # krr, or a network: mlp, convnet3, lenet, ...
  kernel: str = 'fcn1'  # Of krr: fcn1, fcn2, convnet3, myrtle5, ...
  ridge: float = 1e-6  # Of krr, relative to tr(K)/n.
  num_networks: int = 3  # Random starts of a network.
  # How networks are trained. frepo: Adam on soft labels; condensation: SGD, 300
  # epochs; dsa: SGD, 1000 epochs of augmented images; idc: that, by 64 at once.
  protocol: Literal['frepo', 'condensation', 'dsa', 'idc'] = 'condensation'
  network_epochs: int | None = None  # Passes over the set; unset: protocol's.
  network_learning_rate: float | None = None  # Unset: the protocol's.
  network_batch_size: int | None = None  # Images a step; unset: the protocol's.
  dp_epsilon: float = 0.0  # Above 0: networks are trained by DP-SGD.
  dp_delta: float = 1e-5  # Of that guarantee.
  dp_clip: float = 1.0  # Largest norm of the gradient of one example.
  seed: int = 0  # Of all that is drawn.


def check(config: SubjectConfig) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.at_least('max_train', config.max_train, 0)
  checks.within('validation', config.validation, 0, 0.9)
  checks.positive('ridge', config.ridge)
  checks.at_least('num_networks', config.num_networks, 1)
  for name in ('network_epochs', 'network_batch_size'):
    if getattr(config, name) is not None:
      checks.at_least(name, getattr(config, name), 1)
  if config.network_learning_rate is not None:
    checks.positive('network_learning_rate', config.network_learning_rate)
  checks.non_negative('dp_epsilon', config.dp_epsilon)
  checks.within('dp_delta', config.dp_delta, 0, 1)
  checks.positive('dp_clip', config.dp_clip)
  for name in config.transform.split('+'):
    checks.one_of('transform', name, data_lib.transforms.known())
  kernels.by_name(config.kernel)
  if config.model != KRR:
    with checks.renamed(name='model'):
      nets.check_name(config.model)
  elif config.dp_epsilon:
    raise ValueError('`dp_epsilon` must be 0 with model krr, which is not '
                     f'trained by gradients; got {config.dp_epsilon}.')


def subject_fields(config: Any) -> dict[str, Any]:
  """The fields of `SubjectConfig` that `config` has."""
  return {f.name: getattr(config, f.name)
          for f in dataclasses.fields(SubjectConfig) if hasattr(config, f.name)}


def load_problem(
    config: Any, *, images_per_class: int = 1) -> problem_lib.Problem:
  """The data of `config`; the same object for the same flags."""
  return problem_lib.prepare(
      config.dataset, data_dir=config.data_dir, transform=config.transform,
      images_per_class=images_per_class, max_train=config.max_train,
      validation=config.validation, seed=config.seed)


def outsiders(problem: problem_lib.Problem) -> tuple[Dataset, str]:
  """Images that no set can have seen, and where they are from.

  Training images that `max_train` leaves unused, as they are drawn like the
  used ones; where there are fewer than those, the test set.
  """
  if len(problem.unused) >= len(problem.train):
    return problem.unused, 'unused training images'
  return problem.test, 'test set'


def origins(problem: problem_lib.Problem) -> np.ndarray:
  """Of `outsiders`: rows of the training set, or -1 less those of the test set.
  """
  outside, _ = outsiders(problem)
  return (problem.unused_rows if outside is problem.unused
          else -1 - np.arange(len(outside)))


def load_set(config: SubjectConfig) -> tuple[Shown, problem_lib.Problem]:
  """The set of `config`, and the data that it stands for.

  Raises:
    ValueError: no such set, one of other data or flags, or one with NaN,
      misshapen images, or labels out of range.
  """
  if not config.set:
    problem = load_problem(config)
    return whole(problem), problem
  folder = pathlib.Path(config.set)
  if (folder / 'record.json').exists():
    return _from_run(folder, config)
  if not released.is_set(config.set):
    raise ValueError(
        '`set` must be an .npz or the workdir of a finished '
        'experiments.distill, or a .pt or a folder of pictures by class; got '
        f'{config.set!r}.')
  problem = load_problem(config)
  return from_file(config.set, problem), problem


def _from_run(folder, config):
  record = records.read(folder)
  if record['extra'].get('status') == Status.INTERRUPTED.name:
    raise ValueError(f'`set` must be finished, {folder} was stopped: call its '
                     f'command again: {record["command"]}')
  recorded = record['config']
  for name in ('dataset', 'transform', 'max_train', 'validation', 'seed'):
    if recorded.get(name) != getattr(config, name):
      raise ValueError(
          f'`{name}` must be {recorded.get(name)!r}, as in the record of '
          f'{folder}, got {getattr(config, name)!r}.')
  problem = load_problem(
      config, images_per_class=recorded['images_per_class'])
  arrays = records.read_arrays(folder)
  rows, init = problem.start_rows, recorded['init']
  if 'rows' in arrays:
    rows, init = arrays['rows'], 'chosen'
  elif recorded['method'] == 'random':
    init = 'chosen'
  elif recorded['method'] == 'rkip_finite':
    rows, init = None, ''
  shown = Shown(
      arrays['images'], arrays['labels'],
      Examples(jnp.asarray(arrays['inputs']), jnp.asarray(arrays['targets'])),
      rows, init, recorded['method'], rate_of(arrays))
  return shown, problem


def kernel_regression(
    config: SubjectConfig, shown: Shown,
    problem: problem_lib.Problem) -> Partial:
  """Ridge regression on the set: pixels (N, H, W, C) -> outputs (N, K)."""
  kernel_fn = evaluation.kernel_named(config.kernel)
  predict = evaluation.fit(kernel_fn, shown.examples, ridge=config.ridge)
  return Partial(_after(problem.transform.apply), predict)


@functools.lru_cache(maxsize=16)
def _after(transform: Callable) -> Callable:
  return lambda predict, x: predict(transform(x))


@functools.lru_cache(maxsize=64)  # One function for all sets: compiled once.
def _network(module, transform: Callable) -> Callable:
  return lambda variables, x: module.apply(variables, transform(x))


def networks(
    config: SubjectConfig, folder: str | os.PathLike,
    problem: problem_lib.Problem) -> list[Partial]:
  """The networks that `experiments.fit` left in `folder`, as of pixels."""
  arrays = records.read_arrays(folder)
  num_outputs = arrays['outputs'].shape[-1]
  run = _network(nets.build(config.model, num_outputs),
                 problem.transform.apply)
  variables = models_lib.unpack(arrays)
  num = arrays['outputs'].shape[0]
  return [Partial(run, jax.tree.map(lambda a: jnp.asarray(a[r]), variables))  # noqa: B023
          for r in range(num)]
