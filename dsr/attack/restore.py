r"""The first layer's change, freed of weight decay, pruning and rounding.

Descent with momentum or in batches adds multiples of gradients; L2 weight decay
shrinks all parameters alike besides. Both are linear in what came before, so

  \theta_T = c \theta_0 + \Delta,

with one number c for all parameters, and \Delta a sum of gradients. In a dense
first layer \Delta has rank N at most, where N is the number of training images.
What an owner does to \theta_T afterwards spoils single entries by amounts that
the attacker can tell: a pruned weight (now 0) says nothing, and one rounded to
float16 or bfloat16 is known to half a unit of its own last place, so that small
weights are known better. Hence the weighted fit

  min over c, A, B of  \sum_{dw} q_dw (\theta_T - c \theta_0 - A B)_{dw}^2,

with A (D~, N), B (N, W) and q the inverse variance of an entry, by alternating
least squares, from where repeated low-rank completion of the missing entries
ends. It is exact for weight decay and pruning where it converges, as there are
(D~ + W) N unknowns for D~ W entries. Of pruned releases the least rank is taken
that does as well as the given N.

Axes: N images, W units of the first layer, D~ numbers in an extended input.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float
import ml_dtypes
import numpy as np

from dsr.attack.release import Released
from dsr.nets import MLP

_SWEEPS = 60
_COMPLETIONS = 200  # Of missing entries, before the first sweep.
_AS_WELL = 10.0  # Times the cost of the full rank: the next lower is far above.
_STILL = 1e-3  # Share by which a sweep must lower the weighted sum's root.
_FLOAT32 = 2.0**-48  # Squared rounding error of float32, relative.
_BLOCK = 256  # Columns whose equations are held at once: N^2 numbers each.
_RIDGE = 1e-12  # Relative to the trace; a column may have too few weights.
# Weight decay is what moves c from 1 by more than this and five deviations.
_DECAY = 1e-6
# Type -> (bits of its mantissa, exponent below which the spacing is even).
_FORMATS = {np.float16: (11, -13), ml_dtypes.bfloat16: (8, -125)}


class Fit(NamedTuple):
  r"""Of the first layer.

  Attributes:
    decay: c, exactly 1 if it could be by the errors of the fit.
    change: (D~, W) A B, and what the fit leaves over, at the size of the errors
      that A B still has: its singular values tell them from the signal.
    cost: the root of the weighted sum.
  """

  decay: float
  change: np.ndarray
  cost: float


def restored(released: Released) -> Released:
  r"""`released` with \theta_T at \theta_0 + \Delta, as far as that is known.

  All layers are freed of weight decay, and the first one of pruning and
  rounding. Nothing changes where none of these was done, or where the fit has
  no equation to spare: no MLP, no theta_0, or N as large as the layer.

  Args:
    released: parameters before and after.
  """
  if (released.theta_0 is None or released.theta_T is None
      or not isinstance(released.module, MLP) or not released.module.widths):
    return released
  before, after = (theta['hidden_0'] for theta in (
      released.theta_0, released.theta_T))
  names = [name for name in ('kernel', 'bias') if name in after]
  stack = lambda layer: np.concatenate([
      np.atleast_2d(np.asarray(layer[name], np.float64)) for name in names])
  old, new = stack(before), stack(after)
  if released.num_train >= min(old.shape) or np.array_equal(old, new):
    return released
  weights = _weights(old, new, released)
  found = _of_least_rank(old, new, weights, released.num_train)
  if np.ptp(weights) == 0 and found.decay == 1:
    return released
  theta_T = jax.tree.map(
      lambda a, b: (b + (1 - found.decay) * a).astype(b.dtype),
      released.theta_0, released.theta_T)
  end = old + found.change
  rows = np.split(end, [len(before['kernel'])])
  theta_T['hidden_0'] = {
      name: jnp.asarray(row.reshape(after[name].shape), after[name].dtype)
      for name, row in zip(names, rows)}
  return released._replace(theta_T=theta_T)


def fit(
    before: Float[np.ndarray, 'D W'], after: Float[np.ndarray, 'D W'],
    weights: Float[np.ndarray, 'D W'], *, rank: int) -> Fit:
  """The weighted fit of the module's text.

  Args:
    before: theta_0 of the layer, with the bias as its last row.
    after: theta_T.
    weights: q, not negative; 0 where `after` says nothing.
    rank: N.
  """
  known = weights > 0
  change = np.where(known, after - before, 0)
  right = _completed(change, known, rank)
  decay, whole, cost = 1.0, change, np.inf
  energy = np.sum(weights * before**2)
  for _ in range(_SWEEPS):
    decay += np.sum(weights * before * (
        after - decay * before - whole)) / energy
    change = after - decay * before
    left = _solve(right, change.T, weights.T).T
    left = np.linalg.qr(left)[0]
    right = _solve(left.T, change, weights)
    whole, old = left @ right, cost
    cost = np.sqrt(np.sum(weights * (change - whole)**2))
    if not cost < (1 - _STILL) * old:
      break
  rest = np.where(known, after - decay * before - whole, 0)
  deviation = np.sqrt(np.mean((weights * rest**2)[known]) / energy)
  if abs(1 - decay) < _DECAY + 5 * deviation:
    decay = 1.0
  # Errors of A B with equal weights would have the variance of what is left.
  turned = np.linalg.qr(right.T)[0].T
  spread = (_spread(left.T, weights) + _spread(turned, weights.T)) / (
      rank * sum(before.shape))
  variance = np.sum(weights * rest**2) / known.sum() * spread
  size = np.sqrt(np.mean(rest**2))
  scale = np.sqrt(variance) / size if size > 0 else 0.0
  return Fit(float(decay), whole + scale * rest, float(cost))


def _of_least_rank(before, after, weights, most) -> Fit:
  """The fit of the least rank that does as well as the one of rank `most`.

  With missing entries, ranks beyond the true one would fill them with anything;
  `most`, the number of images, may be an upper bound.
  """
  found = fit(before, after, weights, rank=most)
  low, high = 1, most
  while (weights == 0).any() and low < high:
    middle = (low + high) // 2
    tried = fit(before, after, weights, rank=middle)
    if tried.cost <= _AS_WELL * found.cost:
      found, high = tried._replace(cost=max(tried.cost, found.cost)), middle
    else:
      low = middle + 1
  return found


def _completed(change, known, rank):
  """B (N, W) to start from: what is not known is put where A B has it.

  At first as if it had not moved. Each time A turns a little, by one power
  iteration, so that the fit cannot jump to a wrong optimum.
  """
  left, size, right = np.linalg.svd(change, full_matrices=False)
  left, right = left[:, :rank], size[:rank, None] * right[:rank]
  if known.all():
    return right
  for _ in range(_COMPLETIONS):
    whole = np.where(known, change, left @ right)
    left = np.linalg.qr(whole @ right.T)[0]
    right = left.T @ whole
  return right


def _solve(rows, change, weights):
  """B (N, W) of least sum of weights (change - rows' B)^2, column by column."""
  if np.ptp(weights) == 0:
    return np.linalg.solve(rows @ rows.T, rows @ change)
  parts = []
  for columns, gram in _grams(rows, weights):
    right = rows @ (weights * change)[:, columns]
    parts.append(np.linalg.solve(gram, right.T[..., None]))
  return np.concatenate(parts)[..., 0].T


def _spread(rows, weights):
  """The sum over columns of the variance of their B, orthonormal rows given."""
  if np.ptp(weights) == 0:
    return rows.shape[0] * weights.shape[1] / weights[0, 0]
  return sum(np.trace(np.linalg.inv(gram), axis1=1, axis2=2).sum()
             for _, gram in _grams(rows, weights))


def _grams(rows, weights):
  """(columns, their matrices of normal equations (block, N, N)), in blocks."""
  for start in range(0, weights.shape[1], _BLOCK):
    columns = slice(start, start + _BLOCK)
    q = weights[:, columns]
    gram = np.stack([(row * rows) @ q for row in rows]).transpose(2, 0, 1)
    ridge = _RIDGE * np.trace(gram, axis1=1, axis2=2)
    yield columns, gram + ridge[:, None, None] * np.eye(len(rows))


def _weights(before, after, released):
  """The inverse variance of each entry; 0 for a pruned weight."""
  variance = np.ones_like(after)
  kind = _format(released)
  if kind is not None:
    bits, least = _FORMATS[kind]
    _, exponent = np.frexp(after)
    variance = np.ldexp(1.0, 2 * (np.maximum(exponent, least) - bits))
    variance += _FLOAT32 * np.median(after**2)  # What training left over.
  weights = np.median(variance) / variance
  return np.where((after == 0) & (before != 0), 0, weights)


def _format(released):
  """The type of `_FORMATS` that all of theta_T is of; None for neither."""
  leaves = [np.asarray(a) for a in jax.tree.leaves(released.theta_T)]
  for kind in _FORMATS:
    with np.errstate(over='ignore'):
      if all(np.array_equal(a, a.astype(kind).astype(a.dtype)) for a in leaves):
        return kind
  return None
