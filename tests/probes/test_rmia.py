"""RMIA: against double loops in NumPy, nulls, and few shadows."""
import numpy as np
import pytest

from dsr.probes import membership, rmia as module

rmia = module.rmia
S, N, Z, T = 6, 9, 14, 3


def _problem(seed=0, s=S, n=N, z=Z, t=T):
  rng = np.random.default_rng(seed)
  log_p, target = (-rng.exponential(size=(k, n)) for k in (s, t))
  population, target_population = (
      -rng.exponential(size=(k, z)) for k in (s, t))
  member = rng.random((s, n)).argsort(0) < s // 2
  return log_p, member, target, population, target_population


def _by_hand(log_p, member, target, population, target_population, *, online,
             a, gamma):
  """Pair by pair, with probabilities themselves: (T, N)."""
  p, q, pz, qz = map(np.exp, (log_p, target, population, target_population))
  out = np.zeros(q.shape)
  for t in range(len(q)):
    for i in range(q.shape[1]):
      m_out = np.mean([p[s, i] for s in range(len(p)) if not member[s, i]])
      m_in = a * m_out + 1 - a
      if online:
        m_in = np.mean([p[s, i] for s in range(len(p)) if member[s, i]])
      ratio = q[t, i] / ((m_in + m_out) / 2)
      wins = 0
      for z in range(pz.shape[1]):
        mean_z = np.mean(pz[:, z])
        ratio_z = qz[t, z] / ((mean_z + a * mean_z + 1 - a) / 2)
        wins += ratio / ratio_z >= gamma
      out[t, i] = wins / pz.shape[1]
  return out


def _mean_auc(score, member):
  curves = [membership.roc(s, m) for s, m in zip(score, member, strict=True)]
  return np.array([np.trapezoid(c.tpr, c.fpr) for c in curves])


@pytest.mark.parametrize(('online', 'a', 'gamma'), [
    (True, 1.0, 2.0), (True, 0.3, 1.0), (False, 1.0, 1.0), (False, 0.4, 2.0),
    (False, 0.0, 0.7)])
def test_score_is_the_share_of_pairs(online, a, gamma):
  options = dict(online=online, a=a, gamma=gamma)
  want = _by_hand(*_problem(), **options)
  assert 0 < want.mean() < 1
  got = rmia(*_problem(), break_ties=False, **options)
  np.testing.assert_allclose(got, want, rtol=1e-12)
  fine = rmia(*_problem(), **options)
  assert np.all(np.abs(fine - want) <= 1 / (Z + 1))
  for row, coarse in zip(fine, want, strict=True):
    order = row.argsort()
    assert np.all(np.diff(coarse[order]) >= 0)  # No pair changes places.
    assert len(np.unique(row)) == N


def test_one_target_is_a_row_of_many():
  log_p, member, target, population, other = _problem()
  got = rmia(log_p, member, target[1], population, other[1])
  np.testing.assert_array_equal(got, rmia(*_problem())[1])


def test_probabilities_near_0_and_1_keep_their_digits():
  log_p, member, target, population, other = _problem()
  scale = np.array([1e-14, 1e3])[np.arange(N) % 2]
  got = rmia(log_p * scale, member, target * scale, population, other,
             break_ties=False)
  assert np.isfinite(got).all()
  tiny = rmia(1e-14 * log_p, member, 1e-14 * target, 1e-14 * population,
              1e-14 * other, gamma=1.0)
  assert len(np.unique(tiny)) > N  # p rounds to 1; ranks are kept.


@pytest.mark.parametrize('online', [True, False])
@pytest.mark.parametrize('s', [2, 16])
def test_nothing_is_found_where_nothing_leaks(online, s):
  """AUC 1/2 within its standard error, over 200 draws."""
  found = []
  for seed in range(200):
    *rest, = _problem(seed, s=s, n=60, t=1)
    if not online:
      rest[1] = np.zeros_like(rest[1])
      rest[1][0] = np.arange(60) < 30  # The first shadow alone has members.
    truth = np.random.default_rng(seed + 1000).permutation(60) < 30
    found.append(_mean_auc(rmia(*rest, online=online, a=0.5), [truth])[0])
  error = np.std(found, ddof=1) / np.sqrt(len(found))
  assert abs(np.mean(found) - 0.5) < 3 * error
  assert error < 0.01


