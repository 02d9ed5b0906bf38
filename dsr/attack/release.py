r"""What an attacker is given: `Released`, and nothing else.

Attack modules take a `Released` and never see a training image; only
`attack.match` compares with the truth, after the attack. Threat models:

  query       a function x -> f_T(x) - f_0(x) and its derivative in x; or x ->
              f_T(x), with 0 for f_0, its mean over starts (`outputs`);
  parameters  theta_0 and theta_T (arXiv:2302.01428);
  final       theta_T alone (arXiv:2206.07758).

In each the architecture, the shape and range of an input, and the number of
training images (or an upper bound of it) are public.

Inputs are images after the data's public transform: a pixel value p in [0, 1]
is p - mean, so `low` = -mean and `high` = 1 - mean.
"""
from collections.abc import Callable
import math
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree
import numpy as np

from dsr import checks

THREATS = ('query', 'parameters', 'final')


class Released(NamedTuple):
  """All that the attacker gets; make it with `query_only` or `parameters`.

  Attributes:
    num_train: N, the number of training images or an upper bound.
    input_shape: of one example, e.g. (28, 28, 1).
    num_outputs: C.
    low: least value of an input, an array that broadcasts to `input_shape`.
    high: greatest value of an input, likewise.
    query: x (M, ...) -> f_T(x) - f_0(x), (M, C), differentiable in x; None if
      not released.
    module: the architecture; None if not released.
    theta_0: parameters before training; None if not released.
    theta_T: parameters after training; None if not released.
    linearised: whether the network was trained as its first-order Taylor model
      around theta_0.
  """

  num_train: int
  input_shape: tuple[int, ...]
  num_outputs: int
  low: Float[np.ndarray, '...']
  high: Float[np.ndarray, '...']
  query: Callable | None = None
  module: nn.Module | None = None
  theta_0: PyTree | None = None
  theta_T: PyTree | None = None
  linearised: bool = False

  @property
  def size(self) -> int:
    """D, the numbers in one input."""
    return math.prod(self.input_shape)

  @property
  def threat(self) -> str:
    """The strongest of `THREATS` that this release allows."""
    if self.theta_T is None:
      return 'query'
    return 'final' if self.theta_0 is None else 'parameters'


def query_only(
    query: Callable, *, num_train: int, input_shape: tuple[int, ...],
    num_outputs: int, low: Float[np.ndarray, '...'] | float,
    high: Float[np.ndarray, '...'] | float, dtype: str = 'float32'
) -> Released:
  """A release of function values: see `Released` for the arguments.

  `query` is traced once with inputs of `dtype`, to see that it fits.

  A predictor that returns values without derivatives is made differentiable by
  `by_differences`.

  Raises:
    ValueError: an argument is out of range, or `query` gives no (M, C).
  """
  _check_public(num_train, input_shape, num_outputs, low, high)
  sample = jax.ShapeDtypeStruct((2, *input_shape), jnp.dtype(dtype))
  out = jax.eval_shape(query, sample)
  if out.shape != (2, num_outputs):
    raise ValueError(f'`query` must map (2, ...) to (2, {num_outputs}), got '
                     f'shape {out.shape}.')
  return Released(num_train, tuple(input_shape), num_outputs, *_range(
      low, high), query=query)


def parameters(
    module: nn.Module, theta_0: PyTree | None, theta_T: PyTree, *,
    num_train: int, input_shape: tuple[int, ...], num_outputs: int,
    low: Float[np.ndarray, '...'] | float,
    high: Float[np.ndarray, '...'] | float,
    linearised: bool = False) -> Released:
  """A release of parameters: see `Released` for the arguments.

  Args:
    module: the architecture; `module.apply({'params': theta}, x)`.
    theta_0: parameters before training; None if the attacker lacks them.
    theta_T: parameters after training.
    num_train: N or an upper bound.
    input_shape: of one example.
    num_outputs: C.
    low: least value of an input.
    high: greatest value of an input.
    linearised: how theta_T was trained; needs theta_0.

  Raises:
    ValueError: parameters that are not finite, do not fit each other or the
      module, or an argument out of range.
  """
  _check_public(num_train, input_shape, num_outputs, low, high)
  if linearised and theta_0 is None:
    raise ValueError('`theta_0` is needed with `linearised`, got None.')
  _check_parameters('theta_T', theta_T)
  if theta_0 is not None:
    _check_parameters('theta_0', theta_0)
    _check_alike(theta_0, theta_T)
  dtype = jax.tree.leaves(theta_T)[0].dtype
  sample = jax.ShapeDtypeStruct((2, *input_shape), dtype)
  try:
    out = jax.eval_shape(
        lambda p, x: module.apply({'params': p}, x), theta_T, sample)
  except Exception as error:  # Flax raises several types of its own.
    raise ValueError('`theta_T` must be parameters of `module` for inputs '
                     f'{tuple(input_shape)}: {error}') from error
  if out.shape != (2, num_outputs):
    raise ValueError(f'`module` must have {num_outputs} outputs, got shape '
                     f'{out.shape} for two inputs.')
  return Released(
      num_train, tuple(input_shape), num_outputs, *_range(low, high),
      module=module, theta_0=theta_0, theta_T=theta_T, linearised=linearised)


