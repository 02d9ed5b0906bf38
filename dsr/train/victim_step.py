r"""A step of a victim's training: descent, its duals, and checkpoints.

See `dsr.train.victim` for the formulas. Axes: N examples, B batch, C outputs,
S checkpoints.
"""
from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree
import optax

from dsr import nets, numerics
from dsr.train import batches, private
from dsr.train.descent import Info
from dsr.train.recipe import (
    Recipe,
    loss_value,
    momentum_of,
    residual,
    transform_of,
)
from dsr.types import Examples


class Checkpoint(NamedTuple):
  """Parameters on the way.

  Attributes:
    step: steps behind them.
    loss: there, as in `Victim.curve`.
    params: theta_t.
  """

  step: int
  loss: float
  params: PyTree


class State(NamedTuple):
  """A victim in training."""

  params: PyTree
  opt_state: optax.OptState
  duals: Float[Array, 'N C'] | None
  velocity: Float[Array, 'N C'] | None  # Of the duals.
  key: Key[Array, '']
  step: Int[Array, '']
  order: Int[Array, 'N'] | None  # This epoch's; None if all are one batch.
  saved: 'Saved | None'


class Saved(NamedTuple):
  """Checkpoints so far, stacked: losses' first, then steps'."""

  params: PyTree  # Leaves (S, ...).
  step: Int[Array, 'S']  # -1 where not reached.
  loss: Float[Array, 'S']


class Given(NamedTuple):
  """What a step reads and does not change."""

  data: Examples
  theta_0: PyTree | None  # None unless linearised.
  rate: Float[Array, ''] | None  # None with an optimizer.
  losses: Float[Array, '...']  # At which to save.
  steps: Int[Array, '...']


def forward_of(
    module: nn.Module, linearised: bool, theta_0: PyTree | None) -> Callable:
  """(params, x) -> outputs, of the network or its Taylor model."""
  if linearised:
    return lambda params, x: nets.linear_apply(module, theta_0, params, x)
  return lambda params, x: module.apply({'params': params}, x)


def init_state(
    key: Key[Array, ''], recipe: Recipe, given: Given, theta_0: PyTree
) -> State:
  """Before the first step; `key` is of batches and noise."""
  data = given.data
  no_duals = recipe.optimizer or recipe.weight_decay or recipe.clip is not None
  zeros = None if no_duals else jnp.zeros_like(data.y)
  count = given.losses.size + given.steps.size
  saved = Saved(
      jax.tree.map(lambda a: jnp.zeros((count, *a.shape), a.dtype), theta_0),
      jnp.full((count,), -1, jnp.int32),
      jnp.zeros((count,), data.y.dtype)) if count else None
  return State(
      theta_0, transform_of(recipe).init(theta_0), zeros, zeros, key,
      jnp.zeros((), jnp.int32),
      batches.first_order(len(data.x), recipe.batch_size), saved)


@functools.lru_cache(maxsize=64)  # One step function, hence one compilation.
def step_of(module: nn.Module, recipe: Recipe, linearised: bool) -> Callable:
  """(State, Given) -> (State, Info)."""
  transform, momentum = transform_of(recipe), momentum_of(recipe)

  @numerics.exact  # Attacks read theta_T - theta_0 to its last digits.
  def step(state, given):
    data, rows, order = given.data, None, None
    if state.order is not None:
      rows, order = batches.next_rows(
          state.key, state.step, state.order, recipe.batch_size)
      data = jax.tree.map(lambda a: a[rows], data)
    num = len(data.x)
    forward = forward_of(module, linearised, given.theta_0)
    out, vjp = jax.vjp(lambda params: forward(params, data.x), state.params)
    r = residual(recipe.loss, out, data.y) / num
    loss = loss_value(recipe.loss, out, data.y)
    cotangents = -r
    if recipe.clip is not None:
      weights = private.clip_weights(
          forward, state.params, data.x, num * cotangents, recipe.clip)
      cotangents *= weights[:, None]
    grads, = vjp(cotangents)
    if recipe.noise:
      key = jax.random.fold_in(jax.random.split(state.key)[0], state.step)
      grads = private.add_noise(key, grads, recipe.noise * recipe.clip / num)
    updates, opt_state = transform.update(grads, state.opt_state, state.params)
    if given.rate is not None:
      updates = jax.tree.map(lambda u: -given.rate * u, updates)
    duals, velocity = state.duals, state.velocity
    if duals is not None:
      velocity = momentum * velocity
      velocity = (velocity + r if rows is None
                  else velocity.at[rows].add(r))
      duals = duals + given.rate * velocity
    state = State(
        optax.apply_updates(state.params, updates), opt_state, duals, velocity,
        state.key, state.step + 1, order, _save(state, given, loss))
    return state, Info(loss, jnp.isfinite(loss))

  return step


def _save(state, given, loss) -> Saved | None:
  """Copies the parameters, of before this step, to the places now reached."""
  if state.saved is None:
    return None
  reached = jnp.concatenate(
      [loss <= given.losses, state.step == given.steps])
  now = reached & (state.saved.step < 0)

  def write(saved):
    put = lambda old, new: jnp.where(
        now.reshape(-1, *[1] * new.ndim), new[None], old)
    return Saved(jax.tree.map(put, saved.params, state.params),
                 put(saved.step, state.step), put(saved.loss, loss))

  return jax.lax.cond(now.any(), write, lambda saved: saved, state.saved)


def checkpoints_of(
    state: State, steps: int, last: float, save_losses: Sequence[float],
    save_steps: Sequence[int]) -> tuple[Checkpoint, ...]:
  """What was saved, and theta_T where only the last step got there."""
  found = {}
  wanted = [*((loss, None) for loss in save_losses),
            *((None, step) for step in save_steps)]
  for i, (loss, step) in enumerate(wanted):
    if (at := int(state.saved.step[i])) >= 0:
      found.setdefault(at, Checkpoint(
          at, float(state.saved.loss[i]),
          jax.tree.map(lambda a, i=i: a[i], state.saved.params)))
    elif step == steps or (loss is not None and last <= loss):
      found.setdefault(steps, Checkpoint(steps, last, state.params))
  return tuple(found[step] for step in sorted(found))
