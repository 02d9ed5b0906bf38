r"""Recipes of training: losses, their residuals and their descent.

  l(f) = |y - f|^2 / 2                     'mse',            r = y - f
       = -y . log softmax f                'cross_entropy',  r = y - softmax f
       = softplus(-y f), y = +-1, if C = 1                   r = y sigmoid(-y f)

with the residual r = -dl/df. Axes: N examples, C outputs.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import optax

from dsr import checks
from dsr.train import batches

_MOMENTUM = 0.9


class Recipe(NamedTuple):
  """How a victim is trained: plain, hashable values.

  Attributes:
    loss: 'mse', on any targets; or 'cross_entropy', on probabilities (N, C),
      or on +-1 if C = 1.
    learning_rate: of momentum descent; None is `automatic_rate`, or less if
      the network's first 50 steps go up with it.
    momentum: in [0, 1); None is 0.9.
    optimizer: an optax transformation instead of momentum descent. It has its
      own rate and momentum.
    batch_size: B; None trains on everything at each step.
    weight_decay: times theta, added to the gradient.
    clip: largest norm of an example's gradient (DP-SGD); None does not clip.
    noise: standard deviation of DP-SGD's noise, in units of `clip`.
  """

  loss: str = 'mse'
  learning_rate: float | None = None
  momentum: float | None = None
  optimizer: optax.GradientTransformation | None = None
  batch_size: int | None = None
  weight_decay: float = 0.0
  clip: float | None = None
  noise: float = 0.0


DEFAULT = Recipe()


def check_recipe(recipe: Recipe) -> None:
  """Raises a ValueError for a value out of range or one that has no effect."""
  checks.one_of('loss', recipe.loss, batches.LOSSES)
  if recipe.learning_rate is not None:
    checks.positive('learning_rate', recipe.learning_rate)
  if recipe.momentum is not None:
    checks.below_one('momentum', recipe.momentum)
  if recipe.optimizer is not None:
    for name in ('learning_rate', 'momentum'):
      if (value := getattr(recipe, name)) is not None:
        raise ValueError(f'`{name}` must be None with an `optimizer`, which '
                         f'has its own; got {value}.')
  if recipe.batch_size is not None:
    checks.at_least('batch_size', recipe.batch_size, 1)
  checks.non_negative('weight_decay', recipe.weight_decay)
  checks.non_negative('noise', recipe.noise)
  if recipe.clip is not None:
    checks.positive('clip', recipe.clip)
  elif recipe.noise:
    raise ValueError('`clip` is needed with `noise`, whose unit it is; got '
                     'None.')


def momentum_of(recipe: Recipe) -> float:
  """Of momentum descent: that of `recipe`, or the default."""
  return _MOMENTUM if recipe.momentum is None else recipe.momentum


def transform_of(recipe: Recipe) -> optax.GradientTransformation:
  """From gradients to updates; to updates over -rate without an optimizer."""
  last = recipe.optimizer
  if last is None:
    momentum = momentum_of(recipe)
    last = optax.trace(momentum) if momentum else optax.identity()
  if not recipe.weight_decay:
    return last
  return optax.chain(optax.add_decayed_weights(recipe.weight_decay), last)


def loss_value(
    name: str, out: Float[Array, 'N C'], y: Float[Array, 'N C']
) -> Float[Array, '']:
  """Mean squared error over N and C, or mean cross-entropy over N."""
  if name == 'mse':
    return jnp.mean((out - y)**2)
  if y.shape[1] == 1:
    return jnp.mean(jax.nn.softplus(-y * out))
  return jnp.mean(optax.softmax_cross_entropy(out, y))


def residual(
    name: str, out: Float[Array, 'N C'], y: Float[Array, 'N C']
) -> Float[Array, 'N C']:
  """r = -dl/df of each example."""
  if name == 'mse':
    return y - out
  if y.shape[1] == 1:
    return y * jax.nn.sigmoid(-y * out)
  return y - jax.nn.softmax(out)
