"""Protocols: what they say about augmentation and about the start."""
import json

import jax
import numpy as np
import pytest

from dsr import nets, train
from dsr.data import augment
from dsr.types import Examples

MODULE = nets.MLP(3, (5,))


def _data(num=6):
  x = np.random.default_rng(0).normal(size=(num, 6, 6, 1))
  return Examples(x, np.eye(3)[np.arange(num) % 3])


def _evaluate(protocol, module=MODULE, **options):
  data = _data()
  return train.evaluate(
      jax.random.key(0), module, data, data.x, np.arange(6) % 3,
      protocol=protocol, num_networks=2, **options)


def test_protocols_are_plain_and_hashable():
  for protocol in (train.FREPO, train.CONDENSATION, train.SIAMESE, train.IDC):
    again = train.Protocol(**json.loads(json.dumps(protocol._asdict())))
    assert again == protocol
    assert hash(again) == hash(protocol)
  changed = {'epochs': 1000, 'augment': 'siamese_cifar10'}
  assert train.SIAMESE._asdict() == train.CONDENSATION._asdict() | changed


def test_the_named_augmentation_is_that_of_its_name():
  # That a given function is used at all is seen in tests/test_train.py.
  protocol = train.CONDENSATION._replace(epochs=4)
  named = _evaluate(protocol._replace(augment='flip'))
  given = _evaluate(protocol, augment=augment.flip)
  np.testing.assert_array_equal(named.trained.curve, given.trained.curve)


def test_the_late_schedule_falls_twice_to_a_fifth():
  protocol = train.IDC._replace(momentum=0.0, weight_decay=0.0)
  optimizer = train.make_optimizer(protocol, num_steps=12)
  state, seen = optimizer.init(1.0), []
  for _ in range(12):
    update, state = optimizer.update(1.0, state, 1.0)
    seen.append(-100 * float(update))
  np.testing.assert_allclose(
      seen, [1] * 8 + [0.2] * 2 + [0.04] * 2, rtol=1e-5)


def test_condensation_starts_as_pytorch_does(key):
  # Its kernels have a third of the variance of LeCun's.
  data, factor = _data(), 1 / np.sqrt(3)
  start = train.init_networks(key, MODULE, data.x, num_networks=2)
  trained = _evaluate(train.CONDENSATION._replace(
      epochs=1, learning_rate=1e-20)).trained
  for layer, leaves in trained.params.items():
    np.testing.assert_allclose(
        leaves['kernel'], factor * start[layer]['kernel'], rtol=1e-12)
    np.testing.assert_allclose(leaves['bias'], start[layer]['bias'], atol=1e-15)
  # Biases start at 0, so that the network is homogeneous in the kernels.
  out = np.asarray(train.predict(train.Trained(MODULE, start, None), data.x))
  odds = np.exp(factor**2 * out)
  want = -np.log(odds / odds.sum(2, keepdims=True))[:, data.y == 1].mean(1)
  np.testing.assert_allclose(trained.curve[0], want, rtol=1e-12)


@pytest.mark.errors
def test_bad_protocols_are_refused():
  protocol = train.SIAMESE._replace(epochs=1)
  with pytest.raises(ValueError, match="a function and 'siamese_cifar10'"):
    _evaluate(protocol, augment=augment.flip)
  with pytest.raises(ValueError, match="got 'mirror' in 'mirror'"):
    _evaluate(protocol._replace(augment='mirror'))
  with pytest.raises(ValueError, match='`init_scale` must be positive'):
    _evaluate(protocol._replace(init_scale=0.0))
