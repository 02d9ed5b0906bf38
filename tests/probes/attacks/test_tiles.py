"""Tiles: every active row once, no other row, whatever the tile's size."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsr.probes.attacks import apgd, losses, pgd, threat, tiles
from tests.probes.attacks import toys

ROWS = 7


def _threat(rows=ROWS):
  x = jnp.arange(rows * 2, dtype=jnp.float32).reshape(rows, 2) / 100
  return threat.build(
      lambda x: x @ jnp.ones((2, 3), x.dtype), x, np.zeros(rows, int),
      epsilon=0.1, norm='linf')[1]


@pytest.mark.parametrize('size', [1, 3, 7, 20])
@pytest.mark.parametrize('which', ['all', 'none', 'some'])
def test_sweep_advances_the_active_rows_once(size, which):
  active = {'all': None, 'none': np.zeros(ROWS, bool),
            'some': np.arange(ROWS) % 3 != 1}[which]
  seen = []

  def advance(threat, state):
    count, copy = state
    seen.append(len(count))
    assert threat.epsilon.shape == ()
    return count + 1, threat.x[:, 0]

  given = jnp.zeros(ROWS, int), jnp.full(ROWS, -1, jnp.float32)
  known = _threat()
  count, copy = jax.jit(functools.partial(
      tiles.sweep, advance, known, size=size))(
          given, active=None if active is None else jnp.asarray(active))
  chosen = np.ones(ROWS, bool) if active is None else active
  np.testing.assert_array_equal(count, chosen)
  np.testing.assert_array_equal(
      copy, np.where(chosen, known.x[:, 0], np.float32(-1)))
  assert set(seen) == {min(size, ROWS)}


@pytest.mark.parametrize('steps', [3, 12])
def test_examples_stop_within_a_group_of_being_fooled(steps):
  """Row n is fooled at step n; a step more would be one too many."""
  known = _threat(rows=12)

  def step(threat, k, state):
    count, best = state.y, state.best
    fooled = jnp.where(k >= jnp.round(threat.x[:, 0] * 50), 1.0, -1.0)
    return state._replace(
        y=count + 1, best=best.update(threat.x, fooled.astype(threat.x.dtype)))

  start = pgd._State(jnp.zeros(12, int), losses.Best.none_seen(known.x))
  run = functools.partial(
      tiles.iterate, step, known, start, steps=steps, size=5)
  np.testing.assert_array_equal(run(stop=False).y, steps)
  rows = np.arange(12)
  groups = tiles.GROUP * (rows // tiles.GROUP + 1)
  np.testing.assert_array_equal(run(stop=True).y, np.minimum(groups, steps))


@pytest.mark.parametrize('attack', [
    pgd.pgd, pytest.param(apgd.apgd, marks=pytest.mark.slow)])
def test_tiles_and_stopping_leave_the_success_as_it_is(key, attack):
  labels = toys.classes(toys.mlp)
  run = functools.partial(
      attack, key, toys.mlp, toys.X, labels, epsilon=0.07, steps=12,
      restarts=2)
  whole = run(batch_size=48)
  margins = toys.margins(toys.mlp, whole, labels)
  assert 0.2 < np.mean(margins > 0) < 0.9
  np.testing.assert_allclose(run(batch_size=20), whole, atol=1e-9)
  early = toys.margins(toys.mlp, run(batch_size=20, stop=True), labels)
  np.testing.assert_array_equal(early > 0, margins > 0)
  assert np.all(early <= margins + 1e-9)
  assert np.any(early < margins - 1e-3)
  held = margins <= 0  # Never left alone, so nothing is lost.
  np.testing.assert_allclose(early[held], margins[held], atol=1e-9)


def test_a_tile_holds_what_the_cache_takes():
  def pick(width, rows, **options):
    weights = jnp.ones((8, width), jnp.float32), jnp.ones(
        (width, 3), jnp.float32)
    predict, known = threat.build(
        lambda x: jnp.tanh(x @ weights[0]) @ weights[1],
        jnp.zeros((rows, 8), jnp.float32), np.zeros(rows, int),
        epsilon=0.1, norm='l2')
    return tiles.pick_size(
        predict, known, **{'batch_size': None, 'stop': False, **options})

  assert pick(4, 1000) == 1000
  wide = pick(100_000, 1000)  # 0.4 MB an example or more; 4 MB of weights.
  assert wide < pick(10_000, 1000) < 1000
  assert wide >= 8
  assert pick(100_000, 3) == 3
  assert pick(4, 1000, stop=True) == 125
  assert pick(4, 100, stop=True) == 25  # Four tiles of equal size.
  assert pick(4, 1000, batch_size=64) == 64


@pytest.mark.errors
def test_no_example_at_a_time_is_refused(key):
  with pytest.raises(ValueError, match='`batch_size` must be an integer of'):
    pgd.pgd(key, toys.mlp, toys.X, np.zeros(48, int), epsilon=0.1,
            batch_size=0)


def test_networks_of_one_form_are_looked_at_once():
  traced = []

  def apply(weights, x):
    traced.append(x.shape)
    return jnp.tanh(x @ weights) @ weights.T

  def pick(dim, rows):
    predict, known = threat.build(
        jax.tree_util.Partial(apply, jnp.ones((dim, dim), jnp.float32)),
        jnp.zeros((rows, dim), jnp.float32), np.zeros(rows, int),
        epsilon=0.1, norm='l2')
    traced.clear()
    return tiles.pick_size(predict, known, None, stop=False), len(traced)

  size, looks = pick(1000, 5000)
  assert size < 5000
  assert looks == 2  # With one example, and with two.
  assert pick(1000, 5000) == (size, 0)
  assert pick(1000, 50) == (50, 0)  # The number of examples does not matter.
  assert pick(500, 5000)[1] == 2
