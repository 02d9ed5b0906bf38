r"""Training of one network until it fits its data: what an attacker is given.

The loss is the mean over examples of one of `dsr.train.recipe`'s. With its
residuals r, gradient descent with momentum \mu and rate \eta also accumulates
the duals

  m <- \mu m + r / N,   \alpha <- \alpha + \eta m,

so that theta_T - theta_0 = sum_n \alpha_n . df(x_n)/d\theta, exactly and at any
time if the network is linearised, else with each step's own df/d\theta.
Axes: N examples, C outputs. Ref: arXiv:2302.01428.
"""
from collections.abc import Sequence
import functools
import math
import os
from typing import Any, NamedTuple

from absl import logging
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree
import numpy as np

from dsr import checks, loop, numerics
from dsr.train import batches, plateau as plateau_lib, rate as rate_lib
from dsr.train.recipe import (
    DEFAULT,
    Recipe,
    check_recipe,
    loss_value,
    momentum_of,
)
from dsr.train.victim_step import (
    Checkpoint,
    Given,
    checkpoints_of,
    forward_of,
    init_state,
    step_of,
)
from dsr.types import Examples, Status

_CHUNK = 50  # Steps between two looks at the loss.
_CALM = 10  # Losses in a row that must be small: momentum swings.
# An automatic rate is divided by 4, at most 4 times, while the first chunk
# raises the loss fourfold: nets without norms have tiny kernels at the start.
_TRIALS, _CUT, _RISE = 5, 4, 4


class Victim(NamedTuple):
  """A trained network.

  Attributes:
    module: the architecture.
    theta_0: parameters before training.
    theta_T: parameters after training.
    linearised: whether it is the first-order Taylor model around theta_0.
    duals: (N, C), see the module's text; None where they are not defined: with
      an `optimizer`, weight decay or clipping.
    curve: (steps + 1,) mean squared error, over N and C, or mean cross-entropy
      of the batch before each step, and of all data at the end.
    checkpoints: those asked for and reached, by step.
    learning_rate: of momentum descent; None otherwise.
    status: CONVERGED below the tolerance, PLATEAU where the loss stopped
      falling, FINISHED after the last step, or INTERRUPTED.
  """

  module: nn.Module
  theta_0: PyTree
  theta_T: PyTree
  linearised: bool
  duals: Float[Array, 'N C'] | None
  curve: np.ndarray
  checkpoints: tuple[Checkpoint, ...]
  learning_rate: float | None
  status: Status


def fit_victim(
    key: Key[Array, ''], module: nn.Module, data: Examples, *,
    theta_0: PyTree | None = None, recipe: Recipe = DEFAULT,
    linearised: bool = False, tolerance: int | float = 1e-10,
    plateau: int | float | None = None, max_steps: int = 100_000,
    save_losses: Sequence[float] = (),
    save_steps: Sequence[int] = (), workdir: str | os.PathLike | None = None,
    fingerprint: str = '', progress: bool = True) -> Victim:
  """Trains `module` on `data` until its loss is small or falls no more.

  Args:
    key: of theta_0 unless given, of the automatic rate, batches and noise.
    module: a Flax module without state besides its parameters.
    data: x (N, ...) after `data.transforms`, float32 or float64, which is also
      the dtype of training; y (N, C) targets.
    theta_0: parameters to start from, in that dtype; None draws them.
    recipe: see `Recipe`.
    linearised: train the first-order Taylor model around theta_0;
      `solve_linearised` is faster.
    tolerance: of the loss as in `Victim.curve`, looked at every 50 steps: the
      last ten, or with batches those of the epoch, must be below. 0 makes all
      steps.
    plateau: share of the loss by which 500 updates must improve on the 500
      before them (`dsr.train.plateau`); None does not ask.
    max_steps: updates at most.
    save_losses: a checkpoint is taken at the first loss at or below each.
    save_steps: a checkpoint is taken after each of these many updates.
    workdir: where the run is saved and from where it goes on; None: nowhere.
    fingerprint: names the run there.
    progress: see `loop.run`.

  Raises:
    ValueError: an argument out of range, data or parameters that do not fit,
      or a checkpoint of another run.
    FloatingPointError: the loss became infinite or NaN.
  """
  check_recipe(recipe)
  checks.non_negative('tolerance', tolerance)
  if plateau is not None:
    checks.within('plateau', plateau, 0, 1)
  checks.at_least('max_steps', max_steps, 1)
  for loss in save_losses:
    checks.positive('save_losses', loss)
  for count in save_steps:
    checks.at_least('save_steps', count, 0)
  data = batches.checked_examples(module, data, recipe.loss, logistic=True)
  checks.precision('data.x', data.x)
  key_params, key_rate, key = jax.random.split(key, 3)
  if theta_0 is None:
    theta_0 = _init(module, key_params, data.x[:1])
  else:
    theta_0 = checked_parameters('theta_0', theta_0, module, data)
  dtype = data.x.dtype
  given = Given(data, theta_0 if linearised else None, None,
                jnp.asarray(save_losses, dtype),
                jnp.asarray(save_steps, jnp.int32))
  plan = recipe._replace(learning_rate=None)  # The rate is data.
  step_fn = step_of(module, plan, linearised)
  state = init_state(key, plan, given, theta_0)
  epoch = 1 if state.order is None else math.ceil(
      len(data.x) / recipe.batch_size)
  chunk = _CHUNK * math.ceil(epoch / _CHUNK)
  rate = recipe.learning_rate
  if rate is None and recipe.optimizer is None:
    rate = rate_lib.automatic_rate(
        key_rate, module, theta_0, data.x, momentum=momentum_of(recipe))
    if not linearised:
      rate = _tried(step_fn, state, given, rate, min(chunk, max_steps))
  given = _with_rate(given, rate)

  memory = {} if plateau is None else plateau_lib.start()
  window = chunk * math.ceil(plateau_lib.WINDOW / chunk)

  def below(losses):
    return bool((losses[-max(epoch, _CALM):] < tolerance).all())

  def ends(step, state, info):
    del state
    flat = plateau is not None and plateau_lib.has_stopped_falling(
        memory, step, info.loss, share=plateau, window=window)
    return below(info.loss) or flat

  result = loop.run(
      step_fn, state, given, num_steps=max_steps, chunk=chunk, workdir=workdir,
      fingerprint=fingerprint, extra=memory, progress=progress, on_chunk=ends,
      description='training')
  state, steps, status = result.state, result.steps_done, result.status
  if status == Status.CONVERGED and plateau is not None and not below(
      result.infos.loss[-chunk:]):
    status = Status.PLATEAU
  if status == Status.NOT_FINITE:
    raise FloatingPointError(
        f'The loss of {type(module).__name__} is not finite, within {steps} to '
        f'{steps + chunk} steps: lower `learning_rate` (it was {rate}), or '
        'rescale the inputs.')
  out = _outputs(module, linearised, given.theta_0, state.params, data.x)
  last = float(loss_value(recipe.loss, out, data.y))
  return Victim(
      module, theta_0, state.params, linearised, state.duals,
      np.append(result.infos.loss, last).astype(dtype),
      checkpoints_of(state, steps, last, save_losses, save_steps), rate, status)


