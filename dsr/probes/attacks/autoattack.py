"""AutoAttack: the standard ensemble of attacks (arXiv:2003.01690).

APGD-CE, APGD-T (towards nine classes on the difference of logits ratio),
FAB-T (arXiv:1907.02044) and Square (arXiv:1912.00049), in this order with these
budgets: 100 steps from one start each, 5,000 queries. Each attacks what is
still right after the ones before. With fewer than four classes, where that
ratio is not defined towards a class, APGD-T climbs the difference of logits.
"""
from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np

from dsr import checks
from dsr.probes.attacks import apgd, fab, losses, square, threat as threats
from dsr.types import PredictFn

_TILE = 128  # Examples at a time: each attack is compiled for one shape.


def autoattack(
    key: Key[Array, ''], predict_fn: PredictFn, x: Any, labels: Any, *,
    epsilon: Any, norm: str = 'linf', steps: int = 100, classes: int = 9,
    queries: int = 5000, low: float = 0.0, high: float = 1.0,
    batch_size: int = _TILE) -> Float[Array, 'N ...']:
  """Attacks with each of the four what the ones before have left right.

  It chooses examples on the host: not to be called inside `jax.jit`.

  Args:
    key: of random starts, windows and signs.
    predict_fn: x (N, ...) -> logits (N, C).
    x: (N, ...) examples in [low, high].
    labels: (N,) integers.
    epsilon: radius, in the unit of `x`.
    norm: 'linf' or 'l2'.
    steps: of APGD and FAB, from each start and towards each class.
    classes: at most so many, the likeliest, are gone towards.
    queries: of Square.
    low: least valid value.
    high: greatest valid value.
    batch_size: examples at a time.

  Returns:
    (N, ...): in the ball; examples that no attack fooled, and those that were
    wrong before, stay as they are.

  Raises:
    ValueError: see `threat.build`; no step, class, query or example at a time.
  """
  for name, value in (('steps', steps), ('classes', classes),
                      ('queries', queries), ('batch_size', batch_size)):
    checks.at_least(name, value, 1)
  predict, threat = threats.build(
      predict_fn, x, labels, epsilon=epsilon, norm=norm, low=low, high=high)
  number = threats.num_classes(predict, threat)
  ball = {'epsilon': epsilon, 'norm': norm, 'low': low, 'high': high}
  loss = 'dlr' if number >= 4 else 'margin'

  def towards(rank):
    def run(key, predict_fn, x, labels):
      aims = fab.likeliest(
          predict, threat._replace(x=x, labels=labels), rank + 1)[rank]
      return apgd.apgd(key, predict_fn, x, labels, aims=aims, loss=loss,
                       steps=steps, stop=True, **ball)

    return run

  return _in_turn(key, [
      lambda *args: apgd.apgd(*args, loss='ce', steps=steps, stop=True, **ball),
      *(towards(rank) for rank in range(min(classes, number - 1))),
      lambda *args: fab.fab(*args, steps=steps, classes=classes, **ball),
      lambda *args: square.square(*args, steps=queries, **ball),
  ], predict, threat, min(batch_size, len(threat.x)))


def _in_turn(key, attacks: list[Callable], predict, threat, size):
  """Each attack on the rows that are left, `size` of them at a time."""
  x, labels = np.asarray(threat.x), threat.labels
  found = x.copy()
  fooled = lambda rows, y: np.asarray(_fooled(
      predict, jnp.asarray(y), threat._replace(labels=labels[rows])))

  def attacked(attack, key, rows):
    y = np.asarray(attack(jax.random.fold_in(key, int(rows[0])), predict,
                          jnp.asarray(x[rows]), labels[rows]))
    hit = fooled(rows, y)
    found[rows[hit]] = y[hit]
    return hit

  rows = _left(lambda rows: fooled(rows, x[rows]), np.arange(len(x)), size)
  for attack, own in zip(attacks, jax.random.split(key, len(attacks))):
    rows = _left(functools.partial(attacked, attack, own), rows, size)
  return jnp.asarray(found)


def _left(run, rows, size) -> np.ndarray:
  """The rows that `run` does not fool, in tiles that all have one shape."""
  hits = [np.zeros(0, bool)]
  for start in range(0, len(rows), size):
    tile = rows[start:start + size]
    hits.append(run(np.resize(tile, size))[:len(tile)])  # Some twice.
  return rows[~np.concatenate(hits)]


@jax.jit
def _fooled(predict, y, threat):
  return losses.margin(predict(y), threat) > 0
