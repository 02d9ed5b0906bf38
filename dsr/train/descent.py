r"""Gradient descent on the loss of one network, as init/step.

  L(theta) = 1/(2N) sum_n |y_n - f(x_n; theta)|^2      ('mse')
  L(theta) = -1/N sum_n y_n . log softmax f(x_n; theta) ('cross_entropy')

Axes: N, B, C as in `dsr.types`. A step is one update by the optimizer.
"""
from collections.abc import Callable
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import optax

from dsr import checks
from dsr.data import cutmix as cutmix_lib
from dsr.train import batches
from dsr.train.batches import LOSSES
from dsr.types import Examples, Solver


class State(NamedTuple):
  """One network in training; stacked over R in `fit_networks`."""

  params: PyTree
  opt_state: optax.OptState
  key: Key[Array, '']
  step: Int[Array, '']
  order: Int[Array, 'N'] | None  # This epoch's; None if all are one batch.


class Info(NamedTuple):
  """What one step saw before its update."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


@functools.lru_cache(maxsize=64)  # One step function, hence one compilation.
def gradient_descent(
    module: nn.Module, optimizer: optax.GradientTransformation, *,
    batch_size: int | None = None, loss: str = 'mse',
    augment: Callable | None = None, cutmix: float = 0.0,
    init_scale: float = 1.0) -> Solver:
  """Training of one network as init/step, for `dsr.loop` or any scan.

  Args:
    module: a Flax module without state besides its parameters.
    optimizer: any optax transformation (DP-SGD's needs gradients per example,
      which this step does not compute).
    batch_size: B. Every epoch visits a new random order in ceil(N / B) batches
      of B; the last one is filled up from the start of the order. None, or at
      least N, trains on everything at each step, in the given order.
    loss: one of `LOSSES`.
    augment: (key, x (B, ...)) -> x (B, ...), hashable; drawn anew each step.
    cutmix: probability that a batch is mixed by `data.cutmix`, after `augment`.
    init_scale: factor on all kernels at the start. Kernels begin LeCun-normal,
      with variance 1 / fan-in; PyTorch's have a third of that.

  Returns:
    init: (key, data: Examples) -> State.
    step: (State, data) -> (State, Info).
  """
  checks.one_of('loss', loss, LOSSES)
  if batch_size is not None:
    checks.at_least('batch_size', batch_size, 1)
  checks.within('cutmix', cutmix, 0, 1)
  checks.positive('init_scale', init_scale)

  def init(key, data):
    return initial(key, module, optimizer, data.x, batch_size=batch_size,
                   init_scale=init_scale)

  def loss_fn(params, batch):
    out = module.apply({'params': params}, batch.x)
    if loss == 'mse':
      return 0.5 * jnp.mean(jnp.sum((out - batch.y)**2, axis=-1))
    return jnp.mean(optax.softmax_cross_entropy(out, batch.y))

  def step(state, data):
    batch, order = next_batch(state, data, batch_size)
    if augment is not None:
      key = jax.random.fold_in(jax.random.split(state.key)[0], state.step)
      batch = batch._replace(x=augment(key, batch.x))
    if cutmix:
      key = jax.random.fold_in(jax.random.split(state.key, 3)[2], state.step)
      batch = Examples(*cutmix_lib.cutmix(key, batch.x, batch.y, cutmix))
    return descend(state, optimizer, lambda p: loss_fn(p, batch), order)

  return Solver(init, step)


def initial(
    key: Key[Array, ''], module: nn.Module,
    optimizer: optax.GradientTransformation, x: Float[Array, 'N ...'], *,
    batch_size: int | None, init_scale: float) -> State:
  """The state before the first step; arguments as in `gradient_descent`."""
  key_params, key = jax.random.split(key)
  params = module.init(key_params, x[:1])['params']
  if init_scale != 1:
    params = jax.tree_util.tree_map_with_path(
        lambda path, a: a * init_scale if path[-1].key == 'kernel' else a,
        params)
  return State(params, optimizer.init(params), key, jnp.zeros((), jnp.int32),
               batches.first_order(x.shape[0], batch_size))


def next_batch(
    state: State, data: PyTree, batch_size: int | None
) -> tuple[PyTree, Int[Array, 'N'] | None]:
  """The rows of `data` that this step sees, and the order of this epoch."""
  if state.order is None:
    return data, None
  rows, order = batches.next_rows(
      state.key, state.step, state.order, batch_size)
  return jax.tree.map(lambda a: a[rows], data), order


def descend(
    state: State, optimizer: optax.GradientTransformation, loss_fn: Callable,
    order: Int[Array, 'N'] | None) -> tuple[State, Info]:
  """One update along the gradient of `loss_fn`, a function of parameters."""
  value, grads = jax.value_and_grad(loss_fn)(state.params)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  state = State(params, opt_state, state.key, state.step + 1, order)
  return state, Info(value, jnp.isfinite(value))
