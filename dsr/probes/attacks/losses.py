r"""What attacks climb: one number an example, higher is closer to success.

With logits z, label y and target t:
  margin  max_{i != y} z_i - z_y, above zero when the label is lost;
          targeted z_t - max_{i != t} z_i, above zero when t is reached;
  ce      -log softmax(z)_y; targeted log softmax(z)_t;
  dlr     (max_{i != y} z_i - z_y) / (z_(1) - z_(3)), z_(k) the k-th largest;
          targeted (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)
          (arXiv:2003.01690; unchanged when z is shifted or scaled).
Towards an aim t, where any class but y is a success, ce and dlr are those of
the target t, and the margin that is climbed is z_t - z_y.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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


def towards(
    logits: Float[Array, 'N C'], threat: Threat) -> Float[Array, 'N']:
  """The margin, or how far the aim is above the label."""
  return margin(logits, threat) if threat.aims is None else (
      above_label(logits, threat, threat.aims))


def above_label(logits: Float[Array, 'N C'], threat: Threat,
                classes: Int[Array, 'N']) -> Float[Array, 'N']:
  """z_t - z_y for a class t of each example."""
  return _entry(logits, classes) - _entry(logits, threat.labels)


def cross_entropy(
    logits: Float[Array, 'N C'], threat: Threat) -> Float[Array, 'N']:
  """Cross-entropy of the label, or minus that of the target or aim."""
  wanted = _wanted(threat)
  logp = jax.nn.log_softmax(logits)
  return (-_entry(logp, threat.labels) if wanted is None else
          _entry(logp, wanted))


def dlr(logits: Float[Array, 'N C'], threat: Threat) -> Float[Array, 'N']:
  """Difference of logits ratio; 0 / 0 counts as zero."""
  z = jnp.sort(logits, axis=1)  # Ascending: z[:, -k] is the k-th largest.
  wanted = _wanted(threat)
  if wanted is None:
    return numerics.safe_divide(margin(logits, threat), z[:, -1] - z[:, -3])
  gain = above_label(logits, threat, wanted)
  return numerics.safe_divide(gain, z[:, -1] - (z[:, -3] + z[:, -4]) / 2)


LOSSES = {'ce': cross_entropy, 'dlr': dlr, 'margin': towards}


def check(name: str, num_classes: int, threat: Threat) -> None:
  """`name` is a loss, defined for this many classes.

  Raises:
    ValueError: an unknown loss, or too few classes for it.
  """
  checks.one_of('loss', name, tuple(LOSSES))
  needed = 3 if _wanted(threat) is None else 4
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


def _wanted(threat):
  """The class that is climbed towards; None: away from the label."""
  return threat.aims if threat.targets is None else threat.targets


def _entry(z, classes):
  return jnp.take_along_axis(z, classes[:, None], axis=1)[:, 0]


def _above_rest(z, classes):
  rest = jnp.where(at_class(classes, z.shape[1]), -jnp.inf, z)
  return _entry(z, classes) - jnp.max(rest, axis=1)
