r"""The NTK of a finite MLP, on average over its initialisation.

`kernel_fn` is it for an attacker, who differentiates it; `expected_ntk` is a
matrix, in the standard parameterisation as well.

For ReLU layers of n_l units, weights of deviation w / sqrt(n_{l-1}) and biases
of deviation b, with s_0 = x x' / D:

  q_l = w^2 s_{l-1} + b^2;  s_l = E[relu(u) relu(u')],  (u, u') ~ N(0, q_l)
  t_l = g_l + w^2 t_{l-1} E[relu'(u) relu'(u')]

with g_l = q_l in the NTK parameterisation, where this is `kernels.fcn`, and
g_l = n_{l-1} s_{l-1} + 1 in the standard one, whose layers count by their
width. Exact to leading order in the widths. Ref: arXiv:1806.07572.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, kernels, nets, numerics
from dsr.kernels import arccos
from dsr.studies.reconstruction import victims
from dsr.types import KernelFn


def expected_ntk(
    module: nets.MLP, x: Float[Array, 'N ...']) -> Float[np.ndarray, 'N N']:
  """t of the readout, for inputs `x`.

  Raises:
    ValueError: another activation than the ReLU.
  """
  if module.activation is not jax.nn.relu:
    raise ValueError('`module` must have the activation relu, got '
                     f'{module.activation}.')
  x = x.reshape(len(x), -1)
  ntk = module.parameterisation == 'ntk'
  weight = module.w_std**2
  bias = module.b_std**2 if module.use_bias else 0.0
  s = numerics.matmul(x, x.T) / x.shape[1]
  t = jnp.zeros_like(s)
  slope = t  # Nothing before the first layer.
  for fan_in in (x.shape[1], *module.widths):
    q = weight * s + bias
    direct = q if ntk else fan_in * s + float(module.use_bias)
    t = direct + weight * t * slope
    s, slope = _relu(q)
  return np.asarray(t)


def kernel_fn(config: victims.VictimConfig) -> KernelFn:
  """The kernel of the infinitely wide twin of `config`'s network.

  Raises:
    ValueError: no MLP in the NTK parameterisation, which alone has one, no
      hidden layer, or a first layer that was scaled.
  """
  for name, needed in (('architecture', 'mlp'), ('parameterisation', 'ntk'),
                       ('first_scale', 1.0)):
    if (value := getattr(config, name)) != needed:
      raise ValueError(f'`{name}` must be {needed!r} for an attack on values, '
                       'which needs the kernel of the infinitely wide '
                       f'network; got {value!r}.')
  depth = 2 if config.depth is None else config.depth
  checks.at_least('depth', depth, 1)
  return kernels.fcn(depth, W_std=config.w_std,
                     b_std=config.b_std if config.use_bias else 0.0)


def _relu(q):
  """E[relu relu] and E[relu' relu'] for Gaussians of covariance `q`."""
  length = jnp.sqrt(jnp.diag(q))
  scale = length[:, None] * length[None, :]
  gap = (1 - numerics.safe_divide(q, scale)) / 2
  gap = gap * (1 - jnp.eye(len(q), dtype=q.dtype))  # Exact on the diagonal.
  cosine = 1 - 2 * gap
  curve = jnp.maximum(cosine, 0) + arccos.bend(gap)
  return scale * curve / 2, arccos.kappa0(gap) / 2
