"""The predictor that every fit returns, and prediction in row tiles."""
from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, linalg, numerics
from dsr.types import KernelFn, PredictFn


# Not a NamedTuple: the kernel is a function, and as a leaf it could not leave
# `jit`. The fields carry no shapes, since `tree.map` may put anything there.
@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('support', 'dual', 'info'), meta_fields=('kernel_fn',))
@dataclasses.dataclass(frozen=True)
class Regressor:
  r"""f(x) = K(x, X) \alpha: a `PredictFn` and a pytree, the kernel static.

  Attributes:
    kernel_fn: the `KernelFn`.
    support: (N, ...) X, the inputs that were fitted.
    dual: (N, C) \alpha, in the dtype of the solve.
    info: `linalg.Info` of the solve. Inside of a trace it is the only sign of
      a failure; outside, a call raises.
  """

  kernel_fn: KernelFn
  support: Any
  dual: Any
  info: Any

  def __call__(self, x: Float[Array, 'M ...']) -> Float[Array, 'M C']:
    """Outputs (M, C) in the kernel's dtype; all M x N kernel entries at once.

    Raises:
      ValueError: `x` is not shaped as the support, or has another dtype.
      FloatingPointError: outside of a trace, the direct solve failed. (Where
        it left directions out, that is a warning.)
    """
    checks.inputs('x', x, like=self.support)
    linalg.report(self.info)
    k = self.kernel_fn(x, self.support)
    return numerics.matmul(k, self.dual.astype(k.dtype))


def predict_in_tiles(
    predict_fn: PredictFn, x: Float[Array | np.ndarray, 'M ...'], *,
    tile: int = 512) -> Float[np.ndarray, 'M C']:
  """`predict_fn(x)` on the host, `tile` rows at a time.

  The peak is that of `tile` x N kernel entries, for any number of rows.

  Args:
    predict_fn: (M, ...) -> (M, C), a pytree such as `Regressor` or a function.
    x: (M, ...) inputs; may live on the host.
    tile: rows per call; one compilation, since the last tile overlaps.

  Raises:
    ValueError: `tile` is not a positive integer.
    FloatingPointError: a `Regressor` whose direct solve failed.
  """
  checks.at_least('tile', tile, 1)
  if isinstance(predict_fn, Regressor):
    linalg.report(predict_fn.info)
  else:
    predict_fn = jax.tree_util.Partial(predict_fn)
  rows, tile = x.shape[0], min(tile, x.shape[0])
  starts = [*range(0, rows - tile, tile), rows - tile]
  tiles = [np.asarray(_call(predict_fn, x[i:i + tile])) for i in starts]
  overlap = tile * len(starts) - rows
  return np.concatenate([*tiles[:-1], tiles[-1][overlap:]])


@jax.jit
def _call(predict_fn, x):
  return predict_fn(x)


def map_row_tiles(
    fn: Callable, x: Float[Array, 'N ...'], out: Float[Array, 'N C'], *,
    tile: int) -> Float[Array, 'N C']:
  """Fills `out` from fn(start, x[start:start + tile]) -> (tile, C); traced.

  The last tile overlaps the one before it, so that all have one shape.
  """
  rows, tile = x.shape[0], min(tile, x.shape[0])

  def body(i, out):
    start = jnp.minimum(i * tile, rows - tile)
    block = fn(start, lax.dynamic_slice_in_dim(x, start, tile))
    return lax.dynamic_update_slice_in_dim(out, block, start, 0)

  return lax.fori_loop(0, -(-rows // tile), body, out)
