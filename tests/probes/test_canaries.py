"""Bounds of epsilon in one run: against enumeration, and where it is known."""
import math

import numpy as np
import pytest
from scipy import special, stats

from dsr.probes import canaries as module


def _by_enumeration(m, r, v, epsilon, delta):
  """The bound of the module's text, term by term."""
  q = math.exp(epsilon) / (1 + math.exp(epsilon))
  pmf = [math.comb(r, k) * q**k * (1 - q)**(r - k) for k in range(r + 1)]
  worst = max((sum(pmf[k] for k in range(v - i, v)) / i
               for i in range(1, v + 1)), default=0.0)
  return min(1.0, sum(pmf[v:]) + 2 * m * delta * worst)


@pytest.mark.parametrize('delta', [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize(('m', 'r', 'v', 'epsilon'), [
    (20, 8, 8, 0.0), (20, 8, 7, 1.0), (9, 9, 0, 0.5), (50, 12, 11, 2.0)])
def test_p_value_is_the_sum_of_its_terms(m, r, v, epsilon, delta):
  got = module.p_value(m, r, v, epsilon, delta)
  assert got == pytest.approx(_by_enumeration(m, r, v, epsilon, delta))


@pytest.mark.parametrize('delta', [0.0, 1e-5])
def test_the_bound_is_where_the_p_value_meets_the_level(delta):
  got = module.epsilon_bound(100, 60, 55, delta=delta, level=0.95)
  assert 1 < got < 3
  assert module.p_value(100, 60, 55, got - 1e-6, delta) < 0.05
  assert module.p_value(100, 60, 55, got + 1e-6, delta) > 0.05
  if not delta:  # Clopper and Pearson's lower end of the rate of success.
    rate = stats.binomtest(55, 60).proportion_ci(0.9, 'exact').low
    assert got == pytest.approx(special.logit(rate), abs=1e-6)


def test_guessing_proves_nothing_and_delta_costs():
  assert module.epsilon_bound(100, 100, 50) == 0
  assert module.epsilon_bound(100, 4, 4) == 0  # 1/16 is no refutation.
  bounds = [module.epsilon_bound(100, 60, 60, delta=d)
            for d in (0, 1e-4, 1e-3, 1e-2)]
  assert np.all(np.diff(bounds) < 0)


@pytest.mark.parametrize('epsilon', [0.0, 1.0, 3.0])
def test_randomised_response_is_not_refuted_more_often_than_allowed(epsilon):
  """The mechanism for which the bound is exact, and several numbers tried."""
  rng, m, found = np.random.default_rng(0), 200, []
  for _ in range(100):
    included = rng.random(m) < 0.5
    kept = rng.random(m) < special.expit(epsilon)
    says = np.where(kept, included, ~included)
    score = says + 0.01 * rng.random(m)
    found.append(module.lower_bound(
        score, included, num_guesses=(20, 100, 200)).epsilon)
  refuted = np.mean(np.array(found) > epsilon)
  assert refuted <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)
  if epsilon:  # And it is near: a bound of 0 would pass the line above.
    assert np.mean(found) > 0.6 * epsilon


def test_nothing_is_proved_by_scores_that_know_nothing():
  """The null: refuted at 0 in no more runs than the level allows."""
  rng = np.random.default_rng(1)
  found = [module.lower_bound(
      rng.normal(size=100), rng.random(100) < 0.5, num_guesses=(10, 50, 100))
           .epsilon for _ in range(100)]
  assert np.mean(np.array(found) > 0) <= 0.05 + 3 * math.sqrt(
      0.05 * 0.95 / 100)


def test_the_surest_are_guessed_and_the_best_number_is_told():
  score = np.r_[np.arange(20.0, 10, -1), np.zeros(80), -np.arange(1.0, 11)]
  included = np.r_[np.ones(10, bool), np.tile([True, False], 40),
                   np.zeros(10, bool)]
  found = module.lower_bound(score, included, num_guesses=(20, 100))
  assert (found.num_guesses, found.num_correct) == (20, 20)
  assert found.epsilon == pytest.approx(
      module.epsilon_bound(100, 20, 20, level=0.975))


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    ({'score': np.zeros((2, 2))}, '`score`'),
    ({'score': np.full(6, np.nan)}, '`score` must be finite'),
    ({'included': np.ones(6)}, '`included` must be boolean'),
    ({'num_guesses': ()}, '`num_guesses` must have a number'),
    ({'num_guesses': (3,)}, '`num_guesses` must be even, got 3'),
    ({'num_guesses': (8,)}, '`num_guesses` must be'),
    ({'level': 1.0}, '`level` must be between 0 and 1'),
    ({'delta': 2.0}, '`delta` must be'),
])
def test_bad_arguments_are_named(change, message):
  arguments = {'score': np.arange(6.0), 'included': np.arange(6) < 3,
               'num_guesses': (2,)} | change
  with pytest.raises(ValueError, match=message):
    module.lower_bound(**arguments)
