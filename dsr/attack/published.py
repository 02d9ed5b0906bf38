r"""The published attack (arXiv:2302.01428): images and duals by Adam together.

  L = | \Delta\theta - 1/(M C) \sum_j <a_j, df(x_j)/d\theta> |^2
      + \sum_j mean_pix [relu(x_j - high)^2 + relu(low - x_j)^2] box
      + \sum_j mean_pix (x_j - blur x_j)^2 high_frequency
      + sparsity mean |a|,

with gradients at theta_T, at theta_0, or a sum of both with duals for each, and
with every ReLU of the network replaced by softplus(\beta z) / \beta,

  \beta = min(10 + 10^(i / 20000), 200)   at step i,

since the second derivative of a ReLU is zero. Kept as the baseline of
`attack.finite`, to run beside it. Axes: M candidates, C outputs.
"""
from collections.abc import Callable
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import numpy as np
import optax

from dsr import checks, numerics
from dsr.attack import certify, prior as prior_lib, sparse_adam
from dsr.attack.drive import drive
from dsr.attack.prior import Prior
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction, noise
from dsr.types import Solver

GRADIENTS = ('final', 'initial', 'both')
_FIRST, _GROWTH, _MOST = 10.0, 20_000.0, 200.0  # Of beta.


class Config(NamedTuple):
  """The options of the attack; defaults are the published ones.

  Attributes:
    ratio: M / N.
    steps: of Adam.
    learning_rate: of Adam, in units of a pixel and of a dual alike.
    gradients: one of `GRADIENTS`: at which parameters. A linearised network
      has one gradient, that at theta_0, whatever is chosen.
    prior: penalties. Published for pre-trained networks is a `high_frequency`
      of 0.05 * 0.0015.
    high_frequency_after: steps before that penalty sets in.
    sparsity: weight of the mean |a|.
    start_scale: deviation of the first candidates. Duals start uniform in
      +-0.5.
    num_seeds: starts run side by side; the one of least loss is returned.
  """

  ratio: float = 2.0
  steps: int = 80_000
  learning_rate: float = 0.02
  gradients: str = 'final'
  prior: Prior = Prior(box=0.1)
  high_frequency_after: int = 5000
  sparsity: float = 0.0
  start_scale: float = 0.2
  num_seeds: int = 1


DEFAULT = Config()


class Given(NamedTuple):
  """The attacker's knowledge, on the device.

  Attributes:
    thetas: where gradients are taken, one or two sets of parameters.
    change: theta_T - theta_0.
  """

  thetas: tuple[PyTree, ...]
  change: PyTree


class State(NamedTuple):
  """What a step needs.

  Attributes:
    x: candidates.
    duals: a, an array for each of `Given.thetas`.
    opt_state: of both.
    step: i.
  """

  x: Float[Array, 'M ...']
  duals: tuple[Float[Array, 'M C'], ...]
  opt_state: optax.OptState
  step: Int[Array, '']


class Info(NamedTuple):
  """Of one step: L, and its first term over |theta_T - theta_0|^2."""

  loss: Float[Array, '']
  finite: Bool[Array, '']
  relative: Float[Array, '']


def check(released: Released, config: Config) -> None:
  """Raises a ValueError for what the attack cannot work with."""
  if released.threat != 'parameters':
    raise ValueError('`released` must hold `theta_0` and `theta_T`, got the '
                     f'threat model {released.threat!r}.')
  checks.positive('ratio', config.ratio)
  for name in ('steps', 'num_seeds'):
    checks.at_least(name, getattr(config, name), 1)
  checks.at_least('high_frequency_after', config.high_frequency_after, 0)
  for name in ('learning_rate', 'start_scale'):
    checks.positive(name, getattr(config, name))
  checks.non_negative('sparsity', config.sparsity)
  checks.one_of('gradients', config.gradients, GRADIENTS)
  prior_lib.check(config.prior, released)
  with_activation(released.module, jax.nn.relu)


def with_activation(module: nn.Module, activation: Callable) -> nn.Module:
  """`module` with another nonlinearity.

  Raises:
    ValueError: it has no attribute `activation`.
  """
  if not hasattr(module, 'activation'):
    raise ValueError('`module` must have an attribute `activation`, to be '
                     f'smoothed by attacks; {type(module).__name__} has none.')
  return module.clone(activation=activation)


def given(released: Released, config: Config = DEFAULT) -> Given:
  """What `step` reads; see `Given`."""
  gradients = 'initial' if released.linearised else config.gradients
  thetas = {'final': ('theta_T',), 'initial': ('theta_0',),
            'both': ('theta_T', 'theta_0')}[gradients]
  return Given(
      tuple(jax.tree.map(jnp.asarray, getattr(released, name))
            for name in thetas),
      jax.tree.map(jnp.subtract, released.theta_T, released.theta_0))


def sharpness(step: Int[Array, ''] | int) -> Float[Array, '']:
  r"""\beta of the module text."""
  return jnp.minimum(_FIRST + 10.0 ** (step / _GROWTH), _MOST)


