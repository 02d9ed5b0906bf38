"""The bound of a cover on linear classifiers, where both sides are exact."""
import functools

import jax
import numpy as np
import pytest

from dsr.probes import cover_bound as lib
from dsr.probes.attacks import pgd

EPSILON = 0.1
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(40, 6))
LABELS = np.arange(40) % 2
W = RNG.normal(size=(6, 2)) * 2
W3 = RNG.normal(size=(6, 3)) * 2
FREE = {'low': -np.inf, 'high': np.inf}
DUAL = {'linf': 1, 'l2': 2}
each_norm = pytest.mark.parametrize('norm', ['linf', 'l2'])


@jax.jit
def linear(x):
  return (x - 0.5) @ W


@jax.jit
def signed(x):
  return (x - 0.5) @ (W[:, 1:] - W[:, :1])


@jax.jit
def three(x):
  return (x - 0.5) @ W3


def _still(key, predict_fn, x, labels, *, epsilon):
  del key, predict_fn, labels, epsilon
  return x


def _weak_when_wide(key, predict_fn, x, labels, *, epsilon):
  """Finds nothing in balls wider than epsilon."""
  if epsilon > EPSILON:
    return x
  return pgd.pgd(key, predict_fn, x, labels, epsilon=epsilon, steps=2)


def _corner(norm, **options):
  return functools.partial(pgd.pgd, norm=norm, steps=1, step_size=100.0,
                           random_start=False, **options)


def _cover(seed=0, per_class=3, x=X, labels=LABELS):
  """Random centres, and a random one of its class for each point."""
  rng = np.random.default_rng(seed)
  rows = np.concatenate([
      rng.choice(np.flatnonzero(labels == c), per_class, replace=False)
      for c in np.unique(labels)])
  assignment = np.array([
      rng.choice(np.flatnonzero(labels[rows] == c)) for c in labels])
  return {'centres': x[rows], 'centre_labels': labels[rows],
          'assignment': assignment}


def _gaps(cover, norm, x=X):
  order = np.inf if norm == 'linf' else 2
  return np.linalg.norm(x - cover['centres'][cover['assignment']], order, 1)


def _margins(x, labels):
  sign = np.where(labels == 1, 1, -1)
  return sign * ((x - 0.5) @ (W[:, 0] - W[:, 1]))  # z_other - z_label


def _exact(x, labels, radius, norm, boxed):
  """Largest softplus of the margin in the ball, cut to [0, 1] if `boxed`."""
  if not boxed:
    size = np.linalg.norm(W[:, 0] - W[:, 1], DUAL[norm])
    return np.log1p(np.exp(_margins(x, labels) + radius * size))
  assert norm == 'linf'  # Each pixel by itself.
  slope = np.where(labels == 1, 1, -1)[:, None] * (W[:, 0] - W[:, 1])
  radius = np.reshape(radius, (-1, 1))
  end = np.clip(x + radius * np.sign(slope), 0, 1)
  return np.log1p(np.exp(_margins(end, labels)))


@pytest.mark.parametrize(('norm', 'boxed'), [
    ('linf', False), ('l2', False), ('linf', True)])
@pytest.mark.parametrize('predict_fn', [linear, signed])
def test_both_sides_are_exact_for_linear_classifiers(
    norm, boxed, predict_fn, key):
  box = {'low': 0.0, 'high': 1.0} if boxed else FREE
  cover = _cover()
  gaps, centres = _gaps(cover, norm), cover['centres']
  # One radius a class.
  by_class = [gaps[LABELS == c].max() for c in (0, 1)]
  eta = np.take(by_class, cover['centre_labels'])
  shares = np.bincount(cover['assignment'], minlength=6) / 40
  attack = _corner(norm, **box)
  found = lib.cover_bound(
      key, attack, predict_fn, X, LABELS, epsilon=EPSILON, norm=norm, eta=eta,
      weights=shares, **box, **cover)
  left = _exact(X, LABELS, EPSILON, norm, boxed)
  right = _exact(
      centres, cover['centre_labels'], EPSILON + eta, norm, boxed) @ shares
  rtol = 1e-12 if norm == 'linf' else 1e-9  # l2 balls are aimed at from inside.
  np.testing.assert_allclose(found.left, left.mean(), rtol=rtol)
  np.testing.assert_allclose(found.right, right, rtol=rtol)
  np.testing.assert_allclose(found.right_by_attack, right, rtol=rtol)
  np.testing.assert_allclose(found.radius, EPSILON + max(by_class), rtol=1e-12)
  assert found.slack == found.right - found.left > 0
  assert found.relative_slack == found.slack / found.right
  assert (found.missed, found.violations, found.upper) == (0, 0, None)


@each_norm
def test_radii_of_the_centres_themselves_are_the_tightest(norm, key):
  cover = _cover()
  run = functools.partial(
      lib.cover_bound, key, _corner(norm, **FREE), linear, X, LABELS,
      epsilon=EPSILON, norm=norm, **FREE, **cover)
  gaps = _gaps(cover, norm)
  own = np.array([gaps[cover['assignment'] == s].max() for s in range(6)])
  tight, given, loose = run(), run(eta=own), run(eta=own.max())
  assert tight == given
  assert tight.left == loose.left
  assert tight.left < tight.right < loose.right


