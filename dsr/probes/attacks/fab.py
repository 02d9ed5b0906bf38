r"""FAB: the fast adaptive boundary attack, towards classes (arXiv:1907.02044).

Towards a class t, with f = z_t - z_y and its gradient w at the iterate x_k,
the plane f(x_k) + <w, x - x_k> = 0 stands for the border of t. Both x_k and the
example x_0 are moved onto it by the shortest way inside the pixel range, d_k
and d_0 in the norm, and

  x_{k+1} = clip((1 - a) (x_k + eta d_k) + a (x_0 + eta d_0)),
  a = min(|d_k| / (|d_k| + |d_0|), 0.1),   eta = 1.05.

Where the label is lost there, x_{k+1} is noted if it is the nearest so far, and
the search goes on from x_0 + 0.9 (x_{k+1} - x_0), inside the border.
"""
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dsr import checks, numerics
from dsr.probes.attacks import ball, losses, threat as threats
from dsr.types import PredictFn

_OVERSHOOT = 1.05  # eta.
_BACK = 0.9  # Of the way from the example, after a success.
_MOST = 0.1  # a, the weight of the example's own way to the plane.
_LEAST = 1e-8  # Of a distance.


def fab(
    key: Key[Array, ''], predict_fn: PredictFn, x: Any, labels: Any, *,
    epsilon: Any = None, norm: str = 'linf', steps: int = 100,
    classes: int = 9, low: Any = 0.0, high: Any = 1.0,
    targets: Any = None) -> Float[Array, 'N ...']:
  """Looks for the smallest perturbation towards each of the likeliest classes.

  That is FAB-T of AutoAttack. Costs `classes` x `steps` gradients.

  Args:
    key: unused, the attack is deterministic; all attacks are called alike.
    predict_fn: x (N, ...) -> logits (N, C).
    x: (N, ...) examples in [low, high].
    labels: (N,) integers.
    epsilon: None, or a radius into which the found points are projected.
    norm: which distance is to be small, 'linf' or 'l2'.
    steps: towards each class.
    classes: how many are tried, the likeliest first; at most C - 1 are there.
    low: least valid value, a number or an array.
    high: greatest valid value.
    targets: (N,) classes to be reached, which alone are tried then; else any
      other class is a success.

  Returns:
    (N, ...): the nearest point that succeeded, or the example if none did.

  Raises:
    ValueError: see `threat.build`; no step, or no class.
  """
  del key
  predict, threat = threats.build(
      predict_fn, x, labels, epsilon=epsilon, norm=norm, low=low, high=high,
      targets=targets, unbounded=True)
  checks.at_least('steps', steps, 1)
  checks.at_least('classes', classes, 1)
  aims = (likeliest(predict, threat, classes) if targets is None
          else threat.targets[None])
  return _fab(predict, threat, aims, norm=norm, steps=steps)


def likeliest(predict: jax.tree_util.Partial, threat: threats.Threat,
              classes: int) -> Array:
  """(K, N): of each example the K likeliest classes but the label, in order."""
  logits = predict(threat.x)
  rest = jnp.where(losses.at_class(threat.labels, logits.shape[1]), -jnp.inf,
                   logits)
  order = jnp.argsort(-rest, axis=1, stable=True)
  return order[:, :min(classes, logits.shape[1] - 1)].T


@functools.partial(jax.jit, static_argnames=('norm', 'steps'))
def _fab(predict, threat, aims, *, norm, steps):
  x = threat.x
  pick = jax.vmap(jnp.where)
  lost = lambda y: losses.margin(predict(y), threat) > 0

  def step(aim, _, carry):
    y, near, size = carry

    def above(y):
      f = losses.above_label(predict(y), threat, aim)
      return jnp.sum(f), f

    w, f = jax.grad(above, has_aux=True)(y)
    # From the iterate, and from the example.
    gap = f - jnp.sum((w * (y - x)).reshape(len(x), -1), axis=1)
    moves = [onto_plane(w, -g, threat.low - p, threat.high - p, norm)
             for p, g in ((y, f), (x, gap))]
    own, other = (jnp.maximum(_size(d, norm), _LEAST) for d in moves)
    share = ball.rows(jnp.minimum(own / (own + other), _MOST), x)
    y = ((1 - share) * (y + _OVERSHOOT * moves[0])
         + share * (x + _OVERSHOOT * moves[1]))
    y = jnp.clip(y, threat.low, threat.high)
    success, distance = lost(y), _size(y - x, norm)
    nearer = success & (distance < size)
    return (pick(success, x + _BACK * (y - x), y), pick(nearer, y, near),
            jnp.where(nearer, distance, size))

  def search(carry, aim):
    near, size = carry
    _, near, size = jax.lax.fori_loop(
        0, steps, functools.partial(step, aim), (x, near, size))
    return (near, size), None

  size = jnp.where(lost(x), 0, jnp.inf).astype(x.dtype)
  (near, _), _ = jax.lax.scan(search, (x, size), aims)
  return ball.project(threat, near, norm)


def onto_plane(
    w: Float[Array, 'N ...'], gap: Float[Array, 'N'],
    low: Float[Array, 'N ...'], high: Float[Array, 'N ...'],
    norm: str) -> Float[Array, 'N ...']:
  r"""The shortest d with <w, d> = gap and low <= d <= high.

  With room r_i >= 0 in the direction of sign(gap w_i), |d_i| is min(s, r_i)
  for linf and min(s |w_i|, r_i) for l2, for the least s that reaches the gap:
  the sum is piecewise linear in s, so that sorting its kinks finds s exactly.

  Args:
    w: normals.
    gap: of each example.
    low: at most 0.
    high: at least 0.
    norm: 'linf' or 'l2'.

  Returns:
    d; as far as the range goes where it holds no point of the plane.
  """
  flat = lambda a: a.reshape(len(w), -1)
  weight = flat(jnp.abs(w))
  way = jnp.sign(gap)[:, None] * jnp.sign(flat(w))
  room = jnp.where(way > 0, flat(high), -flat(low))
  kink = room if norm == 'linf' else jnp.where(
      weight > 0, numerics.safe_divide(room, weight), jnp.inf)
  slope = weight if norm == 'linf' else weight**2
  order = jnp.argsort(kink, axis=1)
  kink, slope = (jnp.take_along_axis(a, order, axis=1) for a in (kink, slope))
  full = jnp.where(slope > 0, slope * kink, 0)  # Of those at their end.
  before = jnp.pad(jnp.cumsum(full, axis=1)[:, :-1], ((0, 0), (1, 0)))
  rest = jnp.cumsum(slope[:, ::-1], axis=1)[:, ::-1]
  wanted = jnp.abs(gap)[:, None]
  s = numerics.safe_divide(wanted - before, rest)  # If the kink is not passed.
  fits = (s <= kink) & (rest > 0)
  first = jnp.argmax(fits, axis=1)
  s = jnp.where(jnp.any(fits, axis=1), jnp.take_along_axis(
      s, first[:, None], axis=1)[:, 0], jnp.inf)[:, None]
  reach = s if norm == 'linf' else jnp.where(weight > 0, s * weight, 0)
  d = jnp.where(way == 0, 0, jnp.minimum(reach, room))
  return (way * d).reshape(w.shape)


def _size(d, norm):
  d = d.reshape(len(d), -1)
  return (jnp.max(jnp.abs(d), axis=1) if norm == 'linf'
          else numerics.safe_sqrt(jnp.sum(d**2, axis=1)))
