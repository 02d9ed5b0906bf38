r"""Training images as vertices: where their span meets the pixel range.

The weights of a dense first layer that started near 0, like the change of any
other, are a sum of outer products with the training inputs (see `attack.span`).
So images lie in a known subspace of dimension N and obey 2 D inequalities

  low <= B c <= high.

Where many pixels are black or white, as in digits, more than N of these are
equalities: an image is a *vertex* of the polytope, and one of high contrast

  s(x) = mean_d ((x_d - mid_d) / half_d)^2 <= 1,  mid +- half = low, high.

s is convex, so a linear program in the direction of its gradient ends in a
vertex and never lowers s (Mangasarian, 1996, successive linearisation). From
random directions this finds images without any gradient of the network; from
rough candidates one program is often exact. Photographs, which have few black
and white pixels, are no vertices.

Other vertices are met twice as well, where pixels are few. But they lie on R
bounds and few more, as R planes meet in a point, or on more within a face that
images share, and then some bound alone holds them there. An image lies on as
many bounds as it has black and white pixels, and any of them could be left out:
that tells which are images (`hold`).

Axes: D inputs, R dimensions, M candidates.
"""
from collections.abc import Sequence
from typing import NamedTuple

from absl import logging
import jax
from jaxtyping import Array, Float, Int, Key
import numpy as np
from scipy import optimize

from dsr import checks
from dsr.attack.release import Released

_SAME = 1e-2  # RMSE below which two vertices are one, over the pixel range.
_STILL = 1e-9  # A gain of s below this ends a climb.
_ALIKE = 1e-4  # 1 - cosine of bounds that are one, as of pixels always black.
_TOUCHES = 2.5  # Times `slack`: how near to a bound a pixel is on it.


class Found(NamedTuple):
  """Distinct vertices, those met most often first, then by contrast.

  Attributes:
    x: (K, D) vertices.
    hits: (K,) starts that led there.
    contrast: (K,) s.
  """

  x: Float[np.ndarray, 'K D']
  hits: Int[np.ndarray, 'K']
  contrast: Float[np.ndarray, 'K']


def climb(
    basis: Float[np.ndarray, 'D R'], released: Released,
    x: Float[np.ndarray, 'M ...'], *, programs: int = 5, slack: float = 1e-3
) -> Float[np.ndarray, 'M ...']:
  """The vertex above each of `x`, seen from the middle of the range.

  A program takes about 10 ms at R = 20 and 0.2 s at R = 200, for D = 784.

  Args:
    basis: of the span, with orthonormal columns.
    released: with the pixel range.
    x: candidates; only their direction from the middle counts.
    programs: at most, for each.
    slack: by which pixels may leave the range, as a share of it: the span may
      be known roughly only.

  Raises:
    ValueError: shapes that do not fit, or no point of the span is in range.
  """
  checks.features('basis', basis)
  checks.at_least('programs', programs, 1)
  checks.non_negative('slack', slack)
  x = np.asarray(x)
  checks.inputs('x', x)
  checks.finite('x', x)
  flat = x.reshape(len(x), -1)
  if basis.shape[0] != flat.shape[1]:
    raise ValueError(f'`basis` has D={basis.shape[0]}, expected '
                     f'D={flat.shape[1]} as in `x`.')
  low, high = _range(released)
  mid, half = (high + low) / 2, (high - low) / 2
  basis = np.asarray(basis, np.float64)
  rows = np.concatenate([basis, -basis])
  bounds = np.concatenate([high + 2 * half * slack, 2 * half * slack - low])

  def one(start):
    best, contrast = None, -np.inf
    place = start
    for _ in range(programs):
      # highs-ds: the simplex method, whose answers are vertices.
      program = optimize.linprog(
          -basis.T @ ((place - mid) / half**2), A_ub=rows, b_ub=bounds,
          bounds=(None, None), method='highs-ds')
      if program.status == 2:
        raise ValueError('`slack` must be larger: no point of the span has its '
                         f'pixels in range, give or take {slack}.')
      if program.status:
        raise RuntimeError(f'A linear program failed: {program.message}')
      place = basis @ program.x
      value = np.mean(((place - mid) / half)**2)
      if value < contrast + _STILL:
        break
      best, contrast = place, value
    return best

  out = np.stack([one(row) for row in flat.astype(np.float64)])
  return out.reshape(x.shape)


