r"""Inputs out of accepted rows of the first layer's change, on the host.

Notation and axes as in `first_layer`. All in float64.
"""
from jaxtyping import Float
import numpy as np

from dsr.attack import scale
from dsr.attack.alternation import SPARSE
from dsr.attack.release import Released
from dsr.attack.span import Span

_SAME = 0.98  # Exact rows of a larger |cosine| are copies.


def surest(noise):
  """Sparsity below which a row is taken at once, given the rounding noise."""
  return 0.01 + 0.7 * noise


def read(
    released: Released, factors: Span, rows: Float[np.ndarray, 'M N'],
    refinements: int
) -> tuple[Float[np.ndarray, 'M ...'], Float[np.ndarray, 'M'],
           Float[np.ndarray, 'M N']]:
  """(inputs, sparsity, rows) of accepted rows, on the host in float64.

  An input's z is orthogonal to all other rows over s. With all N rows known
  that leaves one direction; with fewer, the classifier of its own row's
  support decides within what is left.
  """
  rows = np.asarray(rows, np.float64)
  if not len(rows):
    return np.zeros((0, *released.input_shape)), np.zeros(0), rows
  width = factors.codes.shape[1]
  sparsity = _sparsity(rows, factors)
  places = _places(rows, sparsity, factors)
  for share in np.linspace(0.2, 0.33, refinements):
    units = max(int(share * width), int(1.25 * len(factors.size)))
    again = np.stack([_row(z, factors, min(units, width)) for z in places])
    sparsity_again = _sparsity(again, factors)
    # An exact mask reads an exact row; a wrong one would spoil a good row.
    better = sparsity_again < np.maximum(sparsity, surest(factors.noise))
    rows = np.where(better[:, None], again, rows)
    sparsity = np.where(better, sparsity_again, sparsity)
    first = _first_of_copies(rows, sparsity)
    rows, sparsity = rows[first], sparsity[first]
    places = _places(rows, sparsity, factors)
  x = places @ factors.basis.T
  x = x[:, :released.size].reshape(-1, *released.input_shape)
  if not factors.biased:
    x = scale.fill_range(released, x)
  x = np.clip(x, released.low[None], released.high[None])
  return x, sparsity, rows


def _first_of_copies(rows, sparsity):
  """Places of the rows without those that repeat a sparser one."""
  kept = []
  for i in np.argsort(sparsity, kind='stable'):
    if all(abs(rows[i] @ rows[j]) < _SAME for j in kept):
      kept.append(i)
  return np.array(sorted(kept))


def _sparsity(rows, factors):
  low, high = np.quantile(
      np.abs(rows @ factors.codes), [SPARSE, 0.75], axis=1)
  return low / high


def _places(rows, sparsity, factors) -> Float[np.ndarray, 'M N']:
  """z of every row, scaled so that its input's last entry is 1.

  Only sure rows restrict the others: a wrong one would spoil all of them.
  """
  scaled = rows / factors.size
  scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
  sure = np.flatnonzero(sparsity < 2 * surest(factors.noise))
  mean = factors.maps.mean(axis=0)
  # Dual basis within the sure rows' span, and the space that none of them sees.
  dual = np.linalg.pinv(scaled[sure])
  hidden = np.linalg.svd(scaled[sure])[2][len(sure):].T if len(sure) else (
      np.eye(len(factors.size)))
  places = []
  for i, row in enumerate(rows):
    around = hidden
    if i in sure:
      own = dual[:, np.searchsorted(sure, i)]
      around = np.column_stack([own / np.linalg.norm(own), hidden])
    if not around.size:  # All rows are sure but this one, a surplus.
      around = np.eye(len(factors.size))
    magnitude = np.abs(row @ factors.codes)
    label = np.where(magnitude > 0.7 * np.median(magnitude), 1.0, -1.0)
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
