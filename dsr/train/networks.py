r"""Networks from several random starts, trained side by side, and their use.

On paper -> code: theta_0 -> `init_networks(key, ...)`, theta_T ->
`Trained.params`. Axes: R networks (seeds); N, B, C as in `dsr.types`; P the
parameters of one network, a pytree.
"""
from collections.abc import Callable
import functools
import math
import os
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import numpy as np
import optax

from dsr import checks, loop
from dsr.data import labels as labels_lib
from dsr.nets import BATCH_STATS
from dsr.train.batches import checked_examples
from dsr.train.descent import gradient_descent
from dsr.train.moments import batch_stats
from dsr.types import Examples, Solver, Status

_STEPS_PER_DISPATCH = 100
_NO_OPTIMIZER = optax.identity()  # One object, so that caches find it.


class Trained(NamedTuple):
  """Networks after training.

  Attributes:
    module: the architecture.
    params: pytree, each leaf (R, ...).
    curve: (steps, R) loss of the batch before each step, on the host.
    batch_stats: moments that batch normalisation uses from now on, each leaf
      (R, ...); None for networks without it.
  """

  module: nn.Module
  params: PyTree
  curve: np.ndarray
  batch_stats: PyTree = None


def init_networks(
    key: Key[Array, ''], module: nn.Module, x: Float[Any, 'N ...'], *,
    num_networks: int) -> PyTree:
  """theta_0 of R networks, stacked: where `fit_networks` starts.

  (With `init_scale=1`: otherwise the kernels there are these times the scale.)

  Args:
    key: network r is that of the r-th key of `jax.random.split(key, R)`,
      alone or among others.
    module: a Flax module without state besides its parameters.
    x: examples; their shape and dtype count, not their values.
    num_networks: R.
  """
  checks.inputs('x', x)
  checks.at_least('num_networks', num_networks, 1)
  solver = gradient_descent(module, _NO_OPTIMIZER)
  sample = Examples(jnp.asarray(x[:1]), None)
  return _init_all(solver.init, jax.random.split(key, num_networks),
                   sample).params


@functools.partial(jax.jit, static_argnames='init')
def _init_all(init, keys, data):
  return jax.vmap(init, in_axes=(0, None))(keys, data)


@functools.lru_cache(maxsize=64)
def _advance_all(
    step: Callable, parallel: int | None, num_steps: int) -> Callable:
  """`num_steps` steps of R stacked states, `parallel` of them in one vmap.

  The scan is inside the map: a network stays in place for all its steps
  instead of being copied out of the stack and back at each one.
  """
  def advance_all(states, data):
    one = lambda state: loop.run_chunk(step, state, data, num_steps=num_steps)
    return jax.lax.map(one, states, batch_size=parallel)
  return advance_all


def fit_networks(
    key: Key[Array, ''], module: nn.Module, data: Examples, *,
    optimizer: optax.GradientTransformation, num_steps: int,
    num_networks: int = 5, batch_size: int | None = None, loss: str = 'mse',
    augment: Callable | None = None, init_scale: float = 1.0,
    cutmix: float = 0.0, parallel: int | None = None) -> Trained:
  """Trains R networks from R random starts on the same examples.

  Networks with batch normalisation train on the moments of each batch and get
  those of the training set at the end, see `batch_stats`.

  Args:
    key: see `init_networks`; it also draws batches and augmentations.
    module: a Flax module without state besides its parameters.
    data: x (N, ...) after `data.transforms`, y (N, C) encoded or soft labels.
    optimizer: any optax transformation; the same object again, with the same
      shapes, compiles nothing anew.
    num_steps: updates of each network.
    num_networks: R.
    batch_size: see `gradient_descent`.
    loss: one of `LOSSES`.
    augment: see `gradient_descent`.
    init_scale: see `gradient_descent`.
    cutmix: see `gradient_descent`.
    parallel: networks in one vmap; the others wait their turn. None is 1 on
      CPUs, where one network fills the cores and a batched matrix product is
      slower than its parts, and elsewhere as many as memory allows, see
      `loop.pick_parallel`. Results differ by rounding only.

  Raises:
    ValueError: shapes that do not fit, values that are not finite, or targets
      that are no probabilities under 'cross_entropy'.
    FloatingPointError: a loss became infinite or NaN.
    KeyboardInterrupt: Ctrl-C; half-trained networks are not handed out.
  """
  data = checked_examples(module, data, loss)
  solver = gradient_descent(module, optimizer, batch_size=batch_size, loss=loss,
                            augment=augment, cutmix=cutmix,
                            init_scale=init_scale)
  params, curve = train_all(
      key, solver, data, num_steps=num_steps, num_networks=num_networks,
      parallel=parallel, name=f'{loss} loss of {type(module).__name__}')
  stats = batch_stats(module, params, data.x, batch_size=batch_size)
  return Trained(module, params, curve, stats)


