"""The first-layer attack on a decayed and pruned network."""
import jax
import numpy as np

from dsr.attack import compression, first_layer, prepared
from tests.attack import problem

_QUICK = first_layer.Config(num_starts=32, max_rounds=30, patience=6)


def test_a_decayed_and_pruned_network_gives_its_images(tmp_path):
  digits = problem.digits(10)
  released, victim = problem.network(digits, weight_decay=1e-4)
  assert victim.curve[-1] > 1e-9  # The decay holds it above any tolerance.
  attack = lambda folder: prepared.reconstruct(
      jax.random.key(0), compression.pruned(released, 0.1), _QUICK,
      progress=False, workdir=folder)
  found = attack(tmp_path)
  assert np.sum(problem.errors(digits, found.candidates) < 0.01) >= 9
  assert found.info['restored']
  again = attack(tmp_path)  # Goes on from the end.
  np.testing.assert_array_equal(again.candidates, found.candidates)
