r"""Both sides of the bound that a cover gives on adversarial training.

Let each t of T stand in the ball of a centre s(t) of its class, |t - s(t)| <=
eta_s, with w_s the share of T that s stands for. Then for any network

  mean_t max_{|d| <= eps} l(t + d)
      <= \sum_s w_s max_{|d| <= eps + eta_s} l(s + d),

since B(t, eps) lies in B(s(t), eps + eta_s), also after both are cut to the
range of pixels; l is the cross-entropy of the class (arXiv:2402.05675).

What an evaluation shows. An attack finds a lower bound of either maximum, so
neither "left <= right" nor its failure follows from attacks alone. Here the
points t + d_t found for the left side count on the right side too: they lie in
the balls of their centres, which is checked. Hence

  left <= true left,   left <= right <= true right,   true left <= true right,

where the first two hold by construction and the third is the theorem, whose
conditions are checked. `slack` = right - left is an estimate of how loose the
bound is, neither an upper nor a lower limit of the true difference. A number
that is proven to be above the true right side, hence above the true left side
as well, takes the argument `upper`, for example `lipschitz_upper`.

Axes: N points of T, K centres, C classes. Radii are in the unit of x.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key
import numpy as np

from dsr import checks
from dsr.types import PredictFn

_ORDERS = {'l1': 1, 'l2': 2, 'linf': np.inf}
_BLOCK = 1000  # Rows whose distances are taken at a time.
_SLACK = 1e-5  # Of checks: what rounding in float32 may do.


class Bound(NamedTuple):
  """The two sides, as far as they are known.

  Attributes:
    left: mean over T of the largest loss that the attack found within eps.
    right: weighted mean over S of the largest loss known in the wider balls.
    right_by_attack: the same, of what the attack on the centres found alone.
    slack: right - left.
    relative_slack: slack / right, in [0, 1].
    upper: proven to be no less than the true sides; None without `upper`.
    radius: largest eps + eta_s.
    missed: centres in whose ball a point of T had a larger loss than the attack
      on the centre found: how much the attack leaves to be found.
    violations: points of T, and centres, with a larger loss than the proven
      one of their ball: 0, or `upper` proves nothing.
  """

  left: float
  right: float
  right_by_attack: float
  slack: float
  relative_slack: float
  upper: float | None
  radius: float
  missed: int
  violations: int


def cover_bound(
    key: Key[Array, ''], attack: Callable, predict_fn: PredictFn, x: Any,
    labels: Any, *, centres: Any, centre_labels: Any, assignment: Any,
    epsilon: float, eta: Any = None, weights: Any = None, norm: str = 'linf',
    low: float = 0.0, high: float = 1.0, upper: Callable | None = None,
    tile: int = 500) -> Bound:
  """Attacks T at epsilon and the centres at epsilon + eta.

  Args:
    key: split among the calls of the attack.
    attack: (key, predict_fn, x, labels, *, epsilon) -> x_adv in the ball of
      `norm` and in [low, high], such as `functools.partial(pgd, norm='l2')`.
    predict_fn: x (N, ...) -> logits (N, C); with C = 1 the sign is the class.
    x: (N, ...) the points T in [low, high].
    labels: (N,) classes.
    centres: (K, ...) in [low, high]; need not be in T.
    centre_labels: (K,) classes.
    assignment: (N,) the centre of each point, of its own class.
    epsilon: radius around the points.
    eta: radius of the cover: a number or (K,) numbers, one a centre. None
      takes the largest distance of its own points for each centre: the
      tightest bound, and one call of the attack for each centre.
    weights: (K,) those of the cover, which must be the shares of `assignment`.
    norm: 'l1', 'l2' or 'linf', of all radii.
    low: least valid pixel.
    high: greatest valid pixel.
    upper: (x (K, ...), labels (K,), radii (K,)) -> (K,) numbers proven to be at
      least the largest loss within each radius.
    tile: points attacked at a time; bounds the memory.

  Raises:
    ValueError: arrays that do not fit; a point farther than eta from its
      centre, of another class or outside the range; weights that are not the
      shares; an attack that leaves its ball or range.
  """
  checks.one_of('norm', norm, _ORDERS)
  checks.non_negative('epsilon', epsilon)
  checks.at_least('tile', tile, 1)
  points = _Points(x, labels, 'x', 'labels', low, high)
  wide = _Points(centres, centre_labels, 'centres', 'centre_labels', low, high)
  checks.inputs('centres', wide.x, like=points.x)
  radii, shares = _checked_cover(
      points, wide, np.asarray(assignment), eta, weights, norm)
  assignment = np.asarray(assignment)
  used = np.flatnonzero(shares)  # Others add nothing to either side.
  run = _Run(attack, predict_fn, norm, low, high, tile)
  key_left, key_right = jax.random.split(key)
  found = run.losses(key_left, points.x, points.labels, epsilon)
  by_attack = np.zeros(len(shares))
  distinct = np.unique(radii[used])
  for radius, subkey in zip(
      distinct, jax.random.split(key_right, len(distinct)), strict=True):
    rows = used[radii[used] == radius]
    by_attack[rows] = run.losses(
        subkey, wide.x[rows], wide.labels[rows], epsilon + radius)
  known = by_attack.copy()
  np.maximum.at(known, assignment, found)
  left, right = float(found.mean()), float(shares @ known)
  proven, violations = None, 0
  if upper is not None:
    top = np.zeros(len(shares))
    top[used] = np.asarray(upper(
        wide.x[used], wide.labels[used], epsilon + radii[used]), np.float64)
    proven = float(shares @ top)
    limit = top + _SLACK * (1 + np.abs(top))
    violations = int(np.sum(found > limit[assignment])
                     + np.sum(by_attack[used] > limit[used]))
  return Bound(
      left, right, float(shares @ by_attack), right - left,
      (right - left) / right if right > 0 else 0.0, proven,
      float(epsilon + radii[used].max()), int(np.sum(known > by_attack)),
      violations)


def lipschitz_upper(
    predict_fn: PredictFn, constants: Float[Any, 'C C']) -> Callable:
  r"""An `upper` from Lipschitz constants of the differences of two logits.

  With |(z_k - z_y)(x) - (z_k - z_y)(x')| <= L_yk |x - x'| in the norm at hand,

    max_{|d| <= r} l(s + d) <= log \sum_k exp((z_k - z_y)(s) + r L_yk).

  A linear classifier z = W x has L_yk = |w_k - w_y| in the dual norm, and with
  two classes and no range of pixels the bound is attained.

  Args:
    predict_fn: x (N, ...) -> logits (N, C), C of at least 2.
    constants: (C, C), zero on the diagonal.

  Raises:
    ValueError: `constants` is not such a matrix.
  """
  constants = np.asarray(constants, np.float64)
  checks.square('constants', constants)
  checks.finite('constants', constants)
  if constants.min() < 0 or np.any(np.diag(constants)):
    raise ValueError('`constants` must not be negative, and zero on the '
                     'diagonal.')

  def upper(x, labels, radii):
    logits = _logits(predict_fn, x)
    checks.features('predict_fn(x)', logits, dim=len(constants))
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return _log_sum_exp(logits - own + radii[:, None] * constants[labels])

  return upper


class _Points:
  """Examples with labels on the host, once they are seen to be fine."""

  def __init__(self, x, labels, name, labels_name, low, high):
    checks.inputs(name, x)
    self.x, self.labels = np.asarray(x), np.asarray(labels)
    checks.finite(name, self.x)
    checks.class_indices(labels_name, self.labels)
    checks.same_rows(**{name: self.x, labels_name: self.labels})
    _check_range(name, self.x, low, high)


def _check_range(name, x, low, high):
  slack = _SLACK * (1 + abs(x).max())
  if x.min() < low - slack or x.max() > high + slack:
    raise ValueError(f'`{name}` must be in [{low}, {high}], got values from '
                     f'{x.min():.6g} to {x.max():.6g}.')


def _checked_cover(points, wide, assignment, eta, weights, norm):
  """(K,) eta of each centre and (K,) shares, if this is a cover."""
  count = len(wide.x)
  checks.labels('assignment', assignment, count)
  checks.same_rows(x=points.x, assignment=assignment)
  wrong = np.flatnonzero(points.labels != wide.labels[assignment])
  if len(wrong):
    raise ValueError(
        f'`assignment` must keep to the class: point {wrong[0]} of class '
        f'{points.labels[wrong[0]]} has centre {assignment[wrong[0]]} of class '
        f'{wide.labels[assignment[wrong[0]]]}.')
  gaps = _distances(points.x, wide.x[assignment], norm)
  if eta is None:
    radii = np.zeros(count)
    np.maximum.at(radii, assignment, gaps)
  else:
    radii = np.asarray(eta, np.float64)
    if radii.shape not in ((), (count,)):
      raise ValueError(f'`eta` must be a number or ({count},) of them, got '
                       f'shape {radii.shape}.')
    checks.finite('eta', radii)
    radii = np.broadcast_to(radii, (count,))
  allowed = radii[assignment] * (1 + _SLACK)
  wrong = np.flatnonzero(~(gaps <= allowed))
  if len(wrong):
    raise ValueError(
        f'`assignment` must be within `eta`: point {wrong[0]} is '
        f'{gaps[wrong[0]]:.6g} from its centre, beyond '
        f'{radii[assignment[wrong[0]]]:.6g}.')
  shares = np.bincount(assignment, minlength=count) / len(assignment)
  if weights is not None:
    weights = np.asarray(weights)
    checks.numbers('weights', weights, rows=count)
    wrong = np.flatnonzero(~(np.abs(weights - shares) <= 1e-6))
    if len(wrong):
      raise ValueError(
          '`weights` must be the shares of `assignment`: centre '
          f'{wrong[0]} has {shares[wrong[0]]:.6g}, got '
          f'{weights[wrong[0]]:.6g}.')
  return radii, shares


def _distances(a, b, norm):
  """(N,) |a_n - b_n| in float64, some rows at a time."""
  out = []
  for start in range(0, len(a), _BLOCK):
    part = slice(start, start + _BLOCK)
    d = a[part].astype(np.float64) - b[part]
    out.append(np.linalg.norm(d.reshape(len(d), -1), _ORDERS[norm], axis=1))
  return np.concatenate(out)


class _Run(NamedTuple):
  """An attack on a network, and what it must keep to."""

  attack: Callable
  predict_fn: PredictFn
  norm: str
  low: float
  high: float
  tile: int

  def losses(self, key, x, labels, epsilon):
    """(N,) loss where the attack went, or at x if that is larger."""
    epsilon, num = float(epsilon), len(x)
    size = min(self.tile, num)
    starts = [*range(0, num - size, size), num - size]  # Equal shapes.
    out = np.empty(num)
    for start, subkey in zip(starts, jax.random.split(key, len(starts))):
      rows = slice(start, start + size)
      x_adv = np.asarray(self.attack(
          subkey, self.predict_fn, x[rows], labels[rows], epsilon=epsilon))
      _check_range('attack(x)', x_adv, self.low, self.high)
      far = _distances(x_adv, x[rows], self.norm).max()
      if not far <= epsilon + _SLACK * (1 + epsilon):
        raise ValueError('`attack` must stay within `epsilon`: it went '
                         f'{far:.6g} far, beyond {epsilon:.6g}.')
      out[rows] = np.maximum(
          _cross_entropy(_logits(self.predict_fn, x_adv), labels[rows]),
          _cross_entropy(_logits(self.predict_fn, x[rows]), labels[rows]))
    return out


def _logits(predict_fn, x):
  """(N, C) in float64, C of at least 2."""
  logits = np.asarray(predict_fn(x), np.float64)
  if logits.ndim != 2 or len(logits) != len(x):
    raise ValueError(f'`predict_fn` must map {x.shape} to logits ({len(x)}, C),'
                     f' got {logits.shape}.')
  checks.finite('predict_fn(x)', logits)
  if logits.shape[1] == 1:
    return np.concatenate([-logits / 2, logits / 2], axis=1)
  return logits


def _cross_entropy(logits, labels):
  checks.labels('labels', labels, logits.shape[1])
  own = np.take_along_axis(logits, labels[:, None], axis=1)
  return _log_sum_exp(logits - own)


def _log_sum_exp(z):
  top = z.max(axis=1)
  return top + np.log(np.sum(np.exp(z - top[:, None]), axis=1))
