r"""APGD: PGD that sets its own step size (arXiv:2003.01690, algorithm 1).

  z_{k+1} = P(y_k + eta d(y_k)),
  y_{k+1} = P(y_k + 0.75 (z_{k+1} - y_k) + 0.25 (y_k - y_{k-1})),
from eta = 2 epsilon and y_1 = z_1. At the checkpoints w_j = ceil(p_j steps),
p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), eta is
halved and the search restarts at the best point so far if the loss rose in
fewer than 75 % of the steps since w_{j-1}, or if neither eta nor the best
loss changed since then.
"""
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from dsr.probes.attacks import ball, losses, starts, tiles
from dsr.types import PredictFn

MOMENTUM = 0.75  # Weight of the new step against the last one.
PROGRESS = 0.75  # Share of steps that must raise the loss.


class _State(NamedTuple):
  y: Float[Array, 'N ...']  # To be visited.
  previous: Float[Array, 'N ...']
  grad: Float[Array, 'N ...']  # Ascent direction at `y`, once visited.
  loss: Float[Array, 'N']  # Of the last point visited.
  top_y: Float[Array, 'N ...']  # Where the loss was largest.
  top_grad: Float[Array, 'N ...']
  top_loss: Float[Array, 'N']
  eta: Float[Array, 'N']
  rises: Int[Array, 'N']  # Since the last checkpoint, as are the next two.
  halved: Bool[Array, 'N']
  old_top: Float[Array, 'N']
  best: losses.Best


def apgd(
    key: Key[Array, ''], predict_fn: PredictFn, x: Any, labels: Any, *,
    epsilon: Any, norm: str = 'linf', steps: int = 100, restarts: int = 1,
    random_start: bool = True, loss: str = 'ce', low: Any = 0.0,
    high: Any = 1.0, targets: Any = None, aims: Any = None,
    batch_size: int | None = None, stop: bool = False) -> Float[Array, 'N ...']:
  """Attacks without a step size to tune.

  Args:
    key: of the random starts.
    predict_fn: x (N, ...) -> logits (N, C), for any N.
    x: (N, ...) examples in [low, high].
    labels: (N,) integers.
    epsilon: radius, in the unit of `x`.
    norm: 'linf' or 'l2'.
    steps: gradients from each start.
    restarts: independent random starts; the best point of all is kept.
    random_start: False starts at the example itself.
    loss: 'ce' and 'dlr' are APGD-CE and APGD-DLR; 'margin' is dlr's upper
      part alone and works with two classes.
    low: least valid value, a number or an array.
    high: greatest valid value.
    targets: (N,) classes to be reached, else any other class.
    aims: (N,) classes to go towards, where any other class is a success: with
      `loss` dlr the APGD-T of AutoAttack.
    batch_size: examples at a time; None: as many as the cache is made for.
    stop: leave an example alone soon after it is fooled. The same examples
      are fooled, by smaller margins, in less time.

  Returns:
    (N, ...): of the example and all iterates the one of largest margin.

  Raises:
    ValueError: see `threat.build` and `losses.check`; no step, no restart,
      several restarts without a random start, or no example at a time.
  """
  keys, predict, threat = starts.started(
      key, predict_fn, x, labels, epsilon=epsilon, norm=norm, steps=steps,
      restarts=restarts, random_start=random_start, loss=loss, low=low,
      high=high, targets=targets, aims=aims)
  return _apgd(keys, predict, threat, norm=norm,
               steps=steps, loss=loss, random_start=random_start, stop=stop,
               size=tiles.pick_size(predict, threat, batch_size, stop))


def checkpoints(steps: int) -> list[int]:
  """The w_j in (0, steps): step counts after which eta may be halved."""
  before, now, found = 0, 22, []  # In per cent, so that nothing is rounded.
  while now < 100:
    found.append(math.ceil(now * steps / 100))
    before, now = now, now + max(now - before - 3, 6)
  return sorted({w for w in found if w < steps})


@functools.partial(jax.jit, static_argnames=(
    'norm', 'steps', 'loss', 'random_start', 'size', 'stop'))
def _apgd(keys, predict, threat, *, norm, steps, loss, random_start, size,
          stop):
  tile = {'size': size, 'stop': stop}
  # Steps since the last checkpoint, at a checkpoint; -1 between them.
  stops = [0, *checkpoints(steps)]
  lengths = np.full(steps, -1, np.int32)
  lengths[stops] = np.diff(stops, prepend=0)
  weights = np.full(steps, MOMENTUM, threat.x.dtype)
  weights[0] = 1  # There is no last step yet.

  def step(threat, k, state):
    length, weight = jnp.asarray(lengths)[k], jnp.asarray(weights)[k]
    state = _visit(state, losses.climb(predict, threat, loss), norm)
    state = jax.lax.cond(
        length >= 0, lambda s: _checkpoint(s, length), lambda s: s, state)
    return _move(state, threat, weight, norm)

  def restart(best, key):
    y = ball.random_start(key, threat, norm) if random_start else threat.x
    state = tiles.iterate(
        step, threat, _begin(y, best, threat.epsilon), steps=steps, **tile)
    return tiles.look(predict, threat, state.best, state.y, **tile), None

  best = losses.Best.none_seen(threat.x)
  if random_start:  # Else the first visit is that of the examples.
    best = tiles.look(predict, threat, best, threat.x, **tile)
  return jax.lax.scan(restart, best, keys)[0].x


def _begin(y, best, epsilon):
  fill = functools.partial(jnp.full, len(y), dtype=y.dtype)
  return _State(
      y=y, previous=y, grad=jnp.zeros_like(y), loss=fill(jnp.inf), top_y=y,
      top_grad=jnp.zeros_like(y), top_loss=fill(-jnp.inf),
      eta=fill(2 * epsilon), rises=jnp.zeros(len(y), jnp.int32),
      halved=jnp.zeros(len(y), bool), old_top=fill(-jnp.inf), best=best)


def _visit(state, climb, norm):
  """Takes note of what is at `state.y`."""
  grad, loss, margin = climb(state.y)
  grad = ball.steepest(grad, norm)
  top = loss > state.top_loss
  pick = jax.vmap(jnp.where)
  return state._replace(
      grad=grad, loss=loss,
      top_y=pick(top, state.y, state.top_y),
      top_grad=pick(top, grad, state.top_grad),
      top_loss=jnp.where(top, loss, state.top_loss),
      rises=state.rises + (loss > state.loss),
      best=state.best.update(state.y, margin))


def _move(state, threat, weight, norm):
  """One step along the gradient, and some of the last step once more."""
  y = state.y
  z = ball.project(threat, y + ball.rows(state.eta, y) * state.grad, norm)
  ahead = ball.project(
      threat, y + weight * (z - y) + (1 - weight) * (y - state.previous), norm)
  return state._replace(y=ahead, previous=y)


def _checkpoint(state, length):
  """Halves eta and goes back to the top, where the search has stalled."""
  slow = state.rises < PROGRESS * length
  stuck = ~state.halved & (state.top_loss == state.old_top)
  halve = slow | stuck
  pick = jax.vmap(jnp.where)
  return state._replace(
      y=pick(halve, state.top_y, state.y),
      previous=pick(halve, state.top_y, state.previous),
      grad=pick(halve, state.top_grad, state.grad),
      loss=jnp.where(halve, state.top_loss, state.loss),
      eta=jnp.where(halve, state.eta / 2, state.eta),
      rises=jnp.zeros_like(state.rises), halved=halve,
      old_top=state.top_loss)
