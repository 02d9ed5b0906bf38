r"""Expert trajectories: networks trained on real images, kept after each epoch.

What `mtt` matches (arXiv:2203.11932). Each of E networks goes from its own
random start by plain SGD on the cross-entropy, with augmented images, and its
parameters are kept as one vector before the first and after every epoch. The
published ones are trained for 50 epochs, of which a method uses the first few:
with a constant rate those do not depend on how many follow.

On disk and in memory the vectors are float16, as a start and a target need not
be exact, while training goes on in the precision of the data. Experts are
trained in groups, as many side by side as the memory of an accelerator holds,
one after another on CPUs. A group that is done is a file `experts_<first>.npz`;
one that was stopped goes on from its last epoch.

Axes: E experts, G of them in a group; T epochs; P parameters; N examples.
"""
from collections.abc import Callable
import math
import os
import pathlib
import shutil
import time
from typing import NamedTuple

from absl import logging
from flax import linen as nn
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import numpy as np
import optax

from dsr import checks, loop, train
from dsr.train import batches
from dsr.types import Examples, Solver, Status

_INIT_SCALE = 1 / math.sqrt(3)  # Of kernels: PyTorch's, as published.
DTYPES = ('float16', 'float32')


class Experts(NamedTuple):
  """Trajectories, and what they took.

  Attributes:
    params: (E, T + 1, P), before the first and after every epoch.
    seconds: of their training, over all sessions.
  """

  params: np.ndarray
  seconds: float


class State(NamedTuple):
  """A group in training.

  Attributes:
    networks: G stacked `train.State`.
    kept: (T + 1, G, P); rows of epochs still to come are 0.
    epoch: how many are done.
  """

  networks: train.State
  kept: Float[Array, 'T G P']
  epoch: Int[Array, '']


class Info(NamedTuple):
  """Of one epoch: the mean loss of each network, and whether it is finite."""

  loss: Float[Array, 'G']
  finite: Bool[Array, 'G']


def train_experts(
    key: Key[Array, ''], module: nn.Module, data: Examples, *,
    num_experts: int, epochs: int, learning_rate: float = 0.01,
    batch_size: int = 256, augment: Callable | None = None,
    dtype: str = 'float16', folder: str | os.PathLike | None = None,
    fingerprint: str = '', parallel: int | None = None) -> Experts:
  """Trains E networks, or reads those of `folder`.

  Args:
    key: split among the experts, so that the first ones are the same for any
      number of them.
    module: a Flax module without state besides its parameters.
    data: x (N, ...), and class probabilities y (N, C).
    num_experts: E.
    epochs: T.
    learning_rate: of SGD without momentum.
    batch_size: see `train.gradient_descent`.
    augment: (key, x (B, ...)) -> x, or None; drawn anew at each update.
    dtype: of what is kept, one of `DTYPES`.
    folder: where trajectories are kept and found again; None keeps none.
    fingerprint: of all else that the experts depend on. A file of another one
      is refused.
    parallel: see `train.fit_networks`.

  Raises:
    ValueError: an option out of range, data that do not fit the module, or
      a folder with the experts of another run.
    FloatingPointError: a loss is not finite; names the epoch.
    KeyboardInterrupt: a signal; the next call goes on from the last epoch.
  """
  checks.at_least('num_experts', num_experts, 1)
  checks.at_least('epochs', epochs, 1)
  checks.positive('learning_rate', learning_rate)
  checks.at_least('batch_size', batch_size, 1)
  checks.one_of('dtype', dtype, DTYPES)
  data = batches.checked_examples(module, data, 'cross_entropy')
  solver = train.gradient_descent(
      module, optax.sgd(learning_rate), batch_size=batch_size,
      loss='cross_entropy', augment=augment, init_scale=_INIT_SCALE)
  keys = jax.random.split(key, num_experts)
  one = jax.eval_shape(solver.init, keys[0], data)
  size = loop.pick_parallel(parallel, num_experts, solver.step, one, data)
  epoch = _epoch(solver, math.ceil(len(data.x) / batch_size))
  done, seconds = [], 0.0
  for first in range(0, num_experts, size):
    path = folder and pathlib.Path(folder, f'experts_{first:04d}.npz')
    group = keys[first:first + size]
    own = f'{fingerprint} epochs={epochs} first={first} of {len(group)} {dtype}'
    if path is None or not path.exists():
      params, took = _train(
          solver.init, epoch, group, data, epochs, dtype, path, own,
          f'expert {first + 1} of {num_experts}' if len(group) == 1 else
          f'experts {first + 1} to {first + len(group)} of {num_experts}')
    else:
      params, took = _read(path, own)
    done.append(params)
    seconds += took
  return Experts(np.concatenate(done), seconds)


