r"""Dataset condensation by gradient matching, DC and DSA.

  L = \sum_c d( \nabla_\theta \ell(A_c(x_c); \theta),
                \nabla_\theta \ell(A_c(s_c); \theta) )

with d the cosine distance of `matching.cosine`, x_c a batch of training images
of class c and s_c the distilled ones. A network starts anew; `outer` times the
images take one step along the gradient of L and the network is trained for
`inner` epochs on the distilled set; then comes the next network, so that the
last training is left out. A_c is one random augmentation, the same for both
sides, drawn for each class and step: with it the method is DSA
(arXiv:2102.08259), without it DC (arXiv:2006.05929). Labels stay as they are: a
distilled image has the class of its row.

One step of this solver is one step of the images.

The augmentation is pulled back apart from the matching: its branches are
differentiated once and never meet the second derivatives of the network.

Axes: K classes, B training images of each, S distilled images.
"""
from collections.abc import Callable
import functools
import math
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import optax

from dsr import checks
from dsr.distill import matching, support as support_lib, targets
from dsr.distill.support import Support
from dsr.train import descent
from dsr.types import Examples, Solver

_INNER_BATCH = 256  # Distilled images in a step of the network, as published.
PYTORCH = 1 / math.sqrt(3)  # Scale of kernels at the start, as published.


class State(NamedTuple):
  """What a step needs.

  Attributes:
    support: the distilled set, rows in the order of classes, as many of each.
    opt_state: of the optimizer, on the support without its mask.
    key: of the networks, batches and augmentations still to come.
    network: whose gradients are matched; without meaning at turn 0, where a
      new one starts, and None if all steps have a new one.
    turn: steps that the images have made with it.
  """

  support: Support
  opt_state: optax.OptState
  key: Key[Array, '']
  network: descent.State | None
  turn: Int[Array, '']


