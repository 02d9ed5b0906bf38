r"""Matching training trajectories (MTT, arXiv:2203.11932).

An expert is a network trained on real images, of whose parameters those after
every epoch are known (`experts`). From its epoch s a student goes N steps of
SGD on the distilled set, at a rate \alpha that is learned as well, and should
be where the expert is M epochs later:

  \theta_0 = \theta*_s,
  \theta_{n+1} = \theta_n - \alpha grad l(A_n(X_s), y_s; \theta_n),
  L = |\theta_N - \theta*_{s+M}|^2 / |\theta*_s - \theta*_{s+M}|^2,

l the cross-entropy, A_n a random augmentation that differs from image to image.
Each step draws an expert and s in 0, ..., `most_start` - 1, and moves X_s and
\alpha along the gradient of L, through all N steps; labels stay as they are.
The unrolled steps are recomputed on the way back, so that the memory is that of
N sets of parameters and of one step.

L = 1 where the student has stood still, or gone as far wrong. Axes: S distilled
images; E experts, T epochs, P parameters.
"""
from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
import optax

from dsr import checks
from dsr.distill import experts as experts_lib, support as support_lib
from dsr.distill.support import Support
from dsr.types import Solver

_LEAST = 1e-6  # Of the student's rate, which must stay positive.


class State(NamedTuple):
  """What a step needs.

  Attributes:
    support: the distilled set.
    rate: alpha, of the student's SGD.
    opt_state: of both optimizers: of images, and of the rate.
    key: of all that is still to be drawn.
  """

  support: Support
  rate: Float[Array, '']
  opt_state: tuple[optax.OptState, optax.OptState]
  key: Key[Array, '']


class Info(NamedTuple):
  """Of one step: the loss, whether all is finite, and the rate it had."""

  loss: Float[Array, '']
  finite: Bool[Array, '']
  rate: Float[Array, '']


def mtt(
    module: nn.Module, optimizer: optax.GradientTransformation,
    rate_optimizer: optax.GradientTransformation, *, student_steps: int = 20,
    target_epochs: int = 3, most_start: int = 20, start_rate: float = 0.01,
    batch_size: int = 0, augment: Callable | None = None,
    probabilities: Callable = lambda y: y) -> Solver:
  r"""Builds the solver: `init(key, support, params)`, `step(state, params)`.

  `params` are trajectories (E, T + 1, P), as of `experts.train_experts`.

  Args:
    module: the experts' network.
    optimizer: of the images; published: SGD at 1000 (100 for one image a class
      of CIFAR-10), momentum 0.5.
    rate_optimizer: of \alpha; published: SGD at 1e-5 (1e-7), momentum 0.5.
    student_steps: N.
    target_epochs: M.
    most_start: s is drawn below this number.
    start_rate: \alpha at the start. It is kept at 1e-6 or above.
    batch_size: distilled images in each of the N steps, in random order until
      all were seen; 0 takes all.
    augment: (key, x (B, ...)) -> x, or None.
    probabilities: y (S, C) -> (S, K), the labels of the student.

  Raises:
    ValueError: an option is out of range; of `init`: the trajectories are too
      short, or not those of the module.
  """
  checks.at_least('student_steps', student_steps, 1)
  checks.at_least('target_epochs', target_epochs, 1)
  checks.at_least('most_start', most_start, 1)
  checks.positive('start_rate', start_rate)
  checks.at_least('batch_size', batch_size, 0)

  def init(key: Key[Array, ''], start: Support,
           params: Float[Array, 'E T P']) -> State:
    start = support_lib.support(*start)
    _check(params, module, start.x, most_start + target_epochs)
    rate = jnp.asarray(start_rate, start.x.dtype)
    opt_states = (optimizer.init(start._replace(frozen=None)),
                  rate_optimizer.init(rate))
    return State(start, rate, opt_states, key)

  def student(theta, x, y, rate):
    """Parameters after N steps on x (N, B, ...) and y (N, B, K)."""

    def update(theta, batch):
      images, labels = batch
      loss = lambda p: jnp.mean(optax.softmax_cross_entropy(
          module.apply({'params': p}, images), labels))
      gradient = jax.grad(loss)(theta)
      return jax.tree.map(lambda p, g: p - rate * g, theta, gradient), None

    return jax.lax.scan(jax.checkpoint(update), theta, (x, y))[0]

  def step(state: State, params: Float[Array, 'E T P']) -> tuple[State, Info]:
    key, key_expert, key_start, key_rows, key_augment = jax.random.split(
        state.key, 5)
    learned = state.support._replace(frozen=None)
    expert = _draw(key_expert, params.shape[0])
    epoch = _draw(key_start, most_start)
    theta, target = (params[expert, e].astype(learned.x.dtype)
                     for e in (epoch, epoch + target_epochs))
    begin = experts_lib.unravel_like(module, learned.x)(theta)
    rows = _rows(key_rows, len(learned.x), batch_size, student_steps)
    keys = jax.random.split(key_augment, student_steps)
    y = probabilities(learned.y)[rows]

    def loss_fn(pair):
      images, rate = pair
      x = images.x[rows]
      if augment is not None:  # One after another, as `augment` branches.
        x = jax.lax.map(lambda a: augment(*a), (keys, x))
      end, _ = ravel_pytree(student(begin, x, y, rate))
      return jnp.sum((end - target)**2) / jnp.sum((theta - target)**2)

    value, (gradient, slope) = jax.value_and_grad(loss_fn)(
        (learned, state.rate))
    gradient = support_lib.learned(state.support, gradient, labels=False)
    of_images, of_rate = state.opt_state
    updates, of_images = optimizer.update(gradient, of_images, learned)
    moved = support_lib.restore(
        state.support, optax.apply_updates(learned, updates), labels=False)
    change, of_rate = rate_optimizer.update(slope, of_rate, state.rate)
    rate = jnp.maximum(optax.apply_updates(state.rate, change), _LEAST)
    finite = support_lib.all_finite(value, moved.x, rate)
    return (State(moved, rate, (of_images, of_rate), key),
            Info(value, finite, state.rate))

  return Solver(init, step)


def _check(params, module, x, epochs):
  """Trajectories long enough, and of this module."""
  shapes = jax.eval_shape(
      lambda: module.init(jax.random.key(0), x[:1])['params'])
  size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  if params.ndim != 3 or params.shape[2] != size or params.shape[1] < epochs:
    raise ValueError(
        f'`params` must be (experts, {epochs} epochs or more, {size}) for '
        f'this module, `most_start` and `target_epochs`; got '
        f'{tuple(params.shape)}.')


def _draw(key, num):
  return jax.random.randint(key, (), 0, num, dtype=jnp.int32)


def _rows(key, num, batch_size, steps):
  """(steps, B) rows of the set: random orders, one after another."""
  if batch_size == 0 or batch_size >= num:
    return jnp.tile(jnp.arange(num), (steps, 1))
  rounds = -(-steps * batch_size // num)
  order = lambda k: jax.random.permutation(k, num)
  rows = jax.vmap(order)(jax.random.split(key, rounds)).reshape(-1)
  return rows[:steps * batch_size].reshape(steps, batch_size)
