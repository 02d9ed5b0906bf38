"""Victims of reconstruction: their data, their training, and their files."""
import dataclasses
import os
import pathlib
from typing import Literal, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dsr import checks, data as data_lib, loop, nets, train
from dsr.nets import pretrained
from dsr.runs import records
from dsr.studies.reconstruction import recipes, victim_arrays
from dsr.train import flow
from dsr.types import Dataset, Examples


@dataclasses.dataclass(frozen=True)
class VictimConfig:
  """What is trained, on what and how; other binaries' flags extend it."""

  dataset: str = 'digits'  # digits, mnist, ..., name[3,8], an .npz or a folder.
  data_dir: str | None = None  # Folder of prepared TFDS datasets.
  num_train: int = 20  # Training images, the same number of each class.
  regime: Literal['standard', 'linearized'] = 'standard'  # How it is trained.
  # Of regime=linearized: solved at once, or by descent.
  linearized_by: Literal['closed_form', 'descent'] = 'closed_form'
  architecture: Literal[  # Of the victim; the last comes trained on ImageNet.
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
  # which is what descent becomes at small rates, as in arXiv:2302.01428. auto:
  # flow where attacks are compared, else descent.
  recipe: Literal['auto', 'descent', 'flow'] = 'auto'
  loss: Literal['mse', 'cross_entropy'] = 'mse'  # That descent minimises.
  optimizer: Literal['sgd', 'adam'] = 'sgd'  # Of descent; sgd for first_layer.
  learning_rate: float = 0.0  # Of descent; 0: automatic, 1e-3 with adam.
  momentum: float = 0.9  # Of sgd.
  weight_decay: float = 0.0  # Times theta, added to the gradient.
  batch_size: int = 0  # Images at each step; 0: all of them.
  tolerance: float = 1e-10  # Mean squared error, or cross-entropy, to reach.
  # Descent also ends where 500 steps lower the loss by less than this share; 0:
  # never. Unset: 0.05, but never for sgd on mse without decay and clipping.
  plateau: float | None = None
  max_steps: int = 100_000  # Of descent, if nothing ends it before.
  save_losses: tuple[float, ...] = ()  # Keep parameters at these losses.
  save_steps: tuple[int, ...] = ()  # Keep parameters after so many steps.
  dp_clip: float = 0.0  # Largest gradient norm of an example; 0: no DP-SGD.
  dp_noise: float = 0.0  # Standard deviation, in units of dp_clip.
  # Other images of the dataset that the network was trained on before, so that
  # the attacker's theta_0 is the end of that; 0: a random start.
  pretrain: int = 0
  seed: int = 0  # Of the choice of images and of the network's start.


# Flags that records may lack, and what was done before they came.
_LATER = {'recipe': 'auto', 'plateau': 0.0, 'pretrain': 0}
PRETRAINED = recipes.PRETRAINED
_ONLY_MLP = ('parameterisation', 'use_bias', 'w_std', 'b_std', 'first_scale')


class Task(NamedTuple):
  """The data of a victim.

  Attributes:
    train: its N images, in [0, 1], class after class.
    test: the whole test set, in [0, 1].
    rows: (N,) places of the training images in the dataset.
    transform: subtracts the mean of each channel over the N images, or over
      those of `before`: who fine-tunes keeps the inputs of the first training;
      or what a pre-trained network expects.
    examples: the training images after it, with encoded labels.
    low: (1, 1, channels) a black pixel after it.
    high: (1, 1, channels) a white pixel after it.
    before: other images, likewise, that the start was trained on; None without
      `pretrain`.
  """

  train: Dataset
  test: Dataset
  rows: np.ndarray
  transform: data_lib.Transform
  examples: Examples
  low: np.ndarray
  high: np.ndarray
  before: Examples | None = None


def check(config: VictimConfig) -> None:
  """Raises a ValueError for what is wrong before any data is read."""
  checks.at_least('num_train', config.num_train, 2)
  checks.at_least('batch_size', config.batch_size, 0)
  checks.non_negative('learning_rate', config.learning_rate)
  checks.non_negative('dp_clip', config.dp_clip)
  checks.positive('first_scale', config.first_scale)
  if config.plateau is not None:
    checks.within('plateau', config.plateau, 0, 1)
  checks.at_least('pretrain', config.pretrain, 0)
  train.check_recipe(recipes.recipe(config))
  build(config, 1)
  if config.regime == 'linearized' and config.linearized_by == 'closed_form':
    _refuse(config, recipes.DESCENT,
            'a linearized network solved in closed form; see `linearized_by`')
  if config.recipe == 'flow':
    if config.regime == 'linearized':
      raise ValueError("`recipe` must be 'auto' with a linearized network, "
                       "whose flow ends at the closed form; got 'flow'.")
    _refuse(config, recipes.NOT_OF_FLOW, 'gradient flow')
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
    ValueError: `num_train` or `pretrain` is no multiple of the number of
      classes or more than there is, or the dataset cannot be had, or its images
      do not suit the network.
  """
  splits = data_lib.load(
      config.dataset, data_dir=config.data_dir, seed=config.seed)
  classes = splits.train.num_classes
  for name in ('num_train', 'pretrain'):
    if (num := getattr(config, name)) % classes:
      raise ValueError(f'`{name}` must be a multiple of the {classes} classes '
                       f'of {config.dataset}, got {num}.')
  key, _ = jax.random.split(jax.random.key(config.seed))
  own, more = config.num_train // classes, config.pretrain // classes
  # Each class has a random order: the first rows are the victim's.
  drawn = data_lib.balanced_rows(
      key, splits.train.y, own + more, classes).reshape(classes, own + more)
  chosen, others = (splits.train.take(rows.reshape(-1)) for rows in (
      drawn[:, :own], drawn[:, own:]))
  rows = drawn[:, :own].reshape(-1)
  transform = data_lib.transforms.by_name(
      'mean', others.x if more else chosen.x)
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
  examples, before = (Examples(
      transform.apply(part.x.astype(config.dtype)),
      data_lib.encode(part.y, classes, style=style, dtype=config.dtype))
                      if len(part) else None for part in (chosen, others))
  pixel = np.zeros((1, 1, 1, chosen.x.shape[-1]), config.dtype)
  low, high = (np.asarray(transform.apply(p))[0] for p in (pixel, pixel + 1))
  return Task(
      chosen, splits.test, rows, transform, examples, low, high, before)


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
    KeyboardInterrupt: the training before was stopped, see `recipes`.
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
  # Fields of extending classes do not change the victim.
  fields = {f.name: getattr(config, f.name)
            for f in dataclasses.fields(VictimConfig)}
  own = VictimConfig(**fields)
  if config.pretrain:
    if task.before is None:
      raise ValueError('`pretrain` must be 0 with a task that has no other '
                       f'images, got {config.pretrain}.')
    theta_0 = recipes.pretrained(
        jax.random.fold_in(key, 1), own, module, theta_0, task.before, workdir)
  linearised = config.regime == 'linearized'
  if linearised and config.linearized_by == 'closed_form':
    return train.solve_linearised(module, theta_0, data)
  common = {'tolerance': config.tolerance, 'max_steps': config.max_steps,
            'workdir': workdir, 'fingerprint': loop.config_fingerprint(
                own, ignore=('data_dir', 'max_steps'))}
  if config.recipe == 'flow':
    return flow.fit_flow(module, theta_0, data, **common)
  return train.fit_victim(
      key, module, data, theta_0=theta_0, recipe=recipes.recipe(config),
      plateau=recipes.plateau(config), linearised=linearised,
      save_losses=config.save_losses, save_steps=config.save_steps, **common)


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
