r"""Convolution that is fast where networks of several starts are trained.

  out[n, p, q, o] = \sum_{i, j, c} x[n, p + i - a, q + j - b, c] k[i, j, c, o],

stride 1, zeros outside (Flax calls this `Conv`, mathematics cross-correlation).

On accelerators this is `lax.conv`. On CPUs XLA turns a `vmap` of that over
kernels into a grouped convolution which is tens of times slower, so there it is
written as patches times a matrix, which is as fast as the matrix product as
long as the patches stay in the cache: batches go through in small blocks, and
the backward pass makes the patches of a block again instead of keeping them.
With few output channels that product is too narrow to be fast. Then a whole row
of the image is multiplied by a banded (Toeplitz) matrix, which has W / b times
the operations and as many times the columns.

Axes: N examples; H, W height and width; I, O channels in and out.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsr import numerics

_CACHE = 4_000_000  # Bytes of patches in a block; measured on 1 MiB of L2.
_SMALL = 64  # Entries of a patch, below which a product is no work.
# O W / b up to which rows are faster than patches: 2.2 and 1.4 times as fast at
# 40 and 45, between 0.8 and 1.2 times from 77 to 102.
_NARROW = 64


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
  if kernel.shape[3] * x.shape[2] <= _NARROW * columns:
    return _by_rows(x, kernel)
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


def _by_rows(x, kernel):
  """The same without padding: out[n, p] = sum_i x[n, p + i] band[i]."""
  num, height, width, channels = x.shape
  rows, columns, _, outputs = kernel.shape
  high, wide = height - rows + 1, width - columns + 1
  # Row q of `wide` copies of (k, 0), cut to `width`, starts q places later.
  padded = jnp.pad(jnp.moveaxis(kernel, 1, -1), [(0, 0)] * 3 + [(0, wide)])
  shifted = jnp.tile(padded, wide)[..., :wide * width]
  band = shifted.reshape(rows, channels, outputs, wide, width).transpose(
      0, 4, 1, 3, 2).reshape(rows * width * channels, wide * outputs)
  x = x.reshape(num, height, width * channels)
  x = jnp.concatenate([x[:, i:i + high] for i in range(rows)], axis=-1)
  out = numerics.matmul(x.reshape(num * high, -1), band)
  return out.reshape(num, high, wide, outputs)
