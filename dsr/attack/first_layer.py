r"""Training inputs out of the first layer's change, exactly, at any width.

The gradient of a dense first layer is an outer product of inputs and signals.
So whatever full- or mini-batch (momentum) gradient descent did, linearised or
not, with any loss, number of outputs and layers behind,

  \Delta W~ = [\Delta W_1; \Delta b_1] = X~' G,   x~ = [x; 1],   G (N, W),

and G_iw = 0 exactly if unit w was inactive on input i throughout training. The
attack factorises \Delta W~ by these zeros, which the released weights foretell:

  span       \Delta W~ = U S V', of rank N: every x~ is U z with z in R^N, and
             every row of G is t' V' for a t in R^N, with T S^-1 Z = I.
  alternate  z -> units that are clearly inactive at [x; 1] ~ U z, both at
             theta_0 and theta_T -> t, the direction of least energy on them
             -> support of |V t| -> z, a linear classifier of that support.
  accept     t if |V t| has the zeros of a row of G; the other images' z are
             orthogonal to t / s, so that the search space shrinks.
  refine     with all N rows known Z = (T S^-1)^-1 is closed form; masks and
             rows are then computed again from it.

Random starts suffice: no gradient of the network is ever needed. The rank and
zeros of a gradient's first layer identify small federated batches in
arXiv:2403.03945; here the initialisation tells where the zeros are, which
carries to hundreds of images and whole training runs. Adam, weight decay and
noise break the identity; the attack then says so.

Axes: N images, W units of the first layer, D numbers in an input.
"""
from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from dsr import checks, loop, numerics
from dsr.attack import scale
from dsr.attack.release import Released
from dsr.attack.result import Reconstruction
from dsr.attack.span import Span, span
from dsr.types import Solver

_SPARSE = 0.4  # A row of G has half its entries 0, less what training changes.
_COMBINATIONS = 64
_SAME = 0.98  # Exact rows of a larger |cosine| are copies.
_COPY = 0.8  # The same of rows that are still approximate.


class Config(NamedTuple):
  """How the attack is run.

  Attributes:
    num_starts: random starts a round.
    max_rounds: rounds, at most.
    patience: rounds without a new image after which the search ends.
    iterations: alternations from each start.
    oversample: inactive units used by the search, relative to N.
    sparsity: a row is accepted if the 30th percentile of its magnitudes is
      below this share of the 75th; 0.28 for a normal row, 0 for an exact one.
    refinements: passes of the last stage.
  """

  num_starts: int = 64
  max_rounds: int = 400
  patience: int = 30
  iterations: int = 24
  oversample: float = 1.5
  sparsity: float = 0.1
  refinements: int = 8


DEFAULT = Config()


@functools.partial(jax.jit, static_argnames=('num_units', 'iterations'))
def alternate(
    starts: Float[Array, 'B N'], codes: Float[Array, 'N W'],
    maps: Float[Array, '2 N W'], free: Float[Array, 'N N'],
    rows: Float[Array, 'K N'], *, num_units: int, iterations: int
) -> Float[Array, 'B N']:
  """The t from each start after the alternation of the module text.

  Where it comes upon a row that is known, that direction is deflated and the
  next one on the same units taken.

  Args:
    starts: z to start from.
    codes: V'.
    maps: see `Span`.
    free: projector onto the z that are orthogonal to all known rows.
    rows: the known rows, of length 1 or 0.
    num_units: inactive units that a t is read from.
    iterations: of z -> t -> z; of all t the one of least energy is kept.
  """
  size = codes.shape[0]
  # Normal equations of the classifier within the free space.
  mean = free @ jnp.mean(maps, axis=0)
  inverse = jnp.linalg.pinv(mean @ mean.T, hermitian=True)
  solve = inverse.astype(mean.dtype) @ mean
  probe = jax.random.normal(jax.random.key(0), (size, 2), codes.dtype)

  def one(z):
    def body(carry, i):
      z, best, t_best, shut = carry
      z = free @ z
      level = jnp.max(jnp.einsum('n,anw->aw', z, maps), axis=0)
      two, energy = least_energy(level, codes, probe, num_units, shut)
      t = two[:, 0]
      known = rows[jnp.argmax(jnp.abs(rows @ t))]
      copy = jnp.abs(known @ t) > _COPY
      known -= shut.T @ (shut @ known)
      shut_more = shut.at[i].set(known / jnp.linalg.norm(known))
      better = (energy < best) & ~copy
      magnitude = jnp.abs(t @ codes)
      active = magnitude > 0.7 * jnp.median(magnitude)
      z_next = solve @ jnp.where(active, 1.0, -1.0).astype(codes.dtype)
      return (jnp.where(copy, z, z_next), jnp.where(better, energy, best),
              jnp.where(better, t, t_best),
              jnp.where(copy, shut_more, shut)), None

    shut = jnp.zeros((iterations, size), codes.dtype)
    start = (z, jnp.asarray(jnp.inf, codes.dtype), jnp.zeros_like(z), shut)
    (_, _, t, _), _ = jax.lax.scan(body, start, jnp.arange(iterations))
    return t

  return jax.lax.map(one, starts)