@numerics.exact
def residual(
    module: nn.Module, data: Given, x: Float[Array, 'M ...'],
    duals: tuple[Float[Array, 'M C'], ...], beta: Float[Array, '']
) -> Float[Array, '']:
  """The first term of L: a backward pass for each set of duals."""
  smooth = with_activation(
      module, lambda z: jax.nn.softplus(beta * z) / beta)
  left = data.change
  for theta, a in zip(data.thetas, duals, strict=True):
    _, vjp = jax.vjp(lambda p: smooth.apply({'params': p}, x), theta)
    left = jax.tree.map(jnp.subtract, left, vjp(a / a.size)[0])
  return numerics.tree_dot(left, left)


def objective(
    released: Released, config: Config, data: Given,
    x: Float[Array, 'M ...'], duals: tuple[Float[Array, 'M C'], ...],
    step: Int[Array, ''] | int
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """(L, its first term) at `step`; see the module text."""
  beta = sharpness(step).astype(x.dtype)
  first = residual(released.module, data, x, duals, beta)
  always = config.prior._replace(high_frequency=0.0)
  total = first + prior_lib.penalty(always, released, x)
  if config.prior.high_frequency:
    late = Prior(high_frequency=config.prior.high_frequency)
    total += jnp.where(step >= config.high_frequency_after,
                       prior_lib.penalty(late, released, x), 0)
  if config.sparsity:
    total += config.sparsity * sum(jnp.mean(jnp.abs(a)) for a in duals)
  return total, first


def published(released: Released, config: Config = DEFAULT) -> Solver:
  """Builds the solver: `init(key, Given)`, `step(state, Given)`.

  Args:
    released: with theta_0 and theta_T.
    config: see `Config`.

  Raises:
    ValueError: see `check`.
  """
  check(released, config)
  num = math.ceil(config.ratio * released.num_train)
  optimizer = sparse_adam.sparse_adam(config.learning_rate)
  public = released._replace(theta_0=None, theta_T=None)  # No constants.

  def init(key: Key[Array, ''], data: Given) -> State:
    dtype = jax.tree.leaves(data.change)[0].dtype
    key_x, *keys = jax.random.split(key, 1 + len(data.thetas))
    x = noise(key_x, public, num, scale=config.start_scale, dtype=dtype)
    duals = tuple(jax.random.uniform(
        k, (num, public.num_outputs), dtype, -0.5, 0.5) for k in keys)
    return State(x, duals, optimizer.init((x, duals)),
                 jnp.zeros((), jnp.int32))

  @numerics.exact
  def step(state: State, data: Given) -> tuple[State, Info]:
    loss_fn = lambda params: objective(
        public, config, data, *params, state.step)
    params = state.x, state.duals
    (loss, first), gradient = jax.value_and_grad(
        loss_fn, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradient, state.opt_state)
    x, duals = optax.apply_updates(params, updates)
    x = prior_lib.project(config.prior, public, x)
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(x))
    relative = first / numerics.tree_dot(data.change, data.change)
    return (State(x, duals, opt_state, state.step + 1),
            Info(loss, finite, relative))

  return Solver(init, step)


def reconstruct(
    key: Key[Array, ''], released: Released, config: Config = DEFAULT, *,
    workdir: Any = None, progress: bool = True,
    on_chunk: Callable | None = None) -> Reconstruction:
  r"""Runs the attack.

  Args:
    key: of the starting noise.
    released: with theta_0 and theta_T.
    config: see `Config`.
    workdir: where checkpoints live; None saves none.
    progress: whether to show it.
    on_chunk: (step, candidates) -> None, or True to stop.

  Returns:
    All M candidates, in the order of |dual|. `duals` are a / (M C), the
    \alpha of \Delta\theta = \sum_j \alpha_j df(x_j); those of both gradients
    are added up, and apart in `info` as `duals_final` and `duals_initial`.
    `loss` is L's first term over |\Delta\theta|^2.

  Raises:
    ValueError: see `check`.
    FloatingPointError: the loss is not finite.
  """
  solver = published(released, config)
  data = given(released, config)
  moved = float(numerics.tree_dot(data.change, data.change))
  driven = drive(
      key, solver, data, steps=config.steps, name='published',
      num_seeds=config.num_seeds, workdir=workdir, progress=progress,
      fingerprint=f'{config!r} {moved:.9g}', on_chunk=on_chunk)
  state = driven.state
  first = jax.jit(lambda data, state: objective(
      released._replace(theta_0=None, theta_T=None), config, data, state.x,
      state.duals, state.step)[1])(data, state)
  parts = [np.asarray(a) / a.size for a in state.duals]
  order = np.argsort(-np.linalg.norm(sum(parts), axis=1), kind='stable')
  info = {'seed_losses': driven.losses}
  if len(parts) > 1:
    info |= {name: a[order] for name, a in zip(
        ('duals_final', 'duals_initial'), parts)}
  x = np.asarray(state.x)[order]
  return Reconstruction(
      x, sum(parts)[order], float(first) / moved, driven.curve, driven.status,
      info, certify.confidence(released, x))
