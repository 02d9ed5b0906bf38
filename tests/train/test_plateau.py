"""The rule that ends training whose loss cannot reach a tolerance."""
import jax
import numpy as np
import pytest

from dsr import nets, train
from dsr.train import plateau
from dsr.types import Status
from tests.train.problem import examples, flat

LINEAR = nets.MLP(2, widths=())


def _end(losses, share, window=10, chunk=5):
  """Updates after which a run on these losses ends; None for never."""
  memory = plateau.start()
  for step in range(chunk, len(losses) + 1, chunk):
    if plateau.has_stopped_falling(
        memory, step, losses[step - chunk:step], share=share, window=window):
      return step
  return None


def test_ends_when_a_window_is_hardly_better_than_the_one_before():
  steps = np.arange(400)
  assert _end(np.exp(-steps / 50), 0.05) is None  # A fifth lower each window.
  assert _end(np.exp(-steps / 50), 0.25) == 20
  assert _end(np.maximum(np.exp(-steps / 50), 0.2), 0.05) == 100
  assert _end(np.ones(400), 0.0) is None  # No better, but no worse either.
  assert _end(1 + steps, 0.0) == 20
  # Of 1 / t: the mean of a window falls by the share W / t.
  assert 0.8 < _end(1 / (1 + steps), 0.05) / (10 / 0.05) < 1.2
  # Noise does not end what falls, and does not keep going what rests.
  noise = np.random.default_rng(0).normal(size=400)
  assert _end(np.exp(-steps / 50) * (1 + 0.1 * noise), 0.02) is None
  assert _end(1 + 0.1 * noise, 0.05) <= 40


def _fit(share, **kwargs):
  kwargs = {'max_steps': 4000, 'progress': False} | kwargs
  return train.fit_victim(
      jax.random.key(0), LINEAR, examples(), plateau=share,
      recipe=train.Recipe(learning_rate=0.05, weight_decay=0.01), **kwargs)


def test_weight_decay_ends_where_ridge_regression_is():
  victim = _fit(0.05)
  assert victim.status == Status.PLATEAU
  assert len(victim.curve) % 500 == 1
  assert len(victim.curve) < 4000
  x, y = examples()
  x = np.column_stack([x, np.ones(len(x))])
  ridge = x.T @ x / len(x) + 0.01 * np.eye(x.shape[1])
  want = np.linalg.solve(ridge, x.T @ np.asarray(y) / len(x))
  layer = victim.theta_T['readout']
  np.testing.assert_allclose(
      np.vstack([layer['kernel'], layer['bias']]), want, atol=1e-3)
  loose = _fit(0.05, tolerance=1.01 * float(victim.curve[-1]))
  assert loose.status == Status.CONVERGED
  assert _fit(None, max_steps=1500).status == Status.FINISHED


def test_a_resumed_run_ends_at_the_same_update(tmp_path):
  whole = _fit(0.05)
  for stop in (330, 800, 4000):  # Within a window, at another's, to the end.
    found = _fit(0.05, max_steps=stop, workdir=tmp_path)
    assert (found.status == Status.PLATEAU) == (stop == 4000)
  again = _fit(0.05, workdir=tmp_path)
  for victim in (found, again):
    assert victim.status == Status.PLATEAU
    np.testing.assert_array_equal(victim.curve, whole.curve)
    np.testing.assert_array_equal(flat(victim.theta_T), flat(whole.theta_T))


@pytest.mark.errors
def test_bad_numbers_are_refused():
  for share in (-0.1, 1.1):
    with pytest.raises(ValueError, match=r'`plateau` must be in \[0, 1\]'):
      _fit(share)
  with pytest.raises(ValueError, match=r'`share` must be in \[0, 1\]'):
    _end(np.ones(10), 2.0)
  with pytest.raises(ValueError, match='`window` must be .* at least 1'):
    _end(np.ones(10), 0.1, window=0)
