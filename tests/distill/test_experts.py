"""Expert trajectories against NumPy; stopped, resumed and read again."""
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr import nets
from dsr.distill import experts
from dsr.types import Examples
from tests.distill import mlp

CLASSES, EPOCHS = 3, 3
MODULE = nets.MLP(CLASSES, (5,))


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  labels = np.arange(8) % CLASSES
  return Examples(jnp.asarray(rng.normal(size=(8, 2, 3, 1))),
                  jnp.asarray(np.eye(CLASSES)[labels]))


def _train(data, folder=None, **options):
  return experts.train_experts(jax.random.key(4), MODULE, data, **{
      'num_experts': 2, 'epochs': EPOCHS, 'learning_rate': 0.5,
      'batch_size': 8, 'dtype': 'float32', 'folder': folder} | options)


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
  """(folder, experts with two batches an epoch that nothing stopped)."""
  folder = tmp_path_factory.mktemp('whole')
  return folder, _train(data, folder, batch_size=4)


def test_an_epoch_of_one_batch_is_a_step_of_gradient_descent(data):
  found = _train(data, num_experts=1).params[0]
  assert found.shape[0] == EPOCHS + 1
  theta = mlp.unravel(found[0].astype(float), 6, CLASSES)
  for kept in found[1:]:
    slopes = mlp.cross_entropy_slopes(
        mlp.forward(theta, data.x)[1], np.asarray(data.y))
    theta = mlp.step(theta, mlp.backward(theta, data.x, slopes), 0.5)
    np.testing.assert_allclose(kept, mlp.ravel(theta), atol=1e-5)


def test_trajectories_are_found_again_and_half_precision_rounds(data, whole):
  folder, first = whole
  again = _train(data, folder, batch_size=4)
  np.testing.assert_array_equal(again.params, first.params)
  assert again.seconds == first.seconds > 0
  half = _train(data, batch_size=4, num_experts=1, dtype='float16').params
  np.testing.assert_array_equal(half, first.params[:1].astype('float16'))


def test_stopped_in_an_epoch_they_go_on_to_the_same_bits(
    data, whole, tmp_path, monkeypatch):
  epoch, seen = experts._epoch, []

  def stopping(*args):
    made = epoch(*args)

    def stopped(state, examples):
      if not seen:  # While this is traced for the first epoch.
        seen.append(signal.raise_signal(signal.SIGINT))
      return made(state, examples)

    return stopped

  monkeypatch.setattr(experts, '_epoch', stopping)
  with pytest.raises(KeyboardInterrupt):
    _train(data, tmp_path, batch_size=4)
  assert not list(tmp_path.glob('*.npz'))
  resumed = _train(data, tmp_path, batch_size=4)
  np.testing.assert_array_equal(resumed.params, whole[1].params)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'experts_0000.npz', 'experts_0001.npz']


@pytest.mark.slow
def test_side_by_side_they_differ_by_rounding_alone(data, whole):
  both = _train(data, batch_size=4, parallel=2)
  np.testing.assert_allclose(both.params, whole[1].params, atol=1e-6)


def test_a_rate_that_diverges_is_named_with_its_epoch(data):
  with pytest.raises(FloatingPointError, match='expert 1 of 2.*in epoch 2'):
    _train(data._replace(x=1e200 * data.x), learning_rate=1e200)


@pytest.mark.errors
def test_refusals(data, whole):
  with pytest.raises(ValueError, match='`folder` must have the experts of'):
    _train(data, whole[0], batch_size=4, fingerprint='other')
  for name in ('num_experts', 'epochs', 'learning_rate', 'batch_size'):
    with pytest.raises(ValueError, match=f'`{name}`'):
      _train(data, **{name: 0})
  with pytest.raises(ValueError, match='`dtype`'):
    _train(data, dtype='int8')
  with pytest.raises(ValueError, match='probabilities'):
    _train(data._replace(y=data.y - 1 / CLASSES))
