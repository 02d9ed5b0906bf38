"""Victims of reconstruction: their data, their training, and their files."""
import dataclasses
import functools
import os
import pathlib
from typing import Literal, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsr import checks, data as data_lib, loop, nets, train
from dsr.nets import pretrained
from dsr.runs import records
from dsr.studies.reconstruction import victim_arrays
from dsr.train import flow
from dsr.types import Dataset, Examples

_ADAM_RATE = 1e-3  # Where the flag asks for an automatic one.


@dataclasses.dataclass(frozen=True)
class VictimConfig:
  """What is trained, on what and how; other binaries' flags extend it."""

  dataset: str = 'digits'  # A name (digits, mnist, ...), name[3,8] or an .npz.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  num_train: int = 20  # Training images, the same number of each class.
  regime: Literal['standard', 'linearized'] = 'standard'  # How it is trained.
  # Of regime=linearized: solved at once, or by descent.
  linearized_by: Literal['closed_form', 'descent'] = 'closed_form'
  # Of the victim; efficientnet_lite0 comes trained on ImageNet.
  architecture: Literal[
      'mlp', 'convnet3', 'resnet', 'efficientnet_lite0'] = 'mlp'
  width: int | None = None  # Units or channels; unset: 1024, 128 or 16.
  depth: int | None = None  # Layers or blocks, unset: 2, 3 or 8.
  parameterisation: Literal['standard', 'ntk'] = 'standard'  # Of the mlp.
  use_bias: bool = True  # Whether the mlp has biases.
  w_std: float = 1.0  # Of the mlp's weights, in units of 1 / sqrt(fan-in).
  b_std: float = 0.0  # Of the mlp's biases.
  first_scale: float = 1.0  # Factor on the mlp's first layer at the start.
  norm: Literal['instance', 'none'] = 'instance'  # Of convnet3 and resnet.
  dtype: Literal['float32', 'float64'] = 'float32'  # Of all training.
  # How a standard network is trained: by gradient descent, or by gradient flow,
  # which is what descent becomes at small rates.
  recipe: Literal['descent', 'flow'] = 'descent'
  loss: Literal['mse', 'cross_entropy'] = 'mse'  # That descent minimises.
  optimizer: Literal['sgd', 'adam'] = 'sgd'  # Of descent; sgd for first_layer.
  learning_rate: float = 0.0  # Of descent; 0: automatic, 1e-3 with adam.
  momentum: float = 0.9  # Of sgd.
  weight_decay: float = 0.0  # Times theta, added to the gradient.
  batch_size: int = 0  # Images at each step; 0: all of them.
  tolerance: float = 1e-10  # Mean squared error, or cross-entropy, to reach.
  max_steps: int = 100_000  # Of descent, if `tolerance` is not reached before.
  save_losses: tuple[float, ...] = ()  # Keep parameters at these losses.
  save_steps: tuple[int, ...] = ()  # Keep parameters after so many steps.
  dp_clip: float = 0.0  # Largest gradient norm of an example; 0: no DP-SGD.
  dp_noise: float = 0.0  # Standard deviation, in units of dp_clip.
  seed: int = 0  # Of the choice of images and of the network's start.


# Fields that only descent reads.
_DESCENT = ('loss', 'optimizer', 'learning_rate', 'momentum', 'weight_decay',
            'batch_size', 'tolerance', 'max_steps', 'save_losses',
            'save_steps', 'dp_clip', 'dp_noise')
_LATER = {'recipe': 'descent'}  # Flags that records may lack.
_NOT_OF_FLOW = tuple(
    name for name in _DESCENT if name not in ('tolerance', 'max_steps'))
PRETRAINED = 'efficientnet_lite0'
_ONLY_MLP = ('parameterisation', 'use_bias', 'w_std', 'b_std', 'first_scale')


class Task(NamedTuple):
  """The data of a victim.

  Attributes:
    train: its N images, in [0, 1], class after class.
    test: the whole test set, in [0, 1].
    rows: (N,) places of the training images in the dataset.
    transform: subtracts the mean of each channel over the N images, or what a
      pre-trained network expects.
    examples: the training images after it, with encoded labels.
    low: (1, 1, channels) a black pixel after it.
    high: (1, 1, channels) a white pixel after it.
  """

  train: Dataset
  test: Dataset
  rows: np.ndarray
  transform: data_lib.Transform
  examples: Examples
  low: np.ndarray
  high: np.ndarray


