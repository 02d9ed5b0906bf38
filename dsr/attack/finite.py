r"""The attack on a finite network (arXiv:2302.01428), without its duals.

From \Delta = theta_T - theta_0 and candidates X^ with gradient features,
  L(X^) = (|\Delta|^2 - v' K^{-1} v) / |\Delta|^2,
the squared distance of \Delta to the span of the candidates' gradients (see
`projection`, `features`). Zero at the training set of a linearised network; of
a trained one only nearly, since its gradients moved on the way. Features at
theta_0 and theta_T both, with duals of their own, fit better then; so do those
at more points of the line between, or their mean, for which v is the change
f_T - f_0 itself. The way of training is no line, though: `simulate` follows it.

If the first layer is dense and there are fewer images than it can tell apart,
candidates are sought in the span of the training inputs, which its change
reveals (`span`): N unknown numbers each instead of D.

With M < N the result is a distilled set (RKIP-finite): candidates with labels
v_j = <\phi_j, \Delta>, about f_T - f_0 of a linearised network.

Axes: M candidates, C outputs, D numbers in an input.
"""
from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import numpy as np
import optax

from dsr import linalg, numerics
from dsr.attack import (
    certify,
    coordinates,
    features,
    prior as prior_lib,
    projection,
)
from dsr.attack.drive import drive
from dsr.attack.finite_config import DEFAULT, GRADIENTS, Config, check
from dsr.attack.ntk_limit import num_candidates
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction
from dsr.nets import MLP
from dsr.types import Solver

__all__ = ['DEFAULT', 'GRADIENTS', 'Config', 'Data', 'Info', 'State', 'check',
           'explain', 'prepare', 'reconstruct']


class Data(NamedTuple):
  """What the steps read: parameters, and where candidates are sought."""

  thetas: list[PyTree]
  delta: PyTree
  norm_squared: Float[Array, '']
  within: coordinates.Coordinates


class State(NamedTuple):
  """What a step needs; `x` are the candidates, `place` their coordinates."""

  x: Float[Array, 'M ...']
  place: Float[Array, 'M K']
  opt_state: optax.OptState
  step: Int[Array, '']