def unravel_like(module: nn.Module, x: Float[Array, 'N ...']) -> Callable:
  """(P,) -> parameters of `module` for inputs like `x`; safe under `jit`."""
  shapes = jax.eval_shape(
      lambda: module.init(jax.random.key(0), x[:1])['params'])
  zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
  return ravel_pytree(zeros)[1]


def _epoch(solver: Solver, num_steps: int) -> Callable:
  """(State, data) -> (State, Info): an epoch of each network of a group."""

  def epoch(state: State, data: Examples) -> tuple[State, Info]:
    one = lambda network: loop.run_chunk(
        solver.step, network, data, num_steps=num_steps)
    num = state.kept.shape[1]
    networks, info = (jax.vmap(one) if num > 1 else _alone(one))(state.networks)
    done = state.epoch + 1
    kept = state.kept.at[done].set(
        _flat(networks.params).astype(state.kept.dtype))
    return State(networks, kept, done), Info(
        jnp.mean(info.loss, axis=1), jnp.all(info.finite, axis=1))

  return epoch


def _alone(one):
  """`one` on a stack of one, without a vmap: CPUs convolve faster so."""
  first = lambda tree: jax.tree.map(lambda a: a[0], tree)
  stack = lambda tree: jax.tree.map(lambda a: a[None], tree)
  return lambda stacked: stack(one(first(stacked)))


def _flat(params: PyTree) -> Float[Array, 'G P']:
  """Each network of a stack as one vector."""
  return jax.vmap(lambda p: ravel_pytree(p)[0])(params)


def _train(init, epoch, keys, data, epochs, dtype, path, fingerprint, name):
  """(G, T + 1, P) and seconds of one group."""
  networks = jax.jit(jax.vmap(init, in_axes=(0, None)))(keys, data)
  start = _flat(networks.params).astype(dtype)
  kept = jnp.zeros((epochs + 1, *start.shape), dtype).at[0].set(start)
  state = State(networks, kept, jnp.zeros((), jnp.int32))
  folder = path and path.with_suffix('')
  clock = {'seconds': 0.0}
  mark = time.monotonic()

  def on_chunk(step, state, info):
    del step, state, info
    nonlocal mark
    now = time.monotonic()
    clock['seconds'] += now - mark
    mark = now

  result = loop.run(
      epoch, state, data, num_steps=epochs, chunk=1, workdir=folder,
      checkpoint_every=1, fingerprint=fingerprint, extra=clock,
      on_chunk=on_chunk, description=name)
  if result.status == Status.NOT_FINITE:
    raise FloatingPointError(
        f'The loss of {name} is not finite in epoch {result.broken_at + 1}: '
        'lower the learning rate of the experts.')
  if result.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  logging.info('%s: loss %.4g after %d epochs, %.1f s', name,
               np.mean(result.infos.loss[-1]), epochs, clock['seconds'])
  params = np.swapaxes(np.asarray(result.state.kept), 0, 1)
  if path is not None:
    part = path.with_suffix('.part')
    with open(part, 'wb') as file:
      np.savez(file, fingerprint=fingerprint, params=params,
               loss=result.infos.loss, seconds=clock['seconds'])
    os.replace(part, path)
    shutil.rmtree(folder)
  return params, clock['seconds']


def _read(path, fingerprint) -> tuple[np.ndarray, float]:
  """What `_train` wrote, if for the same run."""
  with np.load(path) as arrays:
    if str(arrays['fingerprint']) != fingerprint:
      raise ValueError(
          f'`folder` must have the experts of the same run, or none: {path} is '
          'of other data, another network or other options. Choose another '
          'folder, or delete that one.')
    return arrays['params'], float(arrays['seconds'])