@pytest.mark.parametrize('seed', range(4))
def test_random_covers_of_three_classes_hold(seed, key):
  labels = np.arange(40) % 3
  cover = _cover(seed, labels=labels)
  found = lib.cover_bound(
      key, functools.partial(pgd.pgd, norm='linf', steps=3), three, X, labels,
      epsilon=EPSILON, eta=_gaps(cover, 'linf').max(), **cover,
      upper=lib.lipschitz_upper(three, np.abs(
          W3[:, :, None] - W3[:, None]).sum(0)))
  assert 0 < found.left <= found.right <= found.upper
  assert found.right_by_attack <= found.right
  assert found.violations == 0


def test_points_of_the_left_side_count_on_the_right_side(key):
  found = lib.cover_bound(
      key, _weak_when_wide, linear, X, LABELS, epsilon=EPSILON, **_cover())
  assert found.right_by_attack < found.left <= found.right
  assert 0 < found.missed <= 6


def test_a_point_on_its_centre_leaves_no_slack(key):
  found = lib.cover_bound(
      key, _corner('linf'), linear, X, LABELS, centres=X, centre_labels=LABELS,
      assignment=np.arange(40), epsilon=EPSILON, eta=0.0)
  np.testing.assert_allclose(found.left, found.right, rtol=1e-12)
  assert found.radius == EPSILON


def test_centres_without_points_and_tiles_change_nothing(key):
  cover = _cover()
  run = functools.partial(
      lib.cover_bound, key, _corner('linf'), linear, X, LABELS,
      epsilon=EPSILON, eta=1.0)
  want = run(**cover)
  more = cover | {
      'centres': np.concatenate([cover['centres'], X[:1]]),
      'centre_labels': np.append(cover['centre_labels'], LABELS[:1])}
  for found in (run(**more), run(tile=7, **cover)):
    np.testing.assert_allclose(
        [v for v in found if v is not None],
        [v for v in want if v is not None], rtol=1e-12)


@each_norm
def test_the_proven_side_is_attained_by_two_classes(norm, key):
  size = np.linalg.norm(W[:, 0] - W[:, 1], DUAL[norm])
  run = functools.partial(
      lib.cover_bound, key, _corner(norm, **FREE), linear, X, LABELS,
      epsilon=EPSILON, norm=norm, eta=2.0, **FREE, **_cover())
  constants = size * (1 - np.eye(2))
  found = run(upper=lib.lipschitz_upper(linear, constants))
  np.testing.assert_allclose(found.upper, found.right, rtol=1e-9)
  assert found.violations == 0
  wrong = run(upper=lib.lipschitz_upper(linear, 0.9 * constants))
  assert wrong.upper < wrong.right
  assert wrong.violations >= 6  # The centres at least.


@pytest.mark.errors
def test_broken_covers_and_attacks_are_refused(key):
  cover = _cover()

  def run(attack=_still, x=X, labels=LABELS, predict_fn=linear, **kwargs):
    kwargs = {'epsilon': EPSILON, 'eta': 1.0} | cover | kwargs
    return lib.cover_bound(key, attack, predict_fn, x, labels, **kwargs)

  run()
  with pytest.raises(ValueError, match='must keep to the class: point 0 of'):
    run(assignment=np.roll(cover['assignment'], 1))
  with pytest.raises(ValueError, match=r'`assignment` must be within `eta`: p'):
    run(eta=0.9 * _gaps(cover, 'linf').max())
  with pytest.raises(ValueError, match='`assignment` must be within `eta`'):
    run(norm='l2', eta=_gaps(cover, 'linf').max())
  with pytest.raises(ValueError, match=r'`assignment` must be in \[0, 6\)'):
    run(assignment=cover['assignment'] + 1)
  with pytest.raises(ValueError, match='`assignment` has 39'):
    run(assignment=cover['assignment'][1:])
  with pytest.raises(ValueError, match='must be the shares of `assignment`'):
    run(weights=np.full(6, 1 / 6) + [1e-3, 0, 0, 0, 0, -1e-3])
  with pytest.raises(ValueError, match='`x` must be in .0.0, 1.0., got values'):
    run(x=X + 0.5)
  with pytest.raises(ValueError, match='`centres` must be in'):
    run(centres=cover['centres'] - 0.5)
  with pytest.raises(ValueError, match='`centres` has examples of shape'):
    run(centres=cover['centres'][:, 1:])
  far = lambda *args, epsilon: np.clip(args[2] + 2 * epsilon, 0, 1)
  with pytest.raises(ValueError, match='`attack` must stay within `epsilon`'):
    run(far)
  out = lambda *args, epsilon: args[2] + epsilon
  with pytest.raises(ValueError, match=r'`attack\(x\)` must be in'):
    run(out)
  with pytest.raises(ValueError, match='`norm` must be one of l1, l2, linf'):
    run(norm='l3')
  with pytest.raises(ValueError, match=r'`eta` must be a number or \(6,\)'):
    run(eta=np.ones(5))
  with pytest.raises(ValueError, match=r'to logits \(40, C\), got \(40,\)'):
    run(predict_fn=lambda x: x[:, 0])
  with pytest.raises(ValueError, match='`constants` must not be negative'):
    lib.lipschitz_upper(linear, -np.eye(2))
