r"""DP-SGD: gradient descent that is (epsilon, delta) private by construction.

  g = (sum_{n in batch} c_n g_n + \sigma C N(0, I)) / (q N),
  c_n = min(1, C / |g_n|)

and an update by any optax optimizer, which only processes what is already
private (arXiv:1607.00133). Every example enters each batch with probability q,
independently of all else: the Poisson sampling that `accounting` assumes. The
sum is divided by the expected size of a batch, q N, since the actual one is
private as well.

Shapes are static: a batch is a buffer of `capacity` rows of which some are
empty. Should more examples be drawn, the last are left out. The capacity is
such that this happens in a whole run with probability \tau at most, which adds
(1 + e^\epsilon) \tau to delta: a thousandth of it, see `fit_private`.

What is protected is what is released: the parameters. Losses on the way
(`Trained.curve`) are not, nor is a guarantee left once the key is known. N
itself counts as public.

Axes: N examples; B capacity; C outputs, and the clipping norm in formulas.
"""
import functools
import math
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
import numpy as np
import optax

from dsr import checks
from dsr.nets import BATCH_STATS
from dsr.train import accounting, descent, private
from dsr.train.batches import LOSSES, checked_examples
from dsr.train.clipped import clipped_sum
from dsr.train.networks import Trained, train_all
from dsr.types import Examples, Solver

OVERFLOW = 1e-3  # Share of delta that batches beyond the capacity may take.


class Privacy(NamedTuple):
  """What holds for each network alone; R of them, if all released, are R runs.

  Attributes:
    epsilon: for data sets that differ by one example, added or removed; of the
      accountant, for the noise that was used.
    delta: as asked for.
    noise_multiplier: sigma, deviation of the noise over `clip`.
    sampling_rate: q.
    steps: updates.
    clip: C, largest norm of an example's gradient.
  """

  epsilon: float
  delta: float
  noise_multiplier: float
  sampling_rate: float
  steps: int
  clip: float


def fit_private(
    key: Key[Array, ''], module: nn.Module, data: Examples, *,
    epsilon: float, delta: float, num_steps: int, expected_batch: int | float,
    clip: float, optimizer: optax.GradientTransformation,
    loss: str = 'cross_entropy', num_networks: int = 1,
    init_scale: float = 1.0, parallel: int | None = None
) -> tuple[Trained, Privacy]:
  """Trains R networks, each (`epsilon`, `delta`) private.

  Args:
    key: as of `fit_networks`; a secret, for it decides the noise.
    module: a Flax module that treats each example alone, without state.
    data: x (N, ...) after `data.transforms` that were not fitted to it, or are
      public; y (N, C), or +-1 (N, 1) under 'cross_entropy'.
    epsilon: in [0.001, 100].
    delta: in [2e-13, 1); below 1 / N to mean anything.
    num_steps: updates of each network.
    expected_batch: q N, at most N.
    clip: C, positive.
    optimizer: any optax transformation.
    loss: one of `LOSSES`.
    num_networks: R.
    init_scale: see `gradient_descent`.
    parallel: see `fit_networks`.

  Returns:
    The networks, and what is guaranteed for each.

  Raises:
    ValueError: a number out of range, data that do not fit, or a network with
      batch normalisation, which lets examples see each other.
    FloatingPointError: a loss became infinite or NaN.
    KeyboardInterrupt: Ctrl-C; half-trained networks are not handed out.
  """
  data = checked_examples(module, data, loss, logistic=True)
  refuse_batch_norm(module, data)
  num = len(data.x)
  checks.positive('expected_batch', expected_batch)
  checks.within('expected_batch', expected_batch, 0, num)
  checks.at_least('num_steps', num_steps, 1)
  rate = expected_batch / num
  rest = (1 - OVERFLOW) * delta
  noise = accounting.noise_multiplier(epsilon, rest, rate, num_steps)
  # 1 + e^epsilon <= 2 e^epsilon.
  overflow = OVERFLOW * delta * math.exp(-epsilon) / 2
  solver = dp_sgd(
      module, optimizer, clip=clip, noise_multiplier=noise, sampling_rate=rate,
      capacity=capacity(num, rate, num_steps, overflow), loss=loss,
      init_scale=init_scale)
  params, curve = train_all(
      key, solver, data, num_steps=num_steps, num_networks=num_networks,
      parallel=parallel, name=f'private {loss} loss of {type(module).__name__}')
  achieved = accounting.epsilon(noise, rate, num_steps, rest)
  return Trained(module, params, curve), Privacy(
      achieved, delta, noise, rate, num_steps, clip)


