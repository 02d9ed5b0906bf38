r"""What attacks climb: one number an example, higher is closer to success.

With logits z, label y and target t:
  margin  max_{i != y} z_i - z_y, above zero when the label is lost;
          targeted z_t - max_{i != t} z_i, above zero when t is reached;
  ce      -log softmax(z)_y; targeted log softmax(z)_t;
  dlr     (max_{i != y} z_i - z_y) / (z_(1) - z_(3)), z_(k) the k-th largest;
          targeted (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)
          (arXiv:2003.01690; unchanged when z is shifted or scaled).
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dsr import checks, numerics
from dsr.probes.attacks.threat import Threat


class Best(NamedTuple):
  """Of all points seen, the one of largest margin, example by example."""

  x: Float[Array, 'N ...']
  margin: Float[Array, 'N']

  @classmethod
  def none_seen(cls, x) -> 'Best':
    """Stays with `x` until a point, be it `x` itself, is taken in."""
    return cls(x, jnp.full(len(x), -jnp.inf, x.dtype))

  @property
  def fooled(self) -> Bool[Array, 'N']:
    """Whether some point has succeeded."""
    return self.margin > 0

  def update(self, x, margin) -> 'Best':
    """Takes in the points that are better; never one with a NaN margin."""
    better = margin > self.margin
    return Best(jax.vmap(jnp.where)(better, x, self.x),
                jnp.where(better, margin, self.margin))


def margin(
    logits: Float[Array, 'N C'], threat: Threat) -> Float[Array, 'N']:
  """Positive exactly when the attack has succeeded."""
  if threat.targets is None:
    return _above_rest(logits, threat.labels) * -1
  return _above_rest(logits, threat.targets)


def cross_entropy(
    logits: Float[Array, 'N C'], threat: Threat) -> Float[Array, 'N']:
  """Cross-entropy of the label, or minus that of the target."""
  targeted = threat.targets is not None
  wanted = threat.targets if targeted else threat.labels
  logp = _entry(jax.nn.log_softmax(logits), wanted)
  return logp if targeted else -logp


def dlr(logits: Float[Array, 'N C'], threat: Threat) -> Float[Array, 'N']:
  """Difference of logits ratio; 0 / 0 counts as zero."""
  z = jnp.sort(logits, axis=1)  # Ascending: z[:, -k] is the k-th largest.
  if threat.targets is None:
    return numerics.safe_divide(margin(logits, threat), z[:, -1] - z[:, -3])
  gain = _entry(logits, threat.targets) - _entry(logits, threat.labels)
  return numerics.safe_divide(gain, z[:, -1] - (z[:, -3] + z[:, -4]) / 2)


LOSSES = {'ce': cross_entropy, 'dlr': dlr, 'margin': margin}


def check(name: str, num_classes: int, threat: Threat) -> None:
  """`name` is a loss, defined for this many classes.

  Raises:
    ValueError: an unknown loss, or too few classes for it.
  """
  checks.one_of('loss', name, tuple(LOSSES))
  needed = 3 if threat.targets is None else 4
  if name == 'dlr' and num_classes < needed:
    raise ValueError(f'`loss` dlr needs at least {needed} classes here, got '
                     f'{num_classes}.')


def climb(predict, threat: Threat, loss: str):
  """y -> (gradient (N, ...), loss (N,), margin (N,)) in one pass."""
  def total(y):
    logits = predict(y)
    values = LOSSES[loss](logits, threat)
    return jnp.sum(values), (values, margin(logits, threat))

  def evaluate(y):
    grad, (values, margins) = jax.grad(total, has_aux=True)(y)
    return grad, values, margins

  return evaluate


def at_class(
    classes, num_classes: int) -> Bool[Array, 'N C']:
  """True at each row's class."""
  return jax.nn.one_hot(classes, num_classes, dtype=bool)


def _entry(z, classes):
  return jnp.take_along_axis(z, classes[:, None], axis=1)[:, 0]


def _above_rest(z, classes):
  rest = jnp.where(at_class(classes, z.shape[1]), -jnp.inf, z)
  return _entry(z, classes) - jnp.max(rest, axis=1)
