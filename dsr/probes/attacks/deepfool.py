r"""DeepFool: the nearest boundary of the linearised network (arXiv:1511.04599).

With f_k = z_k - z_s, w_k its gradient and s the label, step k* is the class of
least |f_k| / |w_k|_q (q = 2 for l2, 1 for linf) and
  l2:    r += |f_k| w_k / |w_k|_2^2,    linf:  r += |f_k| sign(w_k) / |w_k|_1,
until x + (1 + overshoot) r has lost its label. For a target t the only class
is k = t, and s is the strongest of the others.

Steps that the pixel range cuts fall short, and creep towards the boundary. So
in the second half of the steps pixels at an end of their range that w_k would
push beyond it count as fixed: w_k is zero there. From the first step on that
would succeed in fewer steps, with perturbations some 5 % larger.
"""
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dsr import checks, numerics
from dsr.probes.attacks import ball, losses, threat as threats
from dsr.types import PredictFn

_ROUNDING = 64  # Units in the last place of the logits.


def deepfool(
    key: Key[Array, ''], predict_fn: PredictFn, x: Any, labels: Any, *,
    epsilon: Any = None, norm: str = 'l2', steps: int = 50,
    overshoot: float = 0.02, low: Any = 0.0, high: Any = 1.0,
    targets: Any = None) -> Float[Array, 'N ...']:
  """Looks for the smallest perturbation; costs C gradients a step.

  Args:
    key: unused, the attack is deterministic; all attacks are called alike.
    predict_fn: x (N, ...) -> logits (N, C).
    x: (N, ...) examples in [low, high].
    labels: (N,) integers.
    epsilon: None, or a radius into which the found points are projected.
    norm: which distance is to be small, 'l2' or 'linf'.
    steps: at most so many linearisations.
    overshoot: relative; zero ends on the boundary itself.
    low: least valid value, a number or an array.
    high: greatest valid value.
    targets: (N,) classes to be reached, else the nearest.

  Returns:
    (N, ...): the first point that succeeded, or the last one; an example
    that is misclassified as it is stays as it is.

  Raises:
    ValueError: see `threat.build`; no step, or a negative overshoot.
  """
  del key
  predict, threat = threats.build(
      predict_fn, x, labels, epsilon=epsilon, norm=norm, low=low, high=high,
      targets=targets, unbounded=True)
  checks.at_least('steps', steps, 1)
  checks.non_negative('overshoot', overshoot)
  return _deepfool(predict, threat, 1 + overshoot, norm=norm, steps=steps)


@functools.partial(jax.jit, static_argnames=('norm', 'steps'))
def _deepfool(predict, threat, stretch, *, norm, steps):
  x = threat.x

  def step(k, carry):
    y, r = carry
    logits, pull = jax.vjp(predict, y)
    late = k >= steps // 2
    move = _to_nearest(
        logits, pull, threat, norm, down=~late | (y > threat.low),
        up=~late | (y < threat.high))
    # What has moved shall succeed by more than rounding, here and elsewhere.
    moved = jnp.any(r != 0, axis=tuple(range(1, r.ndim)))
    needed = jnp.where(moved, _rounding(logits), 0)
    active = losses.margin(logits, threat) <= needed
    r = jax.vmap(jnp.where)(active, r + move, r)
    ahead = x + stretch * r
    inside = jnp.clip(ahead, threat.low, threat.high)
    r = jnp.where(ahead == inside, r, (inside - x) / stretch)
    return jax.vmap(jnp.where)(active, inside, y), r

  y, _ = jax.lax.fori_loop(0, steps, step, (x, jnp.zeros_like(x)))
  return ball.project(threat, y, norm)


def _to_nearest(logits, pull, threat, norm, down, up):
  """Smallest step (N, ...) to a boundary, each network linearised here.

  Pixels go down and up only where the masks `down` and `up` let them.
  """
  count = logits.shape[1]
  units = jnp.eye(count, dtype=logits.dtype)
  grads = jax.vmap(lambda unit: pull(
      jnp.broadcast_to(unit, logits.shape))[0])(units)  # (C, N, ...)
  if threat.targets is None:
    source = threat.labels
    allowed = ~losses.at_class(source, count)
  else:
    allowed = losses.at_class(threat.targets, count)
    source = jnp.argmax(jnp.where(allowed, -jnp.inf, logits), axis=1)
  here = jnp.arange(len(logits))
  gap = jnp.abs(logits - logits[here, source][:, None])  # (N, C)
  gap += 2 * _rounding(logits)[:, None]  # Beyond the boundary, not on it.
  w = jnp.swapaxes(grads - grads[source, here][None], 0, 1)  # (N, C, ...)
  w = jnp.where(jnp.where(w > 0, up[:, None], down[:, None]), w, 0)
  flat = w.reshape(*gap.shape, -1)
  dual = (jnp.sum(jnp.abs(flat), -1) if norm == 'linf'
          else numerics.safe_sqrt(jnp.sum(flat**2, -1)))
  reachable = allowed & (dual > 0)
  distance = jnp.where(reachable, numerics.safe_divide(gap, dual), jnp.inf)
  nearest = jnp.argmin(distance, axis=1)
  length = jnp.where(
      jnp.any(reachable, axis=1), distance[here, nearest], 0)
  w = w[here, nearest]
  return ball.rows(length, w) * ball.steepest(w, norm)


def _rounding(logits):
  """What counts as a difference (N,) of logits, whoever computes them."""
  eps = jnp.finfo(logits.dtype).eps
  return _ROUNDING * eps * jnp.max(jnp.abs(logits), axis=1)