@functools.lru_cache(maxsize=64)  # One step function, hence one compilation.
def dp_sgd(
    module: nn.Module, optimizer: optax.GradientTransformation, *,
    clip: float, noise_multiplier: float, sampling_rate: float, capacity: int,
    loss: str = 'cross_entropy', init_scale: float = 1.0) -> Solver:
  """DP-SGD of one network as init/step.

  Args:
    module: a Flax module that treats each example alone, without state.
    optimizer: any optax transformation.
    clip: C, positive.
    noise_multiplier: sigma >= 0, in units of `clip`; 0 is not private.
    sampling_rate: q in (0, 1], rounded down to a multiple of 2^-32.
    capacity: B, of `capacity`.
    loss: one of `LOSSES`; see `recipe.residual` for what it means.
    init_scale: see `gradient_descent`.

  Returns:
    init: (key, data: Examples) -> `descent.State`.
    step: (State, data) -> (State, Info), whose loss is the mean over the batch
      before the update, 0 if nobody was drawn.

  Raises:
    ValueError: a number out of range.
  """
  checks.positive('clip', clip)
  checks.non_negative('noise_multiplier', noise_multiplier)
  checks.positive('sampling_rate', sampling_rate)
  checks.within('sampling_rate', sampling_rate, 0, 1)
  checks.at_least('capacity', capacity, 1)
  checks.one_of('loss', loss, LOSSES)

  def init(key, data):
    return descent.initial(key, module, optimizer, data.x, batch_size=None,
                           init_scale=init_scale)

  def step(state, data):
    key_rows, key_noise = jax.random.split(
        jax.random.fold_in(state.key, state.step))
    rows, drawn = poisson_rows(
        key_rows, len(data.x), sampling_rate, min(capacity, len(data.x)))
    batch = jax.tree.map(lambda a: a[rows], data)
    value, grads = clipped_sum(
        module, state.params, batch, drawn, clip=clip, loss=loss)
    grads = private.add_noise(key_noise, grads, noise_multiplier * clip)
    expected = sampling_rate * len(data.x)
    grads = jax.tree.map(lambda g: g / expected, grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state._replace(
        params=params, opt_state=opt_state, step=state.step + 1)
    return state, descent.Info(value, jnp.isfinite(value))

  return Solver(init, step)


def poisson_rows(
    key: Key[Array, ''], num: int, rate: float, capacity: int
) -> tuple[Int[Array, 'B'], Bool[Array, 'B']]:
  """Rows drawn independently with probability `rate` each, in ascending order.

  Args:
    key: of the draw.
    num: N.
    rate: in [0, 1], rounded down to a multiple of 2^-32.
    capacity: B; of more rows drawn than these, the last are left out.

  Returns:
    B rows, and which of them were drawn; the others are fillers.
  """
  chosen = poisson_mask(key, num, rate)
  rows = jnp.nonzero(chosen, size=capacity, fill_value=num)[0]
  drawn = rows < num
  return jnp.where(drawn, rows, 0), drawn


def poisson_mask(
    key: Key[Array, ''], num: int, rate: float) -> Bool[Array, 'N']:
  """Who is drawn, each independently with probability `rate`.

  Args:
    key: of the draw.
    num: N.
    rate: in [0, 1], rounded down to a multiple of 2^-32.
  """
  limit = int(rate * 2**32)
  if limit == 2**32:
    return jnp.ones(num, bool)
  return jax.random.bits(key, (num,), jnp.uint32) < np.uint32(limit)


def capacity(
    num: int, rate: float, num_steps: int, overflow: float) -> int:
  """The least B that `num_steps` batches exceed with probability `overflow`.

  By the union bound P(any > B) <= num_steps P(Binomial(num, rate) > B).

  Raises:
    ValueError: a number out of range.
  """
  from scipy import stats

  checks.at_least('num', num, 1)
  checks.within('rate', rate, 0, 1)
  checks.at_least('num_steps', num_steps, 1)
  checks.within('overflow', overflow, 0, 1)
  sizes = np.arange(1, num + 1)
  enough = stats.binom.sf(sizes, num, rate) * num_steps <= overflow
  return int(sizes[np.argmax(enough)])  # At B = N the tail is exactly 0.


def refuse_batch_norm(module: nn.Module, data: Examples) -> None:
  """Raises a ValueError for a network whose examples see each other."""
  def moments(key, x):
    params = module.init(key, x)['params']
    return module.apply({'params': params}, x, mutable=[BATCH_STATS])[1]

  if jax.eval_shape(moments, jax.random.key(0), data.x[:2]):
    raise ValueError(
        '`module` must treat each example alone to be private, got a '
        f'{type(module).__name__} with batch normalisation.')
