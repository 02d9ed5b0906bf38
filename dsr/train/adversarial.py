r"""Adversarial training: descent on the loss at the worst point of a ball.

With weights w_n >= 0 that sum to 1 and l_n = -y_n . log softmax f(.; theta),

  standard  L = \sum_n w_n l_n(x_n);
  pgd       L = \sum_n w_n max_{x' in B(x_n)} l_n(x')         arXiv:1706.06083;
  trades    L = \sum_n w_n (l_n(x_n) + beta max_{x' in B(x_n)}
                KL(softmax f(x_n) || softmax f(x')))          arXiv:1901.08573.

The maximum is what an attack finds; the gradient is that of the loss there and
does not flow through the search. Weights are those of a coreset: with w_s the
share of the data that s stands for, 'pgd' at radius epsilon + eta minimises the
right side of the bound in `dsr.distill.cover` (arXiv:2402.05675).

The attack is an argument, since this room knows none. For 'pgd' it sees the
network and the labels, the likeliest ones where y is soft. For 'trades' it sees
a classifier of two classes, with logits (-v/2, v/2) and label 0, where v is the
divergence: the margin is v and the cross-entropy softplus(v), so an attack on
either climbs v. At x' = x that has no gradient: a random start is needed.

Axes: R networks; N, B, C as in `dsr.types`.
"""
from collections.abc import Callable
import functools
import os
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key
import numpy as np
import optax

from dsr import checks
from dsr.nets import BATCH_STATS
from dsr.train import descent
from dsr.train.batches import checked_examples
from dsr.train.networks import Trained, train_all
from dsr.types import Examples, Solver

METHODS = ('standard', 'pgd', 'trades')
_DISPATCH = 20  # Updates at a time: each contains a whole attack.
_SAVE_EVERY = 200  # Updates between two checkpoints.


class Weighted(NamedTuple):
  """Examples, and how much each counts."""

  x: Float[Array, 'N ...']  # Pixels, or what else `inputs` reads.
  y: Float[Array, 'N C']  # Probabilities.
  weights: Float[Array, 'N']  # Not negative; they sum to 1.


def identity(x: Float[Array, 'N ...']) -> Float[Array, 'N ...']:
  """x -> x."""
  return x


class Reads(nn.Module):
  """`network` behind a fixed map of its inputs, with the same parameters.

  Attributes:
    network: any module.
    inputs: pixels -> what `network` reads; hashable.
  """

  network: nn.Module
  inputs: Callable

  def setup(self):
    nn.share_scope(self, self.network)

  def __call__(self, x: Float[Array, 'N ...']) -> Float[Array, 'N C']:
    return self.network(self.inputs(x))


@functools.lru_cache(maxsize=64)  # One step function, hence one compilation.
def adversarial_descent(
    module: nn.Module, optimizer: optax.GradientTransformation, *,
    method: str = 'pgd', attack: Callable | None = None,
    beta: int | float = 6.0, inputs: Callable = identity,
    batch_size: int | None = None, init_scale: int | float = 1.0) -> Solver:
  r"""Adversarial training of one network as init/step, for `dsr.loop`.

  A batch of B rows stands for N / B times their part of L. That is unbiased:
  in a random order each row is equally likely at each place.

  Args:
    module: a Flax module without state besides its parameters, which treats
      each example alone.
    optimizer: see `gradient_descent`.
    method: one of `METHODS`.
    attack: (key, predict_fn, x (B, ...), labels (B,)) -> x' (B, ...) in the
      ball around x; hashable. For 'trades' it must hand all rows to
      `predict_fn` at once, in their order: those of `dsr.probes` do so with a
      `batch_size` of B or more. None with 'standard' and only there.
    beta: weight of the divergence in 'trades'.
    inputs: from x to what `module` reads; hashable. The attack moves x, so x
      are pixels even where the module reads standardised ones.
    batch_size: see `gradient_descent`.
    init_scale: see `gradient_descent`.

  Returns:
    init: (key, data: Weighted) -> `descent.State`.
    step: (State, data) -> (State, `descent.Info`), whose loss estimates L.

  Raises:
    ValueError: an argument out of range, or a method without its attack.
  """
  checks.one_of('method', method, METHODS)
  if (attack is None) != (method == 'standard'):
    raise ValueError("`attack` must be None with method 'standard', and a "
                     f'function with others, got {attack!r} with {method!r}.')
  checks.non_negative('beta', beta)
  if batch_size is not None:
    checks.at_least('batch_size', batch_size, 1)
  checks.positive('init_scale', init_scale)
  reader = Reads(module, inputs)

  def init(key, data):
    return descent.initial(key, reader, optimizer, data.x,
                           batch_size=batch_size, init_scale=init_scale)

  def forward(params, x):
    return reader.apply({'params': params}, x)

  def diverging(params, clean, x):
    """Two logits whose margin is the divergence from `clean`, row by row."""
    if len(x) != len(clean):
      raise ValueError(
          "`attack` must hand all rows to `predict_fn` at once for 'trades', "
          f'got {len(x)} of {len(clean)}; attacks of dsr.probes do so with '
          f'`batch_size` {len(clean)} or more.')
    half = divergence(clean, forward(params, x)) / 2
    return jnp.stack([-half, half], axis=1)

  def losses(params, key, batch):
    """(B,) what each example adds to L, before its weight."""
    entropy = lambda out: optax.softmax_cross_entropy(out, batch.y)
    fixed = jax.lax.stop_gradient(params)
    if method == 'standard':
      return entropy(forward(params, batch.x))
    if method == 'pgd':
      x = attack(key, Partial(forward, fixed), batch.x,
                 jnp.argmax(batch.y, axis=1))
      return entropy(forward(params, jax.lax.stop_gradient(x)))
    clean = forward(params, batch.x)
    x = attack(
        key, Partial(diverging, fixed, jax.lax.stop_gradient(clean)), batch.x,
        jnp.zeros(len(batch.x), jnp.int32))
    worst = forward(params, jax.lax.stop_gradient(x))
    return entropy(clean) + beta * divergence(clean, worst)

  def step(state, data):
    batch, order = descent.next_batch(state, data, batch_size)
    key = jax.random.fold_in(jax.random.split(state.key)[1], state.step)
    scale = len(data.x) / len(batch.x)
    loss_fn = lambda params: scale * jnp.sum(
        batch.weights * losses(params, key, batch))
    return descent.descend(state, optimizer, loss_fn, order)

  return Solver(init, step)