@functools.partial(jax.jit, static_argnames='at_least')
def sharpen(
    t: Float[Array, 'B N'], codes: Float[Array, 'N W'], *, at_least: int
) -> Float[Array, 'B N']:
  """Each t from the units on which it is smallest, as sparse as can be.

  On the units at which two images are inactive all combinations of their rows
  vanish. So the two directions of least energy are kept, and of their
  combinations that vanish at a further unit the sparsest is taken. Rows that
  are far from sparse are left alone.
  """
  width = codes.shape[1]
  probe = jax.random.normal(jax.random.key(0), (len(codes), 2), codes.dtype)
  places = np.linspace(_SPARSE * width, width - 1, _COMBINATIONS).astype(int)

  def from_least(t, share):
    units = min(width, max(at_least, int(share * width)))
    return least_energy(jnp.abs(t @ codes), codes, probe, units)[0]

  def again(t):
    two = from_least(t, 0.35)
    rows = two.T @ codes
    units = jnp.argsort(jnp.sum(rows**2, axis=0))[places]
    turn = jnp.stack([rows[1, units], -rows[0, units]], axis=1)
    turn /= jnp.linalg.norm(turn, axis=1, keepdims=True)
    found = jnp.concatenate([two[:, :1].T, turn @ two.T])
    t = found[jnp.argmin(_sparsity(found, codes, 0.44))]
    for _ in range(3):
      t = from_least(t, 0.44)[:, 0]
    return t

  def one(t):
    promising = _sparsity(t[None], codes, 0.3)[0] < 0.25
    return jax.lax.cond(promising, again, lambda t: t, t)

  return jax.lax.map(one, t)