def checked_parameters(
    name: str, params: PyTree, module: nn.Module, data: Examples) -> PyTree:
  """`params` on the device, if they are `module`'s for such data.

  Raises:
    ValueError: another structure, shape or dtype, or values not finite.
  """
  like = jax.eval_shape(module.init, jax.random.key(0), data.x[:1])['params']
  if jax.tree.structure(params) != jax.tree.structure(like):
    raise ValueError(
        f'`{name}` must have the structure {jax.tree.structure(like)}, got '
        f'{jax.tree.structure(params)}.')
  pairs = zip(jax.tree_util.tree_leaves_with_path(params),
              jax.tree.leaves(like))
  for (path, leaf), want in pairs:
    where = name + jax.tree_util.keystr(path)
    if leaf.shape != want.shape or leaf.dtype != want.dtype:
      raise ValueError(f'`{where}` must be {want.dtype}{list(want.shape)}, got '
                       f'{leaf.dtype}{list(leaf.shape)}.')
    checks.finite(where, leaf)
  return jax.tree.map(jnp.asarray, params)


def outputs(
    victim: Victim, x: Float[Any, 'M ...'], *, tile: int = 256
) -> Float[np.ndarray, 'M C']:
  """f(x; theta_T), on the host.

  Args:
    victim: of `fit_victim` or `solve_linearised`.
    x: inputs like those of training, on the host or the device.
    tile: rows that pass through the network at a time; bounds the memory.
  """
  checks.inputs('x', x)
  checks.at_least('tile', tile, 1)
  parts = []
  for start in range(0, len(x), tile):
    part = jnp.asarray(x[start:start + tile])
    short = tile - len(part) if start else 0  # Equal shapes: compiled once.
    part = jnp.pad(part, [(0, short)] + [(0, 0)] * (part.ndim - 1))
    out = _outputs(victim.module, victim.linearised,
                   victim.theta_0 if victim.linearised else None,
                   victim.theta_T, part)
    parts.append(np.asarray(out)[:len(out) - short])
  return np.concatenate(parts)


@functools.partial(jax.jit, static_argnames='module')
@numerics.exact
def _init(module, key, x):
  return module.init(key, x)['params']


@functools.partial(jax.jit, static_argnames=('module', 'linearised'))
@numerics.exact
def _outputs(module, linearised, theta_0, params, x):
  return forward_of(module, linearised, theta_0)(params, x)


def _with_rate(given, rate) -> Given:
  if rate is None:
    return given
  return given._replace(rate=jnp.asarray(rate, given.data.x.dtype))


def _tried(step_fn, state, given, rate, num_steps) -> float:
  """`rate`, or the first fraction of it at which training starts well."""
  for _ in range(_TRIALS):
    _, info = loop.run_chunk(
        step_fn, state, _with_rate(given, rate), num_steps=num_steps)
    loss = np.asarray(info.loss)
    if np.isfinite(loss).all() and loss.max() <= _RISE * loss[0]:
      return rate
    logging.info('The loss rises at rate %.3g: trying a %dth.', rate, _CUT)
    rate /= _CUT
  raise FloatingPointError(
      f'No automatic rate down to {rate * _CUT:.3g} lowers the loss: give a '
      '`learning_rate`, or rescale inputs and targets.')
