r"""How much of a victim's change gradients at its own training images explain.

The attacks of arXiv:2302.01428 fit \Delta = theta_T - theta_0 by gradients of
candidates. Even at the true images, with the best duals, a share

  1 - v' K^{-1} v / |\Delta|^2

is left, since gradients moved during training: 0 for a linearised network,
small along gradient flow, nearly 1 for gradients at theta_T after descent near
the edge of stability. An attack cannot work where its own share is large. This
reads the truth: it is about the victim, and no attack sees it.
"""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from scipy import linalg

from dsr import nets, numerics, train
from dsr.attack import features

_POINTS = 17  # On the line from theta_0 to theta_T.
_MOST = 2**27  # Numbers that features may have, 1 GiB in float64.
_JITTER = 1e-12  # Of float64.


def unexplained(
    victim: train.Victim, x: Float[Array, 'N ...']) -> dict[str, float]:
  """The share for gradients at `initial`, `final`, `both` and on the `path`.

  Duals are free for each image and each set of parameters; `path` takes 17 of
  them evenly from theta_0 to theta_T.

  Args:
    victim: trained on `x`.
    x: its training images, after the transform.

  Returns:
    The shares, without those whose features would take more than 1 GiB.
  """
  x = jnp.asarray(x, jnp.float64)
  module, num = victim.module, len(x)
  start, end = (jax.tree.map(lambda a: a.astype(x.dtype), theta)
                for theta in (victim.theta_0, victim.theta_T))
  each = _size(module, start)
  outputs = jax.eval_shape(module.apply, {'params': start}, x).shape[1]

  for points in (_POINTS, 2):
    rows = points * num * outputs
    if rows * each + rows**2 <= _MOST:
      break
  else:
    return {}
  k, v, norm = map(np.asarray, _kernel(
      module, start, end, x, jnp.linspace(0, 1, points, dtype=x.dtype)))
  sets = {'initial': [0], 'final': [points - 1], 'both': [0, points - 1]}
  if points == _POINTS:
    sets['path'] = list(range(points))
  found = {}
  for name, chosen in sets.items():
    at = (num * np.asarray(chosen)[:, None] + np.arange(num)).ravel()
    part = np.swapaxes(k[np.ix_(at, at)], 1, 2).reshape(
        len(at) * outputs, -1)
    ridge = _JITTER * np.mean(np.diag(part)) * np.eye(len(part))
    to = v[at].reshape(-1)
    explained = to @ linalg.solve(part + ridge, to, assume_a='pos')
    found[name] = max(0.0, float(1 - explained / norm))
  return found


@functools.partial(jax.jit, static_argnums=0)
def _kernel(module, start, end, x, places):
  """(K, v, |Delta|^2): one program for all sets of points."""
  delta = jax.tree.map(jnp.subtract, end, start)
  thetas = [jax.tree.map(lambda a, b, place=place: a + place * b, start, delta)
            for place in places]
  if isinstance(module, nets.MLP):
    k, v = features.kernel_of_mlp(module, thetas, delta, x, 1.0)
  else:
    k, v = features.of_any(
        lambda p, x: module.apply({'params': p}, x), thetas, delta, x)
  return k, v, numerics.tree_dot(delta, delta)


def _size(module, theta):
  """Numbers that the features of an image have; see `attack.features`."""
  if isinstance(module, nets.MLP):
    return 2 * sum(module.widths)
  return sum(leaf.size for leaf in jax.tree.leaves(theta))