def divergence(
    p: Float[Array, 'N C'], q: Float[Array, 'N C']) -> Float[Array, 'N']:
  r"""KL(softmax p || softmax q) = \sum_c P_c (log P_c - log Q_c), of logits."""
  log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)


def fit_adversarial(
    key: Key[Array, ''], module: nn.Module, data: Examples, *,
    optimizer: optax.GradientTransformation, num_steps: int,
    weights: Any = None, method: str = 'pgd', attack: Callable | None = None,
    beta: int | float = 6.0, inputs: Callable = identity,
    num_networks: int = 5, batch_size: int | None = None,
    init_scale: int | float = 1.0, parallel: int | None = None,
    workdir: str | os.PathLike | None = None, fingerprint: str = '',
    progress: bool = False) -> Trained:
  """Trains R networks from R random starts against an attack.

  Without attack and weights these are the networks of `fit_networks` with the
  same key and loss 'cross_entropy', up to rounding.

  Args:
    key: see `init_networks`; it also draws batches and attacks.
    module: see `adversarial_descent`.
    data: x (N, ...), the pixels that are attacked; y (N, C) probabilities.
    optimizer: any optax transformation; the same object again, with the same
      functions and shapes, compiles nothing anew.
    num_steps: updates of each network.
    weights: (N,) not negative, in any unit: they are divided by their sum. A
      zero leaves the example out. None weighs all alike.
    method: one of `METHODS`.
    attack: see `adversarial_descent`; for example
      `functools.partial(pgd.pgd, epsilon=0.1)`, kept to be used again.
    beta: see `adversarial_descent`.
    inputs: see `adversarial_descent`.
    num_networks: R.
    batch_size: see `gradient_descent`.
    init_scale: see `gradient_descent`.
    parallel: see `fit_networks`.
    workdir: where the run is saved, every 200 updates or so, and from where it
      goes on with the same bits; None: nowhere.
    fingerprint: names the run there: data, settings, key.
    progress: see `loop.run`.

  Returns:
    Networks that read `inputs(x)`; the curve is that of the attacked loss.

  Raises:
    ValueError: see `adversarial_descent`; shapes that do not fit, values that
      are not finite, targets that are no probabilities, weights that are
      negative or all zero, or a checkpoint of another run.
    FloatingPointError: a loss became infinite or NaN.
    KeyboardInterrupt: Ctrl-C; what is done is in `workdir`.
  """
  solver = adversarial_descent(
      module, optimizer, method=method, attack=attack, beta=beta,
      inputs=inputs, batch_size=batch_size, init_scale=init_scale)
  reader = Reads(module, inputs)
  x, y = checked_examples(reader, data, 'cross_entropy')
  _check_alone(reader, x)
  shares = jnp.asarray(_shares(weights, len(x)), x.dtype)
  params, curve = train_all(
      key, solver, Weighted(x, y, shares), num_steps=num_steps,
      num_networks=num_networks, parallel=parallel,
      name=f'{method} loss of {type(module).__name__}', dispatch=_DISPATCH,
      workdir=workdir, fingerprint=fingerprint, checkpoint_every=_SAVE_EVERY,
      progress=progress, description=f'{method} training')
  return Trained(module, params, curve)


def _shares(weights, num) -> Float[np.ndarray, 'N']:
  """`weights` over their sum, in float64."""
  if weights is None:
    return np.full(num, 1 / num)
  weights = np.asarray(weights)
  if weights.dtype.kind in 'iu':
    weights = weights.astype(np.float64)
  checks.numbers('weights', weights, rows=num)
  checks.finite('weights', weights)
  if weights.min() < 0 or weights.max() == 0:
    raise ValueError(
        '`weights` must not be negative, nor all zero, got values from '
        f'{weights.min():.3g} to {weights.max():.3g}.')
  weights = weights.astype(np.float64)
  return weights / weights.sum()


def _check_alone(reader, x) -> None:
  """Refuses batch normalisation: an attack moves each example by itself."""
  def moments(key, x):
    params = reader.init(key, x)['params']
    return reader.apply({'params': params}, x, mutable=[BATCH_STATS])[1]

  if jax.eval_shape(moments, jax.random.key(0), x[:1]):
    raise ValueError(
        '`module` must treat each example alone, got '
        f'{type(reader.network).__name__} with batch normalisation.')
