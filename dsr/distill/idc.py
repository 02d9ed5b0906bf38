r"""Efficient synthetic-data parameterisation, IDC (arXiv:2205.14959).

A stored image holds f x f smaller ones: it is cut into f x f equal tiles, each
enlarged to full size, and the f^2 images are what networks see, here and
whenever the set is used (multi-formation, see `formations`). With f = 1 the
method is IDC-I. With r(s) the decoded images, the loss of a class is

  L_c = d( \nabla_\theta \ell(A_c(x_c); \theta),
           \nabla_\theta \ell(A_c(r(s_c)); \theta) )

where d sums squared or absolute differences over the kernels below the readout
(`matching.squared`, `absolute`). A network starts anew; `inner` times all
classes take a step of the images, one class after another, and the network a
few steps on *training* images; then pixels are cut to [0, 1], and the next
network comes. Labels stay as they are.

One step of this solver is one round of all classes. The optimizer steps once a
class on all images: its momentum moves those of the other classes on, as
published.

Images are stored as pixels in [0, 1], and `transform` makes the networks'
inputs of what is decoded.

Axes: K classes, B training images of each a step, S stored images, n of each.
"""
from collections.abc import Callable
import math
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np
import optax

from dsr import checks
from dsr.distill import (
    dc,
    formations,
    matching,
    support as support_lib,
    targets,
)
from dsr.distill.support import Support
from dsr.train import descent
from dsr.types import Examples, Solver

METRICS = {'mse': matching.squared, 'l1': matching.absolute}
_MOMENTUM, _DECAY = 0.9, 5e-4  # Of the network, as published.


class State(NamedTuple):
  """What a step needs.

  Attributes:
    support: the stored images, pixels, rows in the order of classes, as many
      of each, and their labels.
    opt_state: of the optimizer, on the support without its mask.
    key: of the networks, batches and augmentations still to come.
    network: whose gradients are matched; without meaning at turn 0, where a
      new one starts.
    turn: rounds that were made with it.
  """

  support: Support
  opt_state: optax.OptState
  key: Key[Array, '']
  network: descent.State
  turn: Int[Array, '']


