r"""PGD: projected steepest ascent with random restarts (arXiv:1706.06083).

y_{k+1} = P(y_k + alpha d(y_k)), d = sign(g) or g / |g|_2, from a random y_0.
"""
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dsr import checks
from dsr.probes.attacks import ball, losses, starts, tiles
from dsr.types import PredictFn


def pgd(
    key: Key[Array, ''], predict_fn: PredictFn, x: Any, labels: Any, *,
    epsilon: Any, norm: str = 'linf', steps: int = 40,
    step_size: float | None = None, restarts: int = 1,
    random_start: bool = True, loss: str = 'ce', low: Any = 0.0,
    high: Any = 1.0, targets: Any = None, batch_size: int | None = None,
    stop: bool = False) -> Float[Array, 'N ...']:
  """Attacks with `steps` gradients from each of `restarts` starts.

  The variant published in arXiv:2402.05675 for linf is
  `random_start=False, steps=20, step_size=0.1, epsilon=0.1, low=-jnp.inf,
  high=jnp.inf`, up to its return of the last iterate, not the best one.

  Args:
    key: of the random starts.
    predict_fn: x (N, ...) -> logits (N, C), for any N.
    x: (N, ...) examples in [low, high].
    labels: (N,) integers.
    epsilon: radius, in the unit of `x`.
    norm: 'linf' or 'l2'.
    steps: gradients from each start.
    step_size: alpha, in the unit of `x`; 2.5 epsilon / steps if None.
    restarts: independent random starts; the best point of all is kept.
    random_start: False starts at the example itself.
    loss: 'ce', 'dlr' or 'margin', see `losses`.
    low: least valid value, a number or an array.
    high: greatest valid value.
    targets: (N,) classes to be reached, else any other class.
    batch_size: examples at a time; None: as many as the cache is made for.
    stop: leave an example alone soon after it is fooled. The same examples
      are fooled, by smaller margins, in less time.

  Returns:
    (N, ...): of the example and all iterates the one of largest margin,
    hence one that succeeds wherever any did.

  Raises:
    ValueError: see `threat.build` and `losses.check`; no step, no restart,
      several restarts without a random start, or no example at a time.
  """
  keys, predict, threat = starts.started(
      key, predict_fn, x, labels, epsilon=epsilon, norm=norm, steps=steps,
      restarts=restarts, random_start=random_start, loss=loss, low=low,
      high=high, targets=targets)
  if step_size is None:
    step_size = 2.5 * threat.epsilon / steps
  else:
    checks.positive('step_size', step_size)
  return _pgd(
      keys, predict, threat,
      jnp.asarray(step_size, threat.x.dtype), norm=norm, steps=steps,
      loss=loss, random_start=random_start, stop=stop,
      size=tiles.pick_size(predict, threat, batch_size, stop))


class _State(NamedTuple):
  y: Float[Array, 'N ...']
  best: losses.Best


@functools.partial(jax.jit, static_argnames=(
    'norm', 'steps', 'loss', 'random_start', 'size', 'stop'))
def _pgd(keys, predict, threat, step_size, *, norm, steps, loss,
         random_start, size, stop):
  tile = {'size': size, 'stop': stop}

  def step(threat, _, state):
    y, best = state
    grad, _, margin = losses.climb(predict, threat, loss)(y)
    ahead = y + step_size * ball.steepest(grad, norm)
    return _State(ball.project(threat, ahead, norm), best.update(y, margin))

  def restart(best, key):
    y = ball.random_start(key, threat, norm) if random_start else threat.x
    y, best = tiles.iterate(
        step, threat, _State(y, best), steps=steps, **tile)
    return tiles.look(predict, threat, best, y, **tile), None

  best = losses.Best.none_seen(threat.x)
  if random_start:  # Else the first step looks at the examples.
    best = tiles.look(predict, threat, best, threat.x, **tile)
  return jax.lax.scan(restart, best, keys)[0].x
