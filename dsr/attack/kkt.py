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
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
import numpy as np

from dsr import numerics
from dsr.attack import conditions, vertices
from dsr.attack.conditions import FORMS
from dsr.attack.drive import drive
from dsr.attack.kkt_config import (
    DEFAULT,
    OPTIMIZERS,
    PUBLISHED,
    Config,
    check,
    num_candidates,
)
from dsr.attack.kkt_solver import (
    Given,
    Info,
    State,
    given,
    kkt,
    smooth_module,
)
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction
from dsr.types import Status

__all__ = ['DEFAULT', 'FORMS', 'OPTIMIZERS', 'PUBLISHED', 'Config', 'Given',
           'Info', 'State', 'check', 'given', 'kkt', 'reconstruct']

_VERTICES, _MOST_DIMENSIONS = 100, 64  # Of `vertices` by default.
_LAST_SWEEPS = 200  # Of the duals that are reported.


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
    In a subspace `confidence` is that of `vertices.hold`.

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
      num = min(num_candidates(released, config), len(found.x))
      x = found.x[:num].reshape(num, *released.input_shape).astype(x.dtype)
      loss, duals = _fit(released, config, data, x)
      info |= {'hits': found.hits[:num], 'contrast': found.contrast[:num]}
  confidence = None
  if data.basis is not None:
    confidence = _confidence(released, config, data, x)
  return Reconstruction(
      x, duals, loss, best.curve, runs[-1].status, info, confidence)


def _confidence(released, config, data, x) -> np.ndarray:
  """0.95 from 9 more bounds than any vertex has, and a leverage of 0.8 on.

  And 0 behind the N candidates on most bounds, as there are no more images, and
  for what has less than half of the bounds, or of the network's margin, that
  the better half of these has in the median.
  """
  found = vertices.hold(
      np.asarray(data.basis, np.float64), released, x, slack=config.slack)
  out = np.asarray(released.module.apply({'params': data.theta}, x))
  two = np.sort(out if out.shape[1] > 1 else np.abs(out), axis=1)[:, -2:]
  margin = np.ptp(two, axis=1) if out.shape[1] > 1 else two[:, 0]
  sure = np.minimum(1 - 0.5 ** (np.maximum(found.excess, 0) / 2),
                    1 - np.maximum(found.leverage - 0.75, 0))
  order = np.argsort(-found.excess, kind='stable')
  better = order[:max(released.num_train // 2, 1)]
  for value in (found.excess, margin):
    sure[value < np.median(value[better]) / 2] = 0
  sure[order[released.num_train:]] = 0
  return sure


def _num_vertices(config, data) -> int:
  if config.vertices is not None:
    return config.vertices
  small = data.basis is not None and data.basis.shape[1] <= _MOST_DIMENSIONS
  return _VERTICES if small else 0


@numerics.exact
def _duals(released, config, data, state) -> tuple[float, np.ndarray]:
  """(what (1) misses, coefficients (M, C) of df(x_j)) at the end of a run."""
  module, num = smooth_module(released, config), len(state.x)
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


@numerics.exact
def _fit(released, config, data, x) -> tuple[float, np.ndarray]:
  """As `_duals` for candidates `x` of the classes that the network sees."""
  module, x = smooth_module(released, config), jnp.asarray(x)
  out = module.apply({'params': data.theta}, x)
  label = (jnp.argmax(out, axis=1) if released.num_outputs > 1 else
           (out[:, 0] > 0).astype(jnp.int32))
  miss, duals = conditions.eliminated(
      module, config.form, data.theta, x, label, jnp.zeros(len(x), x.dtype),
      sweeps=_LAST_SWEEPS)
  if config.form == 'margin':
    duals = duals[:, None] * conditions.directions(out, label)
  return float(miss), np.asarray(duals)