def least_energy(level, codes, probe, num_units, shut=None):
  """(two least t (N, 2), the ratio of their energies) on units of low level.

  With orthonormal (or zero) rows `shut`, of energy over the squared length of
  what is orthogonal to them: t may then hold any part of the shut directions.
  """
  units = jax.lax.top_k(-level, num_units)[1]
  inactive = codes.T[units]
  energy = inactive.T @ inactive
  ridge = 1e-8 if codes.dtype == jnp.float64 else 1e-6
  factor = jax.scipy.linalg.cho_factor(
      energy + ridge * jnp.eye(len(energy), dtype=codes.dtype))

  def inverse_iteration(v, _):
    if shut is not None:
      v -= shut.T @ (shut @ v)
    return jnp.linalg.qr(jax.scipy.linalg.cho_solve(factor, v))[0], None

  v, _ = jax.lax.scan(inverse_iteration, probe, None, length=6)
  value = jnp.sum(v * (energy @ v), axis=0)
  return v, value[0] / value[1]


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
  noise: Float[Array, '']


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

  def accept(i, carry, t, sparsity, limit):
    rows, count = carry
    new = ((sparsity[i] < limit) & (count < rows.shape[0])
           & (jnp.max(jnp.abs(rows @ t[i])) < 0.9))
    rows = rows.at[count].set(jnp.where(new, t[i], rows[count]), mode='drop')
    return rows, count + new

  def step(state: State, data: Data) -> tuple[State, Info]:
    num, width = data.codes.shape
    key, key_starts = jax.random.split(state.key)
    free = _complement(state.rows / data.size[None])
    search = functools.partial(
        alternate, codes=data.codes, maps=data.maps, free=free,
        rows=state.rows)
    few = min(width, int(config.oversample * num) + 4)
    t = search(starts(key_starts, data), num_units=few,
                  iterations=config.iterations)
    t = sharpen(t, data.codes, at_least=few)
    sparsity = _sparsity(t, data.codes)
    order = jnp.argsort(sparsity)
    surest = _surest(data.noise)
    limit = jnp.minimum(surest * 2.0 ** (state.idle // 3), 4 * surest)
    limit = jnp.minimum(limit, config.sparsity)
    t, sparsity = t[order], sparsity[order]
    add = functools.partial(accept, t=t, sparsity=sparsity, limit=limit)
    rows, count = jax.lax.fori_loop(0, len(t), add, (state.rows, state.count))
    idle = jnp.where(count > state.count, 0, state.idle + 1)
    missing = 1 - count / num
    return (State(rows, count, idle, key),
            Info(missing, jnp.all(jnp.isfinite(rows))))

  return Solver(init, step)


def check(config: Config) -> None:
  """Raises a ValueError for an option out of its range."""
  for name in ('num_starts', 'max_rounds', 'patience', 'iterations'):
    checks.at_least(name, getattr(config, name), 1)
  checks.at_least('refinements', config.refinements, 0)
  checks.within('oversample', config.oversample, 1, 10)
  checks.within('sparsity', config.sparsity, 0, 0.28)


def _sparsity(t, codes, share=_SPARSE):
  shares = jnp.array([share, 0.75], codes.dtype)
  low, high = jnp.quantile(jnp.abs(t @ codes), shares, axis=1)
  return low / high


def _complement(rows):
  """Projector onto what is orthogonal to `rows`, zero rows left out."""
  exact = rows.astype(numerics.solve_dtype(rows.dtype))
  length = jnp.linalg.norm(exact, axis=1)
  exact *= numerics.safe_divide(jnp.ones_like(length), length)[:, None]
  eye = jnp.eye(exact.shape[1], dtype=exact.dtype)
  return (eye - jnp.linalg.pinv(exact) @ exact).astype(rows.dtype)


def reconstruct(
    key: Key[Array, ''], released: Released, config: Config = DEFAULT, *,
    workdir=None, progress: bool = True, on_chunk: Callable | None = None
) -> Reconstruction:
  """Rebuilds the training inputs from the change of the first layer.

  Args:
    key: of the starts.
    released: theta_0 and theta_T of an MLP.
    config: see `Config`.
    workdir: where checkpoints live; None saves none.
    progress: whether to show it.
    on_chunk: (round, candidates) -> None, or True to stop.

  Returns:
    As many candidates as rows were found, the most certain first; without
    biases each is stretched to the pixel range. `info` has `sparsity` (M,),
    near 0 for a certain image and above `Config.sparsity` for a doubtful one,
    `rank` of the change, and `noise`, see `Span`. `duals` and `loss` are NaN:
    the attack has none.

  Raises:
    ValueError: see `span` and `check`.
  """
  solver = first_layer(config)
  factors = span(released)
  data = _to_device(released, factors)

  def look(step, state, info):
    del info
    count = int(state.count)
    stop = count == len(factors.size) or int(state.idle) >= config.patience
    if on_chunk is not None and count:
      x, *_ = read(released, factors, np.asarray(state.rows[:count]), 0)
      stop = bool(on_chunk(step, x)) or stop
    return stop

  result = loop.run(
      solver.step, solver.init(key, data), data, num_steps=config.max_rounds,
      chunk=1, workdir=workdir, checkpoint_every=20, fingerprint=repr(config),
      progress=progress, on_chunk=look, description='first_layer')
  rows = np.asarray(result.state.rows[:int(result.state.count)])
  x, sparsity = read(released, factors, rows, config.refinements)
  order = np.argsort(sparsity, kind='stable')
  nan = np.full((len(x), released.num_outputs), np.nan)
  return Reconstruction(
      x[order], nan, float('nan'), np.asarray(result.infos.loss), result.status,
      {'sparsity': sparsity[order], 'rank': len(factors.size),
       'noise': factors.noise, 'rounds': result.steps_done})


def _surest(noise):
  """Sparsity below which a row is taken at once, given the rounding noise."""
  return 0.01 + 0.7 * noise


def _to_device(released, factors) -> Data:
  """In float32: the search only has to find the right basin."""
  put = functools.partial(jnp.asarray, dtype=jnp.float32)
  # Half the length of a random image, as far as the pixel range tells.
  extent = np.broadcast_to(released.high - released.low, released.input_shape)
  middle = factors.basis[-1] if factors.biased else np.zeros_like(factors.size)
  return Data(put(factors.size), put(factors.codes), put(factors.maps),
              put(middle), put(0.25 * np.linalg.norm(extent)),
              put(factors.noise))


def read(
    released: Released, factors: Span, rows: Float[np.ndarray, 'M N'],
    refinements: int
) -> tuple[Float[np.ndarray, 'M ...'], Float[np.ndarray, 'M']]:
  """(inputs, sparsity of their rows) of accepted rows, on the host in float64.

  An input's z is orthogonal to all other rows over s. With all N rows known
  that leaves one direction; with fewer, the classifier of its own row's
  support decides within what is left.
  """
  rows = np.asarray(rows, np.float64)
  if not len(rows):
    return (np.zeros((0, *released.input_shape)), np.zeros(0))
  width = factors.codes.shape[1]
  sparsity = _host_sparsity(rows, factors)
  places = _places(rows, sparsity, factors)
  for share in np.linspace(0.2, 0.33, refinements):
    units = max(int(share * width), int(1.25 * len(factors.size)))
    again = np.stack([_row(z, factors, min(units, width)) for z in places])
    sparsity_again = _host_sparsity(again, factors)
    # An exact mask reads an exact row; a wrong one would spoil a good row.
    better = sparsity_again < np.maximum(sparsity, _surest(factors.noise))
    rows = np.where(better[:, None], again, rows)
    sparsity = np.where(better, sparsity_again, sparsity)
    first = _first_of_copies(rows, sparsity)
    rows, sparsity = rows[first], sparsity[first]
    places = _places(rows, sparsity, factors)
  x = places @ factors.basis.T
  x = x[:, :released.size].reshape(-1, *released.input_shape)
  if not factors.biased:
    x = scale.fill_range(released, x)
  return np.clip(x, released.low[None], released.high[None]), sparsity


def _first_of_copies(rows, sparsity):
  """Places of the rows without those that repeat a sparser one."""
  kept = []
  for i in np.argsort(sparsity, kind='stable'):
    if all(abs(rows[i] @ rows[j]) < _SAME for j in kept):
      kept.append(i)
  return np.array(sorted(kept))


def _host_sparsity(rows, factors):
  low, high = np.quantile(
      np.abs(rows @ factors.codes), [_SPARSE, 0.75], axis=1)
  return low / high


def _places(rows, sparsity, factors) -> Float[np.ndarray, 'M N']:
  """z of every row, scaled so that its input's last entry is 1.

  Only sure rows restrict the others: a wrong one would spoil all of them.
  """
  scaled = rows / factors.size
  scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
  sure = np.flatnonzero(sparsity < 2 * _surest(factors.noise))
  mean = factors.maps.mean(axis=0)
  # Dual basis within the sure rows' span, and the space that none of them sees.
  dual = np.linalg.pinv(scaled[sure])
  hidden = np.linalg.svd(scaled[sure])[2][len(sure):].T if len(sure) else (
      np.eye(len(factors.size)))
  places = []
  for i, row in enumerate(rows):
    around = hidden
    if i in sure:
      own = dual[:, np.searchsorted(sure, i)]
      around = np.column_stack([own / np.linalg.norm(own), hidden])
    if not around.size:  # All rows are sure but this one, a surplus.
      around = np.eye(len(factors.size))
    magnitude = np.abs(row @ factors.codes)
    label = np.where(magnitude > 0.7 * np.median(magnitude), 1.0, -1.0)
    design = (around.T @ mean).T
    z = around @ np.linalg.lstsq(design, label, rcond=None)[0]
    if factors.biased:
      z = z / (factors.basis[-1] @ z)
    places.append(z)
  return np.stack(places)


def _row(z, factors, num_units):
  """The t of least energy on the units that are most clearly inactive at z."""
  level = np.einsum('n,anw->aw', z, factors.maps).max(axis=0)
  inactive = factors.codes[:, np.argpartition(level, num_units - 1)[:num_units]]
  return np.linalg.eigh(inactive @ inactive.T)[1][:, 0]
