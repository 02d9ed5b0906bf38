"""The rivals of the membership benchmark give the same answers."""
import jax
import numpy as np

from experiments.benchmark import membership as rivals
from experiments.benchmark.kernels import Case

CASE = Case('loo', 'fcn1', 40, 3, (6,))


def test_all_outputs_without_an_example_equal_refits():
  calls = rivals.leave_one_out_calls(CASE, 0)
  ours, refits = (np.asarray(calls[side]()) for side in ('ours', 'refits'))
  assert ours.shape == (40, 10)
  np.testing.assert_array_equal(rivals.left_out(CASE), [0, 19, 39])
  np.testing.assert_allclose(ours[[0, 19, 39]], refits, rtol=1e-7, atol=1e-9)
  assert ours.dtype == refits.dtype == np.float64
  assert np.abs(refits).max() > 0.1


def test_a_row_extrapolates_from_the_refits_made():
  with jax.enable_x64(False):  # As the benchmark is.
    row = rivals.leave_one_out_row(CASE, 0, repeats=1, seconds=0.0)
    shadows = rivals.shadow_row(CASE, 0)
  assert row['difference'] < 1e-9  # Solved in float64 all the same.
  ratio = row['refits_per_ours']
  assert 0 < ratio.low <= ratio.value <= ratio.high
  assert row['refits_s'] > 0
  assert 0 < shadows['seconds_a_shadow'].value <= shadows['ours_s']


def test_shadows_are_fits_of_halves():
  found = jax.block_until_ready(rivals.shadow_calls(CASE, 0)['ours']())
  assert found.outputs.shape == (3, 40, 10)
  assert found.converged.all()
  assert (np.asarray(found.member).sum(1) == 20).all()
