r"""First-order Taylor models of networks in their parameters.

  f_lin(x; \theta) = f(x; \theta_0) + \partial_\theta f(x; \theta_0)
                     (\theta - \theta_0)                    (arXiv:1902.06720)

Trained on the mean squared error, such a model follows the network's NTK at
\theta_0 exactly, at any width. Axes: N examples, C outputs.
"""
import dataclasses

from flax import linen as nn
import jax
from jaxtyping import Array, Float, PyTree


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