def search(
    key: Key[Array, ''], basis: Float[np.ndarray, 'D R'], released: Released,
    *, starts: int, programs: int = 5, slack: float = 1e-3,
    also: Sequence[Float[np.ndarray, 'D']] | Float[np.ndarray, 'K D'] = ()
) -> Found:
  """Climbs from random directions of the span, and from `also`.

  The first program's vertex counts too: a climb may leave an image for one of
  more contrast, and from 20 images on climbs favour some of them.

  Args:
    key: of the directions.
    basis: as in `climb`.
    released: with the pixel range.
    starts: random directions.
    programs: as in `climb`.
    slack: as in `climb`.
    also: further starts, such as another attack's candidates.

  Raises:
    ValueError: as `climb`.
  """
  checks.at_least('starts', starts, 1)
  low, high = _range(released)
  directions = np.asarray(jax.random.normal(key, (starts, basis.shape[1])))
  places = np.concatenate([
      ((low + high) / 2)[None] + directions @ basis.T,
      np.reshape(np.asarray(also, np.float64), (-1, len(low)))])
  reached, starts_of = [], []
  for i, place in enumerate(places):
    first = climb(basis, released, place[None], programs=1, slack=slack)
    last = climb(basis, released, first, programs=programs, slack=slack)
    reached += [first[0], last[0]]
    starts_of += [i, i]
    if 10 * (i + 1) // len(places) > 10 * i // len(places):
      logging.info('vertices: start %d of %d', i + 1, len(places))
  return distinct(np.stack(reached), released, np.asarray(starts_of))


def distinct(
    x: Float[np.ndarray, 'M D'], released: Released,
    start: Int[np.ndarray, 'M']) -> Found:
  """One row for each group of rows of `x` that are equal, give or take 0.01.

  Args:
    x: vertices.
    released: with the pixel range.
    start: of each row; a group's hits are the different starts in it.
  """
  low, high = _range(released)
  scaled = (x - ((low + high) / 2)[None]) / ((high - low) / 2)[None]
  contrast = np.mean(scaled**2, axis=1)
  rest, kept, hits = np.argsort(-contrast, kind='stable'), [], []
  while len(rest):
    gaps = scaled[rest] - scaled[rest[:1]]
    near = np.sqrt(np.mean(gaps**2, axis=1)) < 2 * _SAME
    kept.append(rest[0])
    hits.append(len(np.unique(start[rest[near]])))
    rest = rest[~near]
  kept, hits = np.asarray(kept), np.asarray(hits)
  order = np.lexsort((-contrast[kept], -hits))
  return Found(x[kept[order]], hits[order], contrast[kept[order]])


class Hold(NamedTuple):
  """What holds points in their place.

  Attributes:
    excess: (M,) bounds that each lies on, beyond the R of a vertex. Bounds that
      are the same in the span, up to a factor, count once.
    leverage: (M,) the largest a' (A' A)^+ a of these bounds' normals a, stacked
      as A: 1 where the point could move without one of them, 1/2 where every
      direction is held twice. 1 for points without any.
  """

  excess: Int[np.ndarray, 'M']
  leverage: Float[np.ndarray, 'M']


def hold(
    basis: Float[np.ndarray, 'D R'], released: Released,
    x: Float[np.ndarray, 'M ...'], *, slack: float = 1e-3
) -> Hold:
  """What holds each of `x` in its place; see `Hold`.

  Args:
    basis: as in `climb`.
    released: with the pixel range.
    x: points of the span.
    slack: as in `climb`.
  """
  low, high = _range(released)
  x = np.asarray(x, np.float64).reshape(len(x), -1)
  near = _TOUCHES * max(slack, 1e-6) * (high - low)
  normal = basis / np.maximum(
      np.linalg.norm(basis, axis=1, keepdims=True), np.finfo(float).tiny)
  alike = np.abs(normal @ normal.T) > 1 - _ALIKE
  first = alike.argmax(axis=1)  # Of the pixels that are alike.
  touches = (x < (low + near)[None]) | (x > (high - near)[None])
  met, leverage = [], []
  for row in touches:
    bounds = np.unique(first[row])
    met.append(len(bounds))
    left = np.linalg.svd(normal[bounds], full_matrices=False)[0]
    leverage.append(np.sum(left**2, axis=1).max() if len(bounds) else 1.0)
  return Hold(np.array(met) - basis.shape[1], np.array(leverage))


def _range(released):
  return (np.broadcast_to(end, released.input_shape).reshape(-1)
          for end in (released.low, released.high))
