"""FAB against exact distances, and the ensemble part by part."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from dsr.probes.attacks import apgd, autoattack, fab, threat as threats
from tests.probes.attacks import toys

FREE = {'low': -np.inf, 'high': np.inf}


def _size(d, norm):
  return np.linalg.norm(d, ord=np.inf if norm == 'linf' else 2, axis=1)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_the_way_to_a_plane_is_the_shortest_inside_the_range(norm):
  rng = np.random.default_rng(0)
  w = rng.normal(size=(12, 5))
  w[0, 1] = 0
  x = rng.uniform(size=(12, 5))
  far = np.where(np.arange(12) < 10, 0.3, 50.0)  # The last two are too far.
  gap = rng.normal(size=12) * far
  d = np.asarray(fab.onto_plane(w, gap, -x, 1 - x, norm))
  assert (x + d >= -1e-12).all()
  assert (x + d <= 1 + 1e-12).all()
  for i in range(12):
    bounds = list(zip(-x[i], 1 - x[i]))
    if norm == 'linf':  # Least t with |d| <= t.
      eye = np.eye(5)
      best = optimize.linprog(
          [0] * 5 + [1], np.block([[eye, -np.ones((5, 1))],
                                   [-eye, -np.ones((5, 1))]]), np.zeros(10),
          np.r_[w[i], 0][None], [gap[i]], [*bounds, (0, None)])
      value = best.fun if best.success else None
    else:
      best = optimize.lsq_linear(
          np.vstack([np.eye(5), 1e5 * w[i]]), np.r_[np.zeros(5), 1e5 * gap[i]],
          np.transpose(bounds), method='bvls', tol=1e-14)
      reached = abs(w[i] @ best.x - gap[i]) < 1e-4
      value = np.linalg.norm(best.x) if reached else None
    if value is None:
      wanted = np.where(gap[i] * w[i] > 0, 1 - x[i], -x[i])
      np.testing.assert_allclose(d[i][w[i] != 0], wanted[w[i] != 0])
    else:
      assert w[i] @ d[i] == pytest.approx(gap[i], abs=1e-9)
      assert _size(d[i][None], norm)[0] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_fab_finds_the_nearest_border(norm):
  labels = toys.classes(toys.linear)
  x_adv = np.asarray(fab.fab(
      jax.random.key(0), toys.linear, toys.X, labels, norm=norm, steps=10,
      classes=2, **FREE))
  exact = toys.linear_distances(labels, norm)
  assert (toys.margins(toys.linear, x_adv, labels) > 0).all()
  ratio = _size(x_adv - toys.X, norm) / exact
  assert (ratio > 1).all()
  assert (ratio < 1.06).all()
  # What is wrong already stays; a ball is not left; a class can be aimed at.
  wrong = (labels + 1) % 3
  np.testing.assert_array_equal(fab.fab(
      jax.random.key(0), toys.linear, toys.X, wrong, norm=norm, steps=10,
      classes=2, **FREE), toys.X)
  near = np.asarray(fab.fab(
      jax.random.key(0), toys.linear, toys.X, labels, norm=norm, steps=10,
      targets=wrong, epsilon=float(np.median(exact)), **FREE))
  assert (_size(near - toys.X, norm) <= np.median(exact) * (1 + 1e-6)).all()
  reached = toys.classes(toys.linear, near) == wrong
  assert 0.05 < reached.mean() < 0.6


def test_aims_lead_and_any_other_class_counts():
  labels = toys.classes(toys.mlp)
  predict, threat = threats.build(
      toys.mlp, toys.X, labels, epsilon=0.1, norm='linf')
  ranks = np.asarray(fab.likeliest(predict, threat, 9))
  logits = np.asarray(toys.mlp(toys.X))
  order = np.argsort(-logits, axis=1)
  np.testing.assert_array_equal(ranks, order[:, 1:].T)
  found = {}
  for name in ('aims', 'targets'):
    x_adv = apgd.apgd(
        jax.random.key(0), toys.mlp, toys.X, labels, epsilon=0.1, loss='dlr',
        steps=20, **{name: ranks[0]})
    found[name] = toys.classes(toys.mlp, x_adv)
  hit, reached = found['aims'] != labels, found['targets'] == ranks[0]
  assert 0.2 < hit.mean() < 1
  assert hit.sum() >= reached.sum()
  with pytest.raises(ValueError, match='`aims` must be None with `targets`'):
    threats.build(toys.mlp, toys.X, labels, epsilon=0.1, norm='linf',
                  aims=ranks[0], targets=ranks[0])
  with pytest.raises(ValueError, match='`aims` must differ from `labels`'):
    threats.build(toys.mlp, toys.X, labels, epsilon=0.1, norm='linf',
                  aims=labels)


def test_each_attack_gets_what_is_left_in_tiles_of_one_shape(monkeypatch):
  """Attacks that fool one example each, and one that fools none."""
  labels = toys.classes(toys.linear)
  labels[3] = (labels[3] + 1) % 3  # Wrong from the start.
  seen = []

  def fake(name, row):
    def run(key, predict, x, labels, **options):
      here = np.flatnonzero((np.asarray(x) == toys.X[row]).all(1))
      seen.append((name, options.get('aims') is not None, len(x),
                   len(np.unique(x, axis=0)), len(here) > 0))
      other = np.flatnonzero(toys.classes(toys.linear) != labels[here[0]])[
          0] if len(here) else 0
      return jnp.asarray(x).at[here].set(toys.X[other])

    return run

  monkeypatch.setattr(autoattack.apgd, 'apgd', fake('apgd', 5))
  monkeypatch.setattr(autoattack.fab, 'fab', fake('fab', 9))
  monkeypatch.setattr(autoattack.square, 'square', fake('square', 5))
  x_adv = np.asarray(autoattack.autoattack(
      jax.random.key(0), toys.linear, toys.X, labels, epsilon=0.1, steps=1,
      queries=1, batch_size=20))
  moved = np.flatnonzero((x_adv != toys.X).any(1))
  assert moved.tolist() == [5, 9]
  assert {shape for _, _, shape, _, _ in seen} == {20}
  # Of 48 without the one that was wrong: 47, then 46, then 45.
  named = [name for name, *_ in seen]
  assert named == ['apgd'] * 9 + ['fab'] * 3 + ['square'] * 3
  assert [aim for _, aim, *_ in seen[:9]] == [False] * 3 + [True] * 6
  last = [n for name, _, _, n, _ in seen if name == 'square']
  assert sum(last) == 45
  assert not any(here for name, *_, here in seen if name == 'square')


@pytest.mark.slow
@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_the_ensemble_is_never_weaker_than_its_parts(norm):
  labels = toys.classes(toys.mlp)
  epsilon = {'linf': 0.08, 'l2': 0.2}[norm]
  options = {'epsilon': epsilon, 'norm': norm}
  whole = np.asarray(autoattack.autoattack(
      jax.random.key(0), toys.mlp, toys.X, labels, steps=20, queries=200,
      **options))
  assert (_size(whole - toys.X, norm) <= epsilon * (1 + 1e-6)).all()
  part = apgd.apgd(jax.random.key(1), toys.mlp, toys.X, labels, steps=20,
                   **options)
  left = [toys.accuracy(toys.mlp, x, labels) for x in (whole, part)]
  assert 0.1 < left[0] <= left[1] < 0.95
