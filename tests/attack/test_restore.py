"""Releases freed of weight decay, pruning and rounding, on known changes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets, train
from dsr.attack import compression, release, restore
from tests.train.problem import examples, flat

_NUM = 4
_PUBLIC = dict(num_train=_NUM, low=-4.0, high=4.0)


def _stacked(theta):
  return np.vstack([theta['hidden_0']['kernel'], theta['hidden_0']['bias']])


def _released(decay=1.0, dtype='float64'):
  """(a release with decay, theta_0 + what gradients added)."""
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape)
  first = np.hstack([normal(_NUM, 30), np.ones((_NUM, 1))]).T @ (
      0.02 * normal(_NUM, 48) * (normal(_NUM, 48) > 0))
  layers = lambda kernel, bias, last: {
      'hidden_0': {'kernel': kernel, 'bias': bias},
      'readout': {'kernel': last, 'bias': np.zeros(1)}}
  theta_0 = layers(normal(30, 48) / 6, 0.1 * normal(48), normal(48, 1))
  change = layers(first[:-1], first[-1], 0.1 * normal(48, 1))
  cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)
  theta_T = jax.tree.map(lambda a, b: decay * a + b, theta_0, change)
  want = jax.tree.map(np.add, theta_0, change)
  return release.parameters(
      nets.MLP(1, (48,)), cast(theta_0), cast(theta_T), input_shape=(30,),
      num_outputs=1, **_PUBLIC), want


def test_weight_decay_is_undone_in_all_layers():
  released, want = _released(decay=0.9)
  found = restore.restored(released)
  np.testing.assert_allclose(flat(found.theta_T), flat(want), atol=1e-9)
  assert found.theta_0 is released.theta_0


@pytest.mark.parametrize('decay', [1.0, 0.8])
def test_pruned_weights_are_completed(decay):
  released, want = _released(decay)
  pruned = compression.pruned(released, 0.3)
  gap = np.abs(_stacked(pruned.theta_T) - _stacked(want)).max()
  assert gap > 0.01
  found = restore.restored(pruned)
  np.testing.assert_allclose(
      _stacked(found.theta_T), _stacked(want), atol=1e-6)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_rounding_is_averaged_over_and_told_from_what_is_kept(dtype):
  released, want = _released(dtype='float32')
  rounded = compression.rounded(released, dtype)
  found = restore.restored(rounded)
  error = lambda r: np.linalg.norm(_stacked(r.theta_T) - _stacked(want))
  assert error(found) < 0.6 * error(rounded)
  sizes = np.linalg.svd(
      _stacked(found.theta_T) - _stacked(found.theta_0), compute_uv=False)
  # What is left over tells the attack how large the errors still are.
  rest = np.linalg.norm(_stacked(found.theta_T) - _stacked(want), 2)
  assert 0.2 < sizes[_NUM] / rest < 5
  np.testing.assert_array_equal(
      found.theta_T['readout']['kernel'], rounded.theta_T['readout']['kernel'])


def test_nothing_is_done_where_nothing_was():
  released, _ = _released()
  assert restore.restored(released) is released
  for other in (released._replace(theta_0=None),
                released._replace(num_train=31),
                released._replace(module=nets.MLP(1, ()))):
    assert restore.restored(other) is other


def test_descent_with_decay_momentum_and_batches_is_of_this_form():
  data, module = examples(num=3, dim=7, outputs=1), nets.MLP(1, (12, 9))
  victim = train.fit_victim(
      jax.random.key(0), module, data, tolerance=0, max_steps=40,
      progress=False, recipe=train.Recipe(
          learning_rate=0.1, momentum=0.8, weight_decay=0.05, batch_size=2))
  released = release.parameters(
      module, victim.theta_0, victim.theta_T, input_shape=(7,), num_outputs=1,
      **_PUBLIC | {'num_train': 3})
  fourth = lambda r: np.divide(*np.linalg.svd(
      _stacked(r.theta_T) - _stacked(r.theta_0), compute_uv=False)[[3, 2]])
  assert fourth(released) > 0.1
  assert fourth(restore.restored(released)) < 1e-6
