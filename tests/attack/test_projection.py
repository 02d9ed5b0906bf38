"""The loss without duals, against explicit features."""
import jax
import jax.numpy as jnp
import numpy as np

from dsr.attack import projection


def _problem(num=6, size=40, outputs=2):
  rng = np.random.default_rng(0)
  phi = rng.normal(size=(num, size))
  delta = rng.normal(size=(size, outputs))
  return phi, delta


def test_explained_is_the_mmd_form_of_the_loss():
  phi, delta = _problem()
  at = projection.project(
      jnp.asarray(phi @ phi.T), jnp.asarray(phi @ delta), jitter=0.0)
  duals, left, *_ = np.linalg.lstsq(phi.T, delta, rcond=None)
  np.testing.assert_allclose(at.duals, duals, rtol=1e-10)
  np.testing.assert_allclose(
      np.sum(delta**2) - at.explained, np.sum(left), rtol=1e-10)


def test_a_gain_is_what_leaving_the_candidate_out_costs():
  phi, delta = _problem()
  at = projection.project(
      jnp.asarray(phi @ phi.T), jnp.asarray(phi @ delta), jitter=0.0)
  for j, gain in enumerate(projection.gains(at)):
    rest = np.delete(phi, j, axis=0)
    left = np.linalg.lstsq(rest.T, delta, rcond=None)[1]
    cost = np.sum(left) - (np.sum(delta**2) - at.explained)
    np.testing.assert_allclose(gain, cost, rtol=1e-8)


def test_full_kernel_equals_stacked_features():
  rng = np.random.default_rng(1)
  phi = rng.normal(size=(4, 3, 30))  # (M, C, P)
  delta = rng.normal(size=30)
  k = np.einsum('icp,jdp->ijcd', phi, phi)
  at = projection.project_full(
      jnp.asarray(k), jnp.asarray(phi @ delta), jitter=0.0)
  duals = np.linalg.lstsq(phi.reshape(12, 30).T, delta, rcond=None)[0]
  np.testing.assert_allclose(at.duals, duals.reshape(4, 3), rtol=1e-9)


def test_gradient_is_that_of_the_residual():
  phi, delta = _problem(outputs=1)

  def explained(phi):
    return projection.project(
        jnp.matmul(phi, phi.T), jnp.matmul(phi, jnp.asarray(delta)),
        jitter=0.0).explained

  def residual(phi):
    duals = jnp.linalg.lstsq(phi.T, jnp.asarray(delta))[0]
    return jnp.sum((jnp.asarray(delta) - phi.T @ duals) ** 2)

  got = -jax.grad(explained)(jnp.asarray(phi))
  want = jax.grad(residual)(jnp.asarray(phi))
  np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)
