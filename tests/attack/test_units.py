"""Parts of a first layer: the same images, units that are active more often."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.attack import release, units

_NUM, _SIZE, _WIDTH = 4, 30, 60


def _released(seed=0):
  """A layer of which half the units are seldom active; (release, images)."""
  rng = np.random.default_rng(seed)
  x = rng.uniform(-0.5, 0.5, size=(_NUM, _SIZE))
  kernel = rng.normal(size=(_SIZE, _WIDTH)) / np.sqrt(_SIZE)
  bias = np.where(np.arange(_WIDTH) % 2, 0.0, -0.5)
  active = x @ kernel + bias > 0
  change = np.hstack([x, np.ones((_NUM, 1))]).T @ (
      1e-3 * active * rng.normal(size=(_NUM, _WIDTH)))
  theta = lambda kernel, bias: {
      'hidden_0': {'kernel': jnp.asarray(kernel), 'bias': jnp.asarray(bias)},
      'hidden_1': {'kernel': jnp.ones((_WIDTH, 5)), 'bias': jnp.zeros(5)},
      'readout': {'kernel': jnp.ones((5, 1)), 'bias': jnp.zeros(1)}}
  return release.parameters(
      nets.MLP(1, (_WIDTH, 5)), theta(kernel, bias),
      theta(kernel + change[:-1], bias + change[-1]), num_train=_NUM,
      input_shape=(_SIZE,), num_outputs=1, low=-0.5, high=0.5), x


def test_units_that_are_often_active_stay():
  released, x = _released()
  part = units.most_active(jax.random.key(0), released)
  host = lambda r, name: np.asarray(r.theta_0['hidden_0'][name])
  active = lambda r: np.mean(
      x @ host(r, 'kernel') + host(r, 'bias') > 0)
  assert active(released) < 0.35
  assert active(part) > 0.42
  assert part.module == nets.MLP(1, (_WIDTH // 2, 5))
  again = release.parameters(  # Checks all shapes.
      part.module, part.theta_0, part.theta_T, num_train=_NUM,
      input_shape=(_SIZE,), num_outputs=1, low=-0.5, high=0.5)
  columns = lambda r: {tuple(c) for c in np.asarray(
      r.theta_T['hidden_0']['kernel'] - r.theta_0['hidden_0']['kernel']).T}
  assert columns(again) < columns(released)
  for a, b in zip(*map(jax.tree.leaves, (
      units.most_active(jax.random.key(0), released, 1.0), released))):
    np.testing.assert_array_equal(a, b)


@pytest.mark.errors
def test_bad_shares_are_refused():
  released, _ = _released()
  for share, message in ((0.0, 'positive'), (1.5, 'in'), (0.05, 'leave more')):
    with pytest.raises(ValueError, match=f'`share` must .*{message}'):
      units.most_active(jax.random.key(0), released, share)
