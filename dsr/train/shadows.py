r"""Shadow networks: each trained on its own part of one set of examples.

Membership inference by shadow models (arXiv:2112.03570) compares networks
that saw an example with networks that did not. Network r is trained on the
rows where `member[r]`, as `fit_networks` would train its r-th network on these
rows alone. The examples exist once: a network holds row numbers, and reads its
batches through them.

Axes: R networks; N examples, H of them in the part of each network; B batch.
"""
from collections.abc import Callable
import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
import numpy as np
import optax

from dsr import checks, loop
from dsr.train.batches import checked_examples
from dsr.train.descent import gradient_descent
from dsr.train.moments import batch_stats
from dsr.train.networks import (
    _STEPS_PER_DISPATCH,
    Trained,
    _advance_all,
    _init_all,
)
from dsr.types import Examples, Status


def fit_shadows(
    key: Key[Array, ''], module: nn.Module, data: Examples,
    member: Bool[Array | np.ndarray, 'R N'], *,
    optimizer: optax.GradientTransformation, num_steps: int,
    batch_size: int | None = None, loss: str = 'mse',
    augment: Callable | None = None, init_scale: float = 1.0,
    parallel: int | None = None) -> Trained:
  """Trains network r on the examples where `member[r]`.

  Up to rounding it is network r of `fit_networks` with the same key, R
  networks and these examples alone, in their order.

  Args:
    key: as of `fit_networks`: of starts, batches and augmentations.
    module: a Flax module without state besides its parameters.
    data: x (N, ...) after `data.transforms`, y (N, C) encoded or soft labels.
    member: (R, N) with equally many True, H, in each row, such as
      `krr.random_halves`.
    optimizer: any optax transformation; the same object again, with the same
      shapes, compiles nothing anew.
    num_steps: updates of each network.
    batch_size: see `gradient_descent`; None, or at least H, trains on all H at
      each step.
    loss: one of `LOSSES`.
    augment: see `gradient_descent`.
    init_scale: see `gradient_descent`.
    parallel: see `fit_networks`.

  Raises:
    ValueError: shapes that do not fit, parts of different sizes, values that
      are not finite, or targets that are no probabilities under
      'cross_entropy'.
    FloatingPointError: a loss became infinite or NaN.
    KeyboardInterrupt: Ctrl-C; half-trained networks are not handed out.
  """
  data = checked_examples(module, data, loss)
  rows = jnp.asarray(member_rows(member, len(data.x)), jnp.int32)
  solver = gradient_descent(module, optimizer, batch_size=batch_size, loss=loss,
                            augment=augment, init_scale=init_scale)
  part = jax.tree.map(lambda a: a[:rows.shape[1]], data)  # Only its shapes
  states = _init_all(  # matter to a start.
      solver.init, jax.random.split(key, len(rows)), part)
  options = {'num_steps': num_steps, 'parallel': parallel,
             'name': f'{loss} loss of {type(module).__name__}'}
  if states.order is None:
    (states, _), curve = _train_states(
        _on_own_rows(solver.step), (states, rows), data, **options)
  else:  # An epoch shuffles row numbers: let them be those of `data`.
    states, curve = _train_states(
        solver.step, states._replace(order=rows), data, **options)
  return Trained(module, states.params, curve,
                 _moments(module, states.params, data.x, rows, batch_size))


def member_rows(
    member: Bool[Array | np.ndarray, 'R N'], num: int
) -> Int[np.ndarray, 'R H']:
  """The rows where each mask is True, ascending; on the host.

  Raises:
    ValueError: `member` is no boolean (R, `num`), or its rows have different
      numbers of members, or none.
  """
  shape = getattr(member, 'shape', ())
  checks.flags('member', member, shape=(shape[0] if shape else 1, num))
  member = np.asarray(member)
  sizes = member.sum(axis=1)
  if not sizes.size or sizes.min() != sizes.max() or not sizes[0]:
    raise ValueError(
        '`member` must have equally many members, at least one, in each of its '
        f'rows, got {sizes.min(initial=num)} to {sizes.max(initial=0)}.')
  return np.nonzero(member)[1].reshape(len(member), -1)


def _train_states(step, states, data, *, num_steps, parallel, name):
  """`num_steps` steps of R stacked states: (states, curve (steps, R))."""
  checks.at_least('num_steps', num_steps, 1)
  num = jax.tree.leaves(states)[0].shape[0]
  parallel = loop.pick_parallel(
      parallel, num, step, loop.one_of(states), data)
  inner = math.gcd(num_steps, _STEPS_PER_DISPATCH)
  advance = _advance_all(step, None if parallel == 1 else parallel, inner)
  result = loop.run(advance, states, data, num_steps=num_steps // inner,
                    chunk=_STEPS_PER_DISPATCH // inner, progress=False)
  if result.status == Status.NOT_FINITE:
    raise FloatingPointError(
        f'The {name} is not finite after {inner * result.steps_done} steps or '
        'a few more: lower the learning rate, or rescale inputs and targets.')
  if result.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  curve = np.swapaxes(result.infos.loss, 1, 2).reshape(num_steps, num)
  return result.state, curve


@functools.lru_cache(maxsize=64)  # One step function, hence one compilation.
def _on_own_rows(step):
  """`step` on the rows of `data` that its state carries along."""
  def own(state, data):
    inner, rows = state
    inner, info = step(inner, jax.tree.map(lambda a: a[rows], data))
    return (inner, rows), info
  return own


def _moments(module, params, x, rows, batch_size):
  """`batch_stats` of each network on its own examples, stacked; or None."""
  found = []
  for r, own in enumerate(rows):
    params_r = jax.tree.map(lambda a, r=r: a[r:r + 1], params)
    found.append(batch_stats(module, params_r, x[own], batch_size=batch_size))
    if found[0] is None:
      return None
  return jax.tree.map(lambda *a: jnp.concatenate(a), *found)
