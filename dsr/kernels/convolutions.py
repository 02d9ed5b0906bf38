r"""Covariance rules of convolutions and pools; see `layers` for the notation.

Geometry: a window of k positions and stride s reads p = P s - low + o for the
offsets o = 0 ... k - 1 of the output position P. 'VALID' has low = 0 and only
windows inside; 'SAME' has ceil(size / s) outputs with the zeros outside split
evenly, the odd one at the end, as XLA does; 'CIRCULAR' has the same windows
with what comes round from the other side in place of zeros.
"""
from collections.abc import Sequence
import math
from typing import Any

from jax import lax
import jax.numpy as jnp
import numpy as np

from dsr import checks, numerics
from dsr.kernels.layers import Layer, spread, without_space
from dsr.kernels.scaling import Scales

_PADDINGS = 'SAME', 'VALID', 'CIRCULAR'


def Conv(kernel_size: int | Sequence[int] = 3, *,
         strides: int | Sequence[int] = 1, W_std: Any = 1.0, b_std: Any = None,
         padding: str = 'SAME', width: int | None = None,
         parameterisation: str = 'ntk') -> Layer:
  r"""k'(P, P') = W_std^2 / |o| sum_o k(p + o, p' + o) + b_std^2.

  o runs over the |o| offsets of the window, the same in both inputs;
  \Theta' = k' + the same sum of \Theta, or in the standard parameterisation
  n sum_o k + that sum + 1 with n input channels, see `Dense`. Cost: |o|
  additions a pair of positions, the sides of the window where no pool follows.

  Args:
    kernel_size: rows and columns of the window, or one number for both; (k,)
      for sequences (N, L, C).
    strides: likewise.
    W_std: standard deviation of the weights times sqrt(fan-in); may be traced.
    b_std: standard deviation of the biases; may be traced. None is no bias.
    padding: 'SAME' (zeros outside), 'VALID' or 'CIRCULAR'.
    width: channels that it has in a finite network; see `Dense`.
    parameterisation: 'ntk' or 'standard'.

  Raises:
    ValueError: bad sizes, strides, padding, scales or width; later, if a window
      does not fit the image, or the width of the layer before is missing.
  """
  size, ndim = _two('kernel_size', kernel_size)
  stride, _ = _two('strides', strides, ndim)
  checks.one_of('padding', padding, _PADDINGS)
  scales = Scales(W_std, b_std, width, parameterisation)
  count = math.prod(size)
  circular, same = padding == 'CIRCULAR', padding == 'SAME'
  shown = size[0] if size[0] == size[1] and ndim == 2 else size[:ndim]
  name = f'Conv({shown}, {scales})'

  def geometry(shape):
    """[(low, high)] of what is padded, and the output's shape."""
    if padding == 'VALID':
      _check_fits(name, shape, size)
      return [(0, 0)] * 2, _outputs(shape, size, stride)
    out = tuple(-(-n // s) for n, s in zip(shape, stride))
    more = [max((o - 1) * s + k - n, 0)
            for o, s, k, n in zip(out, stride, size, shape)]
    return [(m // 2, m - m // 2) for m in more], out

  def extend(x, ends):
    """Zeros, or what comes round from the other side, all around x."""
    return jnp.pad(x, ends, mode='wrap' if circular else 'constant')

  def window_sum(x):
    """Sums an (H, W) map over the offsets, one axis after the other."""
    (rows, cols), _ = geometry(x.shape)
    zero = np.zeros((), x.dtype)
    x = lax.reduce_window(extend(x, (rows, (0, 0))), zero, lax.add,
                          (size[0], 1), (stride[0], 1), 'VALID')
    return lax.reduce_window(extend(x, ((0, 0), cols)), zero, lax.add,
                             (1, size[1]), (1, stride[1]), 'VALID')

  def joint_sum(x, outside=None):
    """Sums a joint map over the offsets, the same for both positions."""
    ends, (h, w) = geometry(x.shape[:2])
    x = extend(x, ends * 2)
    if outside is not None and same:
      # Where just one of the two positions is outside, its variance is 0 and
      # the gap is that of the other one alone.
      own1, own2 = (extend(a, ends) for a in outside)
      off = 1 - extend(jnp.ones(outside[0].shape, x.dtype), ends)
      x += (own1[:, :, None, None] * off[None, None]
            + off[:, :, None, None] * own2[None, None])
    rows, cols = (
        lambda i, n=n, s=s: slice(i, i + (n - 1) * s + 1, s)
        for n, s in zip((h, w), stride))
    return sum(x[rows(i), cols(j), rows(i), cols(j)]
               for i in range(size[0]) for j in range(size[1]))

  def variance(q, own):
    del own
    out = scales.out(window_sum(q) / count)
    return out, (q, out, scales.tape())

  def pair(tape1, tape2, at, joint_out):
    del joint_out
    (q1, out1, given), (q2, out2, _) = tape1, tape2
    weight, bias = scales.squares(given)
    scale, ntk = weight / count, scales.inner(at, weight, count)
    if at.gap.ndim == 2:
      gap = scale * window_sum(at.gap)
      ntk = None if ntk is None else window_sum(ntk)
    else:
      gap = scale * joint_sum(at.gap, (at.share * q1, at.share * q2))
      ntk = None if ntk is None else joint_sum(ntk)
    if not isinstance(at.share, float):  # 1/2: the bias drops out.
      gap += (2 * at.share - 1) * bias
    nngp = share_of(at.share, out1, out2, gap) - gap
    ntk = scales.outer(None if ntk is None else scale * ntk, nngp)
    return at._replace(gap=gap, nngp=nngp, ntk=ntk, width=width)

  plain = (ndim == 2 and size[0] == size[1] and stride == (1, 1)
           and not scales.traced and not scales.standard and width is None)
  return Layer(
      variance, pair, name, spatial=True, ndim=_ndim(kernel_size),
      rule=(('conv', size[0], padding, W_std**2 / count, scales.squares(())[1])
            if plain else ()),
      **scales.fields())


def AvgPool(window: int | Sequence[int] = 2, *,
            strides: int | Sequence[int] | None = None) -> Layer:
  r"""Mean over windows of positions, as many as fit (no padding).

  k'(P, P') = mean of k(p, p') over p in P, p' in P'; the same for \Theta.
  gap' = mean of gap - 2 share (v1(P) + v2(P')), v = half the mean of half the
  squared distances within the window.

  Args:
    window: rows and columns, or one number for both; (k,) for sequences.
    strides: likewise; None takes those of the window.

  Raises:
    ValueError: bad windows or strides; later, if the image is smaller.
  """
  return _pool('AvgPool', window, strides)


def SumPool(window: int | Sequence[int] = 2, *,
            strides: int | Sequence[int] | None = None) -> Layer:
  """Sum over windows of positions; arguments as of `AvgPool`."""
  return _pool('SumPool', window, strides, total=True)


def GlobalAvgPool() -> Layer:
  """Mean over all positions; the output has no space left. See `AvgPool`."""
  return _pooled('GlobalAvgPool', lambda shape: (shape, shape), squeeze=True)


def GlobalSumPool() -> Layer:
  """Sum over all positions; the output has no space left. See `AvgPool`."""
  return _pooled('GlobalSumPool', lambda shape: (shape, shape), squeeze=True,
                 total=True)


def _pool(name, window, strides, total=False):
  size, ndim = _two('window', window)
  stride, _ = (size, ndim) if strides is None else _two(
      'strides', strides, ndim)
  shown = size[0] if size[0] == size[1] and ndim == 2 else size[:ndim]
  plain = size[0] == size[1] and stride == size and ndim == 2 and not total
  return _pooled(f'{name}({shown})', lambda shape: (size, stride), total=total,
                 ndim=_ndim(window), rule=('pool', size[0]) if plain else ())


def _pooled(name, windows, *, squeeze=False, total=False, ndim=None, rule=()):

  def means(x, size, stride):
    for first in range(0, x.ndim, 2):  # One position, then the other.
      before, after = (1,) * first, (1,) * (x.ndim - first - 2)
      x = lax.reduce_window(
          x, np.zeros((), x.dtype), lax.add, (*before, *size, *after),
          (*before, *stride, *after), 'VALID')
      x = x if total else x / math.prod(size)
    return jnp.squeeze(x) if squeeze else x

  def variance(q, own):
    size, stride = windows(q.shape)
    _check_fits(name, q.shape, size)
    inner = _diagonal(0.5 * means(own.gap, size, stride), squeeze)
    mean = means(q, size, stride)
    if total:
      mean = mean * math.prod(size)
    out = mean - 2 * inner
    return out, (inner, mean, out, numerics.safe_sqrt(out))

  def pair(tape1, tape2, at, joint_out):
    size, stride = windows(at.gap.shape[:2])

    def pool(x):
      x = means(x, size, stride)
      return x if joint_out else _diagonal(x, squeeze)

    gap = pool(at.gap)
    (inner1, _, _, _), (inner2, _, _, _) = spread(tape1, tape2, gap)
    gap = gap - (inner1 + inner2 if isinstance(at.share, float)
                 else 2 * at.share * (inner1 + inner2))
    nngp = share_of(at.share, tape1[2], tape2[2], gap) - gap
    at = at._replace(gap=gap, nngp=nngp,
                     ntk=None if at.ntk is None else pool(at.ntk))
    return without_space(tape1[3], tape2[3], at) if squeeze else at

  return Layer(variance, pair, name, pools=True, spatial=True,
               flattens=squeeze, ndim=ndim, rule=rule)


def share_of(share, q1, q2, gap):
  """share (q1 + q2), shaped as gap."""
  q1, q2 = spread(share * q1, share * q2, gap)
  return q1 + q2


def _diagonal(x, scalar):
  """The entries at equal positions of a joint (H, W, H, W) map."""
  if scalar:
    return x
  h, w = x.shape[:2]
  return jnp.diagonal(x.reshape(h * w, h * w)).reshape(h, w)


def _outputs(shape, size, stride):
  return tuple((n - k) // s + 1 for n, k, s in zip(shape, size, stride))


def _check_fits(name, shape, size):
  if any(n < k for n, k in zip(shape, size)):
    raise ValueError(f'`{name}` needs at least {size[0]} x {size[1]} '
                     f'pixels, got {shape[0]} x {shape[1]}.')


def _two(name, value, ndim=None):
  """((rows, columns), spatial axes) of a number, a pair or one in a tuple."""
  values = tuple(value) if isinstance(value, (tuple, list)) else None
  if values is None:
    checks.at_least(name, value, 1)
    return (value, 1 if ndim == 1 else value), ndim or 2
  for one in values:
    checks.at_least(name, one, 1)
  if len(values) not in ((1, 2) if ndim is None else (ndim,)):
    raise ValueError(f'`{name}` must be a number or hold {ndim or "1 or 2"} '
                     f'of them, got {value!r}.')
  return (*values, 1)[:2], len(values)


def _ndim(value):
  return len(value) if isinstance(value, (tuple, list)) else 2
