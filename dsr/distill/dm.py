r"""Distribution matching (arXiv:2110.04181): equal means in random features.

  L = \sum_c | mean_{x of class c} \phi(A_c(x)) - mean_{s of class c}
               \phi(A_c(s)) |^2

\phi are the features of a network with fresh random weights at each step, the
input of its readout; x are B training images of class c, and A_c is one random
augmentation, the same for both. Labels stay as they are: a distilled image has
the class of its row. No network is trained, so a step costs one forward pass
of K B images, and one forward and backward pass of S.

On CPUs the training images go through the network in blocks of a few, whose
activations stay in the cache.

Axes: K classes, B training images of each, S distilled images; F features.
"""
from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
import optax

from dsr import checks, numerics
from dsr.distill import support as support_lib, targets
from dsr.distill.support import Support
from dsr.types import Solver

# Training images at a time, on CPUs and elsewhere. There the 2560 of ten
# classes go at once, and more of them class by class, for memory.
_BLOCK, _BLOCK_ACCELERATOR = 8, 4096


class State(NamedTuple):
  """What a step needs.

  Attributes:
    support: the distilled set, rows in the order of classes, as many of each.
    opt_state: of the optimizer, on the support without its mask.
    key: of the networks, batches and augmentations still to come.
  """

  support: Support
  opt_state: optax.OptState
  key: Key[Array, '']


class Info(NamedTuple):
  """Of one step: the loss, and whether all is finite."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


def dm(
    module: nn.Module, optimizer: optax.GradientTransformation, *,
    batch_size: int = 256, augment: Callable | None = None,
    block: int | None = None) -> Solver:
  """Builds the solver: `init(key, support)`, `step(state, Targets)`.

  The published recipe is `optax.sgd(1.0, momentum=0.5)`, 20,000 steps, a
  ConvNet of depth 3, and `data.siamese` as `augment`.

  Args:
    module: a network of `dsr.nets`, of which `features=True` is used.
    optimizer: of the images.
    batch_size: B, training images of each class a step; all, if there are
      fewer.
    augment: (key, x (B, ...)) -> x, the same change for all images of a call
      and for all calls with one key; None for nothing.
    block: training images in one pass through the network, all or at most
      those of one class. None: 4096, on CPUs 8. Networks that normalise by
      the batch always get all at once.

  Returns:
    The solver. `init` raises a ValueError unless its support fits the classes
    of the data, which it takes as a third argument: `init(key, support, data)`.
  """
  checks.at_least('batch_size', batch_size, 1)
  if block is not None:
    checks.at_least('block', block, 1)

  def init(key: Key[Array, ''], start: Support, data: targets.Targets) -> State:
    start = support_lib.support(*start)
    targets.classes_of('start', start.x, data)
    opt_state = optimizer.init(start._replace(frozen=None))
    return State(start, opt_state, key)

  def step(state: State, data: targets.Targets) -> tuple[State, Info]:
    key, key_net, key_batch, key_augment = jax.random.split(state.key, 4)
    params = module.init(key_net, data.x[:1], features=True)
    phi = lambda x: module.apply(params, x, features=True)
    rows, weights = targets.by_class(key_batch, data, batch_size)
    keys = jax.random.split(key_augment, rows.shape[0])
    x = data.x[rows]  # (K, B, ...)
    want = _means(phi, _augmented(augment, keys, x), weights,
                  _block(module, block))

    def loss_fn(learned):
      x = learned.x.reshape(rows.shape[0], -1, *learned.x.shape[1:])
      x = _augmented(augment, keys, x)
      got = phi(x.reshape(learned.x.shape))
      got = jnp.mean(got.reshape(*x.shape[:2], -1), axis=1)
      return jnp.sum((want - got)**2)

    learned = state.support._replace(frozen=None)
    value, gradient = jax.value_and_grad(loss_fn)(learned)
    gradient = support_lib.learned(state.support, gradient, labels=False)
    updates, opt_state = optimizer.update(gradient, state.opt_state, learned)
    moved = optax.apply_updates(learned, updates)
    moved = support_lib.restore(state.support, moved, labels=False)
    finite = support_lib.all_finite(value, moved.x)
    return State(moved, opt_state, key), Info(value, finite)

  return Solver(init, step)


def _augmented(augment, keys, x):
  """Each class with its own key; one after another, as `augment` branches."""
  if augment is None:
    return x
  return jax.lax.map(lambda pair: augment(*pair), (keys, x))


def _block(module, block):
  """Images at a time, or None for all."""
  if getattr(module, 'norm', None) == 'batch':
    return None
  if block is None:
    return _BLOCK if numerics.on_cpu() else _BLOCK_ACCELERATOR
  return block


def _means(
    phi: Callable, x: Float[Array, 'K B ...'], weights: Float[Array, 'K B'],
    block: int | None) -> Float[Array, 'K F']:
  """Weighted sums of features over B, with no more than `block` in one pass."""
  num, size = weights.shape
  if block is None or block >= num * size:
    out = phi(x.reshape(num * size, *x.shape[2:])).reshape(num, size, -1)
    return jnp.einsum('kb,kbf->kf', weights, out, precision='highest')
  block = min(block, size)
  short = -size % block  # Filled up with images that weigh nothing.
  pad = lambda a: jnp.pad(a, ((0, 0), (0, short)) + ((0, 0),) * (a.ndim - 2))
  split = lambda a: pad(a).reshape(-1, block, *a.shape[2:])

  def part(pair):
    images, weight = pair
    return jnp.matmul(weight, phi(images), precision='highest')

  sums = jax.lax.map(part, (split(x), split(weights)))
  return jnp.sum(sums.reshape(num, -1, sums.shape[-1]), axis=1)
