r"""Reconstruction from theta_T alone: the conditions that training ends in.

A \theta-homogeneous network, f(x; c \theta) = c^L f(x; \theta), that fits its
data under the logistic loss or cross-entropy tends to a direction with

  \theta = \sum_i \lambda_i d/d\theta \Phi_i(x_i),   \lambda >= 0,          (1)
  \Phi = y f  (C = 1, y = +-1)   or   f_y - max_{j != y} f_j,

the KKT conditions of the largest margin (arXiv:2206.07758, 2307.01827). Any
loss with weight decay w ends in (1), with \Phi = f and \lambda = -l' / (w N) of
any sign and, for C > 1, C of them for each image: form 'decay'. The attack
looks for x_j and \lambda_j with given labels, as many of each:

  published:   |\theta - 1/M \sum_j \lambda_j d\Phi_j(x_j)|^2 + penalty(x)
               + dual_weight \sum_j relu(least_dual - \lambda_j)^2,
               by SGD with momentum on both;
  eliminated:  \min_\lambda |\theta - \sum_j \lambda_j d\Phi_j(x_j)|^2
               / |\theta|^2 + penalty(x) / M,
               where \lambda solves non-negative least squares in the Gram
               matrix and, being optimal, needs no derivative.

Values are those of ReLUs, their derivatives sigmoid(slope z): the second
derivative of a ReLU is 0, and at a KKT point many units are at their kink,
where (1) holds with fractions. A first layer that started near 0 also shows
the span of the images: `subspace` keeps candidates there, and `vertices` goes
on to where the span meets the pixel range (`attack.vertices`).

Biases beyond the first layer make a net inhomogeneous; without any, f is
1-homogeneous in x as well, and candidates are scaled to the pixel range.
Axes: M candidates, C outputs, P parameters.
"""
from collections.abc import Callable
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree
import numpy as np
import optax

from dsr import checks, nets, numerics
from dsr.attack import conditions, prior as prior_lib, vertices
from dsr.attack.conditions import FORMS
from dsr.attack.drive import drive
from dsr.attack.prior import Prior
from dsr.attack.published import with_activation
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction, noise
from dsr.types import Solver, Status

OPTIMIZERS = ('adam', 'sgd')
_MOMENTUM, _LAST_RATE = 0.9, 0.05
_VERTICES, _MOST_DIMENSIONS = 100, 64  # Of `vertices` by default.
_LAST_SWEEPS = 200  # Of the duals that are reported.


class Config(NamedTuple):
  """How the attack is run; `PUBLISHED` is the recipe of arXiv:2206.07758.

  Attributes:
    form: one of `FORMS`: of what training the network is at the end.
    ratio: M / N; at least as many candidates as classes.
    steps: of the descent.
    optimizer: 'adam', its rate decaying to a twentieth, or 'sgd' with momentum.
    learning_rate: of candidates; of their coordinates with `subspace`.
    dual_rate: of the duals, unless they are eliminated.
    eliminate: whether duals are solved for in each step.
    sweeps: of coordinate descent on them, from the last step's.
    slope: of the sigmoid, per unit of pre-activation.
    straight: true 0/1 derivatives, of which the sigmoid gives the slope only.
    least_dual: and
    dual_weight: of the published penalty on duals.
    prior: penalties on candidates.
    start_scale: deviation of the first candidates.
    subspace: keep candidates in the span that the first layer shows: False,
      True for the dimension that stands out from its noise (N at most), or
      the dimension. None: True for an MLP.
    fill: scale each candidate to reach `high` in every step, if the network
      is 1-homogeneous in its input.
    num_starts: runs one after the other, whose candidates are pooled.
    vertices: random starts of `vertices.search`. If it meets N / 4 vertices
      twice, its best `ratio` N replace the candidates of the descent. Needs
      `subspace`; 0 leaves it out, None makes 100 starts in up to 64 dimensions.
    slack: of that search.
  """

  form: str = 'margin'
  ratio: float = 2.0
  steps: int = 1000
  optimizer: str = 'adam'
  learning_rate: float = 0.02
  dual_rate: float = 1e-4
  eliminate: bool = True
  sweeps: int = 5
  slope: float = 20.0
  straight: bool = False
  least_dual: float = 0.1
  dual_weight: float = 5.0
  prior: Prior = Prior(box=80.0)
  start_scale: float = 0.2
  subspace: bool | int | None = None
  fill: bool = True
  num_starts: int = 1
  vertices: int | None = None
  slack: float = 1e-3


