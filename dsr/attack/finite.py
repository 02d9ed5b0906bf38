r"""The attack on a finite network (arXiv:2302.01428), without its duals.

From \Delta = theta_T - theta_0 and candidates X^ with gradient features,
  L(X^) = (|\Delta|^2 - v' K^{-1} v) / |\Delta|^2,
the squared distance of \Delta to the span of the candidates' gradients (see
`projection`, `features`). Zero at the training set of a linearised network; of
a trained one only nearly, since its gradients moved on the way: then features
at theta_0 and theta_T both, with duals of their own, fit best.

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
from dsr.attack import features, prior as prior_lib, projection, span
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
  """What the steps read: parameters, and the affine map of coordinates."""

  thetas: list[PyTree]
  delta: PyTree
  norm_squared: Float[Array, '']
  origin: Float[Array, 'D'] | None
  axes: Float[Array, 'K D'] | None


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
  kind = config.gradients
  if kind == 'auto':
    kind = 'initial' if released.linearised else 'both'
  thetas = {'initial': [released.theta_0], 'final': [released.theta_T],
            'both': [released.theta_0, released.theta_T]}[kind]
  thetas = jax.tree.map(jnp.asarray, thetas)
  origin, axes = None, None
  if config.subspace and _has_span(released):
    dtype = jax.tree.leaves(thetas)[0].dtype
    origin, axes = (jnp.asarray(a, dtype) for a in _affine(released))
  return Data(thetas, delta, norm, origin, axes)


def _has_span(released) -> bool:
  module = released.module
  return (isinstance(module, MLP) and bool(module.widths) and 1 <
          released.num_train < min(released.size, module.widths[0]))


def _affine(released):
  """(origin (D,), orthonormal axes (K, D)) of the inputs within the span."""
  factors = span.span(released)
  basis = factors.basis
  if not factors.biased:
    return np.zeros(released.size), basis.T
  last = basis[-1]
  origin = (basis @ last / (last @ last))[:-1]
  within = np.linalg.svd(last[None])[2][1:]  # z with [.; 0] = U z.
  axes = np.linalg.qr((basis @ within.T)[:-1])[0].T
  return origin - axes.T @ (axes @ origin), axes


@functools.lru_cache(maxsize=16)
def _finite(module, shape, num, config, prior_of):
  """The solver: of hashable things only, so that it is compiled once."""
  rate = config.learning_rate

  def init(key, data: Data) -> State:
    size = int(np.prod(shape))
    dtype = jax.tree.leaves(data.delta)[0].dtype
    inside = data.axes is not None
    dim = data.axes.shape[0] if inside else size
    # As long as noise of that deviation in all pixels.
    scale = config.start_scale * (size / dim) ** 0.5
    place = scale * jax.random.normal(key, (num, dim), dtype)
    return State(candidates(place, data), place, optimizer(size / dim).init(
        place), jnp.zeros((), jnp.int32))

  def optimizer(stretch):
    return optax.adam(optax.cosine_decay_schedule(
        rate or 0.02 * stretch**0.5, config.steps, alpha=config.last_rate))

  def candidates(place, data):
    if data.axes is not None:
      place = data.origin[None] + numerics.matmul(place, data.axes)
    return place.reshape(len(place), *shape)

  def loss_fn(place, data, slope):
    x = candidates(place, data)
    at = explain(
        module, data, x, slope, config.jitter, batch=config.batch)
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
    x = candidates(place, data)
    if config.prior.project:
      x = prior_lib.project(config.prior, prior_of, x)
      place = x.reshape(len(x), -1)
      if data.axes is not None:
        place = numerics.matmul(place - data.origin[None], data.axes.T)
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(place))
    return State(x, place, opt_state, state.step + 1), Info(loss, finite)

  return Solver(init, step)


@numerics.exact
def explain(
    module: Any, data: Data, x: Float[Array, 'M ...'],
    slope: float | Float[Array, ''], jitter: float, *,
    batch: int | None = None) -> projection.Projection:
  """The best duals of `x`; stacked over parameters, if features are at both.

  Args:
    module: the architecture.
    data: by `prepare`.
    x: candidates.
    slope: of the smoothed ReLU, 1 / pre-activation.
    jitter: see `Config`.
    batch: see `Config`.
  """
  if isinstance(module, MLP):
    k, v = features.kernel_of_mlp(
        module, data.thetas, data.delta, x, slope, batch=batch)
  else:
    smooth = module.clone(activation=features.smoothed_relu(slope))
    apply_fn = lambda p, x: smooth.apply({'params': p}, x)
    k, v = features.of_any(apply_fn, data.thetas, data.delta, x, batch=batch)
  if v.shape[1] == 1:
    return projection.project(k[:, :, 0, 0], v, jitter=jitter)
  return projection.project_full(k, v, jitter=jitter)


class _Range(NamedTuple):
  """The hashable part of a release that penalties read."""

  input_shape: tuple[int, ...]
  low: tuple
  high: tuple


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
    All M candidates, those of the largest gain first; with 'both', duals are
    summed over the two sets and gains too. `info` has `gains` (M,), `labels`
    (M, C), the change of each output that the linearised network makes, and
    `subspace`, the dimension searched, 0 if all of it.

  Raises:
    ValueError: see `check` and `prepare`.
    FloatingPointError: the loss is not finite.
  """
  data = prepare(released, config)
  num = num_candidates(released, config.ratio or 2.0)
  prior_of = _Range(released.input_shape, _nested(released.low),
                    _nested(released.high))
  solver = _finite(released.module, released.input_shape, num, config, prior_of)
  driven = drive(
      key, solver, data, steps=config.steps, name='finite',
      num_seeds=config.num_seeds, workdir=workdir, progress=progress,
      tolerance=config.tolerance or None, fingerprint=repr(config),
      on_chunk=on_chunk)
  x = driven.state.x
  at = jax.jit(explain, static_argnums=(0, 3, 4), static_argnames='batch')(
      released.module, data, x, config.last_slope, config.jitter,
      batch=config.batch)
  loss = float(1 - at.explained / data.norm_squared)
  # Sums over the sets of parameters, and for gains over outputs.
  per_row = at.duals.reshape(len(data.thetas), num, -1)
  duals = np.asarray(per_row.sum(axis=0))
  inverse = linalg.diag_inverse(at.factor)
  gains = np.asarray(jnp.sum(
      per_row**2 / inverse.reshape(per_row.shape), axis=(0, 2)))
  labels = np.asarray(numerics.matmul(at.factor.k, at.duals.reshape(-1, 1)))
  labels = labels.reshape(per_row.shape)[0]
  order = np.argsort(-gains, kind='stable')
  return Reconstruction(
      np.asarray(x)[order], duals[order], loss, driven.curve, driven.status,
      {'gains': gains[order], 'labels': labels[order],
       'seed_losses': driven.losses,
       'subspace': 0 if data.axes is None else len(data.axes)})


def _nested(end):
  """An array as nested tuples, which hash."""
  end = np.asarray(end)
  return tuple(map(_nested, end)) if end.ndim else float(end)
