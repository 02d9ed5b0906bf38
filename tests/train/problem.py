"""Small problems for victims."""
import jax
import jax.numpy as jnp
import numpy as np

from dsr.types import Examples


def examples(num=6, dim=5, outputs=2, dtype='float64', seed=0):
  rng = np.random.default_rng(seed)
  return Examples(jnp.asarray(rng.normal(size=(num, dim)).astype(dtype)),
                  jnp.asarray(rng.normal(size=(num, outputs)).astype(dtype)))


def flat(tree) -> np.ndarray:
  """All leaves in one vector, float64."""
  return np.concatenate(
      [np.asarray(a, 'float64').ravel() for a in jax.tree.leaves(tree)])


def jacobian(module, theta, x) -> np.ndarray:
  """(N, C, P), columns ordered as in `flat`."""
  forward = lambda p: module.apply({'params': p}, x)
  leaves = jax.tree.leaves(jax.jit(jax.jacrev(forward))(theta))
  return np.concatenate(
      [np.asarray(a).reshape(*a.shape[:2], -1) for a in leaves], -1)
