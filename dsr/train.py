r"""Trains finite networks, several random starts side by side.

  L(theta) = 1/(2N) sum_n |y_n - f(x_n; theta)|^2      ('mse')
  L(theta) = -1/N sum_n y_n . log softmax f(x_n; theta) ('cross_entropy')

On paper -> code: theta_0 -> `init_networks(key, ...)`, theta_T ->
`Trained.params`. Axes: R networks (seeds); N, B, C as in `dsr.types`; P the
parameters of one network, a pytree. A step is one update by the optimizer.
"""
from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import numpy as np
import optax

from dsr import checks, loop
from dsr.data import labels as labels_lib
from dsr.types import Examples, Solver, Status

LOSSES = ('mse', 'cross_entropy')
OPTIMIZERS = ('sgd', 'adam')
SCHEDULES = ('constant', 'cosine', 'step')
_STEPS_PER_DISPATCH = 100
_NO_OPTIMIZER = optax.identity()  # One object, so that caches find it.


class State(NamedTuple):
  """One network in training; stacked over R in `fit_networks`."""

  params: PyTree
  opt_state: optax.OptState
  key: Key[Array, '']
  step: Int[Array, '']
  order: Int[Array, 'N'] | None  # This epoch's; None if all are one batch.


class Info(NamedTuple):
  """What one step saw before its update."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


class Trained(NamedTuple):
  """Networks after training.

  Attributes:
    module: the architecture.
    params: pytree, each leaf (R, ...).
    curve: (steps, R) loss of the batch before each step, on the host.
  """

  module: nn.Module
  params: PyTree
  curve: np.ndarray


class Protocol(NamedTuple):
  """How a distilled set is turned into networks: plain, hashable values.

  The defaults, `FREPO`, are those of arXiv:2206.00719 and fit learned,
  real-valued labels. `CONDENSATION` is the DC / DSA / DM / MTT family's.

  Attributes:
    epochs: passes over the set; steps, if it fits one batch.
    batch_size: B; sets of at most B examples are trained in full batches.
    optimizer: 'sgd' or 'adam'.
    learning_rate: at the start.
    schedule: 'constant', 'cosine' (to 0) or 'step' (a tenth from half-time on).
    momentum: of 'sgd'; Adam has its usual 0.9 and 0.999.
    weight_decay: added to the gradient in 'sgd', decoupled in 'adam'.
    loss: 'mse' on the encoded targets, or 'cross_entropy' on probabilities.
  """

  epochs: int = 1000
  batch_size: int = 256
  optimizer: str = 'adam'
  learning_rate: float = 3e-4
  schedule: str = 'constant'
  momentum: float = 0.9
  weight_decay: float = 0.0
  loss: str = 'mse'


FREPO = Protocol()
CONDENSATION = Protocol(
    epochs=300, optimizer='sgd', learning_rate=0.01, schedule='step',
    weight_decay=5e-4, loss='cross_entropy')


class Evaluation(NamedTuple):
  """Test accuracy of R networks trained on one set.

  Attributes:
    accuracy: (R,) in [0, 1].
    mean: over the R networks.
    deviation: standard deviation over networks (R - 1 below); NaN for R = 1.
    trained: the networks.
  """

  accuracy: np.ndarray
  mean: float
  deviation: float
  trained: Trained


@functools.lru_cache(maxsize=64)  # Equal protocols give one compiled program.
def make_optimizer(
    protocol: Protocol, *, num_steps: int) -> optax.GradientTransformation:
  """The optax optimizer of `protocol` for a run of `num_steps` updates.

  Raises:
    ValueError: a field out of its range.
  """
  checks.one_of('optimizer', protocol.optimizer, OPTIMIZERS)
  checks.one_of('schedule', protocol.schedule, SCHEDULES)
  checks.positive('learning_rate', protocol.learning_rate)
  checks.within('momentum', protocol.momentum, 0, 1)
  checks.non_negative('weight_decay', protocol.weight_decay)
  rate = {
      'constant': lambda r: r,
      'cosine': lambda r: optax.cosine_decay_schedule(r, num_steps),
      'step': lambda r: optax.piecewise_constant_schedule(
          r, {max(1, num_steps // 2): 0.1}),
  }[protocol.schedule](protocol.learning_rate)
  if protocol.optimizer == 'adam':
    return optax.adamw(rate, weight_decay=protocol.weight_decay)
  return optax.chain(optax.add_decayed_weights(protocol.weight_decay),
                     optax.sgd(rate, momentum=protocol.momentum))


def init_networks(
    key: Key[Array, ''], module: nn.Module, x: Float[Any, 'N ...'], *,
    num_networks: int) -> PyTree:
  """theta_0 of R networks, stacked: what `fit_networks` starts from.

  Args:
    key: network r is that of the r-th key of `jax.random.split(key, R)`,
      alone or among others.
    module: a Flax module without state besides its parameters.
    x: examples; their shape and dtype count, not their values.
    num_networks: R.
  """
  checks.inputs('x', x)
  checks.at_least('num_networks', num_networks, 1)
  solver = gradient_descent(module, _NO_OPTIMIZER)
  sample = Examples(jnp.asarray(x[:1]), None)
  return _init_all(solver.init, jax.random.split(key, num_networks),
                   sample).params


@functools.partial(jax.jit, static_argnames='init')
def _init_all(init, keys, data):
  return jax.vmap(init, in_axes=(0, None))(keys, data)


@functools.lru_cache(maxsize=64)  # One step function, hence one compilation.
def gradient_descent(
    module: nn.Module, optimizer: optax.GradientTransformation, *,
    batch_size: int | None = None, loss: str = 'mse',
    augment: Callable | None = None) -> Solver:
  """Training of one network as init/step, for `dsr.loop` or any scan.

  Args:
    module: a Flax module without state besides its parameters.
    optimizer: any optax transformation (DP-SGD's needs gradients per example,
      which this step does not compute).
    batch_size: B. Every epoch visits a new random order in ceil(N / B) batches
      of B; the last one is filled up from the start of the order. None, or at
      least N, trains on everything at each step, in the given order.
    loss: one of `LOSSES`.
    augment: (key, x (B, ...)) -> x (B, ...), hashable; drawn anew each step.

  Returns:
    init: (key, data: Examples) -> State.
    step: (State, data) -> (State, Info).
  """
  checks.one_of('loss', loss, LOSSES)
  if batch_size is not None:
    checks.at_least('batch_size', batch_size, 1)

  def init(key, data):
    key_params, key = jax.random.split(key)
    params = module.init(key_params, data.x[:1])['params']
    num = data.x.shape[0]
    full = batch_size is None or batch_size >= num
    return State(params, optimizer.init(params), key, jnp.zeros((), jnp.int32),
                 None if full else jnp.arange(num, dtype=jnp.int32))

  def loss_fn(params, batch):
    out = module.apply({'params': params}, batch.x)
    if loss == 'mse':
      return 0.5 * jnp.mean(jnp.sum((out - batch.y)**2, axis=-1))
    return jnp.mean(optax.softmax_cross_entropy(out, batch.y))

  def next_batch(state, data):
    if state.order is None:
      return data, None
    num = state.order.size
    place = state.step % math.ceil(num / batch_size)
    epoch_key = jax.random.fold_in(state.key, state.step)
    order = jax.lax.cond(
        place == 0, lambda: jax.random.permutation(epoch_key, state.order),
        lambda: state.order)
    rows = order[(place * batch_size + jnp.arange(batch_size)) % num]
    return jax.tree.map(lambda a: a[rows], data), order

  def step(state, data):
    batch, order = next_batch(state, data)
    if augment is not None:
      key = jax.random.fold_in(jax.random.split(state.key)[0], state.step)
      batch = batch._replace(x=augment(key, batch.x))
    value, grads = jax.value_and_grad(loss_fn)(state.params, batch)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = State(params, opt_state, state.key, state.step + 1, order)
    return state, Info(value, jnp.isfinite(value))

  return Solver(init, step)


@functools.lru_cache(maxsize=64)
def _advance_all(
    step: Callable, parallel: int | None, num_steps: int) -> Callable:
  """`num_steps` steps of R stacked states, `parallel` of them in one vmap.

  The scan is inside the map: a network stays in place for all its steps
  instead of being copied out of the stack and back at each one.
  """
  def advance_all(states, data):
    one = lambda state: loop.run_chunk(step, state, data, num_steps=num_steps)
    return jax.lax.map(one, states, batch_size=parallel)
  return advance_all


def fit_networks(
    key: Key[Array, ''], module: nn.Module, data: Examples, *,
    optimizer: optax.GradientTransformation, num_steps: int,
    num_networks: int = 5, batch_size: int | None = None, loss: str = 'mse',
    augment: Callable | None = None, parallel: int | None = None) -> Trained:
  """Trains R networks from R random starts on the same examples.

  Args:
    key: see `init_networks`; it also draws batches and augmentations.
    module: a Flax module without state besides its parameters.
    data: x (N, ...) after `data.transforms`, y (N, C) encoded or soft labels.
    optimizer: any optax transformation; the same object again, with the same
      shapes, compiles nothing anew.
    num_steps: updates of each network.
    num_networks: R.
    batch_size: see `gradient_descent`.
    loss: one of `LOSSES`.
    augment: see `gradient_descent`.
    parallel: networks in one vmap; the others wait their turn. None is 1 on
      CPUs, where one network fills the cores and a batched matrix product is
      slower than its parts, and R elsewhere. Results differ by rounding only.

  Raises:
    ValueError: shapes that do not fit, values that are not finite, or targets
      that are no probabilities under 'cross_entropy'.
    FloatingPointError: a loss became infinite or NaN.
    KeyboardInterrupt: Ctrl-C; half-trained networks are not handed out.
  """
  checks.at_least('num_networks', num_networks, 1)
  checks.at_least('num_steps', num_steps, 1)
  if parallel is None:
    parallel = 1 if jax.default_backend() == 'cpu' else num_networks
  checks.at_least('parallel', parallel, 1)
  data = _checked(module, data, loss)
  solver = gradient_descent(module, optimizer, batch_size=batch_size, loss=loss,
                            augment=augment)
  states = _init_all(solver.init, jax.random.split(key, num_networks), data)
  inner = math.gcd(num_steps, _STEPS_PER_DISPATCH)
  advance = _advance_all(
      solver.step, None if parallel == 1 else parallel, inner)
  result = loop.run(advance, states, data, num_steps=num_steps // inner,
                    chunk=_STEPS_PER_DISPATCH // inner, progress=False)
  if result.status == Status.NOT_FINITE:
    raise FloatingPointError(
        f'The {loss} loss of {type(module).__name__} is not finite after '
        f'{inner * result.steps_done} steps or a few more: lower the learning '
        'rate (SGD on wide networks in the standard parameterisation needs '
        "about 1 / width; 'adam' does not), or rescale inputs and targets.")
  if result.status == Status.INTERRUPTED:
    raise KeyboardInterrupt
  curve = np.swapaxes(result.infos.loss, 1, 2).reshape(num_steps, num_networks)
  return Trained(module, result.state.params, curve)


def _checked(module, data, loss) -> Examples:
  """`data` as device arrays, once its shapes and values are seen to be fine."""
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  checks.finite('data.x', data.x)
  checks.finite('data.y', data.y)
  checks.one_of('loss', loss, LOSSES)
  y = np.asarray(data.y)
  if loss == 'cross_entropy' and (
      y.shape[1] < 2 or y.min() < 0 or np.abs(y.sum(axis=1) - 1).max() > 1e-3):
    raise ValueError(
        "`data.y` must hold probabilities (N, C) under loss 'cross_entropy', "
        f'got values from {y.min():.3g} to {y.max():.3g} in {y.shape[1]} '
        "columns; encode labels as 'one_hot', or use loss 'mse'.")
  out = jax.eval_shape(
      lambda k, x: module.init_with_output(k, x)[0], jax.random.key(0), data.x)
  if out.shape != data.y.shape:
    raise ValueError(
        f'`module` has outputs of shape {out.shape}, expected '
        f'{tuple(data.y.shape)} as in `data.y`.')
  return Examples(jnp.asarray(data.x), jnp.asarray(data.y, data.x.dtype))


def predict(
    trained: Trained, x: Float[Any, 'N ...'], *, tile: int = 256
) -> Float[np.ndarray, 'R N C']:
  """Outputs of every network, on the host.

  Args:
    trained: of `fit_networks`.
    x: (N, ...) inputs like those of training, on the host or the device.
    tile: rows that pass through one network at a time; bounds the memory.
  """
  checks.inputs('x', x)
  checks.at_least('tile', tile, 1)
  num = x.shape[0]
  tile = min(tile, num)
  starts = [*range(0, num - tile, tile), num - tile]  # Equal shapes: compiled
  tiles = [np.asarray(_apply(trained.module, trained.params,  # once.
                             jnp.asarray(x[s:s + tile]))) for s in starts]
  fresh = [0, *(s + tile for s in starts[:-1])]  # First row not yet seen.
  return np.concatenate(
      [t[:, f - s:] for t, s, f in zip(tiles, starts, fresh)], axis=1)


@functools.partial(jax.jit, static_argnames='module')
def _apply(module, params, x):
  return jax.lax.map(lambda p: module.apply({'params': p}, x), params)


def accuracy(
    trained: Trained, x: Float[Any, 'N ...'], labels: Int[Any, 'N'], *,
    tile: int = 256) -> Float[np.ndarray, 'R']:
  """Share of examples whose decoded output is their integer label, in [0, 1].

  Outputs are decoded by `data.labels`: the sign if C = 1, else the argmax.
  """
  outputs = predict(trained, x, tile=tile)
  checks.labels('labels', labels, max(2, outputs.shape[-1]))
  checks.same_rows(x=x, labels=labels)
  decoded = jax.vmap(labels_lib.decode)(jnp.asarray(outputs))
  return np.mean(np.equal(decoded, np.asarray(labels)[None]), axis=1)


def evaluate(
    key: Key[Array, ''], module: nn.Module, data: Examples,
    x: Float[Any, 'N ...'], labels: Int[Any, 'N'], *,
    protocol: Protocol = FREPO, num_networks: int = 5,
    augment: Callable | None = None) -> Evaluation:
  """Trains R networks on `data` by `protocol`; scores them on (x, labels).

  Args:
    key: of all that is random.
    module: e.g. `nets.build('convnet3', num_outputs)`.
    data: the distilled set, after `data.transforms`.
    x: test inputs, transformed alike.
    labels: (N,) integers, the true classes of `x`.
    protocol: see `Protocol`; change single values by `_replace`.
    num_networks: R.
    augment: see `gradient_descent`.

  Raises:
    ValueError, FloatingPointError: see `fit_networks`.
  """
  checks.inputs('x', x, like=data.x)
  checks.at_least('epochs', protocol.epochs, 1)
  checks.at_least('batch_size', protocol.batch_size, 1)
  num_steps = protocol.epochs * math.ceil(len(data.x) / protocol.batch_size)
  trained = fit_networks(
      key, module, data,
      optimizer=make_optimizer(protocol, num_steps=num_steps),
      num_steps=num_steps, num_networks=num_networks,
      batch_size=protocol.batch_size, loss=protocol.loss, augment=augment)
  score = accuracy(trained, x, labels)
  deviation = float(np.std(score, ddof=1)) if num_networks > 1 else math.nan
  return Evaluation(score, float(np.mean(score)), deviation, trained)
