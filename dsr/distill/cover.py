r"""Minimal finite covering (MFC, arXiv:2402.05675): a coreset with a radius.

Rows S of a data set T form an eta-cover if every t in T has an s(t) in S of
its own class with |t - s(t)| <= eta. With w_s the share of T that s stands
for, any loss l and any epsilon,

  mean_t max_{|d| <= epsilon} l(t + d)
      <= \sum_s w_s max_{|d| <= epsilon + eta} l(s + d),

since the ball around t lies in the wider one around s(t): weighted adversarial
training on S bounds that on T. So eta should be small, and `cover` makes it
the smallest there is, or says how far from that it may be.

Axes: N examples, K chosen rows, C classes that occur. eta is in the units of x.
"""
from collections.abc import Sequence
import time
from typing import NamedTuple

from absl import logging
from jaxtyping import Array, Float, Int
import numpy as np

from dsr import checks
from dsr.distill import distances, per_class as per_class_lib, search, set_cover
from dsr.distill.bounds import Rows


class Cover(NamedTuple):
  """A cover, class by class in increasing order, and its certificate.

  Attributes:
    rows: (K,) chosen rows of x, sorted within a class.
    assignment: (N,) index into `rows` of the nearest one of the own class.
    weights: (K,) share of all examples assigned to each; they sum to 1.
    eta: the largest distance of an example to its chosen row.
    classes: (C,) class indices.
    class_eta: (C,) `eta` of each class.
    class_size: (C,) number of rows of each class.
    lower: (C,) proven bound on what was minimised: the number of rows where
      eta was given, the radius where `per_class` was; where `total` was, the
      bound on `eta` of all, repeated.
    gap: (C,) (value - lower) / value; 0 is proof of optimality.
    status: (C,) 'exact'; 'time limit', with the proven gap; or 'bounded': a
      heuristic method, with the proven gap.
  """

  rows: Int[np.ndarray, 'K']
  assignment: Int[np.ndarray, 'N']
  weights: Float[np.ndarray, 'K']
  eta: float
  classes: Int[np.ndarray, 'C']
  class_eta: Float[np.ndarray, 'C']
  class_size: Int[np.ndarray, 'C']
  lower: Float[np.ndarray, 'C']
  gap: Float[np.ndarray, 'C']
  status: tuple[str, ...]


def cover(
    x: Float[Array | np.ndarray, 'N ...'],
    labels: Int[Array | np.ndarray, 'N'], *,
    eta: float | None = None, per_class: int | Sequence[int] | None = None,
    total: int | None = None, norm: str = 'l2', method: str = 'exact',
    time_limit: float = 60.0) -> Cover:
  """The smallest cover of radius eta, or the one of least radius of its size.

  Deterministic as long as no time limit is met. MNIST, 50 rows a class: see
  BUILD_NOTES.md.

  Args:
    x: (N, ...) examples, e.g. images in [0, 1].
    labels: (N,) class indices.
    eta: radius: each class gets the fewest rows that cover it.
    per_class: rows of each class, and all rows of smaller classes; of a
      sequence a number for each class that occurs.
    total: rows in all (or N, if that is less), divided over the classes such
      that the largest radius is the smallest possible.
    norm: 'l1', 'l2' or 'linf'.
    method: 'exact' (local search, then branch and bound), 'lp' (rounding of the
      linear relaxation) or 'greedy'. All report a proven bound.
    time_limit: seconds a class. The best cover found by then is returned.

  Raises:
    ValueError: not exactly one of `eta`, `per_class` and `total`; one that is
      out of range; misshapen inputs; unknown norm or method.
  """
  x, labels = per_class_lib.flat(x, labels)
  checks.one_of('norm', norm, distances.NORMS)
  checks.one_of('method', method, set_cover.METHODS)
  checks.positive('time_limit', time_limit)
  members = per_class_lib.members(labels)
  _check_request(eta, per_class, total, len(members))
  classes = [Rows(x[inside], norm) for inside in members.values()]
  if total is not None:
    found = _divide(members, classes, total, method, time_limit)
  else:
    sizes = checks.one_each('per_class', per_class or 1, len(members))
    found = [_one_class(c, rows, eta, size, method, time_limit)
             for c, rows, size in zip(members, classes, sizes)]
  return _assemble(members, classes, found, eta, total, method)


