r"""Training inputs out of the first layer's change, exactly, at any width.

The gradient of a dense first layer is an outer product of inputs and signals.
So whatever full- or mini-batch (momentum) gradient descent did, linearised or
not, with any loss, number of outputs and layers behind,

  \Delta W~ = [\Delta W_1; \Delta b_1] = X~' G,   x~ = [x; 1],   G (N, W),

and G_iw = 0 exactly if unit w was inactive on input i throughout training. The
attack factorises \Delta W~ by these zeros, which the released weights foretell:

  span       \Delta W~ = U S V', of rank N: every x~ is U z with z in R^N, and
             every row of G is t' V' for a t in R^N, with T S^-1 Z = I.
  descend    random t -> the L1 norm of t' V' falls along the sphere: with 20
             units or more for an image this alone finds rows
             (`attack.sparse_rows`).
  alternate  z -> units that are clearly inactive at [x; 1] ~ U z, both at
             theta_0 and theta_T -> t, the direction of least energy on them
             -> support of |V t| -> z, a linear classifier of that support:
             finds rows among fewer units.
  polish     makes the zeros of t' V' exact, and takes mixtures of rows apart.
  accept     t if t' V' has the zeros of a row of G; the other images' z are
             orthogonal to t / s, so that the search space shrinks.
  read       with all N rows known Z = (T S^-1)^-1 is closed form; masks and
             rows are then computed again from it (`attack.rows`).

Random starts suffice: no gradient of the network is ever needed. The rank and
zeros of a gradient's first layer identify small federated batches in
arXiv:2403.03945; here the initialisation tells where the zeros are, which
carries to hundreds of images and whole training runs. Weight decay, pruning
and rounding are undone first (`attack.restore`). Adam and noise break the
identity: the change then has full rank, which is refused, or rows that are not
sparse, which `info` shows.

Axes: N images, W units of the first layer, D numbers in an input.
"""
from collections.abc import Callable
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from dsr import loop, numerics
from dsr.attack import restore, sparse_rows
from dsr.attack.alternation import alternate
from dsr.attack.first_layer_config import (
    DEFAULT,
    INDEPENDENT,
    MIXTURE,
    Config,
    check,
    least_zeros,
)
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction
from dsr.attack.rows import read
from dsr.attack.span import Span, span
from dsr.types import Solver, Status

__all__ = ['DEFAULT', 'Config', 'Data', 'Info', 'State', 'check',
           'first_layer', 'reconstruct']

_NEAR = 0.999  # Polished rows of a larger |cosine| are copies.
_FEWEST = 0.15  # Share of all units that the search reads a row from, at least.
_MANY = 12  # Units for an image from which on descent finds rows.


class State(NamedTuple):
  """The search after some rounds.

  Attributes:
    rows: (N, N) the accepted t, of length 1; zeros behind them.
    count: how many are accepted.
    idle: rounds since the last one was.
    key: of the starts still to come.
  """

  rows: Float[Array, 'N N']
  count: Int[Array, '']
  idle: Int[Array, '']
  key: Key[Array, '']


class Info(NamedTuple):
  """Of one round: the share of images still missing."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


class Data(NamedTuple):
  """`Span` on the device, and how starts are scaled."""

  size: Float[Array, 'N']
  codes: Float[Array, 'N W']
  maps: Float[Array, '2 N W']
  middle: Float[Array, 'N']
  length: Float[Array, '']
  spread: Float[Array, 'N']


@functools.lru_cache(maxsize=8)  # One step function, hence one compilation.
def first_layer(config: Config = DEFAULT) -> Solver:
  """The search as `init(key, Data)`, `step(State, Data)`: a round a step.

  Raises:
    ValueError: an option is out of its range.
  """
  check(config)

  def init(key, data: Data) -> State:
    zero = jnp.zeros((), jnp.int32)
    size = data.size.size
    return State(jnp.zeros((size, size), data.codes.dtype), zero, zero, key)

  def starts(key, data):
    """U z like images: their spectrum a power of the change's, any power."""
    keys = jax.random.split(key)
    num = data.size.size
    power = jax.random.uniform(
        keys[0], (config.num_starts, 1), data.codes.dtype, 0.5, 1)
    shape = (data.size / data.size[0])[None] ** power
    z = shape * jax.random.normal(
        keys[1], (config.num_starts, num), data.codes.dtype)
    z *= data.length / jnp.linalg.norm(shape, axis=1, keepdims=True)
    return z + data.middle[None]

  def accept(i, carry, found, least):
    rows, count, known = carry
    t = found.t[i]
    # A combination of known rows is no new image, however sparse it is.
    rest = t - known @ t
    length = jnp.linalg.norm(rest)
    new = ((found.zeros[i] > least) & (found.second[i] > MIXTURE)
           & (count < rows.shape[0]) & (length > INDEPENDENT)
           & (jnp.max(jnp.abs(rows @ t)) < _NEAR))
    rows = rows.at[count].set(jnp.where(new, t, rows[count]), mode='drop')
    rest = rest / jnp.maximum(length, INDEPENDENT)
    known += jnp.where(new, rest[:, None] * rest[None, :], 0)
    return rows, count + new, known

  @numerics.exact
  def step(state: State, data: Data) -> tuple[State, Info]:
    num, width = data.codes.shape
    key, key_starts, key_random = jax.random.split(state.key, 3)
    free = _complement(state.rows / data.size[None])
    # Fewer would leave the rows of similar images undecided.
    few = max(int(config.oversample * num) + 4, int(_FEWEST * width))
    ends = [alternate(
        starts(key_starts, data), codes=data.codes, maps=data.maps, free=free,
        rows=state.rows, num_units=min(few, width),
        iterations=config.iterations)]
    if width >= _MANY * num:
      t = jax.random.normal(
          key_random, (config.num_starts, num), data.codes.dtype)
      t /= jnp.linalg.norm(t, axis=1, keepdims=True)
      ends.append(sparse_rows.descend(t, data.codes))
    found = sparse_rows.polish(jnp.concatenate(ends), data.codes, data.spread)
    order = jnp.argsort(-found.zeros)
    found = jax.tree.map(lambda a: a[order], found)
    least = least_zeros(num, width, config)
    add = functools.partial(accept, found=found, least=least)
    known = jnp.eye(num, dtype=found.t.dtype) - _complement(state.rows)
    rows, count, _ = jax.lax.fori_loop(
        0, len(found.t), add, (state.rows, state.count, known))
    idle = jnp.where(count > state.count, 0, state.idle + 1)
    missing = 1 - count / num
    return (State(rows, count, idle, key),
            Info(missing, jnp.all(jnp.isfinite(rows))))

  return Solver(init, step)