class Info(NamedTuple):
  """Of one round: the sum of L_c over classes, and whether all is finite."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


def idc(
    module: nn.Module, optimizer: optax.GradientTransformation, *,
    factor: int = 2, metric: str = 'mse', inner: int = 100,
    transform: Callable = lambda x: x, batch_size: int = 64,
    most: int = 128, network_rate: float = 0.01, network_examples: int = 500,
    augment: Callable | None = None, augment_training: Callable | None = None,
    cutmix: float = 0.0, init_scale: float = dc.PYTORCH) -> Solver:
  """Builds the solver: `init(key, support, Targets)`, `step(state, Targets)`.

  The published recipe is 2,000 networks (200,000 steps), a ConvNet of depth 3,
  `optax.sgd(rate, momentum=0.5)` with rate 5e-4 n on CIFAR-10 ('mse', 2,000
  examples) and 1e-5 n on MNIST ('l1', 500 examples), n images a class, and
  `siamese.layered` augmentations.

  Args:
    module: a network with an output for each class. Batch normalisation takes
      the moments of whatever passes through at once.
    optimizer: of the images, in pixels.
    factor: f, tiles a side; 1 is IDC-I.
    metric: 'mse' or 'l1', both sums.
    inner: steps with one network.
    transform: from pixels (N, H, W, C) to inputs of the network.
    batch_size: B, training images of each class a step; all, if there are
      fewer. Also of a step of the network.
    most: decoded images of a class in one step; of more, a random choice.
    network_rate: of gradient descent on the network (momentum 0.9, weight decay
      5e-4).
    network_examples: training images that the network sees after each round,
      rounded up to whole batches; 0 leaves networks as they start.
    augment: (key, x (B, ...)) -> x, the same change for all images of a call
      and for all calls with one key; None for nothing.
    augment_training: as `augment`, with a change of its own for each image, for
      the training of the network; hashable.
    cutmix: probability that a batch of the network is mixed, see `data.cutmix`.
    init_scale: see `dc.dc`.

  Returns:
    The solver. `init` raises a ValueError unless its support fits the classes
    of the data and has pixels in [0, 1], and unless `module` has an output for
    each class and kernels below its readout.
  """
  checks.one_of('metric', metric, METRICS)
  for name, value in {'factor': factor, 'inner': inner, 'most': most,
                      'batch_size': batch_size}.items():
    checks.at_least(name, value, 1)
  checks.at_least('network_examples', network_examples, 0)
  checks.positive('network_rate', network_rate)
  training = descent.gradient_descent(
      module, optax.chain(optax.add_decayed_weights(_DECAY),
                          optax.sgd(network_rate, momentum=_MOMENTUM)),
      loss='cross_entropy', augment=augment_training, cutmix=cutmix,
      init_scale=init_scale)
  loss = matching.class_loss(module)
  unchanged = lambda key, x: x
  change = augment or unchanged

  def init(key: Key[Array, ''], start: Support, data: targets.Targets) -> State:
    start = support_lib.support(*start)
    dc.check_start(module, start, data)
    checks.images('start.x', start.x)
    if not 0 <= np.min(start.x) <= np.max(start.x) <= 1:
      raise ValueError('`start.x` must be pixels in [0, 1], got values from '
                       f'{np.min(start.x):.3g} to {np.max(start.x):.3g}.')
    network = dc.unset_like(jax.eval_shape(training.init, key, Examples(
        data.x, data.y)), key)
    if not any(matching.below_readout(*leaf) for leaf in
               jax.tree_util.tree_leaves_with_path(network.params)):
      raise ValueError('`module` must have kernels below its readout, got '
                       f'{type(module).__name__} without.')
    return State(start, optimizer.init(start._replace(frozen=None)), key,
                 network, jnp.zeros((), jnp.int32))

  def seen(key, key_pick, stored):
    """What the network sees of the stored images of a class."""
    images = transform(formations.decode(stored, factor))
    if images.shape[0] > most:
      images = images[jax.random.permutation(
          key_pick, images.shape[0])[:most]]
    return change(key, images)

  def one_class(params, data, learned, part):
    """One step of the images, along the gradient of L_c."""
    stored, opt_state = learned
    label, rows, weights, key = part
    key, key_pick = jax.random.split(key)
    num = stored.x.shape[0] // data.rows.shape[0]
    own = jax.lax.dynamic_slice_in_dim(stored.x, label * num, num)
    z, pull = jax.vjp(lambda s: seen(key, key_pick, s), own)
    want = matching.class_gradient(
        loss, params, change(key, data.x[rows]), label, weights,
        block=matching.pick_block(module, data.x.shape[1:]))
    value, towards = matching.matched(
        loss, METRICS[metric], params, z, label, want)
    gradient = jax.lax.dynamic_update_slice_in_dim(
        jnp.zeros_like(stored.x), pull(towards)[0], label * num, 0)
    return dc.updated(optimizer, stored, opt_state, gradient), value

  def trained(network, key, data):
    """The network after some steps on training images."""
    steps = math.ceil(network_examples / batch_size)
    total = data.x.shape[0]
    rows = jax.random.permutation(key, total)
    rows = rows[jnp.arange(steps * batch_size) % total]
    labels = _classes(data)

    def body(network, rows):
      batch = Examples(data.x[rows], jax.nn.one_hot(
          labels[rows], data.rows.shape[0], dtype=data.x.dtype))
      return training.step(network, batch)[0], None

    return jax.lax.scan(body, network, rows.reshape(steps, batch_size))[0]

  def step(state: State, data: targets.Targets) -> tuple[State, Info]:
    key, key_net, key_batch, key_augment, key_train = jax.random.split(
        state.key, 5)
    network = jax.lax.cond(
        state.turn == 0, lambda: training.init(key_net, Examples(
            data.x, data.y)), lambda: state.network)
    rows, weights = targets.by_class(key_batch, data, batch_size)
    classes = rows.shape[0]
    (moved, opt_state), values = jax.lax.scan(
        lambda learned, part: one_class(network.params, data, learned, part),
        (state.support, state.opt_state),
        (jnp.arange(classes), rows, weights,
         jax.random.split(key_augment, classes)))
    value = jnp.sum(values)
    finite = support_lib.all_finite(value, moved.x)
    turn = (state.turn + 1) % inner
    cut = jnp.where(turn == 0, jnp.clip(moved.x, 0, 1), moved.x)
    moved = support_lib.restore(
        state.support, moved._replace(x=cut), labels=False)
    network = jax.lax.cond(turn == 0, lambda: network, lambda: trained(
        network, key_train, data))
    return State(moved, opt_state, key, network, turn), Info(value, finite)

  return Solver(init, step)


def _classes(data: targets.Targets) -> Int[Array, 'T']:
  """The class of every training image, by the lists of rows."""
  labels = jnp.broadcast_to(
      jnp.arange(data.rows.shape[0], dtype=jnp.int32)[:, None],
      data.rows.shape)
  # The padding, -1, points past the end, where nothing is written.
  rows = jnp.where(data.rows < 0, data.x.shape[0], data.rows)
  return jnp.zeros(data.x.shape[0], jnp.int32).at[rows].set(
      labels, mode='drop')