class Info(NamedTuple):
  """Of one step: the loss L, and whether all is finite."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


def loops(images_per_class: int) -> tuple[int, int]:
  """The published (outer, inner): (1, 1), (10, 50), (20, 25), (50, 10).

  At 1, 10, 20 and 50 images a class; other sizes n get (n, 500 // n), at least
  1, by the same rule.

  Raises:
    ValueError: no positive integer.
  """
  checks.at_least('images_per_class', images_per_class, 1)
  if images_per_class == 1:
    return 1, 1
  return images_per_class, max(1, 500 // images_per_class)


def dc(
    module: nn.Module, optimizer: optax.GradientTransformation, *,
    outer: int = 1, inner: int = 1, batch_size: int = 256,
    network_rate: float = 0.01, augment: Callable | None = None,
    augment_training: Callable | None = None, init_scale: float = PYTORCH,
    block: int | None = None) -> Solver:
  """Builds the solver: `init(key, support, Targets)`, `step(state, Targets)`.

  The published recipe is `optax.sgd(0.1, momentum=0.5)`, 1,000 networks (so
  1,000 x `outer` steps), `loops`, a ConvNet of depth 3, and for DSA
  `data.siamese` as `augment` and, with `shared=False`, as `augment_training`.

  Args:
    module: a network with an output for each class. Batch normalisation takes
      the moments of whatever passes through at once.
    optimizer: of the images.
    outer: steps of the images with one network.
    inner: epochs of that network on the distilled set between two of them, in
      batches of 256.
    batch_size: B, training images of each class a step; all, if there are
      fewer.
    network_rate: of gradient descent on the network, without momentum.
    augment: (key, x (B, ...)) -> x, the same change for all images of a call
      and for all calls with one key; None for nothing.
    augment_training: as `augment`, with a change of its own for each image, for
      the training of the network; hashable.
    init_scale: factor on the kernels of a new network, see
      `train.gradient_descent`; PyTorch's, as published, is 1 / sqrt(3).
    block: training images whose gradient is taken at once; None: see
      `matching.pick_block`.

  Returns:
    The solver. `init` raises a ValueError unless its support fits the classes
    of the data, and unless `module` has an output for each of them.
  """
  checks.at_least('outer', outer, 1)
  checks.at_least('inner', inner, 1)
  checks.at_least('batch_size', batch_size, 1)
  checks.positive('network_rate', network_rate)
  if block is not None:
    checks.at_least('block', block, 1)
  training = descent.gradient_descent(
      module, optax.sgd(network_rate), batch_size=_INNER_BATCH,
      loss='cross_entropy', augment=augment_training, init_scale=init_scale)
  loss = matching.class_loss(module)

  def init(key: Key[Array, ''], start: Support, data: targets.Targets) -> State:
    start = support_lib.support(*start)
    check_start(module, start, data)
    network = None if outer == 1 else unset_like(jax.eval_shape(
        training.init, key, _examples(start, data)), key)
    return State(start, optimizer.init(start._replace(frozen=None)), key,
                 network, jnp.zeros((), jnp.int32))

  def one_class(params, part):
    label, real, weights, z = part
    want = matching.class_gradient(
        loss, params, real, label, weights,
        block=block or matching.pick_block(module, real.shape[1:]))
    return matching.matched(loss, matching.cosine, params, z, label, want)

  def pixel_gradient(params, x, data, key_batch, key_augment):
    """L and its derivative in the images x (S, ...)."""
    rows, weights = targets.by_class(key_batch, data, batch_size)
    classes = rows.shape[0]
    keys = jax.random.split(key_augment, classes)
    real = matching.augmented(augment, keys, data.x[rows])
    by_class = lambda x: x.reshape(classes, -1, *x.shape[1:])
    z, pull = jax.vjp(
        lambda x: matching.augmented(augment, keys, by_class(x)), x)
    values, towards = jax.lax.map(
        functools.partial(one_class, params),
        (jnp.arange(classes), real, weights, z))
    return jnp.sum(values), pull(towards)[0]

  def trained(network, examples):
    steps = inner * math.ceil(examples.x.shape[0] / _INNER_BATCH)
    body = lambda net, _: (training.step(net, examples)[0], None)
    return jax.lax.scan(body, network, None, length=steps)[0]

  def step(state: State, data: targets.Targets) -> tuple[State, Info]:
    key, key_net, key_batch, key_augment = jax.random.split(state.key, 4)
    fresh = lambda: training.init(key_net, _examples(state.support, data))
    network = fresh() if outer == 1 else jax.lax.cond(
        state.turn == 0, fresh, lambda: state.network)
    value, gradient = pixel_gradient(
        network.params, state.support.x, data, key_batch, key_augment)
    moved, opt_state = updated(
        optimizer, state.support, state.opt_state, gradient)
    turn = (state.turn + 1) % outer
    network = None if outer == 1 else jax.lax.cond(
        turn == 0, lambda: network,
        lambda: trained(network, _examples(moved, data)))
    finite = support_lib.all_finite(value, moved.x)
    return State(moved, opt_state, key, network, turn), Info(value, finite)

  return Solver(init, step)


def unset_like(shapes: PyTree, key: Key[Array, '']) -> PyTree:
  """Zeros of `shapes`, a pytree of shapes and dtypes; its keys are `key`."""
  is_key = lambda a: jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
  return jax.tree.map(
      lambda a: key if is_key(a) else jnp.zeros(a.shape, a.dtype), shapes)


def updated(
    optimizer: optax.GradientTransformation, state: Support,
    opt_state: optax.OptState, gradient: Float[Array, 'S ...']
) -> tuple[Support, optax.OptState]:
  """The support after one step of its images, and the optimizer's state."""
  learned = state._replace(frozen=None)
  gradient = support_lib.learned(
      state, learned._replace(x=gradient), labels=False)
  updates, opt_state = optimizer.update(gradient, opt_state, learned)
  moved = optax.apply_updates(learned, updates)
  return support_lib.restore(state, moved, labels=False), opt_state


def check_start(
    module: nn.Module, start: Support, data: targets.Targets) -> None:
  """Raises a ValueError unless set, network and data have the same classes."""
  classes = targets.classes_of('start', start.x, data)
  out = jax.eval_shape(
      lambda key, x: module.init_with_output(key, x)[0], jax.random.key(0),
      data.x[:1])
  if out.shape != (1, classes):
    raise ValueError(f'`module` must have {classes} outputs, one for each '
                     f'class, got {out.shape[1]}.')


def _examples(support, data) -> Examples:
  """The distilled set with one-hot classes, by the place of its rows."""
  classes = data.rows.shape[0]
  labels = jnp.repeat(jnp.arange(classes), support.x.shape[0] // classes)
  return Examples(support.x, jax.nn.one_hot(
      labels, classes, dtype=support.x.dtype))
