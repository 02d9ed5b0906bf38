"""Claims of any attack, by rows of the first layer, on real digits."""
import jax
import numpy as np
import pytest

from dsr import nets
from dsr.attack import certify, release
from dsr.attack.result import CLAIM
from tests.attack import problem

_NUM = 10


@pytest.fixture
def standard():
  return problem.digits(_NUM), problem.standard()[0]


def _moved(x, error):
  """Each of `x` with an RMSE of `error`."""
  noise = np.random.default_rng(0).normal(size=x.shape)
  size = np.sqrt(np.mean(noise**2, axis=(1, 2, 3), keepdims=True))
  return x + error * noise / size


@pytest.mark.parametrize('num_told', [_NUM, 25])
def test_confidence_is_one_less_the_error(standard, num_told):
  data, released = standard
  released = released._replace(num_train=num_told)
  for error in (0.0, 0.02, 0.1):
    found = certify.confidence(released, _moved(data.x, error))
    np.testing.assert_allclose(found, 1 - error, atol=0.03)
  others = problem.digits(2 * _NUM).x[_NUM:]
  both = np.concatenate([data.x[:5], others])
  found = certify.confidence(released, both)
  near = problem.distances(data, both).min(axis=0)
  # What is known of five images is less exact; of the others there is none.
  assert np.sum(found[:5] >= CLAIM) >= 3
  assert np.all(found <= 1 - near + 0.03)


def test_nothing_is_claimed_of_candidates_that_lead_to_no_row(standard):
  data, released = standard
  noise = 0.3 * np.random.default_rng(1).normal(size=(20, 8, 8, 1))
  mixed = (data.x + np.roll(data.x, 1, axis=0)) / 2
  found = certify.confidence(released, np.concatenate([noise, mixed]))
  assert np.all(found < 0.9), found


def test_none_where_the_first_layer_tells_nothing(standard):
  data, released = standard
  noisy = release.with_noise(jax.random.key(0), released, 0.05)
  for case in (noisy, released._replace(theta_0=None),
               released._replace(theta_T=released.theta_0),
               released._replace(module=nets.ConvNet(1))):
    assert certify.confidence(case, data.x) is None
