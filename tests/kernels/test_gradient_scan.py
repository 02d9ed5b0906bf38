"""Gradients of every nonlinearity in float32, against 120 digits.

The inputs are those of `test_scan`. An error is relative to the length of the
gradient, and to a thousandth of sqrt(k k') over the longer input besides, lest
what is nearly 0 counts.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.kernels import stacks
from tests.kernels.test_scan import LAYERS, batch, stack
from tests.reference import covariance

# By the angle after the first layer: above 0.05, to 1e-4, and to 3e-7, below
# which it is the rounding of the inputs, and a kink.
KINDS = 'apart', 'close', 'closest'
_ANGLES = 5e-2, 1e-4, 3e-7


@functools.cache
def _oracle(name, b_std):
  """(x, gradients, scale, which of `KINDS` each pair is or -1 at a kink)."""
  x = batch(name, 'float32')
  x = x[(np.square(x).max(1) > np.finfo('float32').tiny) | (x == 0).all(1)]
  network = stack(name, b_std)
  want = covariance.gradients(network, x)
  first = covariance.kernel(network[:1], x, 'nngp', digits=120)
  q = np.diag(first)
  size = np.sqrt(np.outer(q, q))
  angle = 2 * (1 - np.abs(first) / np.where(size == 0, 1, size))
  angle = np.sqrt(np.maximum(np.where(size == 0, 0, angle), 0).astype(float))
  own = np.sqrt(np.diag(covariance.kernel(network, x, digits=60).astype(float)))
  norm = np.linalg.norm(x.astype(float), axis=1)
  longer = np.maximum.outer(norm, norm)
  scale = np.linalg.norm(want, axis=-1) + 1e-3 * np.divide(
      np.outer(own, own), longer, out=np.zeros_like(longer), where=longer > 0)
  kind = sum((angle <= edge).astype(int) for edge in _ANGLES)
  return x, want, scale, np.where(kind == len(KINDS), -1, kind)


def worst(name, b_std, build, largest=np.inf):
  """(whether all are finite, the largest error of each of `KINDS`).

  Of inputs of norms up to `largest`; errors of norms of 0 and 1e-5 to 1e5.
  """
  x, want, scale, kind = _oracle(name, b_std)
  norm = np.linalg.norm(x.astype(float), axis=1)
  usual = (norm == 0) | ((norm <= 1e5) & (norm >= 1e-5))
  kind = np.where(usual[:, None] & usual[None], kind, -1)
  use = norm <= largest
  x, (want, scale, kind) = x[use], (a[use][:, use] for a in (want, scale, kind))
  with jax.enable_x64(False):
    kernel = build(stack(name, b_std))

    @jax.jit
    def slopes(x):
      value, back = jax.vjp(lambda left: kernel(left, x), x)
      pick = jnp.eye(len(x), dtype=x.dtype)
      each = jax.vmap(lambda column: back(
          jnp.broadcast_to(column[None], value.shape))[0])(pick)
      return jnp.swapaxes(each, 0, 1)

    got = np.asarray(slopes(jnp.asarray(x)), float)
  error = np.linalg.norm(got - want, axis=-1) / np.where(scale > 0, scale, 1)
  error = np.where(np.isfinite(error), error, np.inf)
  return np.isfinite(got).all(), [
      error[kind == i].max(initial=0) for i in range(len(KINDS))]


# As measured, times some 10: pairs apart, and pairs that are close.
BOUNDS = 2e-5, 1e-3
ROUGHER = {'Erf': (5e-4, 1), 'Gaussian': (5e-5, 5e-2), 'Gelu': (1e-4, 5),
           'LayerNorm': (3e-3, 2e-2), 'Polynomial': (2e-4, 1e-3),
           'Sign': (1e-2, 2)}


@pytest.mark.slow
@pytest.mark.parametrize('name', LAYERS)
def test_no_scale_costs_the_gradient_its_digits(name):
  """And none is NaN, but for Gelu from norms of 1e12 on."""
  finite, errors = worst(
      name, 0.3, stacks.ours, 1e12 if name == 'Gelu' else np.inf)
  assert finite
  assert np.all(np.array(errors[:2]) < ROUGHER.get(name, BOUNDS)), errors
  assert errors[2] < 0.5
