"""What an attack may do, checked once and put into arrays.

A threat is the examples, their labels, the radius of the ball around each
and the range of valid pixels. All attacks read it; none changes it.
"""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from dsr import checks
from dsr.types import PredictFn

NORMS = ('linf', 'l2')


class Threat(NamedTuple):
  """One batch to attack; a pytree, so that a new radius compiles nothing."""

  x: Float[Array, 'N ...']
  labels: Int[Array, 'N']
  targets: Int[Array, 'N'] | None  # None: any class but the label will do.
  epsilon: Float[Array, '']  # In pixels of `x`; infinite: no ball.
  low: Float[Array, 'N ...']  # Valid pixels, widened to hold `x`.
  high: Float[Array, 'N ...']
  # Classes to go towards, where any class but the label will do.
  aims: Int[Array, 'N'] | None = None


def build(
    predict_fn: PredictFn, x: Any, labels: Any, *, epsilon: Any, norm: str,
    low: Any = 0.0, high: Any = 1.0, targets: Any = None, aims: Any = None,
    unbounded: bool = False,
) -> tuple[jax.tree_util.Partial, Threat]:
  """Checks what every attack is given.

  Values are checked where they are known; under `jax.jit` only shapes and
  dtypes are, and a pixel outside the range widens the range to itself.

  Args:
    predict_fn: x (N, ...) -> logits (N, C), each row from its own example.
      With C = 1 the sign is the class: the logits become (-f/2, f/2).
    x: (N, ...) floating examples inside [low, high].
    labels: (N,) integers in [0, C).
    epsilon: radius in `norm`, zero or above.
    norm: 'linf' or 'l2', over all entries of one example.
    low: least valid value: a number, or an array that broadcasts against one
      example, as inputs that were standardised per channel need.
    high: greatest valid value. `-inf` and `inf` switch the range off.
    targets: (N,) classes to be reached; must differ from `labels`.
    aims: (N,) classes to go towards, likewise; any class but the label is a
      success. Not with `targets`.
    unbounded: let `epsilon` be None, which means infinite.

  Returns:
    `predict_fn` as a pytree with C >= 2 columns, and the threat. Give a
    `jax.tree_util.Partial(apply, params)` to attack many networks of one
    architecture with one compilation.

  Raises:
    ValueError: an argument of wrong shape, dtype or range.
  """
  checks.inputs('x', x)
  checks.one_of('norm', norm, NORMS)
  x = jnp.asarray(x)
  labels = _classes('labels', labels, len(x))
  low, high = _limits(x, low, high)
  if epsilon is None and unbounded:
    epsilon = jnp.inf
  elif _known(epsilon):
    checks.non_negative('epsilon', np.asarray(epsilon)[()])
  predict, num_classes = _two_columns(predict_fn, x)
  if _known(labels):
    checks.labels('labels', labels, num_classes)
  if targets is not None and aims is not None:
    raise ValueError('`aims` must be None with `targets`, got both.')
  targets, aims = (
      None if y is None else _others(name, y, labels, num_classes)
      for name, y in (('targets', targets), ('aims', aims)))
  threat = Threat(
      x, labels, targets, jnp.asarray(epsilon, x.dtype), low, high, aims)
  return predict, threat


def num_classes(predict: jax.tree_util.Partial, threat: Threat) -> int:
  """C, without a forward pass."""
  return jax.eval_shape(predict, threat.x).shape[1]


def _known(value) -> bool:
  return not isinstance(value, jax.core.Tracer)


def _classes(name, y, rows):
  y = jnp.asarray(y)
  checks.class_indices(name, y)
  if len(y) != rows:
    raise ValueError(f'`{name}` has {len(y)} rows, expected {rows}.')
  return y


def _others(name, y, labels, num_classes):
  """Classes that must differ from the labels."""
  y = _classes(name, y, len(labels))
  if _known(labels) and _known(y):
    checks.labels(name, y, num_classes)
    same = int(np.sum(np.asarray(labels) == np.asarray(y)))
    if same:
      raise ValueError(f'`{name}` must differ from `labels`, got {same} of '
                       f'{len(labels)} equal.')
  return y


def _limits(x, low, high):
  limits = []
  for name, value in (('low', low), ('high', high)):
    value = jnp.asarray(value, x.dtype)
    try:
      limits.append(jnp.broadcast_to(value, x.shape))
    except ValueError as error:
      raise ValueError(
          f'`{name}` must broadcast against one example of shape '
          f'{x.shape[1:]}, got {value.shape}.') from error
  low, high = limits
  if _known(x) and _known(low) and _known(high):
    checks.finite('x', x)
    # Standardised pixels and limits may differ in their last digits.
    value, least, most = map(np.asarray, (x, low, high))
    slack = 1e-5 * (1 + np.abs(value))
    outside = int(np.sum((value < least - slack) | (value > most + slack)))
    if outside:
      raise ValueError(
          '`x` must be inside [`low`, `high`], got '
          f'{outside} values outside and a range of '
          f'[{value.min():g}, {value.max():g}].')
  return jnp.minimum(low, x), jnp.maximum(high, x)


def _two_columns(predict_fn, x):
  if not isinstance(predict_fn, jax.tree_util.Partial):
    predict_fn = jax.tree_util.Partial(predict_fn)
  out = jax.eval_shape(predict_fn, x)
  shape = getattr(out, 'shape', None)
  if shape is None or len(shape) != 2 or shape[0] != len(x):
    raise ValueError(f'`predict_fn` must map {x.shape} to logits '
                     f'({len(x)}, C), got {shape}.')
  if shape[1] == 1:
    return jax.tree_util.Partial(_signed, predict_fn), 2
  return predict_fn, shape[1]


def _signed(predict, x):
  half = predict(x) / 2
  return jnp.concatenate([-half, half], axis=1)