def _complement(rows):
  """Projector onto what is orthogonal to `rows`, zero rows left out."""
  exact = rows.astype(numerics.solve_dtype(rows.dtype))
  length = jnp.linalg.norm(exact, axis=1)
  exact *= numerics.safe_divide(jnp.ones_like(length), length)[:, None]
  eye = jnp.eye(exact.shape[1], dtype=exact.dtype)
  return (eye - jnp.linalg.pinv(exact) @ exact).astype(rows.dtype)


def reconstruct(
    key: Key[Array, ''], released: Released, config: Config = DEFAULT, *,
    workdir=None, progress: bool = True, on_chunk: Callable | None = None,
    factors: Span | None = None) -> Reconstruction:
  """Rebuilds the training inputs from the change of the first layer.

  Args:
    key: of the starts.
    released: theta_0 and theta_T of an MLP.
    config: see `Config`.
    workdir: where checkpoints live; None saves none.
    progress: whether to show it.
    on_chunk: (round, candidates) -> None, or True to stop.
    factors: by `span`, if they were made before, of what `restored` gives.

  Returns:
    As many candidates as rows were found, the most certain first; without
    biases each is stretched to the pixel range. `info` has `zeros` (M,), the
    share of units at which its row is 0, `agreement` (M,), see `rows.Read`,
    which is the confidence, `rank` of the change, `noise`, see `Span`, and
    `restored`, whether the change was. `duals` and `loss` are NaN: the attack
    has none.

  Raises:
    ValueError: see `span` and `check`.
  """
  solver = first_layer(config)
  given = released
  if factors is None:
    released = restore.restored(released)
    factors = span(released)
  data = _to_device(released, factors)

  def look(step, state, info):
    del info
    count = int(state.count)
    stop = count == len(factors.size) or int(state.idle) >= config.patience
    if on_chunk is not None and count:
      found = read(released, factors, np.asarray(state.rows[:count]), 0)
      stop = bool(on_chunk(step, found.x)) or stop
    return stop

  state, curve, rounds = solver.init(key, data), [], 0
  for search in range(config.searches):
    folder = None if workdir is None else pathlib.Path(workdir) / str(search)
    result = loop.run(
        solver.step, state, data, num_steps=config.max_rounds, chunk=1,
        workdir=folder, checkpoint_every=20, fingerprint=repr(config),
        progress=progress, on_chunk=look, description='first_layer')
    curve.append(np.asarray(result.infos.loss))
    rounds += result.steps_done
    rows = np.asarray(result.state.rows[:int(result.state.count)])
    found = read(released, factors, rows, config.refinements)
    if len(found.x) == len(factors.size) or result.status == Status.INTERRUPTED:
      break
    # Some rows were copies: go on without them.
    blank = np.zeros_like(result.state.rows)
    blank[:len(found.rows)] = found.rows
    state = result.state._replace(
        rows=jnp.asarray(blank), count=jnp.asarray(len(found.rows), jnp.int32),
        idle=jnp.zeros((), jnp.int32))
  order = np.argsort(-found.agreement, kind='stable')
  nan = np.full((len(order), released.num_outputs), np.nan)
  return Reconstruction(
      found.x[order], nan, float('nan'), np.concatenate(curve), result.status,
      {'zeros': found.zeros[order], 'agreement': found.agreement[order],
       'rank': len(factors.size), 'noise': factors.noise, 'rounds': rounds,
       'restored': released is not given},
      confidence=found.confidence[order])


def _to_device(released, factors) -> Data:
  """In float32: the search only has to find the right basin."""
  put = functools.partial(jnp.asarray, dtype=jnp.float32)
  # Half the length of a random image, as far as the pixel range tells.
  extent = np.broadcast_to(released.high - released.low, released.input_shape)
  middle = factors.basis[-1] if factors.biased else np.zeros_like(factors.size)
  return Data(put(factors.size), put(factors.codes), put(factors.maps),
              put(middle), put(0.25 * np.linalg.norm(extent)),
              put(factors.spread))
