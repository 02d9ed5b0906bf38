r"""DP-SGD with canaries, of which a random half takes part.

What an audit of the guarantee needs (arXiv:2305.08846): who takes part may be
decided by independent coins without changing a shape or the scale of a step.

  g = (sum_{n drawn, present} c_n g_n + C sum_{m drawn, included} e_m
       + \sigma C N(0, I)) / (q N)

Canaries are rows of the data that may be absent, or gradients: C e_m, with e_m
the unit vector of one parameter, which is as much as one example may add. N
counts all rows and all gradients, present or not, and is public. Otherwise it
is `dp_sgd`, with the accountant of `dp_sgd`.

Axes: N examples; M gradient canaries; B capacity; C clipping norm.
"""
import functools
import math
from typing import NamedTuple

from flax import linen as nn
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree
import numpy as np
import optax

from dsr import checks
from dsr.train import accounting, descent, dp_sgd, private, recipe
from dsr.train.batches import checked_examples
from dsr.train.networks import Trained, _init_all, train_all
from dsr.types import Examples, Solver


class Canaries(NamedTuple):
  """Who may be absent.

  Attributes:
    present: (N,) whether each row of the data takes part.
    coordinates: (M,) different positions in the flattened parameters.
    included: (M,) whether the gradient at each of them takes part.
  """

  present: Bool[Array | np.ndarray, 'N']
  coordinates: Int[Array | np.ndarray, 'M']
  included: Bool[Array | np.ndarray, 'M']


class Audited(NamedTuple):
  """A private network, where it started, and what its accountant says."""

  trained: Trained
  start: PyTree
  privacy: dp_sgd.Privacy


def fit_with_canaries(
    key: Key[Array, ''], module: nn.Module, data: Examples,
    canaries: Canaries, *, epsilon: float, delta: float, num_steps: int,
    expected_batch: int | float, clip: float,
    optimizer: optax.GradientTransformation, loss: str = 'cross_entropy',
    noise_scale: float = 1.0) -> Audited:
  r"""One network by DP-SGD, as `fit_private`, with canaries.

  Args:
    key: as of `fit_private`; independent of who takes part.
    module: a Flax module that treats each example alone, without state.
    data: x (N, ...), y (N, C), present or not.
    canaries: who takes part.
    epsilon: of the accountant, in [0.001, 100].
    delta: in [2e-13, 1).
    num_steps: updates.
    expected_batch: q (N + M), at most N + M.
    clip: C, positive.
    optimizer: any optax transformation.
    loss: one of `LOSSES`.
    noise_scale: times the noise that `epsilon` needs: below 1 the guarantee
      does not hold, which a good audit must notice.

  Raises:
    ValueError: a number out of range, or data that do not fit.
    FloatingPointError: a loss became infinite or NaN.
  """
  data = checked_examples(module, data, loss, logistic=True)
  dp_sgd.refuse_batch_norm(module, data)
  num = len(data.x) + len(canaries.coordinates)
  checks.flags('canaries.present', canaries.present, shape=(len(data.x),))
  checks.flags('canaries.included', canaries.included,
               shape=(len(canaries.coordinates),))
  checks.positive('expected_batch', expected_batch)
  checks.within('expected_batch', expected_batch, 0, num)
  checks.at_least('num_steps', num_steps, 1)
  checks.positive('noise_scale', noise_scale)
  rate = expected_batch / num
  rest = (1 - dp_sgd.OVERFLOW) * delta
  noise = accounting.noise_multiplier(epsilon, rest, rate, num_steps)
  capacity = dp_sgd.capacity(
      len(data.x), rate, num_steps,
      dp_sgd.OVERFLOW * delta * math.exp(-epsilon) / 2)
  solver = _solver(module, optimizer, clip, noise * noise_scale, rate,
                   capacity, loss, num)
  together = data, jax.tree.map(jnp.asarray, canaries)
  params, curve = train_all(
      key, solver, together, num_steps=num_steps, num_networks=1,
      parallel=None, name=f'private {loss} loss of {type(module).__name__}')
  start = _init_all(solver.init, jax.random.split(key, 1), together).params
  return Audited(Trained(module, params, curve), start, dp_sgd.Privacy(
      accounting.epsilon(noise, rate, num_steps, rest), delta, noise, rate,
      num_steps, clip))


@functools.lru_cache(maxsize=16)  # One step function, hence one compilation.
def _solver(module, optimizer, clip, noise, rate, capacity, loss, num):
  def init(key, data):
    return descent.initial(key, module, optimizer, data[0].x, batch_size=None,
                           init_scale=1.0)

  def step(state, data):
    examples, canaries = data
    key_rows, key_canaries, key_noise = jax.random.split(
        jax.random.fold_in(state.key, state.step), 3)
    rows, drawn = dp_sgd.poisson_rows(
        key_rows, len(examples.x), rate, min(capacity, len(examples.x)))
    batch = jax.tree.map(lambda a: a[rows], examples)
    value, grads = dp_sgd.clipped_sum(
        module, state.params, batch, drawn & canaries.present[rows],
        clip=clip, loss=loss)
    grads = _with_units(grads, canaries, clip, dp_sgd.poisson_mask(
        key_canaries, len(canaries.coordinates), rate))
    grads = private.add_noise(key_noise, grads, noise * clip)
    grads = jax.tree.map(lambda g: g / (rate * num), grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return state._replace(
        params=optax.apply_updates(state.params, updates), opt_state=opt_state,
        step=state.step + 1), descent.Info(value, jnp.isfinite(value))

  return Solver(init, step)


def _with_units(grads, canaries, clip, drawn):
  """`grads` + clip at the coordinates of canaries drawn and included."""
  flat, unravel = ravel_pytree(grads)
  own = jnp.where(drawn & canaries.included, clip, 0.0).astype(flat.dtype)
  return unravel(flat.at[canaries.coordinates].add(own))


def quiet_coordinates(
    key: Key[Array, ''], module: nn.Module, data: Examples, num: int, *,
    loss: str = 'cross_entropy') -> Int[np.ndarray, 'M']:
  """The parameters of the least gradient at a start of the network.

  An auditor chooses his canaries freely: what training does at their
  coordinates by itself is in the way. Ties, such as the weights of pixels that
  are 0 in all images, are broken at random.

  Args:
    key: of the start and of ties.
    module: the network.
    data: x (N, ...), y (N, C).
    num: M, at most the number of parameters.
    loss: one of `LOSSES`.

  Raises:
    ValueError: more coordinates than parameters.
  """
  data = checked_examples(module, data, loss, logistic=True)
  key_start, key_ties = jax.random.split(key)
  size = np.abs(np.asarray(_start_gradient(key_start, module, data, loss)))
  checks.at_least('num', num, 1)
  if num > len(size):
    raise ValueError(f'`num` must be at most {len(size)}, the parameters of '
                     f'the network, got {num}.')
  ties = np.asarray(jax.random.uniform(key_ties, size.shape))
  return np.sort(np.lexsort((ties, size))[:num])


@functools.partial(jax.jit, static_argnames=('module', 'loss'))
def _start_gradient(key, module, data, loss):
  """Of the mean loss at a start, flattened."""
  params = module.init(key, data.x[:1])['params']
  out, vjp = jax.vjp(lambda p: module.apply({'params': p}, data.x), params)
  grads, = vjp(recipe.residual(loss, out, data.y))
  return ravel_pytree(grads)[0]