def train_all(
    key: Key[Array, ''], solver: Solver, data: PyTree, *, num_steps: int,
    num_networks: int, parallel: int | None, name: str,
    dispatch: int = _STEPS_PER_DISPATCH,
    workdir: str | os.PathLike | None = None, fingerprint: str = '',
    checkpoint_every: int = 1000, progress: bool = False,
    description: str = ''
) -> tuple[PyTree, Float[np.ndarray, 'T R']]:
  """Runs a solver whose state is a `descent.State` from R random starts.

  Args:
    key: split among the networks.
    solver: its `init` takes (key, data).
    data: of all networks.
    num_steps: T, updates of each network.
    num_networks: R.
    parallel: see `fit_networks`.
    name: of the loss, in messages.
    dispatch: updates of each network between two looks at Ctrl-C, at most.
    workdir: where the run is saved and from where it goes on; None: nowhere.
    fingerprint: names the run there.
    checkpoint_every: updates between two checkpoints, about.
    progress: see `loop.run`.
    description: see `loop.run`.

  Returns:
    Parameters, each leaf (R, ...), and the losses before each step.

  Raises:
    ValueError: a number out of range, or a checkpoint of another run.
    FloatingPointError: a loss became infinite or NaN.
    KeyboardInterrupt: Ctrl-C; half-trained networks are not handed out.
  """
  checks.at_least('num_networks', num_networks, 1)
  checks.at_least('num_steps', num_steps, 1)
  if parallel is not None:
    checks.at_least('parallel', parallel, 1)
  states = _init_all(solver.init, jax.random.split(key, num_networks), data)
  parallel = loop.pick_parallel(
      parallel, num_networks, solver.step, loop.one_of(states), data)
  inner = math.gcd(num_steps, dispatch)
  advance = _advance_all(
      solver.step, None if parallel == 1 else parallel, inner)
  result = loop.run(
      advance, states, data, num_steps=num_steps // inner,
      chunk=dispatch // inner, workdir=workdir, fingerprint=fingerprint,
      checkpoint_every=max(1, checkpoint_every // inner), progress=progress,
      description=description)
  if result.status == Status.NOT_FINITE:
    raise FloatingPointError(
        f'The {name} is not finite after '
        f'{inner * result.steps_done} steps or a few more: lower the learning '
        'rate (SGD on wide networks in the standard parameterisation needs '
        "about 1 / width; 'adam' does not), or rescale inputs and targets.")
  if result.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  curve = np.swapaxes(result.infos.loss, 1, 2).reshape(num_steps, num_networks)
  return result.state.params, curve


def predict(
    trained: Trained, x: Float[Any, 'N ...'], *, tile: int = 256,
    features: bool = False) -> Float[np.ndarray, 'R N C']:
  """Outputs of every network, on the host.

  Args:
    trained: of `fit_networks`.
    x: (N, ...) inputs like those of training, on the host or the device.
    tile: rows that pass through one network at a time; bounds the memory.
    features: the representation (R, N, F) that enters the readout, instead.
  """
  checks.inputs('x', x)
  checks.at_least('tile', tile, 1)
  num = x.shape[0]
  tile = min(tile, num)
  starts = [*range(0, num - tile, tile), num - tile]  # Equal shapes: compiled
  variables = {'params': trained.params}  # once.
  if trained.batch_stats is not None:
    variables[BATCH_STATS] = trained.batch_stats
  tiles = [np.asarray(_apply(trained.module, variables,
                             jnp.asarray(x[s:s + tile]), features))
           for s in starts]
  fresh = [0, *(s + tile for s in starts[:-1])]  # First row not yet seen.
  return np.concatenate(
      [t[:, f - s:] for t, s, f in zip(tiles, starts, fresh)], axis=1)


@functools.partial(jax.jit, static_argnames=('module', 'features'))
def _apply(module, variables, x, features):
  options = {'features': True} if features else {}  # Not all modules know it.
  return jax.lax.map(lambda v: module.apply(v, x, **options), variables)


def accuracy(
    trained: Trained, x: Float[Any, 'N ...'], labels: Int[Any, 'N'], *,
    tile: int = 256) -> Float[np.ndarray, 'R']:
  """Share of examples of which a network is right, in [0, 1]; see `correct`."""
  return np.mean(correct(trained, x, labels, tile=tile), axis=1)


def correct(
    trained: Trained, x: Float[Any, 'N ...'], labels: Int[Any, 'N'], *,
    tile: int = 256) -> Bool[np.ndarray, 'R N']:
  """Whether the decoded output of a network is the integer label.

  Outputs are decoded by `data.labels`: the sign if C = 1, else the argmax.
  """
  outputs = predict(trained, x, tile=tile)
  checks.labels('labels', labels, max(2, outputs.shape[-1]))
  checks.same_rows(x=x, labels=labels)
  decoded = jax.vmap(labels_lib.decode)(jnp.asarray(outputs))
  return np.equal(decoded, np.asarray(labels)[None])
