r"""The attack that trains on its candidates (SimuDy, ICLR 2025, ZJftXKy12x).

Candidates X^ with labels Y^ are trained from theta_0 as the victim was, and
moved until the end is the released one:

  L(X^, Y^) = |theta_T(X^, Y^) - theta_T|^2 / |theta_T - theta_0|^2,

with gradients through the whole training. Where features move on the way, as
in convolutional networks, no few sets of them explain the change (see
`finite`), while training on the true images does.

Here training is gradient flow on the mean squared error, by a few tens of
exponential steps (`unrolled`): what descent becomes at small rates. So the
attacker knows what `finite` needs, and that the victim fitted so, but no rate
and no number of steps. The published attack unrolls the victim's own steps.
It sharpens what `finite` finds; from noise it has not found an image yet.

Axes: M candidates, C outputs. M is N, for what training does depends on it.
"""
from collections.abc import Callable
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import numpy as np
import optax

from dsr import checks, numerics
from dsr.attack import (
    certify,
    coordinates,
    finite,
    prior as prior_lib,
    starts,
    unrolled,
)
from dsr.attack.drive import drive
from dsr.attack.features import smoothed_relu
from dsr.attack.ntk_limit import num_candidates
from dsr.attack.prior import Prior
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction
from dsr.types import Solver, Status

STARTS = ('finite', 'noise')
_START_RATIO = 2.0  # M / N of `finite`, by default.
LABELS = ('network', 'balanced', 'learned')
_BEFORE = ('start_scale', 'subspace', 'prior')  # As in `finite`.
_LIKEWISE = ('steps', 'learning_rate', 'last_rate', 'slope', 'tolerance')
_RATE = 0.005  # Where the option asks for an automatic one.
_CHUNK = 10  # Steps, of seconds each, between two looks at candidates.


class Config(NamedTuple):
  """How the attack is run.

  Attributes:
    ratio: M / N.
    steps: of Adam.
    learning_rate: of Adam at the start, in units of a pixel; 0 is automatic.
    last_rate: at the end, as a share of it.
    start: 'finite' begins with that attack's best candidates, copies left out;
      'noise' with noise.
    start_steps: of `finite`.
    start_scale: standard deviation of the noise.
    labels: 'network' trains on f(x; theta_T), which are the labels of what the
      victim fitted; 'balanced' on +-1, or one-hot less 1/C, the same number of
      each class; 'learned' moves labels too, from those of the network.
    path_steps: exponential steps of a training; 0 counts those that lead the
      first candidates to their end, and takes a quarter more.
    path_tolerance: of their length, see `unrolled.train`.
    slope: of the smoothed ReLU, 1 / pre-activation.
    subspace: whether to search in the span of the first layer's change.
    tolerance: relative loss at which to stop.
    prior: penalties, in units of |Delta|^2.
  """

  ratio: float = 1.0
  steps: int = 100
  learning_rate: float = 0.0
  last_rate: float = 0.02
  start: str = 'finite'
  start_steps: int = 600
  start_scale: float = 0.2
  labels: str = 'network'
  path_steps: int = 0
  path_tolerance: float = 0.005
  slope: float = 20.0
  subspace: bool = True
  tolerance: float = 0.0
  prior: Prior = Prior()


DEFAULT = Config()


class Data(NamedTuple):
  """What the steps read; `place` and `labels` are those of the start."""

  theta_0: PyTree
  theta_T: PyTree
  norm_squared: Float[Array, '']
  within: coordinates.Coordinates
  place: Float[Array, 'M K']
  labels: Float[Array, 'M C']


class State(NamedTuple):
  """What a step needs; `x` are the candidates, `place` their coordinates."""

  x: Float[Array, 'M ...']
  place: Float[Array, 'M K']
  labels: Float[Array, 'M C']
  opt_state: optax.OptState
  step: Int[Array, '']


class Info(NamedTuple):
  """Of one step, before it: the loss without penalties, the error of fit."""

  loss: Float[Array, '']
  finite: Bool[Array, '']
  left: Float[Array, '']


def check(released: Released, config: Config) -> None:
  """Raises a ValueError for what is wrong before the run starts."""
  finite.check(released, finite.DEFAULT._replace(**{
      name: getattr(config, name) for name in (*_BEFORE, *_LIKEWISE)}))
  if released.linearised:
    raise ValueError('`released` must be no linearised network, whose training '
                     'the attack `finite` has in closed form.')
  checks.positive('ratio', config.ratio)
  checks.one_of('start', config.start, STARTS)
  if config.start == 'finite':
    checks.within('ratio', config.ratio, 0, _START_RATIO)
  checks.at_least('start_steps', config.start_steps, 1)
  checks.one_of('labels', config.labels, LABELS)
  num = num_candidates(released, config.ratio)
  classes = max(2, released.num_outputs)
  if config.labels == 'balanced' and num % classes:
    raise ValueError(f'`labels` can be balanced with a multiple of {classes} '
                     f'candidates, got {num}.')
  if config.path_steps:
    checks.at_least('path_steps', config.path_steps, unrolled.CLOSING + 1)
  checks.positive('path_tolerance', config.path_tolerance)


