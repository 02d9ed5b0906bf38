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

Of a network of width W the values differ from those of K by 1 / sqrt(W), so the
truth is no zero of the loss, and candidates end up fitting the difference:
`FINITE` has a larger jitter, fewer candidates and fewer steps. Derivatives of
such a network's values miss its jumps, so slopes are measured (`probing`), of
smooth images first (`latents`).

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

from dsr import numerics
from dsr.attack import (
    kinks,
    latents,
    prior as prior_lib,
    probing,
    projection,
    scale,
)
from dsr.attack.drive import drive
from dsr.attack.limit_config import (
    DEFAULT,
    FINITE,
    Config,
    check,
    num_candidates,
)
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction, noise
from dsr.types import KernelFn, Solver

__all__ = ['DEFAULT', 'FINITE', 'Config', 'Info', 'State', 'check',
           'ntk_limit', 'num_candidates', 'reconstruct']

_POOL = 4  # Random places looked at for each candidate.


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
  released, kernel_fn, decode = latents.latent(
      released, kernel_fn, config.blur)
  optimizer = optax.adam(optax.cosine_decay_schedule(
      config.learning_rate, config.steps, alpha=config.last_rate))

  def init(key, data) -> State:
    del data
    key, key_start = jax.random.split(key)
    x = noise(key_start, released, num, scale=config.start_scale,
              dtype=config.dtype)
    return State(x, optimizer.init(x), key, jnp.zeros((), jnp.int32))

  def explain(x, query):
    return projection.project(kernel_fn(x), query(x), jitter=config.jitter)

  def probed(key, x, count):
    """The query near `x`; its model is the predictor of the candidates."""
    duals = explain(x, released.query).duals.astype(x.dtype)
    share = config.probe_last ** (count / config.steps)
    return probing.linear_near(
        key, released.query, x, probes=config.probes,
        scale=(config.probe_scale * share).astype(x.dtype),
        model=lambda z: numerics.matmul(kernel_fn(z, x), duals))

  def loss_fn(x, query):
    at = explain(x, query)
    loss = config.norm_squared - at.explained
    return loss + prior_lib.penalty(config.prior, released, decode(x)), at

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
    query = released.query
    if config.probes:
      key, key_probes = jax.random.split(key)
      query = probed(key_probes, x, count)
    (loss, at), gradient = jax.value_and_grad(
        lambda x: loss_fn(x, query), has_aux=True)(x)
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
    `scale_free`, whether the kernel is 1-homogeneous so that candidates are
    known up to a factor and were stretched to the pixel range, and `mmd`: for
    every g of norm 1 in the kernel's Hilbert space, |sum_j a_j g(x_j) -
    sum_j a^_j g(x^_j)| over training images and candidates is at most that;
    NaN if |f_T - f_0|_H is not known. For the confidence see `kinks`.

  Raises:
    ValueError: see `check`.
    FloatingPointError: the loss is not finite.
  """
  solver = ntk_limit(released, kernel_fn, config)
  known = config.norm_squared > 0
  decode = jax.jit(latents.latent(released, kernel_fn, config.blur).decode)
  look = on_chunk and (
      lambda step, x: on_chunk(step, np.asarray(decode(x))))
  driven = drive(
      key, solver, None, steps=config.steps, name='ntk_limit',
      num_seeds=config.num_seeds, workdir=workdir, progress=progress,
      tolerance=config.tolerance * config.norm_squared if known else None,
      fingerprint=f'{config!r} {kernel_fn.name}', on_chunk=look)

  @jax.jit  # One program: op by op this would take seconds to compile.
  def summary(x):
    at = projection.project(
        kernel_fn(x), released.query(x), jitter=config.jitter)
    once, twice = kernel_fn(x[:1], x[:1]), kernel_fn(2 * x[:1], x[:1])
    sure = kinks.confidence(
        jax.random.fold_in(key, 1), released.query, kernel_fn, x)
    return at.explained, at.duals, projection.gains(at), twice / once, sure

  x = decode(driven.state.x)
  explained, duals, gains, growth, sure = map(np.asarray, summary(x))
  x = np.asarray(x)
  order = np.argsort(-gains, kind='stable')
  x, duals = x[order], duals[order]
  free = bool(abs(growth - 2) < 1e-4)  # k(2 x, x) = 2 k(x, x): no biases.
  left = config.norm_squared - float(explained)
  loss = left / config.norm_squared if known else math.nan
  return Reconstruction(
      scale.fill_range(released, x) if free else x, duals, loss, driven.curve,
      driven.status, {'gains': gains[order], 'scale_free': free,
                      'mmd': max(left, 0.0)**0.5 if known else math.nan,
                      'seed_losses': driven.losses}, sure[order])