def with_noise(
    key: Key[Array, ''], released: Released, scale: float) -> Released:
  r"""theta_T + scale N(0, 1): a defence that the owner may try.

  Args:
    key: of the noise.
    released: with parameters.
    scale: standard deviation, in units of a parameter.

  Raises:
    ValueError: no parameters were released, or `scale` is negative.
  """
  checks.non_negative('scale', scale)
  if released.theta_T is None:
    raise ValueError('`released` must hold `theta_T` to add noise to it.')
  leaves, tree = jax.tree.flatten(released.theta_T)
  keys = jax.random.split(key, len(leaves))
  noisy = [a + scale * jax.random.normal(k, a.shape, a.dtype)
           for k, a in zip(keys, leaves)]
  return released._replace(theta_T=tree.unflatten(noisy))


def by_differences(query: Callable, *, step: float = 1e-4) -> Callable:
  """A differentiable version of `query` that asks it for values only.

  The slope along each of the D input axes is the central difference at
  +- `step`, so a derivative of M inputs costs 2 D M queries. Needs float64
  values to be worth much.

  Raises:
    ValueError: `step` is not positive.
  """
  checks.positive('step', step)

  @jax.custom_vjp
  def differentiable(x):
    return query(x)

  def forward(x):
    return query(x), x

  def backward(x, cotangent):
    flat = x.reshape(x.shape[0], -1)

    def slope(axis):
      shift = step * jax.nn.one_hot(axis, flat.shape[1], dtype=x.dtype)
      ends = [query((flat + s * shift[None]).reshape(x.shape))
              for s in (1, -1)]
      return jnp.sum((ends[0] - ends[1]) * cotangent, axis=1) / (2 * step)

    slopes = jax.lax.map(slope, jnp.arange(flat.shape[1]))
    return (slopes.T.reshape(x.shape),)

  differentiable.defvjp(forward, backward)
  return differentiable


def _check_public(num_train, input_shape, num_outputs, low, high):
  checks.at_least('num_train', num_train, 1)
  checks.at_least('num_outputs', num_outputs, 1)
  if not input_shape:
    raise ValueError('`input_shape` must have at least one axis, got ().')
  for length in input_shape:
    checks.at_least('input_shape', length, 1)
  low, high = _range(low, high)
  for name, end in (('low', low), ('high', high)):
    checks.finite(name, end)
    try:
      np.broadcast_to(end, input_shape)
    except ValueError as error:
      raise ValueError(f'`{name}` must broadcast to {tuple(input_shape)}, got '
                       f'shape {end.shape}.') from error
  if not np.all(low < high):
    raise ValueError(f'`low` must be below `high`, got {low} and {high}.')


def _range(low, high):
  return np.asarray(low, np.float64), np.asarray(high, np.float64)


def _check_parameters(name, theta):
  if not jax.tree.leaves(theta):
    raise ValueError(f'`{name}` must hold parameters, got none.')
  for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
    where = f'{name}{jax.tree_util.keystr(path)}'
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
      raise ValueError(
          f'`{where}` must be floating point, got {jnp.result_type(leaf)}.')
    checks.finite(where, leaf)


def _check_alike(theta_0, theta_T):
  structures = jax.tree.structure(theta_0), jax.tree.structure(theta_T)
  if structures[0] != structures[1]:
    raise ValueError(f'`theta_0` must have the structure of `theta_T`, got '
                     f'{structures[0]} and {structures[1]}.')
  pairs = zip(jax.tree_util.tree_leaves_with_path(theta_0),
              jax.tree.leaves(theta_T))
  for (path, a), b in pairs:
    if jnp.shape(a) != jnp.shape(b):
      raise ValueError(f'`theta_0{jax.tree_util.keystr(path)}` must have shape '
                       f'{jnp.shape(b)} as in `theta_T`, got {jnp.shape(a)}.')
