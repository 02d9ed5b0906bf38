"""Sums of clipped gradients, as a step of DP-SGD needs them, beside Opacus.

Sides, on the same network, batch and weights, none with noise: 'ours' is
`train.clipped.clipped_sum`; 'plain' the gradient of the summed loss without any
clipping, by JAX, which is the floor; 'opacus' keeps the gradients of all single
examples; 'ghost' is its fast gradient (ghost) clipping, with two backward
passes. Every call returns the sum as one vector in PyTorch's order.
"""
from collections.abc import Callable
import functools
from typing import Any, NamedTuple, Self

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dsr import nets
from dsr.report import tables
from dsr.runs import records
from dsr.train import clipped, recipe
from dsr.types import Examples
from experiments.benchmark import attacks, kernels as rivals, measure
from experiments.benchmark.rows import CASE, columns, ratio, select

CLIP = 1.0
PEERS = ('opacus', 'ghost')
_CLASSES = 10


class Case(NamedTuple):
  """One line of the table: B images of a shape, and a network."""

  name: str
  network: str
  images: int
  shape: tuple[int, ...]
  goal: str = 'ours >= 1'

  def shrunk(self, factor: int) -> Self:
    """Fewer images; the network stays what it is."""
    return self._replace(images=max(2, self.images // factor))


CASES = (
    Case('clip_convnet3_digits', 'convnet3', 64, (8, 8, 1)),
    Case('clip_convnet3_mnist', 'convnet3', 64, (28, 28, 1)),
    Case('clip_lenet_mnist', 'lenet', 256, (28, 28, 1)),
    Case('clip_mlp_mnist', 'mlp', 256, (784,)),
)


def clipping_suite(config: Any) -> tuple[list[dict], list[str]]:
  """Examples a second, and their ratios."""
  rows = [_row(case.shrunk(config.shrink), config)
          for case in select(config, CASES)]
  sides = ('ours', 'plain', *PEERS)
  return rows, [tables.render(
      rows, [CASE, *(tables.Column(f'{side}_rate', f'{side} / s', digits=0)
                     for side in sides),
             ratio('ours_per_plain', 'ours / plain'),
             *(ratio(f'ours_per_{peer}', f'ours / {peer}') for peer in PEERS),
             *columns(*(f'cpu_ours_per_{peer}' for peer in PEERS)),
             tables.Column('difference', 'largest difference'), 'goal'],
      title='Examples a second; ratios of them')]


def calls_of(case: Case, seed: int) -> dict[str, Callable]:
  """The sum of clipped gradients by every side that is installed."""
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.random((case.images, *case.shape)), jnp.float32)
  labels = np.arange(case.images) % _CLASSES
  batch = Examples(x, jnp.eye(_CLASSES, dtype=jnp.float32)[labels])
  module = nets.build(case.network, _CLASSES)
  params = module.init(jax.random.key(seed), x[:2])['params']
  drawn = jnp.ones(case.images, bool)
  ours = jax.jit(functools.partial(
      clipped.clipped_sum, module, clip=CLIP, loss='cross_entropy'))
  plain = jax.jit(jax.grad(lambda params: case.images * recipe.loss_value(
      'cross_entropy', module.apply({'params': params}, x), batch.y)))
  calls = {'ours': lambda: ours(params, batch, drawn)[1],
           'plain': lambda: plain(params)}
  if rivals.ABSENT not in map(attacks.version, ('torch', 'opacus')):
    import torch

    torch.set_num_threads(attacks.num_cores())
    build = lambda: attacks.twin(
        module, {'params': params}, case.shape).train().requires_grad_(True)
    # Opacus 1.6.0 has wrong gradients of convolutions where PyTorch takes
    # images for channels-last, as it does those of one channel by strides.
    x_torch = attacks.to_torch(x).clone(memory_format=torch.contiguous_format)
    y_torch = torch.from_numpy(labels)
    calls |= {peer: make(build(), x_torch, y_torch)
              for peer, make in (('opacus', _opacus), ('ghost', _ghost))}
  return calls


def _opacus(network, x, labels) -> Callable:
  """The gradients of all examples, then `DPOptimizer`'s clipping."""
  import opacus
  import torch

  network = opacus.GradSampleModule(network, loss_reduction='sum')
  optimizer = opacus.optimizers.DPOptimizer(
      torch.optim.SGD(network.parameters(), lr=0.0), noise_multiplier=0.0,
      max_grad_norm=CLIP, expected_batch_size=len(x), loss_reduction='sum')
  loss = torch.nn.CrossEntropyLoss(reduction='sum')

  def run():
    optimizer.zero_grad()
    loss(network(x), labels).backward()
    optimizer.clip_and_accumulate()
    return _summed(network)

  return run


def _ghost(network, x, labels) -> Callable:
  """Norms without gradients of single examples, and a second pass."""
  from opacus import optimizers
  from opacus.grad_sample import grad_sample_module_fast_gradient_clipping
  from opacus.utils import fast_gradient_clipping_utils
  import torch

  network = (grad_sample_module_fast_gradient_clipping
             .GradSampleModuleFastGradientClipping(
                 network, max_grad_norm=CLIP, loss_reduction='sum'))
  optimizer = optimizers.DPOptimizerFastGradientClipping(
      torch.optim.SGD(network.parameters(), lr=0.0), noise_multiplier=0.0,
      max_grad_norm=CLIP, expected_batch_size=len(x), loss_reduction='sum')
  loss = torch.nn.CrossEntropyLoss(reduction='none')

  def run():
    optimizer.zero_grad()
    fast_gradient_clipping_utils.DPTensorFastGradientClipping(
        network, optimizer, loss(network(x), labels), 'sum').backward()
    optimizer.accumulate()
    return _summed(network)

  return run


def _summed(network):
  import torch

  return torch.cat([p.summed_grad.flatten() for p in network.parameters()])


def in_order(case: Case, grads: Any) -> np.ndarray:
  """A gradient of ours as PyTorch's vector: the twin's weights, in order."""
  twin = attacks.twin(
      nets.build(case.network, _CLASSES), {'params': grads}, case.shape)
  return np.concatenate([p.numpy().ravel() for p in twin.parameters()])


def _row(case: Case, config: Any) -> dict[str, Any]:
  calls = calls_of(case, config.seed)
  logging.info('%s: %s', case.name, ', '.join(calls))
  values, seconds = measure.race(
      calls, repeats=config.repeats, seconds=config.seconds)
  cpu = {side: measure.cpu_seconds(call) for side, call in calls.items()}
  row = {'case': case.name, 'goal': case.goal}
  for peer in PEERS:  # Overwritten below where there is one.
    row[f'{peer}_rate'] = rivals.ABSENT
  for side in calls:
    row[f'{side}_rate'] = case.images / float(np.median(seconds[side]))
  row['ours_per_plain'] = measure.quartiles(seconds['plain'] / seconds['ours'])
  found = [peer for peer in PEERS if peer in calls]
  for peer in found:
    row[f'ours_per_{peer}'] = measure.quartiles(
        seconds[peer] / seconds['ours'])
    row[f'cpu_ours_per_{peer}'] = records.metric(cpu[peer] / cpu['ours'])
  if found:
    ours = in_order(case, values['ours'])
    row['difference'] = max(
        float(np.abs(values[peer].detach().numpy() - ours).max())
        for peer in found) / float(np.abs(ours).max())
  return row