class Info(NamedTuple):
  """Of one step: the loss before it, penalties included."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


def prepare(released: Released, config: Config) -> Data:
  """What the steps read, from the release.

  Raises:
    ValueError: theta_T equals theta_0; see `check` for others.
  """
  check(released, config)
  delta = jax.tree.map(jnp.subtract, released.theta_T, released.theta_0)
  norm = numerics.tree_dot(delta, delta)
  if not norm > 0:
    raise ValueError('`theta_T` must differ from theta_0.')
  at = lambda s: jax.tree.map(lambda a, d: a + s * d, released.theta_0, delta)
  return Data(
      [at(s) for s in _places(released, config)], delta, norm, coordinates.of(
          released, subspace=config.subspace,
          dtype=jax.tree.leaves(delta)[0].dtype))


def _places(released, config) -> list[float]:
  """Where on the line from theta_0, 0, to theta_T, 1, features are taken."""
  kind, num = config.gradients, config.points
  if kind == 'auto':
    kind = 'initial' if released.linearised else 'both'
  return {'initial': [0.0], 'final': [1.0], 'both': [0.0, 1.0],
          'path': [i / (num - 1) for i in range(num)],
          'mean': [(i + 0.5) / num for i in range(num)]}[kind]


@functools.lru_cache(maxsize=16)
def _finite(module, shape, num, config, prior_of):
  """The solver: of hashable things only, so that it is compiled once."""
  rate = config.learning_rate

  def init(key, data: Data) -> State:
    size = int(np.prod(shape))
    dtype = jax.tree.leaves(data.delta)[0].dtype
    dim = data.within.dim(size)
    # As long as noise of that deviation in all pixels.
    scale = config.start_scale * (size / dim) ** 0.5
    place = scale * jax.random.normal(key, (num, dim), dtype)
    return State(
        data.within.inputs(place, shape), place,
        optimizer(size / dim).init(place), jnp.zeros((), jnp.int32))

  def optimizer(stretch):
    return optax.adam(optax.cosine_decay_schedule(
        rate or 0.02 * stretch**0.5, config.steps, alpha=config.last_rate))

  def loss_fn(place, data, slope):
    x = data.within.inputs(place, shape)
    at = explain(
        module, data, x, slope, config.jitter, batch=config.batch,
        average=config.gradients == 'mean')
    loss = 1 - at.explained / data.norm_squared
    loss += prior_lib.penalty(config.prior, prior_of, x)
    if config.sparsity:
      size = jnp.sqrt(jnp.mean(at.factor.k.diagonal()) / data.norm_squared)
      loss += config.sparsity * size * jnp.mean(jnp.abs(at.duals))
    return loss

  @numerics.exact
  def step(state: State, data: Data) -> tuple[State, Info]:
    share = state.step / config.steps
    slope = config.slope * (config.last_slope / config.slope) ** share
    slope = slope.astype(state.x.dtype)
    loss, gradient = jax.value_and_grad(loss_fn)(state.place, data, slope)
    updates, opt_state = optimizer(
        state.x[0].size / state.place.shape[1]).update(
            gradient, state.opt_state, state.place)
    place = state.place + updates
    x = data.within.inputs(place, shape)
    if config.prior.project:
      x = prior_lib.project(config.prior, prior_of, x)
      place = data.within.places(x)
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(place))
    return State(x, place, opt_state, state.step + 1), Info(loss, finite)

  return Solver(init, step)


@numerics.exact
def explain(
    module: Any, data: Data, x: Float[Array, 'M ...'],
    slope: float | Float[Array, ''], jitter: float, *,
    batch: int | None = None, average: bool = False) -> projection.Projection:
  """The best duals of `x`, stacked over parameters if there are several.

  Args:
    module: the architecture.
    data: by `prepare`.
    x: candidates.
    slope: of the smoothed ReLU, 1 / pre-activation.
    jitter: see `Config`.
    batch: see `Config`.
    average: whether features are averaged over parameters, not stacked.
  """
  if isinstance(module, MLP):
    k, v = features.kernel_of_mlp(
        module, data.thetas, data.delta, x, slope, batch=batch)
  else:
    smooth = module.clone(activation=features.smoothed_relu(slope))
    apply_fn = lambda p, x: smooth.apply({'params': p}, x)
    k, v = features.of_any(apply_fn, data.thetas, data.delta, x, batch=batch)
  if average:  # <\sum_s \phi_s, \sum_t \phi_t> / S^2, and likewise v.
    sets, num = len(data.thetas), len(x)
    k = k.reshape(sets, num, sets, num, *k.shape[2:]).mean((0, 2))
    v = v.reshape(sets, num, -1).mean(0)
  if v.shape[1] == 1:
    return projection.project(k[:, :, 0, 0], v, jitter=jitter)
  return projection.project_full(k, v, jitter=jitter)


def reconstruct(
    key: Key[Array, ''], released: Released, config: Config = DEFAULT, *,
    workdir=None, progress: bool = True, on_chunk: Callable | None = None
) -> Reconstruction:
  """Rebuilds training inputs from theta_0 and theta_T.

  Args:
    key: of the starting noise.
    released: with both parameters.
    config: see `Config`.
    workdir: where checkpoints live; None saves none.
    progress: whether to show it.
    on_chunk: (step, candidates) -> None, or True to stop.

  Returns:
    All M candidates, those of the largest gain first; duals and gains are
    summed over the sets of parameters. `info` has `gains` (M,), `labels`
    (M, C), the change of each output that the linearised network makes, and
    `subspace`, the dimension searched, 0 if all of it.

  Raises:
    ValueError: see `check` and `prepare`.
    FloatingPointError: the loss is not finite.
  """
  data = prepare(released, config)
  num = num_candidates(released, config.ratio or 2.0)
  solver = _finite(released.module, released.input_shape, num, config,
                   prior_lib.bounds(released))
  driven = drive(
      key, solver, data, steps=config.steps, name='finite',
      num_seeds=config.num_seeds, workdir=workdir, progress=progress,
      tolerance=config.tolerance or None, fingerprint=repr(config),
      on_chunk=on_chunk)
  x = driven.state.x
  at = jax.jit(explain, static_argnums=(0, 3, 4),
               static_argnames=('batch', 'average'))(
      released.module, data, x, config.last_slope, config.jitter,
      batch=config.batch, average=config.gradients == 'mean')
  loss = float(1 - at.explained / data.norm_squared)
  # Sums over the sets of parameters, and for gains over outputs.
  per_row = at.duals.reshape(-1, num, released.num_outputs)
  duals = np.asarray(per_row.sum(axis=0))
  inverse = linalg.diag_inverse(at.factor)
  gains = np.asarray(jnp.sum(
      per_row**2 / inverse.reshape(per_row.shape), axis=(0, 2)))
  labels = np.asarray(numerics.matmul(at.factor.k, at.duals.reshape(-1, 1)))
  labels = labels.reshape(per_row.shape)[0]
  order = np.argsort(-gains, kind='stable')
  x = np.asarray(x)[order]
  return Reconstruction(
      x, duals[order], loss, driven.curve, driven.status,
      {'gains': gains[order], 'labels': labels[order],
       'seed_losses': driven.losses,
       'subspace': data.within.dim(0)}, certify.confidence(released, x))
