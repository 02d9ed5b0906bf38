r"""The attack at infinite width (arXiv:2302.01428), from queries alone.

A network trained to convergence in the NTK limit is f_T - f_0 = K(., X) alpha.
With \phi_j = k(x_j, .) the loss of `projection` is
  L(X^) = |f_T - f_0|_H^2 - v' K(X^, X^)^{-1} v,  v_j = f_T(x_j) - f_0(x_j),
so the gradient needs the predictor's values at the candidates, no parameters;
its minimiser is unique for a characteristic kernel: all training images, the
surplus candidates having zero duals or sharing an image. Knowing
|f_T - f_0|_H^2 = alpha' K alpha tells how much is still missing.

Adam moves the candidates. Near the answer the loss is a cone (the ReLU NTK has
a kink at x = x'), so the rate decays by a cosine. What remains are local
minima: two candidates on one image, or one between two. So every
`restart_every` steps candidates without gain are drawn anew, at places, among
many random ones, where the residual is large (a step of matching pursuit).

Axes: M candidates, C outputs, D numbers in an input.
"""
from collections.abc import Callable
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np
import optax

from dsr import checks
from dsr.attack import prior as prior_lib, projection, scale
from dsr.attack.drive import drive
from dsr.attack.prior import Prior
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction, noise
from dsr.types import KernelFn, Solver

_POOL = 4  # Random places looked at for each candidate.


class Config(NamedTuple):
  """How the attack is run.

  Attributes:
    ratio: M / N; 0 takes 1.3, and N + 20 at least.
    steps: of Adam.
    learning_rate: of Adam at the start, in units of a pixel.
    last_rate: at the end, as a share of it.
    start_scale: standard deviation of the noise that candidates start from.
    restart_every: steps between two restarts; 0 for none.
    restart_until: share of the steps after which there are no restarts.
    negligible: share of the median gain below which a candidate is dropped.
    jitter: of K, relative to its mean diagonal.
    norm_squared: |f_T - f_0|_H^2 if known, else 0.
    tolerance: relative loss at which to stop, if the norm is known.
    prior: penalties, in the unit of |f_T - f_0|_H^2.
    num_seeds: starts run side by side, of which the best is kept.
    dtype: of the candidates and the kernel; solves are float64 under x64.
  """

  ratio: float = 0.0
  steps: int = 2000
  learning_rate: float = 0.02
  last_rate: float = 1e-3
  start_scale: float = 0.2
  restart_every: int = 100
  restart_until: float = 0.7
  negligible: float = 1e-2
  jitter: float = 1e-6
  norm_squared: float = 0.0
  tolerance: float = 0.0
  prior: Prior = Prior()
  num_seeds: int = 1
  dtype: str = 'float32'


DEFAULT = Config()


class State(NamedTuple):
  """What a step needs."""

  x: Float[Array, 'M ...']
  opt_state: optax.OptState
  key: Key[Array, '']
  step: Int[Array, '']


class Info(NamedTuple):
  """Of one step: the loss before it, how many candidates were drawn anew."""

  loss: Float[Array, '']
  finite: Bool[Array, '']
  restarted: Int[Array, '']


def num_candidates(released: Released, ratio: float) -> int:
  """M: `ratio` times the number of training images, rounded up; see `Config`.

  Raises:
    ValueError: `ratio` is negative.
  """
  checks.non_negative('ratio', ratio)
  num = released.num_train
  if ratio:
    return math.ceil(ratio * num - 1e-9)
  return max(math.ceil(1.3 * num), num + 20)


def check(released: Released, config: Config) -> None:
  """Raises a ValueError for what is wrong before the run starts."""
  if released.query is None:
    raise ValueError('`released.query` is needed, got None; the finite attack '
                     'works on parameters.')
  num_candidates(released, config.ratio)
  checks.at_least('steps', config.steps, 1)
  checks.positive('learning_rate', config.learning_rate)
  checks.within('last_rate', config.last_rate, 0, 1)
  checks.positive('start_scale', config.start_scale)
  checks.at_least('restart_every', config.restart_every, 0)
  checks.within('restart_until', config.restart_until, 0, 1)
  checks.within('negligible', config.negligible, 0, 1)
  checks.positive('jitter', config.jitter)
  checks.non_negative('norm_squared', config.norm_squared)
  checks.non_negative('tolerance', config.tolerance)
  checks.one_of('dtype', config.dtype, ('float32', 'float64'))
  prior_lib.check(config.prior, released)


