r"""Convolution that is fast where networks of several starts are trained.

  out[n, p, q, o] = \sum_{i, j, c} x[n, p + i - a, q + j - b, c] k[i, j, c, o],

stride 1, zeros outside (Flax calls this `Conv`, mathematics cross-correlation).

On accelerators this is `lax.conv`. On CPUs XLA turns a `vmap` of that over
kernels into a grouped convolution which is tens of times slower, so there it is
written as patches times a matrix, which is as fast as the matrix product as
long as the patches stay in the cache: batches go through in small blocks, and
the backward pass makes the patches of a block again instead of keeping them.

Axes: N examples; H, W height and width; I, O channels in and out.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import numerics

_CACHE = 4_000_000  # Bytes of patches in a block; measured on 1 MiB of L2.
_SMALL = 64  # Entries of a patch, below which a product is no work.


def conv2d(
    x: Float[Array, 'N H W I'], kernel: Float[Array, 'a b I O'], *,
    padding: int | None = None) -> Float[Array, 'N h w O']:
  """Cross-correlation of `x` with `kernel`, stride 1.

  Args:
    x: images.
    kernel: of any size.
    padding: rows and columns of zeros on each side; h = H + 2 padding - a + 1.
      None keeps the size for an odd kernel, as 'SAME' does.

  Returns:
    The images of O channels, in the dtype of `x`.
  """
  rows, columns, _, _ = kernel.shape
  pad = ((rows - 1) // 2, (columns - 1) // 2)
  if padding is not None:
    pad = (padding, padding)
  if not numerics.on_cpu():
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(p, p) for p in pad], precision='highest',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  x = jnp.pad(x, ((0, 0), (pad[0],) * 2, (pad[1],) * 2, (0, 0)))
  shape = x.shape[1] - rows + 1, x.shape[2] - columns + 1
  size = rows * columns * x.shape[3]
  flat = kernel.reshape(size, -1)

  def block(part):
    """All images of `part`, whose patches fit into the cache."""
    patches = jnp.concatenate(
        [part[:, i:i + shape[0], j:j + shape[1]] for i in range(rows)
         for j in range(columns)], axis=-1)
    out = numerics.matmul(patches.reshape(-1, size), flat)
    return out.reshape(-1, *shape, flat.shape[1])

  num = x.shape[0]
  most = max(1, _CACHE // (shape[0] * shape[1] * size * x.dtype.itemsize))
  count = num // most
  if count < 2 or size < _SMALL:
    return block(x)
  whole = x[:count * most].reshape(count, most, *x.shape[1:])
  out = jax.lax.map(jax.checkpoint(block), whole)
  out = out.reshape(count * most, *out.shape[2:])
  if count * most == num:
    return out
  return jnp.concatenate([out, block(x[count * most:])])
