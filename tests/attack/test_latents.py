"""Candidates as blurred latents."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import kernels
from dsr.attack import latents, ntk_limit, release
from dsr.attack.prior import Prior

KERNEL = kernels.fcn(1)


def _released(**fields):
  shape = fields.get('input_shape', (5, 5, 1))
  return release.query_only(
      lambda x: x.reshape(len(x), -1)[:, :2], **{
          'num_train': 2, 'input_shape': shape, 'num_outputs': 2, 'low': -0.2,
          'high': 0.8} | fields)


def test_inputs_are_blurred_and_in_range():
  released = _released()
  problem = latents.latent(released, KERNEL, 1.0)
  z = jnp.zeros((2, 5, 5, 1)).at[1, 2, 2, 0].set(1.0)
  x = problem.decode(z)
  np.testing.assert_allclose(x[0], 0, atol=1e-7)  # The data's mean.
  spot = np.asarray(x[1, :, :, 0])
  assert spot[2, 2] > spot[2, 1] > spot[1, 1] > spot[2, 0] > 0
  far = problem.decode(30 * jax.random.normal(jax.random.key(0), z.shape))
  assert -0.2 - 1e-6 < far.min() < -0.19
  assert 0.79 < far.max() < 0.8 + 1e-6
  np.testing.assert_allclose(problem.released.query(z), released.query(x))
  np.testing.assert_allclose(problem.kernel_fn(z), KERNEL(x))
  np.testing.assert_allclose(problem.kernel_fn(z, z[:1]), KERNEL(x, x[:1]))
  np.testing.assert_allclose(problem.kernel_fn.diag(z), KERNEL.diag(x))


def test_without_blur_nothing_changes():
  released = _released()
  assert latents.latent(released, KERNEL, 0)[:2] == (released, KERNEL)


@pytest.mark.errors
@pytest.mark.parametrize(('fields', 'blur', 'message'), [
    ({}, -1.0, '`blur`'),
    ({'input_shape': (5,)}, 1.0, r'inputs of shape \(H, W, C\)'),
    ({'low': 0.0}, 1.0, 'low < 0 < high')])
def test_bad_blurs(fields, blur, message):
  with pytest.raises(ValueError, match=message):
    latents.latent(_released(**fields), KERNEL, blur)


@pytest.mark.errors
def test_latents_are_not_clipped():
  config = ntk_limit.FINITE._replace(prior=Prior(project=True))
  with pytest.raises(ValueError, match='`project` must be False with `blur`'):
    ntk_limit.check(_released(), config)