DEFAULT = Config()
# Of the released MNIST run kcf9bhbi; a box of D weighs pixels as they did.
PUBLISHED = Config(
    steps=50_000, optimizer='sgd', learning_rate=0.03052, eliminate=False,
    slope=149.87, least_dual=0.4471, prior=Prior(box=784.0),
    start_scale=0.03498, subspace=False, fill=False)


class Given(NamedTuple):
  """theta_T on the device, and the span of the first layer or None."""

  theta: PyTree
  basis: Float[Array, 'D R'] | None


class State(NamedTuple):
  """What a step needs.

  Attributes:
    x: candidates.
    place: what is moved: x, or its coordinates in the span.
    duals: lambda, (M,) or, in the form 'decay', (M, C).
    opt_state: of place and duals.
  """

  x: Float[Array, 'M ...']
  place: Float[Array, 'M ...']
  duals: Float[Array, 'M ...']
  opt_state: optax.OptState


class Info(NamedTuple):
  """Of one step: the objective, and what (1) misses of theta, relatively."""

  loss: Float[Array, '']
  finite: Bool[Array, '']
  relative: Float[Array, '']


def check(released: Released, config: Config) -> None:
  """Raises a ValueError for what the attack cannot work with."""
  if released.theta_T is None:
    raise ValueError('`released` must hold `theta_T`, got a query only.')
  if released.linearised:
    raise ValueError('`released` must not be a linearised network: its '
                     'gradients are those at theta_0, see `attack.finite`.')
  checks.one_of('form', config.form, FORMS)
  checks.one_of('optimizer', config.optimizer, OPTIMIZERS)
  for name in ('steps', 'sweeps', 'num_starts'):
    checks.at_least(name, getattr(config, name), 1)
  for name in ('ratio', 'learning_rate', 'dual_rate', 'slope', 'start_scale'):
    checks.positive(name, getattr(config, name))
  for name in ('least_dual', 'dual_weight', 'slack'):
    checks.non_negative(name, getattr(config, name))
  if config.vertices is not None:
    checks.at_least('vertices', config.vertices, 0)
  prior_lib.check(config.prior, released)
  with_activation(released.module, jax.nn.relu)
  classes = max(2, released.num_outputs)
  if config.form == 'margin' and _num(released, config) < classes:
    raise ValueError(f'`ratio` must give at least {classes} candidates, one '
                     f'for each class; got {_num(released, config)}.')
  if config.subspace not in (None, False):
    if config.subspace is not True:
      checks.at_least('subspace', config.subspace, 1)
      checks.within('subspace', config.subspace, 1, released.size)
    if not isinstance(released.module, nets.MLP):
      raise ValueError('`subspace` needs a dense first layer, as in an MLP; '
                       f'got {type(released.module).__name__}.')
  elif config.vertices and not _in_subspace(released, config):
    raise ValueError('`vertices` needs a `subspace`, got '
                     f'{config.vertices} starts without.')
  if config.form == 'margin' and not conditions.is_homogeneous(released):
    raise ValueError("`module` must be homogeneous in its parameters for "
                     "`form='margin'`: no biases (use_bias=False), no norms.")


def _in_subspace(released, config) -> bool:
  if config.subspace is None:
    return isinstance(released.module, nets.MLP)
  return config.subspace is not False


def _num(released, config):
  return math.ceil(config.ratio * released.num_train)


