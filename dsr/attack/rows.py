r"""Inputs out of accepted rows of the first layer's change, on the host.

Notation and axes as in `first_layer`. All in float64.
"""
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from dsr.attack import scale
from dsr.attack.release import Released
from dsr.attack.span import Span
from dsr.attack.sparse_rows import DEVIATIONS, MOST, ZERO

_SAME = 0.999  # Rows of a larger |cosine| are copies.
_PASSES = 8  # From entries below `ZERO` to exact zeros,
_FALL = 8.0  # by this factor at most in each.
_UNDECIDED = 1.0  # Second energy, in entries of variance 1, of a set that is.


class Read(NamedTuple):
  """Inputs, and how sure they are.

  Attributes:
    x: inputs.
    zeros: share of the units at which an input's row is 0.
    agreement: share of the units that the input itself makes active, before
      and after training, at which its row is not 0. x comes from all other
      rows, so that this tests it: an error by an angle of a rad costs about
      a / pi, and an image of no relation leaves the row's zeros, a third and
      more.
    rows: t of each, without copies.
  """

  x: Float[np.ndarray, 'M ...']
  zeros: Float[np.ndarray, 'M']
  agreement: Float[np.ndarray, 'M']
  rows: Float[np.ndarray, 'M N']

  @property
  def confidence(self) -> Float[np.ndarray, 'M']:
    """`agreement`; 0 where under half of the rows leave x to its own row."""
    few = 2 * len(self.rows) < self.rows.shape[1]
    return np.zeros_like(self.agreement) if few else self.agreement


class Near(NamedTuple):
  """Rows that guesses lead to; fields as of `sparse_rows.Rows`."""

  rows: Float[np.ndarray, 'M N']
  zeros: Float[np.ndarray, 'M']
  second: Float[np.ndarray, 'M']


def near(places: Float[np.ndarray, 'M N'], factors: Span, *,
         num_units: int) -> Near:
  """The rows that are 0 where guesses at inputs are most clearly inactive.

  Args:
    places: z of each guess.
    factors: of the change.
    num_units: inactive units that a row is read from.
  """
  width = factors.codes.shape[1]
  rows, limit = _exact(np.stack(
      [_row(z, factors, num_units) for z in places]), factors)
  second = []
  for small in _sizes(rows, factors) < limit[:, None]:
    part = factors.codes[:, small]
    second.append(width * np.linalg.eigvalsh(part @ part.T)[1])
  return Near(rows, _zeros(rows, limit, factors), np.array(second))


def read(released: Released, factors: Span, rows: Float[np.ndarray, 'M N'],
         refinements: int) -> Read:
  """The inputs of accepted rows.

  An input's z is orthogonal to all other rows over s. With all N rows known
  that leaves one direction; with fewer, the classifier of its own row's
  support decides within what is left. Each refinement reads rows again, from
  the units that are most clearly inactive at z, and keeps those with more
  zeros that are no row of another image.

  Args:
    released: with the range of the inputs.
    factors: of the change.
    rows: t, of length 1.
    refinements: see above.
  """
  rows = np.asarray(rows, np.float64)
  if not len(rows):
    none = np.zeros(0)
    return Read(np.zeros((0, *released.input_shape)), none, none, rows)
  width = factors.codes.shape[1]
  rows, limit = _without_copies(*_exact(rows, factors), factors)
  places = _places(rows, factors)
  for share in np.linspace(0.2, 0.33, refinements):
    units = max(int(share * width), int(1.25 * len(factors.size)))
    again, new = _exact(np.stack([
        _row(z, factors, min(units, width)) for z in places]), factors)
    # The units of an image may not tell its row from that of a similar one.
    near = np.abs(again @ rows.T)
    own = (near.argmax(axis=1) == np.arange(len(rows))) | (
        near.max(axis=1) < _SAME)
    better = own & (
        _zeros(again, limit, factors) > _zeros(rows, limit, factors))
    rows, limit = _without_copies(
        np.where(better[:, None], again, rows), np.where(better, new, limit),
        factors)
    places = _places(rows, factors)
  x = places @ factors.basis.T
  x = x[:, :released.size].reshape(-1, *released.input_shape)
  if not factors.biased:
    x = scale.fill_range(released, x)
  x = np.clip(x, released.low[None], released.high[None])
  return Read(x, _zeros(rows, limit, factors),
              agreement(rows, places, factors), rows)


