"""Transfer between linear classifiers, where every radius is known."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr.probes import intervals, transfer
from dsr.probes.attacks import fgsm

DIRECTIONS = {'right': (1.0, 0.0), 'up': (0.0, 1.0), 'left': (-1.0, 0.0)}


def _linear(direction):
  """Class 1 where <x, direction> > 0."""
  direction = jnp.array(direction)[:, None]
  return lambda x: jnp.matmul(x, direction, precision='highest')


def _logits(weights, x):
  return jnp.matmul(x, weights, precision='highest')


NETWORKS = {name: _linear(d) for name, d in DIRECTIONS.items()}
attack = functools.partial(fgsm.fgsm, norm='l2', low=-jnp.inf, high=jnp.inf)


@pytest.fixture(scope='module')
def points():
  """Right for `right`, by 0.1, 0.3, 0.5 and 0.7, and for `up`, by 1."""
  x = np.array([[0.1, 1.0], [-0.3, -1.0], [0.5, 1.0], [-0.7, -1.0]])
  return x, np.array([1, 0, 1, 0])


def _share(k):
  return intervals.wilson(k, 4)


def test_orthogonal_networks_do_not_transfer_and_equal_ones_do(key, points):
  x, labels = points
  networks = {k: NETWORKS[k] for k in ('right', 'up')}
  networks['twin'] = lambda x: 3 * NETWORKS['right'](x)
  found = transfer.transfer(key, attack, networks, x, labels, epsilon=0.4)
  assert found.sources == found.victims == ('right', 'up', 'twin')
  assert found.clean == (_share(4),) * 3
  # `right` and its twin lose the margins below 0.4, `up` has none.
  assert found.robust == (
      (_share(2), _share(4), _share(2)), (_share(4),) * 3,
      (_share(2), _share(4), _share(2)))
  assert found.every == (_share(2), _share(4), _share(2))
  np.testing.assert_allclose(
      found.drop_rate, [[0.5, 0, 0.5], [0, 0, 0], [0.5, 0, 0.5]])


@pytest.mark.parametrize('epsilon', [0.35, 0.6, 0.75])
def test_transfer_follows_the_angle(epsilon, key, points):
  """A step of epsilon on one moves another by epsilon times their cosine."""
  x, labels = points
  cosine = 0.8
  tilted = {'tilted': _linear((cosine, 0.6))}
  sources = {'right': NETWORKS['right']}
  found = transfer.transfer(
      key, attack, tilted, x, labels, epsilon=epsilon, victims=sources)
  assert (found.sources, found.victims) == (('tilted',), ('right',))
  margin = np.abs(x[:, 0])
  assert found.robust[0][0] == _share(int(np.sum(margin > epsilon * cosine)))


def test_what_is_wrong_by_itself_is_not_robust(key, points):
  """The attack on `right` corrects `left`, which does not count."""
  x, labels = points
  networks = {k: NETWORKS[k] for k in ('right', 'left')}
  found = transfer.transfer(key, attack, networks, x, labels, epsilon=2.0)
  assert found.clean == (_share(4), _share(0))
  assert [row[1] for row in found.robust] == [_share(0)] * 2
  np.testing.assert_array_equal(found.drop_rate[:, 1], 0)


def test_one_craft_a_source_each_with_its_own_key(key, points):
  x, labels = points
  calls = []

  def count(key, predict_fn, x, labels, *, epsilon):
    calls.append((tuple(jax.random.key_data(key).tolist()), predict_fn))
    assert epsilon == 0.1
    return x

  found = transfer.transfer(key, count, NETWORKS, x, labels, epsilon=0.1)
  keys, sources = zip(*calls)
  assert len(set(keys)) == 3
  assert sources == tuple(NETWORKS.values())
  assert found.robust[0] == found.clean == found.every


def test_every_source_together_is_the_worst(key):
  rng = np.random.default_rng(0)
  x = rng.random((60, 5))
  weights = rng.normal(size=(4, 5, 3))
  # One function of parameters: one compilation.
  networks = {f'net{i}': jax.tree_util.Partial(_logits, w)
              for i, w in enumerate(weights)}
  labels = np.argmax(x @ weights[0], axis=1)
  found = transfer.transfer(
      key, fgsm.fgsm, networks, x, labels, epsilon=0.1)
  robust = np.array(found.robust)[..., 0]
  every = np.array(found.every)[:, 0]
  assert np.all(every <= robust.min(0))
  assert np.all(every >= 1 - np.sum(1 - robust, axis=0))
  assert robust[0, 0] < robust[1:, 0].min()  # Its own examples hurt it most.
  clean = np.array(found.clean)[:, 0]
  np.testing.assert_allclose(
      found.drop_rate, (clean[None] - robust) / clean[None])


@pytest.mark.errors
def test_bad_arguments_are_named(key, points):
  x, labels = points
  call = functools.partial(transfer.transfer, key, epsilon=0.1)
  with pytest.raises(ValueError, match='`predict_fns` must hold at least one'):
    call(attack, {}, x, labels)
  with pytest.raises(ValueError, match='`victims` must hold at least one'):
    call(attack, NETWORKS, x, labels, victims={})
  with pytest.raises(ValueError, match='`labels` must be in'):
    call(attack, NETWORKS, x, labels + 1)
  with pytest.raises(ValueError, match='`x_adv` has examples of shape'):
    call(lambda *a, epsilon: x[:, :1], NETWORKS, x, labels)
  with pytest.raises(ValueError, match='`x` must have shape'):
    call(attack, NETWORKS, x[:, 0], labels)
