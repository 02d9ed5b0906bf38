r"""What the benchmark times of attacks: ours, a loop in PyTorch, its libraries.

Each builder makes a network, its twin in PyTorch with the same weights, and
the calls of all sides on the same examples: {'ours': ..., 'stop': ...,
'torch': ..., 'foolbox': ..., 'torchattacks': ...}, the last three where they
are installed. 'stop' is ours with `stop=True`. Every call returns adversarial
examples (N, ...) in our layout, and starts at the examples themselves, so that
all sides climb the same hill.

The hidden layers are random and only the readout is fitted, to noisy copies of
one centre a class: enough for attacks to have something to do.
"""
from collections.abc import Callable
import functools
from importlib import metadata
import os
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import nets
from dsr.probes.attacks import apgd, pgd
from experiments.benchmark.kernels import ABSENT
from experiments.benchmark.measure import Call

PEERS = ('torch', 'foolbox', 'torchattacks', 'opacus')
_CLASSES = 10
_FITTED = 400  # Examples that the readout is fitted to.
_NOISE = 0.3  # Deviation of a pixel from its class's centre.
# Networks that PyTorch runs faster in that memory format, twice as fast.
_CHANNELS_LAST = ('lenet',)


class Case(NamedTuple):
  """One line of the table.

  Attributes:
    name: also the prefix of its metrics.
    attack: 'pgd' or 'apgd', linf.
    network: for `nets.build`.
    images: N.
    steps: gradients of each image.
    shape: of one input, with pixels in [0, 1].
    epsilon: radius; steps of PGD are a fifth of it.
    goal: what we hope to see.
  """

  name: str
  attack: str
  network: str
  images: int
  steps: int
  shape: tuple[int, ...]
  epsilon: float
  goal: str = ''

  def shrunk(self, factor: int) -> Self:
    """Fewer images and steps; the network stays what it is."""
    return self._replace(images=max(2, self.images // factor),
                         steps=max(2, self.steps // factor))


class Problem(NamedTuple):
  """A network, the examples that are attacked, and their labels."""

  module: Any
  params: Any
  x: Float[Array, 'N ...']
  labels: np.ndarray  # (N,)

  @property
  def predict(self) -> jax.tree_util.Partial:
    """x (N, ...) -> logits (N, C)."""
    return jax.tree_util.Partial(self.module.apply, self.params)


def problem(case: Case, seed: int) -> Problem:
  """Random features, a fitted readout, examples it has not been fitted to."""
  rng = np.random.default_rng(seed)
  labels = np.arange(_FITTED + case.images) % _CLASSES
  centres = rng.random((_CLASSES, *case.shape))
  x = centres[labels] + _NOISE * rng.normal(size=(len(labels), *case.shape))
  x = jnp.asarray(np.clip(x, 0, 1), jnp.float32)
  module = nets.build(case.network, _CLASSES)
  params = module.init(jax.random.key(seed), x[:2])
  phi = np.asarray(module.apply(params, x[:_FITTED], features=True))
  centre = phi.mean(axis=0)
  kernel, *_ = np.linalg.lstsq(
      phi - centre, np.eye(_CLASSES)[labels[:_FITTED]] - 1 / _CLASSES,
      rcond=1e-2)
  readout = {'kernel': kernel, 'bias': -centre @ kernel}
  params = {'params': {**params['params'], 'readout': jax.tree.map(
      lambda a: jnp.asarray(10 * a, jnp.float32), readout)}}
  return Problem(module, params, x[_FITTED:], labels[_FITTED:])


def attack_calls(case: Case, given: Problem) -> dict[str, Call]:
  """The attack of the case by every side that is installed."""
  options = {'epsilon': case.epsilon, 'steps': case.steps,
             'random_start': False}
  if case.attack == 'pgd':
    options['step_size'] = case.epsilon / 5
  attack = {'pgd': pgd.pgd, 'apgd': apgd.apgd}[case.attack]
  ours = functools.partial(
      attack, jax.random.key(0), given.predict, given.x, given.labels,
      **options)
  calls = {'ours': ours, 'stop': functools.partial(ours, stop=True)}
  theirs = {'pgd': {'torch': torch_pgd, 'foolbox': foolbox_pgd},
            'apgd': {'torchattacks': torchattacks_apgd}}[case.attack]
  if version('torch') == ABSENT:
    return calls
  import torch

  torch.set_num_threads(num_cores())
  network = twin(given.module, given.params, case.shape)
  x, labels = to_torch(given.x), torch.from_numpy(given.labels)
  if case.network in _CHANNELS_LAST:
    network = network.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
  for side, build in theirs.items():
    if version(side) != ABSENT:
      run = build(network, x, labels, case)
      calls[side] = lambda run=run: from_torch(run())
  return calls


def torch_pgd(network, x, labels, case: Case) -> Callable:
  """What one writes by hand: no gradient but the input's, no copies."""
  import torch

  low, high = (x - case.epsilon).clamp(min=0), (x + case.epsilon).clamp(max=1)
  loss = torch.nn.CrossEntropyLoss(reduction='sum')

  def run():
    y = x.clone()
    for _ in range(case.steps):
      y.requires_grad_(True)
      grad, = torch.autograd.grad(loss(network(y), labels), y)
      y = y.detach().add_(grad.sign_(), alpha=case.epsilon / 5)
      y = torch.clamp_(y, low, high)
    return y

  return run


def foolbox_pgd(network, x, labels, case: Case) -> Callable:
  """Foolbox's `LinfPGD`, without its look at whether it succeeded."""
  import foolbox

  model = foolbox.PyTorchModel(network, bounds=(0, 1), device='cpu')
  attack = foolbox.attacks.LinfPGD(
      abs_stepsize=case.epsilon / 5, steps=case.steps, random_start=False)
  return functools.partial(
      attack.run, model, x, labels, epsilon=case.epsilon)


def torchattacks_apgd(network, x, labels, case: Case) -> Callable:
  """The published APGD (arXiv:2003.01690), as torchattacks repeats it."""
  import torchattacks

  attack = torchattacks.APGD(
      network, norm='Linf', eps=case.epsilon, steps=case.steps, n_restarts=1,
      seed=0, loss='ce')
  images = x if x.ndim == 4 else x[:, None, None]  # It takes no vectors.
  return lambda: attack(images, labels).reshape(x.shape)


def twin(module: Any, params: Any, shape: tuple[int, ...]) -> Any:
  """A `torch.nn.Module` with the weights of an MLP, a LeNet or a ConvNet.

  Its images are (N, C, H, W); its parameters want no gradients.

  Args:
    module: the network.
    params: of the network.
    shape: of one input.

  Raises:
    ValueError: another network, or a ConvNet of unusual norm or pooling.
  """
  import torch

  params = params['params']
  layers = []
  if isinstance(module, nets.MLP):
    layers.append(torch.nn.Flatten())
    for i in range(len(module.widths)):
      layers += [_dense(params[f'hidden_{i}']), torch.nn.ReLU()]
    channels = 1
  elif isinstance(module, nets.LeNet):
    for i, padding in enumerate((2 if min(shape[:2]) < 32 else 0, 0)):
      layers += [_conv(params[f'conv_{i}'], padding), torch.nn.ReLU(),
                 torch.nn.MaxPool2d(2)]
    layers += [torch.nn.Flatten(),
               _dense(params['hidden_0'], module.channels[1]),
               torch.nn.ReLU(), _dense(params['hidden_1']), torch.nn.ReLU()]
    channels = 1
  elif isinstance(module, nets.ConvNet) and (
      (module.norm, module.pool) == ('instance', 'average')):
    for i in range(module.depth):
      layers += [_conv(params[f'conv_{i}'], 1), _norm(params[f'norm_{i}']),
                 torch.nn.ReLU(), torch.nn.AvgPool2d(2)]
    layers.append(torch.nn.Flatten())
    channels = module.width
  else:
    raise ValueError('`module` must be an MLP, a LeNet or a ConvNet with '
                     f'instance norm and average pooling, got {module}.')
  layers.append(_dense(params['readout'], channels))
  return torch.nn.Sequential(*layers).eval().requires_grad_(False)


def _dense(params, channels: int = 1):
  """`channels` that the inputs are flattened of: theirs come first there."""
  import torch

  kernel = np.asarray(params['kernel'])
  kernel = kernel.reshape(-1, channels, kernel.shape[1])
  kernel = kernel.swapaxes(0, 1).reshape(-1, kernel.shape[2])
  layer = torch.nn.Linear(*kernel.shape)
  return _set(layer, weight=kernel.T, bias=params['bias'])


def _conv(params, padding: int):
  import torch

  kernel = np.asarray(params['kernel']).transpose(3, 2, 0, 1)
  layer = torch.nn.Conv2d(
      kernel.shape[1], kernel.shape[0], kernel.shape[2:], padding=padding,
      bias='bias' in params)
  return _set(layer, **{**params, 'weight': kernel})


def _norm(params):
  import torch

  layer = torch.nn.InstanceNorm2d(len(params['scale']), affine=True)
  return _set(layer, weight=params['scale'], bias=params['bias'])


def _set(layer, weight, bias=None, **_):
  import torch

  for name, value in (('weight', weight), ('bias', bias)):
    if value is not None:
      setattr(layer, name, torch.nn.Parameter(torch.tensor(np.array(value))))
  return layer


def to_torch(x: Any) -> Any:
  """(N, D) as it is, images (N, H, W, C) as (N, C, H, W)."""
  import torch

  x = np.array(x)  # A copy: JAX's are locked.
  return torch.from_numpy(
      x if x.ndim == 2 else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def from_torch(x: Any) -> np.ndarray:
  """The inverse of `to_torch`."""
  x = x.detach().cpu().numpy()
  return x if x.ndim == 2 else x.transpose(0, 2, 3, 1)


def robust_accuracy(given: Problem, x_adv: Any) -> float:
  """Share of examples that are right, both clean and attacked."""
  right = lambda x: np.argmax(
      np.asarray(given.predict(jnp.asarray(x))), axis=1) == given.labels
  return float(np.mean(right(given.x) & right(x_adv)))


def version(package: str) -> str:
  """Of a package, or `ABSENT`."""
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return ABSENT


def num_cores() -> int:
  """Cores that this process may run on."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count()
