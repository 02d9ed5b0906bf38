"""How attacks that climb from random points begin."""
from typing import Any

import jax

from dsr import checks
from dsr.probes.attacks import losses, threat as threats
from dsr.types import PredictFn


def started(
    key, predict_fn: PredictFn, x: Any, labels: Any, *, epsilon: Any, norm: str,
    steps: int, restarts: int, random_start: bool, loss: str, low: Any,
    high: Any, targets: Any, aims: Any = None
) -> tuple[Any, jax.tree_util.Partial, threats.Threat]:
  """What attacks that climb from random points begin with.

  Args:
    key: of the random starts.
    predict_fn: x (N, ...) -> logits (N, C).
    x: (N, ...) examples in [low, high].
    labels: (N,) integers.
    epsilon: radius, in the unit of `x`.
    norm: of `threat.NORMS`.
    steps: gradients from each start.
    restarts: independent random starts.
    random_start: whether starts are random.
    loss: of `losses`.
    low: least valid value.
    high: greatest valid value.
    targets: (N,) classes to be reached, or None.
    aims: (N,) classes to go towards, or None.

  Returns:
    A key for each restart, and what `threat.build` returns.

  Raises:
    ValueError: see `threat.build` and `losses.check`; no step, no restart, or
      several restarts without a random start.
  """
  predict, threat = threats.build(
      predict_fn, x, labels, epsilon=epsilon, norm=norm, low=low, high=high,
      targets=targets, aims=aims)
  losses.check(loss, threats.num_classes(predict, threat), threat)
  checks.at_least('steps', steps, 1)
  checks.at_least('restarts', restarts, 1)
  if restarts > 1 and not random_start:
    raise ValueError('`restarts` must be 1 without `random_start`, got '
                     f'{restarts}.')
  return jax.random.split(key, restarts), predict, threat