def kkt(released: Released, config: Config = DEFAULT) -> Solver:
  """Builds the solver: `init(key, Given)`, `step(state, Given)`.

  Args:
    released: with theta_T.
    config: see `Config`.

  Raises:
    ValueError: see `check`.
  """
  check(released, config)
  num, outputs = _num(released, config), released.num_outputs
  label = jnp.asarray(conditions.labels(num, outputs))
  module = _smooth(released, config)
  public = released._replace(theta_0=None, theta_T=None)  # No constants.
  fill = config.fill and conditions.is_scale_free(released)
  optimizer = _optimizer(config)

  def decode(place, basis):
    x = place if basis is None else numerics.matmul(place, basis.T)
    x = x.reshape(num, *public.input_shape)
    if not fill:
      return x
    high = jnp.broadcast_to(jnp.asarray(public.high, x.dtype), x.shape)
    most = jnp.max((x / high).reshape(num, -1), axis=1)
    most = jnp.where(most > 1e-3, most, 1)
    return x / most.reshape(num, *(1,) * (x.ndim - 1))

  def init(key: Key[Array, ''], given: Given) -> State:
    dtype = jax.tree.leaves(given.theta)[0].dtype
    key_x, key_duals = jax.random.split(key)
    x = noise(key_x, public, num, scale=config.start_scale, dtype=dtype)
    place = x if given.basis is None else numerics.matmul(
        x.reshape(num, -1), given.basis)
    shape = (num,) if config.form == 'margin' else (num, outputs)
    if config.eliminate:
      duals = jnp.zeros(shape, dtype)
    elif config.form == 'margin':
      duals = jax.random.uniform(key_duals, shape, dtype)
    else:
      duals = jax.random.normal(key_duals, shape, dtype)
    return State(decode(place, given.basis), place, duals,
                 optimizer.init({'place': place, 'duals': duals}))

  def loss_fn(params, given):
    x = decode(params['place'], given.basis)
    penalty = prior_lib.penalty(config.prior, public, x)
    total = numerics.tree_dot(given.theta, given.theta)
    if config.eliminate:
      relative, duals = conditions.eliminated(
          module, config.form, given.theta, x, label, params['duals'],
          sweeps=config.sweeps)
      return relative + penalty / num, (relative, duals)
    duals = params['duals']
    first = conditions.joint(
        module, config.form, given.theta, x, label, duals)
    if config.form == 'margin':
      low = jax.nn.relu(config.least_dual - duals)
      penalty += config.dual_weight * jnp.sum(low**2)
    return first + penalty, (first / total, duals)

  def step(state: State, given: Given) -> tuple[State, Info]:
    params = {'place': state.place, 'duals': state.duals}
    (loss, (relative, duals)), gradient = jax.value_and_grad(
        loss_fn, has_aux=True)(params, given)
    if config.eliminate:
      gradient['duals'] = jnp.zeros_like(duals)
    updates, opt_state = optimizer.update(gradient, state.opt_state, params)
    params = optax.apply_updates(params | {'duals': duals}, updates)
    place = params['place']
    if given.basis is None:
      place = prior_lib.project(config.prior, public, place)
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(place))
    return (State(decode(place, given.basis), place, params['duals'],
                  opt_state), Info(loss, finite, relative))

  return Solver(init, step)


def _smooth(released, config):
  return with_activation(
      released.module, conditions.smooth_relu(config.slope, config.straight))


def _optimizer(config):
  if config.optimizer == 'sgd':
    make = lambda rate: optax.sgd(rate, momentum=_MOMENTUM)
  else:
    make = lambda rate: optax.adam(optax.cosine_decay_schedule(
        rate, config.steps, alpha=_LAST_RATE))
  return optax.partition(
      {'place': make(config.learning_rate), 'duals': make(config.dual_rate)},
      {'place': 'place', 'duals': 'duals'})


def given(released: Released, config: Config = DEFAULT) -> Given:
  """What `step` reads; the span is that of the first layer's weights."""
  theta = jax.tree.map(jnp.asarray, released.theta_T)
  if not _in_subspace(released, config):
    return Given(theta, None)
  first = 'hidden_0' if released.module.widths else 'readout'
  weights = np.asarray(released.theta_T[first]['kernel'])
  basis, values, _ = np.linalg.svd(weights, full_matrices=False)
  rank = config.subspace
  if rank in (None, True):
    most = min(released.num_train, len(values))
    floor = values[most] if most < len(values) else 0
    rank = max(1, int((values[:most] > 1.05 * floor).sum()))
  return Given(theta, jnp.asarray(basis[:, :rank]))