def verify(
    x: Float[Array | np.ndarray, 'N ...'],
    labels: Int[Array | np.ndarray, 'N'],
    cover: Cover, *, norm: str = 'l2') -> None:
  """Checks a cover without the code that made it; silent if all is well.

  Float64 and direct differences: that each example is assigned to a row of its
  class, none is nearer, and it lies within the eta of the class; that weights
  are the shares of the assignment. It does not check optimality.

  Raises:
    ValueError: names the first row of x, or of the cover, that is wrong.
  """
  x, labels = per_class_lib.flat(x, labels)
  checks.one_of('norm', norm, distances.NORMS)
  order = {'l1': 1, 'l2': 2, 'linf': np.inf}[norm]
  rows, assignment = np.asarray(cover.rows), np.asarray(cover.assignment)
  if assignment.shape != labels.shape:
    raise ValueError(f'`cover.assignment` must have shape {labels.shape}, got '
                     f'{assignment.shape}.')
  for name, index, stop in (
      ('rows', rows, len(x)), ('assignment', assignment, len(rows))):
    wrong = np.flatnonzero((index < 0) | (index >= stop))
    if len(wrong):
      raise ValueError(f'`cover.{name}` must be in [0, {stop}), got '
                       f'{index[wrong[0]]} at {wrong[0]}.')
  if len(np.unique(rows)) < len(rows):
    raise ValueError('`cover.rows` must be distinct.')
  wrong = np.flatnonzero(labels != labels[rows[assignment]])
  if len(wrong):
    raise ValueError(f'Row {wrong[0]} is assigned to another class.')
  if np.unique(labels).tolist() != cover.classes.tolist():
    raise ValueError(f'`cover.classes` must be {np.unique(labels)}, got '
                     f'{cover.classes}.')
  if max(cover.class_eta) != cover.eta:
    raise ValueError('`cover.eta` must be the largest of `cover.class_eta`.')
  for c, eta in zip(cover.classes, cover.class_eta, strict=True):
    inside = np.flatnonzero(labels == c)
    own = np.flatnonzero(labels[rows] == c)
    points = x[inside].astype(np.float64)
    gaps = np.stack([np.linalg.norm(points - x[rows[s]], order, axis=1)
                     for s in own], axis=1)  # (n, k)
    slot = np.searchsorted(own, assignment[inside])
    mine = gaps[np.arange(len(inside)), slot]
    # Not above: NaN fails too. The slack is that of float64 sums.
    _refuse(inside, mine, f'eta {eta:.6g} of its class',
            ~(mine <= eta * (1 + 1e-9)))
    _refuse(inside, mine, 'another centre of its class',
            ~(mine <= gaps.min(1) * (1 + 1e-9)))
  share = np.bincount(assignment, minlength=len(rows)) / len(x)
  wrong = np.flatnonzero(~np.isclose(cover.weights, share, rtol=0, atol=1e-12))
  if len(wrong):
    raise ValueError(
        f'`cover.weights` must be the shares of the assignment: centre '
        f'{wrong[0]} has {share[wrong[0]]:.6g}, got '
        f'{cover.weights[wrong[0]]:.6g}.')


def _refuse(inside, gap, bound, wrong):
  for i in np.flatnonzero(wrong)[:1]:
    raise ValueError(
        f'Row {inside[i]} is {gap[i]:.6g} from its centre, beyond {bound}.')


def _check_request(eta, per_class, total, num_classes):
  given = {'eta': eta, 'per_class': per_class, 'total': total}
  names = [name for name, value in given.items() if value is not None]
  if len(names) != 1:
    raise ValueError('Exactly one of `eta`, `per_class` and `total` must be '
                     f'given, got {names}.')
  if eta is not None:
    checks.non_negative('eta', eta)
  if per_class is not None:
    checks.one_each('per_class', per_class, num_classes)
  if total is not None:
    checks.at_least('total', total, 1)
    if total < num_classes:
      raise ValueError('`total` must be at least the number of classes, '
                       f'{num_classes}, got {total}.')


def _one_class(c, rows, eta, per_class, method, time_limit):
  deadline = time.monotonic() + time_limit
  if eta is not None:
    found = search.smallest_count(
        rows, eta, method=method, deadline=deadline)
  else:
    found = search.smallest_radius(
        [rows], per_class, method=method, deadline=deadline)
  _log(c, rows, found)
  return found


def _divide(members, classes, total, method, time_limit):
  """One search over all classes, as one `Found` a class."""
  together = search.smallest_radius(
      classes, total, method=method,
      deadline=time.monotonic() + time_limit * len(classes))
  found = [together._replace(centres=[s]) for s in together.centres]
  for c, rows, one in zip(members, classes, found):
    _log(c, rows, one)
  return found


def _log(c, rows, found):
  (centres,) = found.centres
  logging.info(
      'class %d: %d of %d rows, radius %.6g, lower bound %.6g%s', c,
      len(centres), len(rows), rows.radius(centres), found.lower,
      ', exact' if found.closed else '')


def _assemble(members, classes, found, eta, total, method):
  chosen, weights, radii = [], [], []
  count = sum(len(r) for r in classes)
  assignment = np.empty(count, np.intp)
  for inside, rows, one in zip(members.values(), classes, found):
    centres = np.sort(one.centres[0])
    nearest, gap = distances.nearest(rows.x, rows.x[centres], norm=rows.norm)
    assignment[inside] = nearest + sum(len(s) for s in chosen)
    chosen.append(inside[centres])
    weights.append(np.bincount(nearest, minlength=len(centres)) / count)
    radii.append(float(gap.max()))
  sizes = np.asarray([len(s) for s in chosen])
  if eta is not None:
    value = sizes.astype(np.float64)
  else:
    value = np.full(len(radii), max(radii)) if total else np.asarray(radii)
  closed = np.asarray([one.closed for one in found])
  lower = np.asarray([one.lower for one in found], np.float64)
  lower = np.where(closed, value, np.minimum(lower, value))
  gap = np.divide(
      value - lower, value, out=np.zeros_like(value), where=value > 0)
  still_open = 'time limit' if method == 'exact' else 'bounded'
  return Cover(
      rows=np.concatenate(chosen), assignment=assignment,
      weights=np.concatenate(weights), eta=max(radii),
      classes=np.asarray(list(members)), class_eta=np.asarray(radii),
      class_size=sizes, lower=lower, gap=gap,
      status=tuple('exact' if c else still_open for c in closed))