def _zeros(rows, limit, factors):
  """The share of units at which a row is 0, up to its limit."""
  return np.mean(_sizes(rows, factors) < limit[:, None], axis=1)


def _sizes(rows, factors):
  """|u| of entries u = sqrt(W) t' V'."""
  return np.abs(rows @ factors.codes) * factors.codes.shape[1] ** 0.5


def _without_copies(rows, limit, factors):
  """Both without the rows that repeat one with more zeros."""
  kept = []
  for i in np.argsort(-_zeros(rows, limit, factors), kind='stable'):
    if all(abs(rows[i] @ rows[j]) < _SAME for j in kept):
      kept.append(i)
  kept.sort()
  return rows[kept], limit[kept]


def _exact(rows, factors):
  """(each t of least energy where its row is 0, the limit of what counts as 0).

  Of small entries some are none: the limit falls to four times the median of
  those below it, or to the rounding noise. It falls in steps, as an entry that
  is none moves t at once, and zeros that one shares with similar images stay
  small then while the others, which tell them apart, do not: a set without
  these leaves t undecided, and is not used.
  """
  rows, last = rows.copy(), []
  for i, t in enumerate(rows):
    size = _sizes(t, factors)
    limit = np.clip(_noise(t, factors), ZERO, MOST)
    for _ in range(_PASSES):
      part = factors.codes[:, size < limit]
      if part.shape[1] <= len(part):
        break
      energy, directions = np.linalg.eigh(part @ part.T)
      if len(size) * energy[1] < _UNDECIDED:
        break
      rows[i] = directions[:, 0]
      size = _sizes(rows[i], factors)
      limit = max(limit / _FALL, _last(rows[i], size, limit, factors))
    last.append(_last(rows[i], size, limit, factors))
  return rows, np.array(last)


def _last(t, size, limit, factors):
  """Four times the median of small entries, or what noise may reach."""
  small = size[size < limit]
  most = 4 * np.median(small) if len(small) else 0
  return min(max(most, _noise(t, factors)), MOST)


def _noise(t, factors):
  """What the rounding noise of u = sqrt(W) t' V' may reach."""
  return DEVIATIONS * np.linalg.norm(t * factors.spread)


def agreement(
    rows: Float[np.ndarray, 'M N'], places: Float[np.ndarray, 'M N'],
    factors: Span) -> Float[np.ndarray, 'M']:
  """See `Read`: of rows t and places z, in any order that pairs them."""
  level = np.einsum('mn,anw->amw', places, factors.maps)
  active = (level > 0).all(axis=0)
  right = (active & ~_is_small(rows, factors)).sum(axis=1)
  return right / np.maximum(active.sum(axis=1), 1)


def _is_small(rows, factors):
  """(M, W) whether an entry may be 0; some that are small are none."""
  limit = np.array([np.clip(_noise(t, factors), ZERO, MOST) for t in rows])
  return _sizes(rows, factors) < limit[:, None]


def _places(rows, factors) -> Float[np.ndarray, 'M N']:
  """z of every row, scaled so that its input's last entry is 1."""
  scaled = rows / factors.size
  scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
  mean = factors.maps.mean(axis=0)
  # Dual basis within the rows' span, and the space that none of them sees.
  dual = np.linalg.pinv(scaled)
  hidden = np.linalg.svd(scaled)[2][len(rows):].T
  places = []
  for own, small in zip(dual.T, _is_small(rows, factors)):
    around = np.column_stack([own / np.linalg.norm(own), hidden])
    label = np.where(small, -1.0, 1.0)
    design = (around.T @ mean).T
    z = around @ np.linalg.lstsq(design, label, rcond=None)[0]
    if factors.biased:
      z = z / (factors.basis[-1] @ z)
    places.append(z)
  return np.stack(places)


def _row(z, factors, num_units):
  """The t of least energy on the units that are most clearly inactive at z."""
  level = np.einsum('n,anw->aw', z, factors.maps).max(axis=0)
  inactive = factors.codes[:, np.argpartition(level, num_units - 1)[:num_units]]
  return np.linalg.eigh(inactive @ inactive.T)[1][:, 0]
