"""Transfer of adversarial examples: crafted on one network, tried on others.

The attacker of the black-box setting (arXiv:1605.07277): it has a network of
its own, the source, and neither gradients nor answers of the victim.
"""
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key
import numpy as np

from dsr import checks
from dsr.probes import intervals, robust_metrics
from dsr.types import PredictFn


class Transfer(NamedTuple):
  """How B victims fare under the examples of A sources, as fractions.

  Attributes:
    sources: names of the networks that examples were crafted on.
    victims: names of those they were tried on.
    clean: (B) right without attack.
    robust: (A, B), nested: right without attack and under the source's.
    every: (B) right without attack and under that of every source.
    drop_rate: (A, B) share of the victim's right answers that the source's
      examples take: (clean - robust) / clean, 0 where clean is.
  """

  sources: tuple[str, ...]
  victims: tuple[str, ...]
  clean: tuple[intervals.Interval, ...]
  robust: tuple[tuple[intervals.Interval, ...], ...]
  every: tuple[intervals.Interval, ...]
  drop_rate: Float[np.ndarray, 'A B']


def transfer(
    key: Key[Array, ''], attack: Callable,
    predict_fns: Mapping[str, PredictFn], x: Any, labels: Any, *,
    epsilon: Any, victims: Mapping[str, PredictFn] | None = None,
    level: float = 0.95) -> Transfer:
  """Crafts examples once on each source and scores all victims on them.

  As in `robust_metrics`, an example that is wrong by itself is not robust. The
  intervals are Wilson's, over examples: those of one victim under different
  sources are of the same examples, hence not independent of each other.

  Args:
    key: split among the sources.
    attack: (key, predict_fn, x, labels, *, epsilon) -> x_adv, such as
      `functools.partial(pgd, norm='l2')`.
    predict_fns: name -> source, x (N, ...) -> logits (N, C); with C = 1 the
      sign is the class.
    x: (N, ...) examples.
    labels: (N,) integers in [0, C).
    epsilon: radius, in the unit of `x`.
    victims: name -> network to be scored; None takes the sources, and the
      diagonal is the attack with full knowledge.
    level: coverage of the intervals, in (0, 1).

  Raises:
    ValueError: no source or victim, a label out of range, or logits or
      attacked examples that do not fit.
  """
  victims = predict_fns if victims is None else victims
  for name, networks in (('predict_fns', predict_fns), ('victims', victims)):
    if not networks:
      raise ValueError(f'`{name}` must hold at least one network, got none.')
  checks.inputs('x', x)
  clean = [robust_metrics.right(f, x, labels) for f in victims.values()]
  standing = []
  for subkey, predict_fn in zip(
      jax.random.split(key, len(predict_fns)), predict_fns.values()):
    x_adv = attack(subkey, predict_fn, x, labels, epsilon=epsilon)
    checks.inputs('x_adv', x_adv, like=x)
    checks.same_rows(x=x, x_adv=x_adv)
    standing.append([
        right & robust_metrics.right(f, x_adv, labels)
        for right, f in zip(clean, victims.values())])
  share = lambda right: intervals.wilson(
      int(right.sum()), len(right), level=level)
  right, kept = np.sum(clean, axis=1), np.sum(standing, axis=2)
  return Transfer(
      sources=tuple(predict_fns), victims=tuple(victims),
      clean=tuple(map(share, clean)),
      robust=tuple(tuple(map(share, row)) for row in standing),
      every=tuple(map(share, np.all(standing, axis=0))),
      drop_rate=(right[None] - kept) / np.maximum(right[None], 1))