def _trained(seed, s, n=400, z=200, t=20, gain=1.0):
  """Log probabilities of models whose members have a larger logit."""
  rng = np.random.default_rng(seed)
  hard, hard_z = rng.normal(0, 2, n), rng.normal(0, 2, z)
  member = rng.random((s + t, n)).argsort(0) < (s + t) // 2
  member[:s] = rng.random((s, n)).argsort(0) < s // 2
  squash = lambda v: -np.logaddexp(0, -v)
  log_p = squash(hard + gain * member + rng.normal(size=member.shape))
  population = squash(hard_z + rng.normal(size=(s + t, z)))
  return (log_p[:s], member[:s], log_p[s:], population[:s],
          population[s:]), member[s:]


@pytest.mark.parametrize('online', [True, False])
def test_few_shadows_find_what_the_bare_score_does_not(online):
  problem, truth = _trained(0, 4)
  gain = _mean_auc(rmia(*problem, online=online), truth) - _mean_auc(
      problem[2], truth)
  assert gain.mean() > 5 * np.std(gain, ddof=1) / np.sqrt(len(gain))
  assert gain.mean() > 0.03


def test_the_scale_is_that_of_the_best_attack_on_shadows():
  """Members are fitted exactly, whatever others make of them."""
  rng = np.random.default_rng(3)
  member = rng.random((6, 200)).argsort(0) < 3
  log_p = -rng.exponential(2.0, 200) - 0.5 * rng.exponential(size=(6, 200))
  log_p = np.where(member & (rng.random(member.shape) < 0.5), -1e-3, log_p)
  none = -np.ones((6, 2))
  found = []
  grid = np.linspace(0, 1, 11)
  for a in grid:
    each = []
    for s in range(6):
      rest = np.arange(6) != s
      seen = (~member[rest]).any(0)
      score = rmia(log_p[rest][:, seen], member[rest][:, seen], log_p[s, seen],
                   none[rest], none[s], online=False, a=a)
      each.append(_mean_auc([score], [member[s, seen]])[0])
    found.append(np.mean(each))
  assert max(found) > min(found) + 0.01
  assert module.offline_scale(log_p, member) == pytest.approx(
      grid[np.argmax(found)])


def test_gaussian_likelihood_is_scipys_up_to_a_constant():
  from scipy import stats
  error = np.array([[0.0, 0.5], [2.0, 3.0]])
  want = stats.norm(0, np.sqrt(0.7)).logpdf(np.sqrt(error))
  want -= stats.norm(0, np.sqrt(0.7)).logpdf(0)
  np.testing.assert_allclose(module.gaussian_log_p(error, 0.7), want)


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    ({'log_p': np.full((S, N), 0.1)}, '`log_p` must be logarithms'),
    ({'member': np.ones((S, N), bool)}, '1 "out" shadow, got none'),
    ({'member': np.zeros((S, N), bool)}, '1 "in" shadow, got none'),
    ({'member': np.zeros((S, N))}, '`member` must be boolean of shape'),
    ({'target': np.zeros(3)}, r'`target` must have shape \(9,\) or'),
    ({'target': np.full(N, np.nan)}, '`target` must be finite'),
    ({'population': np.zeros((S + 1, Z))}, '`population`'),
    ({'target_population': np.zeros(Z)}, 'the models of `target`, got shapes'),
    ({'a': 1.5}, '`a` must be'), ({'gamma': 0.0}, '`gamma` must be'),
])
def test_bad_arguments_are_named(change, message):
  names = ('log_p', 'member', 'target', 'population', 'target_population')
  arguments = dict(zip(names, _problem(), strict=True)) | change
  with pytest.raises(ValueError, match=message):
    rmia(**arguments)


@pytest.mark.errors
def test_bad_errors_are_named():
  with pytest.raises(ValueError, match='`squared_error` must be at least 0'):
    module.gaussian_log_p(np.array([[-1.0, 0.0]]), 1.0)
  with pytest.raises(ValueError, match='`variance` must be'):
    module.gaussian_log_p(np.zeros((2, 2)), 0.0)
