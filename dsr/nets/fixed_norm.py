r"""Batch normalisation in evaluation mode: moments that training leaves alone.

  norm(x) = (x - m) / sqrt(v + \epsilon) scale + bias

with the moments m and v of each channel as they were when a network was
trained elsewhere. Only scale and bias are parameters, as in PyTorch's `eval()`;
m and v are constants of the module, so that `module.apply({'params': p}, x)`
is all there is to calling the network, for training and attacks alike.

Axes: N examples; H, W height and width; C channels.
"""
from collections.abc import Mapping
import hashlib

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks


class Moments:
  """Means and variances by the name of their norm; hashable by content.

  A Linen module has to be hashable to be a static argument of `jax.jit`, which
  arrays are not: equal moments have the same digest, and that is compared.
  """

  def __init__(self, arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]):
    """Copies `arrays`: name -> (mean (C,), variance (C,)).

    Raises:
      ValueError: means and variances that are no finite vectors of one length,
        or a variance below zero.
    """
    digest = hashlib.sha256()
    self._arrays = {}
    for name, pair in sorted(arrays.items()):
      mean, var = (np.array(a) for a in pair)
      for part, array in (('mean', mean), ('variance', var)):
        checks.numbers(f'{part} of {name}', array, rows=len(mean))
        checks.finite(f'{part} of {name}', array)
        digest.update(f'{name} {array.dtype}'.encode() + array.tobytes())
      if var.min() < 0:
        raise ValueError(f'`variance of {name}` must not be negative, got '
                         f'{var.min():.4g}.')
      self._arrays[name] = mean, var
    self._digest = digest.hexdigest()

  def of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of the norm called `name`."""
    checks.one_of('name', name, self._arrays)
    return self._arrays[name]

  def __eq__(self, other) -> bool:
    return isinstance(other, Moments) and self._digest == other._digest

  def __hash__(self) -> int:
    return hash(self._digest)

  def __repr__(self) -> str:
    return f'Moments({self._digest[:12]})'


class FixedNorm(nn.Module):
  """The norm of the module's text; its parameters are as of `norms.Norm`.

  Attributes:
    moments: of all norms of the network.
    place: which of them are this norm's.
    epsilon: added to the variance.
  """

  moments: Moments
  place: str
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, 'N H W C']) -> Float[Array, 'N H W C']:
    """Raises ValueError if the moments are not of C channels."""
    mean, var = self.moments.of(self.place)
    checks.images('x', x, shape=(*x.shape[1:3], len(mean)))
    scale = self.param('scale', nn.initializers.ones, mean.shape, x.dtype)
    bias = self.param('bias', nn.initializers.zeros, mean.shape, x.dtype)
    # One product and one sum for each entry of x.
    scale = scale * jax.lax.rsqrt(jnp.asarray(var, x.dtype) + self.epsilon)
    bias = bias - jnp.asarray(mean, x.dtype) * scale
    return x * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)