def check(config: VictimConfig) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.at_least('num_train', config.num_train, 2)
  checks.at_least('batch_size', config.batch_size, 0)
  checks.non_negative('learning_rate', config.learning_rate)
  checks.non_negative('dp_clip', config.dp_clip)
  checks.positive('first_scale', config.first_scale)
  train.check_recipe(recipe(config))
  build(config, 1)
  if config.regime == 'linearized' and config.linearized_by == 'closed_form':
    _refuse(config, ('recipe', *_DESCENT),
            'a linearized network solved in closed form; see `linearized_by`')
  if config.recipe == 'flow':
    if config.regime == 'linearized':
      raise ValueError("`recipe` must be 'descent' with a linearized network, "
                       "whose flow ends at the closed form; got 'flow'.")
    _refuse(config, _NOT_OF_FLOW, 'gradient flow')
  if config.optimizer == 'adam':
    _refuse(config, ('momentum',), 'adam')
  if config.architecture != 'mlp':
    _refuse(config, _ONLY_MLP, config.architecture)
  else:
    _refuse(config, ('norm',), 'mlp')
  if config.architecture == PRETRAINED:
    _refuse(config, ('norm', 'width', 'depth'), PRETRAINED)


def _refuse(config, names, what):
  """A ValueError for a field that would have no effect."""
  defaults = VictimConfig()
  for name in names:
    value, default = getattr(config, name), getattr(defaults, name)
    if value != default:
      raise ValueError(
          f'`{name}` must be {default!r} with {what}; got {value!r}.')


