r"""Taylor models of networks in their parameters.

  f_lin(x; \theta) = f(x; \theta_0) + \partial_\theta f(x; \theta_0)
                     (\theta - \theta_0)                    (arXiv:1902.06720)

Trained on the mean squared error, such a model follows the network's NTK at
\theta_0 exactly, at any width. `linearize` is of a Flax module; `taylor_expand`
is of any function, to any order. Axes: N examples, C outputs.
"""
from collections.abc import Callable
import dataclasses
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dsr import checks


def linear_apply(
    module: nn.Module, theta_0: PyTree, theta: PyTree, x: Float[Array, 'N ...']
) -> Float[Array, 'N C']:
  """f_lin(x; theta), by one forward-mode pass: the cost of two of `module`.

  Args:
    module: a Flax module without state besides its parameters.
    theta_0: where it is expanded.
    theta: parameters of the same structure.
    x: inputs of `module`.
  """
  forward = lambda params: module.apply({'params': params}, x)
  step = jax.tree.map(lambda a, b: a - b, theta, theta_0)
  out, change = jax.jvp(forward, (theta_0,), (step,))
  return out + change


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Linearised:
  """A linearised network; `apply` is called like that of a Flax module.

  A pytree with theta_0 as its leaves, so it goes through `jit` as an argument.
  Equal and hashed by identity: as a static argument it has theta_0 compiled in,
  once for each object.

  Attributes:
    module: the network.
    theta_0: parameters where it is expanded.
  """

  module: nn.Module = dataclasses.field(metadata={'static': True})
  theta_0: PyTree

  def apply(
      self, variables: PyTree, x: Float[Array, 'N ...']) -> Float[Array, 'N C']:
    """f_lin(x; theta) at `variables` = {'params': theta}."""
    return linear_apply(self.module, self.theta_0, variables['params'], x)


def linearize(module: nn.Module, theta_0: PyTree) -> Linearised:
  """The first-order Taylor model of `module` around `theta_0`.

  Raises:
    ValueError: `theta_0` holds no parameters.
  """
  if not jax.tree.leaves(theta_0):
    raise ValueError('`theta_0` must hold parameters, got none.')
  return Linearised(module, theta_0)


def taylor_expand(
    apply_fn: Callable, theta_0: PyTree, *, order: int = 1) -> Callable:
  r"""The Taylor polynomial of a function in its parameters, around \theta_0.

  With d = \theta - \theta_0 it is the sum over k <= order of the derivatives
  D^k f(\theta_0)[d, ..., d] / k!, nested forward-mode ones along d: the cost of
  some 2^order passes.

  Args:
    apply_fn: (theta, *inputs) -> a pytree of arrays. Of a Linen module with
      collections: lambda theta, x: module.apply({**variables, 'params': theta},
      x).
    theta_0: a pytree of floating arrays.
    order: 0 or more.

  Returns:
    (theta, *inputs) -> what `apply_fn` returns, differentiable in both.

  Raises:
    ValueError: `order` below 0, or parameters that are not floating.
  """
  checks.at_least('order', order, 0)
  for path, leaf in jax.tree_util.tree_leaves_with_path(theta_0):
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
      raise ValueError(
          f'`theta_0{jax.tree_util.keystr(path)}` must be floating point, '
          f'got {jnp.result_type(leaf)}.')

  def expanded(theta, *inputs):
    step = jax.tree.map(lambda a, b: a - b, theta, theta_0)

    def derivatives(params, k):
      """[f, D f, ..., D^k f] along the step, at `params`."""
      if k == 0:
        return [apply_fn(params, *inputs)]
      lower = lambda p: derivatives(p, k - 1)
      values, changes = jax.jvp(lower, (params,), (step,))
      return [*values, changes[-1]]

    terms = derivatives(theta_0, order)
    return jax.tree.map(
        lambda *terms: sum(a / math.factorial(k) for k, a in enumerate(terms)),
        *terms)

  return expanded
