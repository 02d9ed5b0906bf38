r"""The descent of `attack.kkt`, as init/step.

Axes: M candidates, C outputs, R dimensions of the first layer's span.
"""
from typing import NamedTuple

from absl import logging
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree
import numpy as np
import optax

from dsr import numerics
from dsr.attack import conditions, prior as prior_lib
from dsr.attack.kkt_config import (
    DEFAULT,
    Config,
    check,
    in_subspace,
    num_candidates,
)
from dsr.attack.published import with_activation
from dsr.attack.release import Released
from dsr.attack.result import noise
from dsr.types import Solver

_MOMENTUM, _LAST_RATE = 0.9, 0.05
_HIDDEN = 0.5  # A singular value of the start, over the least of the images.


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
  """Of one step: the objective, and the share of |theta|^2 that is missed."""

  loss: Float[Array, '']
  finite: Bool[Array, '']
  relative: Float[Array, '']


def kkt(released: Released, config: Config = DEFAULT) -> Solver:
  """Builds the solver: `init(key, Given)`, `step(state, Given)`.

  Args:
    released: with theta_T.
    config: see `Config`.

  Raises:
    ValueError: see `check`.
  """
  check(released, config)
  num, outputs = num_candidates(released, config), released.num_outputs
  label = jnp.asarray(conditions.labels(num, outputs))
  module = smooth_module(released, config)
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

  @numerics.exact
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


def smooth_module(released: Released, config: Config) -> nn.Module:
  """The architecture with the smoothed ReLU of `config`."""
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
  if not in_subspace(released, config):
    return Given(theta, None)
  first = 'hidden_0' if released.module.widths else 'readout'
  weights = np.asarray(released.theta_T[first]['kernel'])
  basis, values, _ = np.linalg.svd(weights, full_matrices=False)
  rank = config.subspace
  if rank in (None, True):
    most = min(released.num_train, len(values))
    floor = values[most] if most < len(values) else 0
    if floor > _HIDDEN * values[most - 1]:
      logging.warning(
          'The first layer of theta_T shows no span of %d images: it did not '
          'start near 0, and where it started is not known. Expect none of '
          'them back; with theta_0 there are other attacks.', most)
    rank = max(1, int((values[:most] > 1.05 * floor).sum()))
  return Given(theta, jnp.asarray(basis[:, :rank]))
