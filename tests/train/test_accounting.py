"""Privacy accounting: against closed forms and published numbers."""
import math

import pytest
from scipy import optimize, special

from dsr.train import accounting

MNIST = 256 / 60_000  # The sampling rate of the usual example.


def _gaussian_epsilon(noise, steps, delta):
  r"""Exact for q = 1 (arXiv:1805.06530), with \mu = sqrt(steps) / noise."""
  mu = math.sqrt(steps) / noise

  def excess(eps):
    tail = math.exp(eps + special.log_ndtr(-eps / mu - mu / 2))
    return special.ndtr(-eps / mu + mu / 2) - tail - delta

  return optimize.brentq(excess, 0, 200)


def _renyi_epsilon(noise, rate, steps, delta):
  """By integer orders (arXiv:1908.10530) and Mironov's first conversion."""
  def of_order(order):
    terms = [special.gammaln(order + 1) - special.gammaln(k + 1)
             - special.gammaln(order - k + 1) + k * math.log(rate)
             + (order - k) * math.log1p(-rate) + k * (k - 1) / (2 * noise**2)
             for k in range(order + 1)]
    return steps * special.logsumexp(terms) / (order - 1) - math.log(delta) / (
        order - 1)
  return min(map(of_order, range(2, 65)))


@pytest.mark.parametrize(('noise', 'steps'), [(1.0, 1), (5.0, 10), (40.0, 20)])
def test_without_sampling_it_is_the_exact_gaussian_from_above(noise, steps):
  exact = _gaussian_epsilon(noise, steps, 1e-5)
  found = accounting.epsilon(noise, 1.0, steps, 1e-5)
  assert exact <= found <= 1.01 * exact


# The table of the DP-SGD tutorial of TensorFlow Privacy, at delta 1e-5.
@pytest.mark.parametrize(('noise', 'epochs', 'published'), [
    (1.3, 15, 1.19), (1.1, 60, 3.01), (0.7, 45, 7.10)])
def test_published_bounds_are_met_and_improved(noise, epochs, published):
  steps = epochs * 60_000 // 256
  assert abs(_renyi_epsilon(noise, MNIST, steps, 1e-5) - published) < 0.03
  found = accounting.epsilon(noise, MNIST, steps, 1e-5)
  assert 0.6 * published < found < 0.9 * published


def test_more_noise_fewer_steps_and_rarer_sampling_protect_better():
  found = [accounting.epsilon(*args) for args in (
      (1.0, 0.01, 100, 1e-5), (2.0, 0.01, 100, 1e-5), (1.0, 0.01, 50, 1e-5),
      (1.0, 0.005, 100, 1e-5), (1.0, 0.01, 100, 1e-4))]
  assert max(found[1:]) < found[0]
  assert accounting.epsilon(0.0, 0.01, 100, 1e-5) == math.inf


@pytest.mark.parametrize(('epsilon', 'rate', 'steps'), [
    (8.0, 0.05, 200), (0.2, 0.01, 100), (1.0, 1.0, 10**6)])
def test_noise_reaches_its_epsilon_from_below_and_is_least(
    epsilon, rate, steps):
  noise = accounting.noise_multiplier(epsilon, 1e-5, rate, steps)
  assert accounting.epsilon(noise, rate, steps, 1e-5) <= epsilon
  assert accounting.epsilon(0.998 * noise, rate, steps, 1e-5) > epsilon


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda: accounting.epsilon(-1.0, 0.1, 1, 0.1), '`noise_multiplier` must'),
    (lambda: accounting.epsilon(1.0, 0.0, 1, 0.1), '`sampling_rate` must be p'),
    (lambda: accounting.epsilon(1.0, 1.1, 1, 0.1), '`sampling_rate` must be i'),
    (lambda: accounting.epsilon(1.0, 0.1, 0, 0.1), '`num_steps` must be an in'),
    (lambda: accounting.epsilon(1.0, 0.1, 1, 1e-14), '`delta` must be in'),
    (lambda: accounting.epsilon(1.0, 0.1, 1, 1.0), '`delta` must be below 1'),
    (lambda: accounting.noise_multiplier(1e-4, 0.1, 0.1, 1), '`epsilon` must'),
    (lambda: accounting.noise_multiplier(101.0, 0.1, 0.1, 1), r'\[0.001, 100.'),
])
def test_bad_numbers_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.errors
def test_an_epsilon_out_of_reach_is_named(monkeypatch):
  monkeypatch.setattr(accounting, '_spent', lambda *args: math.inf)
  with pytest.raises(ValueError, match='`epsilon` must be within reach of the '
                                       'noise, got 1.0, which .* does not rea'):
    accounting.noise_multiplier(1.0, 1e-5, 1.0, 1)
