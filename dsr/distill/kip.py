r"""Kernel inducing points (arXiv:2011.00050): distil by differentiating KRR.

  f(x) = K(x, X_s) (K_ss + \lambda tr(K_ss)/S I)^{-1} y_s
  mse:           L = |y_t - f(X_t)|^2 / (2 B)
  cross_entropy: L = -mean_t log softmax(f(x_t) e^a)[label of t]
                 (C = 1: -mean_t log sigmoid(y_t f(x_t) e^a), y_t = +-1)

a is a learned log temperature. Each step draws a fresh class-balanced batch
(X_t, y_t) of the training set, augments it if asked, and moves X_s, and y_s
where labels are learned, by one step of the optimizer. Cost: two products
B x S x D, forward and backward, and S^3 / 3 for the factor. Over many processes
their devices have rows of the training set and of each batch, and with them of
K(X_t, X_s); the support lies on all of them.

Axes: S support, B batch, D features, C classes.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Key
import optax

from dsr import checks, hosts, krr
from dsr.distill import support as support_lib, targets
from dsr.distill.support import Support
from dsr.types import Examples, KernelFn, Solver

LOSSES = ('mse', 'cross_entropy')


class State(NamedTuple):
  """What a step needs.

  Attributes:
    support: the distilled set; `support.examples()` is what to keep.
    log_temperature: a, stays 0 with the mean squared error.
    opt_state: of the optimizer, on (support without mask, log_temperature).
    key: of the batches still to come.
  """

  support: Support
  log_temperature: Float[Array, '']
  opt_state: optax.OptState
  key: Key[Array, '']


class Info(NamedTuple):
  """Of one step: the loss on its batch, and whether all is finite."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


def kip(
    kernel_fn: KernelFn, optimizer: optax.GradientTransformation, *,
    ridge: float = 1e-6, batch_size: int = 5000, learn_labels: bool = False,
    loss: str = 'mse', augment: Callable | None = None,
    min_distance: float = 0.0, distance_weight: float = 50.0,
    on: Mesh | None = None) -> Solver:
  r"""Builds the solver: `init(key, support)`, `step(state, Targets)`.

  Args:
    kernel_fn: (N, ...), (M, ...) -> (N, M).
    optimizer: of images, labels and log temperature together.
    ridge: \lambda > 0, relative to tr(K_ss)/S.
    batch_size: training examples a step; 0 takes all of them.
    learn_labels: whether y_s is learned too.
    loss: 'mse' or 'cross_entropy'.
    augment: (key, x (B, ...)) -> x, applied to each batch; None for nothing.
    min_distance: root mean square difference that a support image should
      keep to its nearest training image in the batch; 0 for no penalty.
    distance_weight: weight of that penalty, see `support.closeness`.
    on: the devices of many processes, see `targets.targets`; not with
      `min_distance`.

  Raises:
    ValueError: an option is out of its range.
  """
  checks.positive('ridge', ridge)
  checks.at_least('batch_size', batch_size, 0)
  checks.one_of('loss', loss, LOSSES)
  checks.non_negative('min_distance', min_distance)
  checks.non_negative('distance_weight', distance_weight)
  if min_distance and on is not None:
    raise ValueError('`min_distance` must be 0 over many processes, which do '
                     f'not compare their batches, got {min_distance}.')

  def init(key: Key[Array, ''], start: Support) -> State:
    start = support_lib.support(*start)
    log_temperature = jnp.zeros((), start.x.dtype)
    opt_state = optimizer.init(
        (start._replace(frozen=None), log_temperature))
    return State(start, log_temperature, opt_state, key)

  def loss_fn(params, batch: Examples):
    (x, y, _), log_temperature = params
    checks.features('data.y', batch.y, dim=y.shape[1])
    predict = krr.fit(kernel_fn, Examples(x, y), ridge=ridge)
    total = batch_loss(predict(batch.x), batch.y, loss, log_temperature)
    if min_distance:
      total += distance_weight * support_lib.closeness(
          x, batch.x, min_distance)
    return total

  def step(state: State, data: targets.Targets) -> tuple[State, Info]:
    key, key_batch, key_augment = jax.random.split(state.key, 3)
    batch = targets.batch(key_batch, data, batch_size)
    if augment is not None:
      batch = batch._replace(x=augment(key_augment, batch.x))
    params = state.support._replace(frozen=None), state.log_temperature
    value, (gradient, slope) = hosts.mean_of_parts(
        jax.value_and_grad(loss_fn), on)(params, batch)
    gradient = support_lib.learned(state.support, gradient, learn_labels)
    updates, opt_state = optimizer.update(
        (gradient, slope), state.opt_state, params)
    moved, log_temperature = optax.apply_updates(params, updates)
    moved = support_lib.restore(state.support, moved, learn_labels)
    finite = support_lib.all_finite(
        value, moved.x, moved.y, log_temperature)
    new = State(moved, log_temperature, opt_state, key), Info(value, finite)
    return hosts.constrain(new, on)

  return Solver(init, step)


def batch_loss(
    outputs: Float[Array, 'B C'], y: Float[Array, 'B C'], loss: str,
    log_temperature: Float[Array, ''] | float = 0.0) -> Float[Array, '']:
  """The loss of the module text for predictions `outputs` on targets `y`.

  With 'cross_entropy' the label of a row is its largest target, or its sign
  where C = 1.
  """
  if loss == 'mse':
    return 0.5 * jnp.mean(jnp.sum((y - outputs) ** 2, axis=-1))
  logits = outputs * jnp.exp(log_temperature)
  if y.shape[-1] == 1:
    return jnp.mean(jax.nn.softplus(-jnp.sign(y) * logits))
  log_p = jax.nn.log_softmax(logits, axis=-1)
  label = jnp.argmax(y, axis=-1)[:, None]
  return -jnp.mean(jnp.take_along_axis(log_p, label, axis=-1))

