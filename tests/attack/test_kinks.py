"""Claims at infinite width, on real digits, against the truth."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels
from dsr.attack import kinks
from dsr.attack.result import CLAIM
from tests.attack import problem

_NUM = 8


@pytest.fixture(scope='module')
def images():
  data = problem.digits(2 * _NUM)
  return np.asarray(data.x, np.float64), np.asarray(data.y, np.float64)


def _confidence(images, candidates, kernel_fn):
  """Of candidates, for the predictor of the first images."""
  x, y = jnp.asarray(images[0][:_NUM]), images[1][:_NUM]
  a = np.linalg.solve(np.asarray(kernel_fn(x)), y)
  return np.asarray(jax.jit(lambda candidates: kinks.confidence(
      jax.random.key(0), lambda z: kernel_fn(z, x) @ a, kernel_fn,
      candidates))(candidates))


def test_claims_are_the_training_images(images):
  x = images[0]
  rng = np.random.default_rng(0)
  off = lambda e: x[:4] + e * kinks.SCALE * rng.standard_normal(x[:4].shape)
  # Half of the images; the same a little and further away; others that no one
  # trained on, among them one between two images.
  others = x[_NUM:_NUM + 4]
  others[0] = (x[0] + x[1]) / 2
  found = _confidence(
      images, np.concatenate([x[:4], off(0.01), off(0.3), others]),
      problem.fcn2())
  exact, near, far, wrong = found.reshape(4, 4)
  assert np.all(exact > 0.99), exact
  assert np.all(near > CLAIM), near
  assert np.all(far < 0.9), far
  assert np.all(wrong < 0.8), wrong


@pytest.mark.parametrize('kernel_fn', [
    kernels.fcn(1, b_std=0.0), kernels.fcn(1, nonlinearity='erf')])
def test_nothing_is_claimed_where_there_is_no_kink(images, kernel_fn):
  found = _confidence(images, images[0][:_NUM], kernel_fn)
  assert np.all(found == 0), found
