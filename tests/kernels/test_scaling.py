"""What a bias does to a gap, where rounding is all that tells two inputs."""
import jax
import jax.numpy as jnp
import pytest

from dsr.kernels import scaling


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_lengths_apart_by_rounding_do_not_move(dtype):
  one = jnp.asarray(1.25, dtype)
  near = jnp.nextafter(one, jnp.asarray(2, dtype))
  far = one * (1 + 100 * jnp.finfo(dtype).eps)
  up, rest = jnp.ones((), dtype), jnp.zeros((), dtype)

  def slope(t):
    primals = one, one, one, one, t, one
    tangents = rest, rest, up, rest, rest, rest
    return jax.jvp(scaling.bent_by_fixed_bias, primals, tangents)[1]

  assert near != one
  assert slope(near) == 0
  assert slope(far) == pytest.approx(
      float(0.5 * (far - one) * (far + one) * one**4), rel=1e-6)
  traced = lambda t: scaling.bent_by_bias(one, one, one, t)
  assert jax.grad(traced)(near) == 0
  assert jax.grad(traced)(far) == pytest.approx(
      float(one**4 * (far - one)), rel=1e-6)
