"""Measured slopes, of functions whose slopes are known."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr.attack import probing

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 1)))
_ROWS = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)))


def _line(x):
  return x.reshape(len(x), -1) @ _ROWS


def _stairs(x):
  """`_line` in steps of 0.1, flat almost everywhere."""
  return jnp.floor(10 * _line(x)) / 10


def _none(x):
  return jnp.zeros((len(x), 2), x.dtype)


def _slopes(query, model, probes):
  near = probing.linear_near(
      jax.random.key(0), query, X, probes=probes, scale=0.5, model=model)
  np.testing.assert_allclose(near(X), query(X), atol=1e-12)
  return jax.vmap(jax.jacrev(lambda x, i: near(X.at[i].set(x))[i]), (0, 0))(
      X, jnp.arange(len(X))).reshape(3, 2, 4)


def test_stairs_have_the_slope_of_their_line():
  exact = jax.vmap(jax.jacrev(lambda x: _stairs(x[None])[0]))(X)
  assert not np.asarray(exact).any()  # What autodiff says.
  found = _slopes(_stairs, _none, 20_000)
  np.testing.assert_allclose(
      found, np.broadcast_to(_ROWS.T, found.shape), atol=0.08)


def test_a_good_model_leaves_nothing_to_measure():
  curved = lambda x: jnp.sin(_line(x))
  found = _slopes(curved, curved, 1)
  true = jax.vmap(jax.jacrev(lambda x: curved(x[None])[0]))(X)
  np.testing.assert_allclose(found, true.reshape(found.shape), atol=1e-12)


@pytest.mark.errors
def test_probes_are_needed():
  with pytest.raises(ValueError, match='`probes`'):
    probing.linear_near(
        jax.random.key(0), _line, X, probes=0, scale=0.1, model=_none)