def reconstruct(
    key: Key[Array, ''], released: Released, config: Config = DEFAULT, *,
    workdir: Any = None, progress: bool = True,
    on_chunk: Callable | None = None) -> Reconstruction:
  r"""Runs the attack.

  Args:
    key: of the starting noise.
    released: theta_T is enough.
    config: see `Config`.
    workdir: where checkpoints live; None saves none.
    progress: whether to show it.
    on_chunk: (step, candidates) -> None, or True to stop. Steps count on over
      starts; the candidates are those of the running one.

  Returns:
    The candidates of all starts, those of the largest |dual| first, or with
    `vertices` the best of these, those met most often first. `duals` are
    coefficients: a start's theta is \sum_j <duals_j, df(x_j)>. `loss` is the
    share of |theta|^2 that this misses, for several starts the least.
    `info` has `seed_losses`; with `vertices` how many are `confirmed`, met
    twice or more, and if they were taken the `hits` and `contrast` of each.

  Raises:
    ValueError: see `check`; no point of the span within the pixel range.
    FloatingPointError: the loss is not finite.
  """
  solver, data = kkt(released, config), given(released, config)
  size = float(numerics.tree_dot(data.theta, data.theta))
  key_vertices, *keys = jax.random.split(key, 1 + config.num_starts)
  runs, folder = [], None
  for i, key_run in enumerate(keys):
    def look(step, x, before=i * config.steps):
      return on_chunk(before + step, x)

    if workdir is not None:
      folder = pathlib.Path(workdir, f'start_{i}')
    runs.append(drive(
        key_run, solver, data, steps=config.steps, name='kkt', workdir=folder,
        fingerprint=f'{config!r} {size:.9g}', progress=progress,
        on_chunk=None if on_chunk is None else look))
    if runs[-1].status == Status.INTERRUPTED:
      break
  last = np.asarray([run.losses[-1] for run in runs])
  best = runs[int(np.argmin(last))]
  info = {'seed_losses': last}
  parts = [_duals(released, config, data, run.state) for run in runs]
  loss = min(part[0] for part in parts)
  duals = np.concatenate([part[1] for part in parts])
  x = np.concatenate([np.asarray(run.state.x) for run in runs])
  order = np.argsort(-np.linalg.norm(duals, axis=1), kind='stable')
  x, duals = x[order], duals[order]
  starts = _num_vertices(config, data)
  if starts and runs[-1].status != Status.INTERRUPTED:
    found = vertices.search(
        key_vertices, np.asarray(data.basis), released, starts=starts,
        slack=config.slack, also=x.reshape(len(x), -1))
    confirmed = int((found.hits > 1).sum())
    info['confirmed'] = confirmed
    if 4 * confirmed >= released.num_train:
      num = min(_num(released, config), len(found.x))
      x = found.x[:num].reshape(num, *released.input_shape).astype(x.dtype)
      loss, duals = _fit(released, config, data, x)
      info |= {'hits': found.hits[:num], 'contrast': found.contrast[:num]}
  return Reconstruction(x, duals, loss, best.curve, runs[-1].status, info)


def _num_vertices(config, data) -> int:
  if config.vertices is not None:
    return config.vertices
  small = data.basis is not None and data.basis.shape[1] <= _MOST_DIMENSIONS
  return _VERTICES if small else 0


def _duals(released, config, data, state) -> tuple[float, np.ndarray]:
  """(what (1) misses, coefficients (M, C) of df(x_j)) at the end of a run."""
  module, num = _smooth(released, config), len(state.x)
  label = jnp.asarray(conditions.labels(num, released.num_outputs))
  duals = state.duals
  if config.eliminate:
    miss, duals = conditions.eliminated(
        module, config.form, data.theta, state.x, label, duals,
        sweeps=_LAST_SWEEPS)
  else:
    miss = conditions.joint(
        module, config.form, data.theta, state.x, label, duals)
    miss, duals = miss / numerics.tree_dot(data.theta, data.theta), duals / num
  if config.form == 'margin':
    out = module.apply({'params': data.theta}, state.x)
    duals = duals[:, None] * conditions.directions(out, label)
  return float(miss), np.asarray(duals)


def _fit(released, config, data, x) -> tuple[float, np.ndarray]:
  """As `_duals` for candidates `x` of the classes that the network sees."""
  module, x = _smooth(released, config), jnp.asarray(x)
  out = module.apply({'params': data.theta}, x)
  label = (jnp.argmax(out, axis=1) if released.num_outputs > 1 else
           (out[:, 0] > 0).astype(jnp.int32))
  miss, duals = conditions.eliminated(
      module, config.form, data.theta, x, label, jnp.zeros(len(x), x.dtype),
      sweeps=_LAST_SWEEPS)
  if config.form == 'margin':
    duals = duals[:, None] * conditions.directions(out, label)
  return float(miss), np.asarray(duals)