def ntk_limit(
    released: Released, kernel_fn: KernelFn, config: Config = DEFAULT
) -> Solver:
  """Builds the solver: `init(key, None)`, `step(state, None)`.

  Args:
    released: with a query.
    kernel_fn: of the architecture, which is public.
    config: see `Config`.

  Raises:
    ValueError: see `check`.
  """
  check(released, config)
  num = num_candidates(released, config.ratio)
  optimizer = optax.adam(optax.cosine_decay_schedule(
      config.learning_rate, config.steps, alpha=config.last_rate))

  def init(key, data) -> State:
    del data
    key, key_start = jax.random.split(key)
    x = noise(key_start, released, num, scale=config.start_scale,
              dtype=config.dtype)
    return State(x, optimizer.init(x), key, jnp.zeros((), jnp.int32))

  def loss_fn(x):
    at = projection.project(
        kernel_fn(x), released.query(x), jitter=config.jitter)
    loss = config.norm_squared - at.explained
    return loss + prior_lib.penalty(config.prior, released, x), at

  def restart(x, opt_state, key, at):
    """Draws negligible candidates anew, where the residual is large."""
    pool = noise(key, released, _POOL * num, scale=config.start_scale,
                 dtype=x.dtype)
    left = released.query(pool) - jnp.matmul(
        kernel_fn(pool, x).astype(at.duals.dtype), at.duals,
        precision='highest')
    worth = jnp.sum(left**2, axis=1) / kernel_fn.diag(pool)
    best = pool[jax.lax.top_k(worth, num)[1]]
    drop = _dropped(projection.gains(at), at.factor.k, config.negligible)
    place = jnp.maximum(jnp.cumsum(drop) - 1, 0)
    fresh = lambda new, old: jnp.where(
        drop.reshape(-1, *(1,) * (old.ndim - 1)), new, old)
    opt_state = jax.tree.map(
        lambda a: fresh(jnp.zeros_like(a), a) if a.shape == x.shape else a,
        opt_state)
    return fresh(best[place], x), opt_state, jnp.sum(drop, dtype=jnp.int32)

  def step(state: State, data) -> tuple[State, Info]:
    del data
    x, opt_state, key, count = state
    (loss, at), gradient = jax.value_and_grad(loss_fn, has_aux=True)(x)
    updates, opt_state = optimizer.update(gradient, opt_state, x)
    x = prior_lib.project(config.prior, released, x + updates)
    restarted = jnp.zeros((), jnp.int32)
    count = count + 1
    if config.restart_every:
      key, key_pool = jax.random.split(key)
      due = ((count % config.restart_every == 0)
             & (count <= config.restart_until * config.steps))
      x, opt_state, restarted = jax.lax.cond(
          due, lambda: restart(x, opt_state, key_pool, at),
          lambda: (x, opt_state, restarted))
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(x))
    return State(x, opt_state, key, count), Info(loss, finite, restarted)

  return Solver(init, step)


def _dropped(gains, k, negligible) -> Bool[Array, 'M']:
  """Candidates to draw anew: no gain, and not the first of their copies."""
  idle = gains < negligible * jnp.median(gains)
  length = jnp.sqrt(jnp.diag(k))
  near = k > (1 - 1e-3) * length[:, None] * length[None, :]
  copies = near & idle[:, None] & idle[None, :]
  earlier = jnp.tril(copies, -1).any(axis=1)
  later = jnp.triu(copies, 1).any(axis=1)
  return idle & (earlier | ~later)


def reconstruct(
    key: Key[Array, ''], released: Released, config: Config = DEFAULT, *,
    kernel_fn: KernelFn, workdir=None, progress: bool = True,
    on_chunk: Callable | None = None) -> Reconstruction:
  """Rebuilds the training inputs of a predictor in the NTK limit.

  Args:
    key: of the starting noise.
    released: a query is enough.
    config: see `Config`.
    kernel_fn: of the architecture, e.g. `kernels.fcn(2)`.
    workdir: where checkpoints live; None saves none.
    progress: whether to show it.
    on_chunk: (step, candidates) -> None, or True to stop.

  Returns:
    All M candidates, those of the largest gain first. `info` has `gains` (M,),
    `restarted` and `scale_free`, whether the kernel is 1-homogeneous so that
    candidates are known up to a factor and were stretched to the pixel range.

  Raises:
    ValueError: see `check`.
    FloatingPointError: the loss is not finite.
  """
  solver = ntk_limit(released, kernel_fn, config)
  known = config.norm_squared > 0
  driven = drive(
      key, solver, None, steps=config.steps, name='ntk_limit',
      num_seeds=config.num_seeds, workdir=workdir, progress=progress,
      tolerance=config.tolerance * config.norm_squared if known else None,
      fingerprint=f'{config!r} {kernel_fn.name}', on_chunk=on_chunk)

  @jax.jit  # One program: op by op this would take seconds to compile.
  def summary(x):
    at = projection.project(
        kernel_fn(x), released.query(x), jitter=config.jitter)
    once, twice = kernel_fn(x[:1], x[:1]), kernel_fn(2 * x[:1], x[:1])
    return at.explained, at.duals, projection.gains(at), twice / once

  x = np.asarray(driven.state.x)
  explained, duals, gains, growth = map(np.asarray, summary(driven.state.x))
  order = np.argsort(-gains, kind='stable')
  x, duals = x[order], duals[order]
  free = bool(abs(growth - 2) < 1e-4)  # k(2 x, x) = 2 k(x, x): no biases.
  loss = 1 - float(explained) / config.norm_squared if known else math.nan
  return Reconstruction(
      scale.fill_range(released, x) if free else x, duals, loss, driven.curve,
      driven.status, {'gains': gains[order], 'scale_free': free,
                      'seed_losses': driven.losses})
