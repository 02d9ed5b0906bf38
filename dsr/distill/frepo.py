r"""FRePo (arXiv:2206.00719): kernel regression on features of trained networks.

  f(x) = k(x, X_s) (K_ss + \lambda tr(K_ss)/S I)^{-1} y_s,
  k(x, x') = <\phi(x), \phi(x')>,
  L = |y_t - f(X_t)|^2 / (2 B) - mean_s min(margin(y_s), 1/C).

\phi is what enters the readout of one network, drawn at each step from a pool
of P. The margin, of learned labels alone, is the largest entry of a row less
the second largest; for C = 1, where labels are +-1, it is |y_s|, which is the
same difference between two classes. A step

1. draws a network, and a class-balanced batch (X_t, y_t) of the training set,
2. moves images and labels by the gradient of L, the network held fixed,
3. trains that network by one step of Adam on the moved set, |y_s - net|^2 / 2;
   one that has had `most_steps` of them is replaced by a fresh one instead.

The ages at the start are 0, 1/P, 2/P, ... of `most_steps`, so that the networks
are not replaced all at once. With batch normalisation \phi takes its moments
from X_s, for X_t too, and they are held fixed like the network (the authors'
running averages are nine tenths the last batch, which is X_s).

With `flip` the regression sees each image and its mirror image, with one label.

Axes: S distilled, B training images; C outputs; F features; P networks.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
import optax

from dsr import checks, krr, nets, numerics
from dsr.distill import support as support_lib, targets
from dsr.distill.support import Support
from dsr.types import Examples, KernelFn, Solver

# Training images at a time on CPUs: what one layer makes of them stays in the
# cache. Accelerators take all at once.
_BLOCK = 8
_ONLINE_BATCH = 500  # Distilled images in a step of a network, as published.

_product = lambda a, b: numerics.matmul(a, b.T)
_LINEAR = KernelFn(
    cross=_product, symmetric=lambda a: _product(a, a),
    diag=lambda a: jnp.sum(a**2, axis=1), name='features')


class Pool(NamedTuple):
  """Networks in training, stacked along a first axis of P.

  Attributes:
    params: of the networks.
    opt_state: of their optimizer.
    age: steps that each has been trained for.
  """

  params: PyTree
  opt_state: optax.OptState
  age: Int[Array, 'P']


class State(NamedTuple):
  """What a step needs.

  Attributes:
    support: the distilled set.
    opt_state: of the optimizer, on the support without its mask.
    pool: the networks.
    key: of all that is still to be drawn.
  """

  support: Support
  opt_state: optax.OptState
  pool: Pool
  key: Key[Array, '']


class Info(NamedTuple):
  """Of one step: the loss on its batch, and whether all is finite."""

  loss: Float[Array, '']
  finite: Bool[Array, '']


def frepo(
    module: nn.Module, optimizer: optax.GradientTransformation, *,
    online: optax.GradientTransformation | None = None, num_networks: int = 10,
    most_steps: int = 100, ridge: float = 1e-6, batch_size: int = 1024,
    learn_labels: bool = True, flip: bool = False) -> Solver:
  r"""Builds the solver: `init(key, support, data)`, `step(state, Targets)`.

  The published recipe is `optax.lamb(3e-4)`, decayed by a cosine to a tenth in
  500,000 steps, and `nets.FRePoConvNet`.

  Args:
    module: a network of `dsr.nets`, of which `features=True` is used.
    optimizer: of images and labels together.
    online: of the networks; None: Adam at 3e-4, as published.
    num_networks: P.
    most_steps: of the training of a network, after which it is replaced.
    ridge: \lambda > 0, relative to tr(K_ss)/S.
    batch_size: B, training images a step; 0 takes all of them.
    learn_labels: whether y_s is learned too.
    flip: whether the regression sees mirror images too: not for digits.

  Raises:
    ValueError: an option is out of its range.
  """
  checks.at_least('num_networks', num_networks, 1)
  checks.at_least('most_steps', most_steps, 1)
  checks.at_least('batch_size', batch_size, 0)
  checks.positive('ridge', ridge)
  online = optax.adam(3e-4) if online is None else online

  def fresh(key, x) -> tuple[PyTree, optax.OptState]:
    params = module.init(key, x)['params']
    return params, online.init(params)

  def init(key: Key[Array, ''], start: Support, data: targets.Targets) -> State:
    start = support_lib.support(*start)
    checks.inputs('start.x', start.x, like=data.x)
    key, key_pool = jax.random.split(key)
    networks = jax.jit(jax.vmap(fresh, in_axes=(0, None)))(
        jax.random.split(key_pool, num_networks), start.x[:1])
    age = jnp.arange(num_networks, dtype=jnp.int32) * most_steps // num_networks
    opt_state = optimizer.init(start._replace(frozen=None))
    return State(start, opt_state, Pool(*networks, age), key)

  def loss_fn(learned: Support, variables, phi_t, y_t):
    x, y = learned.x, learned.y
    if flip:
      x, y = jnp.concatenate([x, x[:, :, ::-1]]), jnp.concatenate([y, y])
    phi_s = module.apply(variables, x, features=True)
    predict = krr.fit(_LINEAR, Examples(phi_s, y), ridge=ridge)
    total = 0.5 * jnp.mean(jnp.sum((y_t - predict(phi_t))**2, axis=-1))
    return total - jnp.mean(margins(learned.y)) if learn_labels else total

  def trained(key, params, opt_state, moved):
    """The network after one step on the distilled set."""
    x, y = moved.x, moved.y
    if len(x) > _ONLINE_BATCH:
      rows = jax.random.choice(key, len(x), (_ONLINE_BATCH,), replace=False)
      x, y = x[rows], y[rows]
    error = lambda p: 0.5 * jnp.mean(jnp.sum(
        (y - module.apply({'params': p}, x))**2, axis=-1))
    updates, opt_state = online.update(
        jax.grad(error)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  def step(state: State, data: targets.Targets) -> tuple[State, Info]:
    key, key_pick, key_batch, key_net = jax.random.split(state.key, 4)
    picked = jax.random.randint(
        key_pick, (), 0, num_networks, dtype=jnp.int32)
    params, opt_net, age = jax.tree.map(lambda a: a[picked], state.pool)
    batch = targets.batch(key_batch, data, batch_size)
    learned = state.support._replace(frozen=None)
    variables = _variables(module, params, learned.x)
    phi_t = _features(module, variables, batch.x)
    value, gradient = jax.value_and_grad(loss_fn)(
        learned, variables, phi_t, batch.y)
    gradient = support_lib.learned(state.support, gradient, learn_labels)
    updates, opt_state = optimizer.update(gradient, state.opt_state, learned)
    moved = optax.apply_updates(learned, updates)
    moved = support_lib.restore(state.support, moved, learn_labels)
    params, opt_net = jax.lax.cond(
        age >= most_steps, lambda: fresh(key_net, moved.x[:1]),
        lambda: trained(key_net, params, opt_net, moved))
    age = jnp.where(age >= most_steps, 0, age + 1)
    pool = jax.tree.map(lambda a, new: a.at[picked].set(new), state.pool,
                        Pool(params, opt_net, age))
    finite = support_lib.all_finite(value, moved.x, moved.y)
    return State(moved, opt_state, pool, key), Info(value, finite)

  return Solver(init, step)


def margins(y: Float[Array, 'S C']) -> Float[Array, 'S']:
  """min(margin, 1/C) of each label; 1/2 at most for C = 1 (two classes)."""
  if y.shape[1] == 1:
    return jnp.minimum(jnp.abs(y[:, 0]), 0.5)
  best, _ = jax.lax.top_k(y, 2)
  return jnp.minimum(best[:, 0] - best[:, 1], 1 / y.shape[1])


def _variables(module, params, x) -> dict[str, Any]:
  """Of the features: parameters, and the moments of `x` if a norm asks."""
  _, found = module.apply({'params': params}, x, features=True,
                          mutable=[nets.BATCH_STATS])
  return {'params': params} | jax.lax.stop_gradient(dict(found))


def _features(
    module: nn.Module, variables: dict[str, Any], x: Float[Array, 'B ...']
) -> Float[Array, 'B F']:
  """Features of training images, without a gradient; on CPUs in blocks."""
  phi: Callable = lambda part: module.apply(variables, part, features=True)
  if not numerics.on_cpu() or len(x) <= _BLOCK:
    return phi(x)
  short = -len(x) % _BLOCK
  padded = jnp.concatenate([x, x[:short]])
  out = jax.lax.map(phi, padded.reshape(-1, _BLOCK, *x.shape[1:]))
  return out.reshape(len(padded), -1)[:len(x)]