def prepare_victim_task(config: VictimConfig) -> Task:
  """Draws the training images, balanced over classes, and transforms them.

  Labels are +-1 for two classes; else one-hot less 1/C, or one-hot for
  cross-entropy.

  Raises:
    ValueError: `num_train` is no multiple of the number of classes, or the
      dataset cannot be had, or its images do not suit the network.
  """
  splits = data_lib.load(
      config.dataset, data_dir=config.data_dir, seed=config.seed)
  classes = splits.train.num_classes
  if config.num_train % classes or config.num_train < classes:
    raise ValueError(
        f'`num_train` must be a multiple of the {classes} classes of '
        f'{config.dataset}, got {config.num_train}.')
  key, _ = jax.random.split(jax.random.key(config.seed))
  rows = data_lib.balanced_rows(
      key, splits.train.y, config.num_train // classes, classes)
  chosen = splits.train.take(rows)
  transform = data_lib.transforms.by_name('mean', chosen.x)
  if config.architecture == PRETRAINED:  # The network expects its own mean.
    if chosen.x.shape[-1] != 3:
      raise ValueError(f'`dataset` must have images of 3 channels with '
                       f'{PRETRAINED}, got {chosen.x.shape[1:]}.')
    transform = data_lib.transforms.affine(
        np.full(3, pretrained.PIXEL_MEAN), np.ones(3), 'mean')
  if classes == 2:
    style = 'sign'
  else:
    style = 'one_hot' if config.loss == 'cross_entropy' else 'centred'
  examples = Examples(
      transform.apply(chosen.x.astype(config.dtype)),
      data_lib.encode(chosen.y, classes, style=style, dtype=config.dtype))
  pixel = np.zeros((1, 1, 1, chosen.x.shape[-1]), config.dtype)
  low, high = (np.asarray(transform.apply(p))[0] for p in (pixel, pixel + 1))
  return Task(chosen, splits.test, rows, transform, examples, low, high)


def build(config: VictimConfig, num_outputs: int) -> nn.Module:
  """The network of `config`.

  Raises:
    ValueError: an attribute that the network refuses.
  """
  sizes = {name: getattr(config, name) for name in ('width', 'depth')}
  sizes = {name: size for name, size in sizes.items() if size is not None}
  if config.architecture == PRETRAINED:
    return pretrained.module(num_outputs)
  if config.architecture != 'mlp':
    return nets.build(
        config.architecture, num_outputs, norm=config.norm, **sizes)
  width, depth = sizes.get('width', 1024), sizes.get('depth', 2)
  checks.at_least('depth', depth, 0)
  return nets.build(
      'mlp', num_outputs, widths=(width,) * depth,
      **{name: getattr(config, name) for name in _ONLY_MLP
         if name != 'first_scale'})


def recipe(config: VictimConfig) -> train.Recipe:
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


def train_victim(
    config: VictimConfig, task: Task, *,
    workdir: str | os.PathLike | None = None) -> train.Victim:
  """Trains the network of `config` on `task.examples`.

  Args:
    config: of the network and its training.
    task: by `prepare_victim_task(config)`.
    workdir: descent is saved there and goes on from there; None: nowhere.

  Raises:
    ValueError: see `check`.
    FloatingPointError: the loss or the solve is not finite.
  """
  check(config)
  _, key = jax.random.split(jax.random.key(config.seed))
  key_params, key = jax.random.split(key)
  data = task.examples
  module = build(config, data.y.shape[1])
  theta_0 = jax.jit(module.init)(key_params, data.x[:1])['params']
  if config.architecture == PRETRAINED:  # Its readout is new.
    theta_0 = theta_0 | jax.tree.map(
        lambda a: jnp.asarray(a, data.x.dtype), pretrained.load().params)
  if config.first_scale != 1:
    theta_0 = theta_0 | {'hidden_0': jax.tree.map(
        lambda a: config.first_scale * a, theta_0['hidden_0'])}
  linearised = config.regime == 'linearized'
  if linearised and config.linearized_by == 'closed_form':
    return train.solve_linearised(module, theta_0, data)
  # Fields of extending classes do not change the victim; nor do these.
  fields = {f.name: getattr(config, f.name)
            for f in dataclasses.fields(VictimConfig)}
  own = VictimConfig(**fields)
  common = {'tolerance': config.tolerance, 'max_steps': config.max_steps,
            'workdir': workdir, 'fingerprint': loop.config_fingerprint(
                own, ignore=('data_dir', 'max_steps'))}
  if config.recipe == 'flow':
    return flow.fit_flow(module, theta_0, data, **common)
  return train.fit_victim(
      key, module, data, theta_0=theta_0, recipe=recipe(config),
      linearised=linearised, save_losses=config.save_losses,
      save_steps=config.save_steps, **common)


def num_correct(
    victim: train.Victim, task: Task, dataset: Dataset) -> int:
  """How many images of `dataset`, in pixels, `victim` puts in their class."""
  dtype = task.examples.x.dtype
  x = data_lib.map_host(task.transform.apply, dataset.x.astype(dtype))
  decoded = data_lib.decode(jnp.asarray(train.outputs(victim, x)))
  return int((np.asarray(decoded) == dataset.y).sum())


def read_config(workdir: str | os.PathLike) -> VictimConfig:
  """The flags of the victim that `experiments.train` wrote to `workdir`.

  Flags that came later are at what they mean for older records.

  Raises:
    ValueError: there is no record of a victim.
  """
  folder = pathlib.Path(workdir)
  if not (folder / 'record.json').exists():
    raise ValueError(
        f'`workdir` must hold what `experiments.train` wrote, got {folder}.')
  fields = _LATER | records.read(folder)['config']
  names = [f.name for f in dataclasses.fields(VictimConfig)]
  if missing := [name for name in names if name not in fields]:
    raise ValueError(f'`workdir` must hold the record of a victim, the one in '
                     f'{folder} lacks {", ".join(missing)}.')
  return VictimConfig(**{
      name: tuple(fields[name]) if isinstance(fields[name], list) else
      fields[name] for name in names})


def load_victim(workdir: str | os.PathLike) -> train.Victim:
  """The victim that `experiments.train` wrote to `workdir`.

  Raises:
    ValueError: there is no record of a victim.
  """
  config = read_config(workdir)
  arrays = records.read_arrays(pathlib.Path(workdir) / 'victim.npz')
  return victim_arrays.from_arrays(
      build(config, arrays['targets'].shape[1]), arrays)
