r"""Fits to random halves, from a kernel matrix whose rows are dealt out.

A half has about as many rows on each device. They stay where they are: device d
takes its rows of the half and all columns of the half, (m, D m) entries, where
m is the largest number on any device. What is short of m is a row and a column
of the identity, which changes no other entry of the solution. Then that matrix
is inverted as in `dealt_inverse`: nothing but blocks of its rows is sent.

On paper -> code: as in `shadows`, which this equals within rounding.
Axes: N examples, n of them on a device; M = D m; C outputs; R shadows; H = N //
2 examples of a shadow; Z further examples.
"""
import functools

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from dsr import checks, hosts, numerics
from dsr.hosts import AXIS
from dsr.krr import dealt_inverse
from dsr.krr.shadows import Shadows, random_rows
from dsr.linalg import rows as rows_lib

_DEALT, _WHOLE = PartitionSpec(AXIS), PartitionSpec()
_MULTIPLE = 64  # Of m, so that it has a divisor to be the rows of a block.


def shadows(
    key: Key[Array, ''], gram: Float[Array, 'N N'],
    y: Float[Array | np.ndarray, 'N C'], *, num_shadows: int = 256,
    ridge: float = 1e-6, others: Float[Array, 'Z N'] | None = None,
    on: Mesh | None = None, block: int = dealt_inverse.BLOCK) -> Shadows:
  r"""`krr.shadows` over the devices of many processes, which call it alike.

  Each shadow costs 2 M^3 operations, six times those of a Cholesky factor, and
  a device holds (m + m + n) M entries beside its rows of the matrix.

  Args:
    key: of the halves, which are those of one process.
    gram: (N, N) of `kernels.gram` over these devices; it is kept.
    y: (N, C) on the host, the same in each process.
    num_shadows: R, best even; one after the other.
    ridge: \lambda >= 0, relative to the mean diagonal of each half.
    others: (Z, N) of `kernels.gram` between further examples and these.
    on: the devices; by default all of all processes.
    block: rows of a block, at most.

  Returns:
    `Shadows` whose `outputs` and `others` have their examples dealt out; what
    is small, `hosts.gathered` brings to every host.

  Raises:
    ValueError: misshapen arguments, or an option out of range.
  """
  checks.square('gram', gram)
  n = gram.shape[0]
  checks.targets('y', y, rows=n)
  checks.non_negative('ridge', ridge)
  checks.at_least('n', n, 2)
  checks.at_least('num_shadows', num_shadows, 1)
  checks.at_least('block', block, 1)
  if others is not None:
    checks.features('others', others, dim=n)
  on = on or hosts.mesh()
  rows = np.sort(np.asarray(random_rows(key, n, num_shadows)), axis=1)
  places = _places(rows, on.devices.size, n // on.devices.size)
  size = dealt_inverse.block_size(
      places.shape[1] // on.devices.size, block)
  outputs, elsewhere, converged = _fit(
      gram, np.asarray(y), others, places, ridge, on=on, size=size)
  member = np.zeros((num_shadows, n), bool)
  np.put_along_axis(member, rows, True, axis=1)
  return Shadows(outputs, member, hosts.own(converged), elsewhere)


def _places(
    rows: Int[np.ndarray, 'R H'], num: int, n: int) -> Int[np.ndarray, 'R M']:
  """The ascending `rows` of each half, m places for each device; -1: none."""
  device = rows // n
  first = np.stack([np.searchsorted(one, np.arange(num)) for one in device])
  slot = np.arange(rows.shape[1]) - np.take_along_axis(first, device, axis=1)
  m = int(slot.max()) + 1
  if m > _MULTIPLE:
    m = -(-m // _MULTIPLE) * _MULTIPLE
  found = np.full((len(rows), num * m), -1)
  np.put_along_axis(found, device * m + slot, rows, axis=1)
  return found


@functools.partial(jax.jit, static_argnames=('on', 'size'))
def _fit(gram, y, others, places, ridge, *, on, size):
  dtype = numerics.solve_dtype(gram.dtype)

  def part(k, y, others, places, ridge):

    def fit(place):
      there = place >= 0
      targets = jnp.where(there[:, None], y[place].astype(dtype), 0)
      dual, converged = _solve(k, place, there, targets, ridge, size, dtype)
      outputs = [None if a is None else numerics.matmul(
          a[:, place].astype(dtype), dual) for a in (k, others)]
      return *outputs, converged

    return lax.map(fit, places)

  dealt = PartitionSpec(None, AXIS)
  given = None if others is None else _DEALT
  return jax.shard_map(
      part, mesh=on, in_specs=(_DEALT, _WHOLE, given, _WHOLE, _WHOLE),
      out_specs=(dealt, None if others is None else dealt, _WHOLE),
      check_vma=False)(gram, y, others, places, jnp.asarray(ridge, dtype))


def _solve(
    k: Float[Array, 'n N'], place: Int[Array, 'M'], there: Bool[Array, 'M'],
    targets: Float[Array, 'M C'], ridge, size: int, dtype
) -> tuple[Float[Array, 'M C'], Bool[Array, '']]:
  """(duals, 0 where nothing is, on every device; whether the solve is good)."""
  mine = rows_lib.index(place.shape[0] // lax.psum(1, AXIS), AXIS)
  own = place[mine] - k.shape[0] * lax.axis_index(AXIS)
  real = there[mine]
  a = k[own][:, place].astype(dtype)
  a = jnp.where(real[:, None] & there[None], a, 0)
  at = jnp.arange(len(mine)), mine
  shift = ridge * lax.psum(a[at].sum(), AXIS) / lax.psum(real.sum(), AXIS)
  a = a.at[at].add(jnp.where(real, shift, 1))
  dual, _, info = dealt_inverse.solve_rows(a, targets, size)
  return lax.all_gather(dual, AXIS, tiled=True), info.converged
