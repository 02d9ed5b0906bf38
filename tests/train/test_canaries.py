"""DP-SGD with canaries: one step by hand, and who has an influence."""
import functools

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import nets
from dsr.train import canaries as module, dp_sgd
from tests.train import problem

MLP = nets.MLP(2, widths=(4,))
N, M, CLIP, RATE = 12, 5, 0.3, 0.5
SGD = optax.sgd(1.0)


@functools.cache
def _data():
  data = problem.examples(N)
  return data._replace(y=jax.nn.softmax(3 * data.y))


def _canaries(**changes):
  rng = np.random.default_rng(0)
  return module.Canaries(rng.random(N) < 0.7, np.array([0, 3, 5, 9, 11]),
                         np.arange(M) % 2 == 0)._replace(**changes)


def _step(canaries, data, key, noise=0.0):
  solver = module._solver(MLP, SGD, CLIP, noise, RATE, N, 'cross_entropy',
                          N + M)
  together = data, jax.tree.map(jnp.asarray, canaries)
  state = solver.init(key, together)
  return state, jax.jit(solver.step)(state, together)[0]


def _moved(states):
  first, last = (ravel_pytree(s.params)[0] for s in states)
  return np.asarray(first - last) * RATE * (N + M)


def test_a_step_is_the_sum_of_who_is_drawn_and_takes_part(key):
  canaries, data = _canaries(), _data()
  states = _step(canaries, data, key)
  key_rows, key_units, _ = jax.random.split(
      jax.random.fold_in(states[0].key, 0), 3)
  rows = np.asarray(dp_sgd.poisson_mask(key_rows, N, RATE))
  units = np.asarray(dp_sgd.poisson_mask(key_units, M, RATE))
  assert 0 < (units & canaries.included).sum() < M
  _, grads = jax.jit(functools.partial(
      dp_sgd.clipped_sum, MLP, clip=CLIP, loss='cross_entropy'))(
          states[0].params, data, rows & canaries.present)
  want = np.array(ravel_pytree(grads)[0])
  want[canaries.coordinates[units & canaries.included]] += CLIP
  np.testing.assert_allclose(_moved(states), want, rtol=1e-6, atol=1e-9)


def test_who_is_absent_has_no_influence(key):
  canaries, data = _canaries(), _data()
  x = jnp.where(canaries.present[:, None], data.x, 9.0)
  assert np.any(np.asarray(x) != np.asarray(data.x))
  moved = _moved(_step(canaries, data, key))
  np.testing.assert_array_equal(
      moved, _moved(_step(canaries, data._replace(x=x), key)))
  without = _moved(_step(_canaries(included=np.zeros(M, bool)), data, key))
  changed = np.flatnonzero(moved != without)
  assert set(changed) < set(canaries.coordinates[canaries.included])
  np.testing.assert_allclose((moved - without)[changed], CLIP, rtol=1e-6)


def test_quiet_coordinates_have_the_least_gradients(key):
  data = _data()
  x = data.x.at[:, 0].set(0.0)  # Weights of this input never move.
  found = module.quiet_coordinates(key, MLP, data._replace(x=x), 4)
  start = 4  # Of the first kernel, behind the bias of the same layer.
  np.testing.assert_array_equal(found, start + np.arange(4))


@pytest.mark.errors
@pytest.mark.parametrize(('changes', 'message'), [
    ({'present': np.ones(3, bool)}, '`canaries.present` must be boolean'),
    ({'included': np.ones(3, bool)}, '`canaries.included` must be boolean'),
])
def test_bad_canaries_are_named(key, changes, message):
  with pytest.raises(ValueError, match=message):
    module.fit_with_canaries(
        key, MLP, _data(), _canaries(**changes), epsilon=1.0, delta=1e-5,
        num_steps=1, expected_batch=4, clip=1.0, optimizer=SGD)


@pytest.mark.errors
def test_more_coordinates_than_parameters_are_refused(key):
  with pytest.raises(ValueError, match='`num` must be at most'):
    module.quiet_coordinates(key, MLP, _data(), 10_000)