@functools.lru_cache(maxsize=16)
def _simulate(module, shape, path_steps, config, prior_of):
  """The solver: of hashable things only, so that it is compiled once."""
  network = module.clone(activation=smoothed_relu(config.slope))

  def optimizer(place):
    stretch = (np.prod(shape) / place.shape[1]) ** 0.5
    return optax.adam(optax.cosine_decay_schedule(
        config.learning_rate or _RATE * stretch, config.steps,
        alpha=config.last_rate))

  def init(key, data: Data) -> State:
    del key
    return State(
        data.within.inputs(data.place, shape), data.place, data.labels,
        optimizer(data.place).init((data.place, data.labels)),
        jnp.zeros((), jnp.int32))

  def loss_fn(moved, data):
    place, labels = moved
    x = data.within.inputs(place, shape)
    if config.labels == 'network':
      labels = network.apply({'params': data.theta_T}, x)
    loss, left = unrolled.mismatch(
        module, data, x, labels, config.slope, path_steps,
        config.path_tolerance)
    return (loss + prior_lib.penalty(config.prior, prior_of, x), (loss, left))

  @numerics.exact
  def step(state: State, data: Data) -> tuple[State, Info]:
    moved = state.place, state.labels
    (_, (loss, left)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        moved, data)
    updates, opt_state = optimizer(state.place).update(
        gradient, state.opt_state)
    place = state.place + updates[0]
    labels = state.labels + (updates[1] if config.labels == 'learned' else 0)
    x = data.within.inputs(place, shape)
    if config.prior.project:
      x = prior_lib.project(config.prior, prior_of, x)
      place = data.within.places(x)
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(place))
    return (State(x, place, labels, opt_state, state.step + 1),
            Info(loss, finite, left))

  return Solver(init, step)


def prepare(
    key: Key[Array, ''], released: Released, config: Config,
    start: Float[np.ndarray, 'K ...'] | None = None) -> Data:
  """What the steps read, from the release.

  Args:
    key: of the noise to start from.
    released: with both parameters.
    config: see `Config`.
    start: candidates to start from instead, the best first, of which M that
      are no copies are taken.

  Raises:
    ValueError: theta_T equals theta_0, or there are fewer than M candidates.
  """
  theta_0, theta_T = jax.tree.map(
      jnp.asarray, (released.theta_0, released.theta_T))
  delta = jax.tree.map(jnp.subtract, theta_T, theta_0)
  norm = numerics.tree_dot(delta, delta)
  if not norm > 0:
    raise ValueError('`theta_T` must differ from theta_0.')
  dtype = jax.tree.leaves(theta_T)[0].dtype
  num, size = num_candidates(released, config.ratio), released.size
  within = coordinates.of(released, subspace=config.subspace, dtype=dtype)
  if start is None:
    scale = config.start_scale * (size / within.dim(size)) ** 0.5
    place = scale * jax.random.normal(key, (num, within.dim(size)), dtype)
  else:
    place = within.places(
        jnp.asarray(starts.distinct(start, released, num), dtype))
  x = within.inputs(place, released.input_shape)
  labels = _outputs(released.module, theta_T, x)
  if config.labels == 'balanced':
    labels = jnp.asarray(starts.balanced(np.asarray(labels)), dtype)
  return Data(theta_0, theta_T, norm, within, place, labels)


def reconstruct(
    key: Key[Array, ''], released: Released, config: Config = DEFAULT, *,
    workdir=None, progress: bool = True, on_chunk: Callable | None = None
) -> Reconstruction:
  """Rebuilds training inputs from theta_0 and theta_T by training on them.

  Args:
    key: of the starting noise, of this attack or the one before it.
    released: with both parameters, of a network that was trained itself.
    config: see `Config`.
    workdir: where checkpoints live, the earlier attack's in its folder
      `start`; None saves none.
    progress: whether to show it.
    on_chunk: (step, candidates) -> None, or True to stop.

  Returns:
    All M candidates, without duals. `info` has `labels` (M, C), `left`, the
    mean squared error at the end of the simulated training, `start_loss`, the
    relative loss of the candidates that it started from, and `subspace`, the
    dimension searched, 0 if all of it.

  Raises:
    ValueError: see `check` and `prepare`.
    FloatingPointError: the loss is not finite.
  """
  check(released, config)
  start = None
  if config.start == 'finite':
    folder = None if workdir is None else pathlib.Path(workdir) / 'start'
    before = finite.DEFAULT._replace(steps=config.start_steps, **{
        name: getattr(config, name) for name in _BEFORE})
    first = finite.reconstruct(
        key, released, before, workdir=folder, progress=progress)
    if first.status == Status.INTERRUPTED:
      return first
    start = first.candidates
  data = prepare(key, released, config, start)
  path_steps = config.path_steps or unrolled.count(
      released.module, data.theta_0,
      data.within.inputs(data.place, released.input_shape), data.labels,
      config.slope, path_tolerance=config.path_tolerance)
  solver = _simulate(released.module, released.input_shape, path_steps, config,
                     prior_lib.bounds(released))
  driven = drive(
      key, solver, data, steps=config.steps, name='simulate', workdir=workdir,
      chunk=_CHUNK, progress=progress, tolerance=config.tolerance or None,
      fingerprint=repr(config), on_chunk=on_chunk)
  x, labels = np.asarray(driven.state.x), driven.state.labels
  if config.labels == 'network':
    labels = _outputs(released.module, data.theta_T, x)
  loss, left = unrolled.mismatch(
      released.module, data, x, labels, config.slope, path_steps,
      config.path_tolerance)
  info = {'labels': np.asarray(labels), 'left': float(left), 'subspace':
          data.within.dim(0), 'start_loss': float(driven.curve[0])}
  return Reconstruction(
      x, np.full(labels.shape, np.nan), float(loss), driven.curve,
      driven.status, info, certify.confidence(released, x))


@functools.partial(jax.jit, static_argnums=0)
@numerics.exact
def _outputs(module, theta, x):
  return module.apply({'params': theta}, x)
