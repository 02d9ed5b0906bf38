"""From flags to recipes: how a victim is trained, when that ends, from where.

Functions take the fields of a `victims.VictimConfig`.
"""
import dataclasses
import functools
import os
import pathlib
from typing import Any, TypeVar

from flax import linen as nn
from jaxtyping import Array, Key, PyTree
import optax

from dsr import loop, train
from dsr.train import plateau as plateau_lib
from dsr.types import Examples, Status

PRETRAINED = 'efficientnet_lite0'  # The architecture with weights of others.
_ADAM_RATE = 1e-3  # Where the flag asks for an automatic one.
# Fields that only descent reads, and those of them that flow has not.
DESCENT = ('loss', 'optimizer', 'learning_rate', 'momentum', 'weight_decay',
           'batch_size', 'tolerance', 'plateau', 'max_steps', 'save_losses',
           'save_steps', 'dp_clip', 'dp_noise')
NOT_OF_FLOW = tuple(
    name for name in DESCENT if name not in ('tolerance', 'max_steps'))
# Of pretraining: an epoch of 1,000 images is 20 updates.
_BATCH = 50
_TOLERANCE = 1e-2
_Config = TypeVar('_Config')


def fair(config: _Config) -> _Config:
  """`config` with the published recipe, gradient flow, where it is open.

  It stays as it is for linearised and for pre-trained networks, for a victim of
  before, and where a flag asks for descent.
  """
  asked = any(getattr(config, field.name) != field.default
              for field in dataclasses.fields(config)
              if field.name in NOT_OF_FLOW)
  fixed = (getattr(config, 'victim', '')
           or config.architecture == PRETRAINED)
  if config.recipe != 'auto' or config.regime != 'standard' or asked or fixed:
    return config
  return dataclasses.replace(config, recipe='flow')


def recipe(config: Any) -> train.Recipe:
  """How `config` trains by descent."""
  rate = config.learning_rate or None
  clip = config.dp_clip or None
  common = train.Recipe(
      loss=config.loss, batch_size=config.batch_size or None,
      weight_decay=config.weight_decay, clip=clip, noise=config.dp_noise)
  if config.optimizer == 'adam':
    return common._replace(optimizer=_adam(rate or _ADAM_RATE))
  return common._replace(learning_rate=rate, momentum=config.momentum)


_adam = functools.lru_cache(optax.adam)  # One object, so that caches find it.


def plateau(config: Any) -> float | None:
  """The share of the loss that ends descent; None if the tolerance alone does.

  Unset, it is asked for where the tolerance may be out of reach: weight decay
  and DP-SGD hold the loss above it, Adam swings about it, and cross-entropy
  falls like 1/t.
  """
  if config.plateau is not None:
    return config.plateau or None
  hard = (config.weight_decay or config.dp_clip or config.optimizer == 'adam'
          or config.loss == 'cross_entropy')
  return plateau_lib.SHARE if hard else None


def pretrained(
    key: Key[Array, ''], config: Any, module: nn.Module, theta_0: PyTree,
    before: Examples, workdir: str | os.PathLike | None) -> PyTree:
  """Parameters after training on `before`: by Adam, in batches of 50.

  It ends where the loss of an epoch is below 0.01, or falls no more.

  Args:
    key: of the batches.
    config: whose loss is minimised.
    module: the network.
    theta_0: its random start.
    before: other images of the task.
    workdir: of the victim's training, with a folder for this; None: nowhere.

  Raises:
    FloatingPointError: the loss is not finite.
    KeyboardInterrupt: training was stopped; it goes on from its checkpoint.
  """
  found = train.fit_victim(
      key, module, before, theta_0=theta_0, recipe=train.Recipe(
          loss=config.loss, optimizer=_adam(_ADAM_RATE), batch_size=_BATCH),
      tolerance=_TOLERANCE, plateau=plateau_lib.SHARE,
      workdir=None if workdir is None else pathlib.Path(workdir) / 'before',
      fingerprint=loop.config_fingerprint(
          config, ignore=('data_dir', 'max_steps')))
  if found.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  return found.theta_T
