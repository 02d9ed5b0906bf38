"""Differences: against brute force, closed forms and other code."""
import math

import jax
import numpy as np
import pytest
from scipy import special, stats

from dsr.probes import differences, intervals, membership

Z = special.ndtri(0.975)


def test_without_pairs_of_single_models_it_is_welch():
  """Shares apart, one stratum is a two-sample t test."""
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=30), rng.normal(0.3, 2.0, 50)
  found = differences.difference(
      differences.Sample(a.mean()[None], (a,)),
      differences.Sample(b.mean()[None], (b,)), paired=False)
  ends = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
  np.testing.assert_allclose(found[:3], [a.mean() - b.mean(), *ends])


def test_pairs_of_images_are_students_and_models_add_their_variance():
  rng = np.random.default_rng(1)
  a = rng.random((1, 40))
  b = a + 0.1 * rng.normal(size=a.shape)
  sample = lambda v: differences.Sample(v.mean(1), (v.mean(0),))
  found = differences.difference(sample(a), sample(b), paired=True)
  ends = stats.ttest_rel(a[0], b[0]).confidence_interval()
  np.testing.assert_allclose(found[1:3], ends)
  a = rng.random((4, 40)) + rng.normal(size=(4, 1))
  found = differences.difference(sample(a), sample(b), paired=True)
  parts = {part.unit: part for part in found.parts}
  assert parts['models'].variance == pytest.approx(
      np.var(a.mean(1), ddof=1) / 4)
  assert parts['images'].variance == pytest.approx(
      np.var(a.mean(0) - b[0], ddof=1) / 40)
  same = intervals.satterthwaite(found.value, [
      (part.variance, int(part.freedom)) for part in found.parts])
  np.testing.assert_allclose(found[:3], same)


def test_auc_is_that_of_the_probe_and_its_pairs_have_the_bootstraps_width():
  rng = np.random.default_rng(2)
  member = np.arange(300) < 120
  hard = rng.normal(size=300)
  scores = [(hard + 0.5 * member + 0.5 * rng.normal(size=(2, 300))).round(1)
            for _ in range(2)]
  samples = [differences.of_auc(s, member) for s in scores]
  for sample, score in zip(samples, scores):
    for value, row in zip(sample.models, score):
      exact = np.mean((row[member][:, None] > row[~member])
                      + 0.5 * (row[member][:, None] == row[~member]))
      assert value == pytest.approx(exact)
    for stratum in sample.strata:
      assert stratum.mean() == pytest.approx(sample.models.mean())
  found = differences.difference(*samples, paired=True)
  other = membership.difference(
      jax.random.key(0), *scores, member, num_resamples=400).auc
  assert found.value == pytest.approx(other.value)
  assert found.high - found.low == pytest.approx(
      other.high - other.low, rel=0.15)
  assert {part.unit: part.number for part in found.parts} == {
      'images': 300, 'models': 2}


@pytest.mark.parametrize('paired', [True, False])
@pytest.mark.parametrize('shares', [(0.97, 0.97), (0.9, 0.8)])
def test_intervals_of_shares_cover_what_is_true(paired, shares):
  """Even where hardly an image differs, where Wald's have no width at all."""
  rng = np.random.default_rng(3)
  covered, number = 0, 1000
  for _ in range(number):
    easy = rng.random((2, 40))
    easy = easy[:1].repeat(2, 0) if paired else easy
    right = [(row < share)[None] for row, share in zip(easy, shares)]
    found = differences.difference(
        *map(differences.of_shares, right), paired=paired)
    covered += found.low <= shares[0] - shares[1] <= found.high
    assert found.low <= found.value <= found.high
  assert covered / number > 0.94


def test_targets_are_paired_or_not():
  a, b = np.array([0.6, 0.7, 0.65]), np.array([0.55, 0.66, 0.58])
  one, other = map(differences.of_models, (a, b))
  found = differences.difference(one, other, paired=True)
  np.testing.assert_allclose(found[:3], intervals.mean_t(a - b))
  wide = differences.difference(one, other, paired=False)
  assert wide.high - wide.low > 2 * (found.high - found.low)
  alone = differences.of_models(a[:1])
  found = differences.difference(alone, alone, paired=True)
  assert (found.low, found.high, found.sign) == (-math.inf, math.inf, 0)
  assert differences.needed(found) is None


def test_two_intervals_are_newcombes_for_shares():
  """The example (56/70, 48/80) of Newcombe, Stat. Med. 17 (1998) 873-890."""
  found = differences.two_intervals(
      intervals.wilson(56, 70), intervals.wilson(48, 80), 80)
  np.testing.assert_allclose(found[:3], [0.2, 0.0524, 0.3339], atol=5e-5)
  assert found.sign == 1


def test_what_is_needed_is_the_closed_form_for_many_images():
  part = differences.Part('images', 0.02**2, 10**9, 10_000)
  found = differences.Difference(0.01, -0.03, 0.05, (part,))
  for power in (0.5, 0.8):
    ratio = (Z + special.ndtri(power)) * 0.02 / 0.01
    assert differences.needed(found, power=power).images == pytest.approx(
        10_000 * ratio**2, rel=1e-4)
  half = differences.needed(found, power=0.5)
  assert half.images == pytest.approx(10_000 * (Z * 0.02 / 0.01)**2, rel=1e-4)
  assert half.models is None
  assert differences.needed(found._replace(value=0.0)) is None
  assert differences.needed(found._replace(value=1e-7)) is None


def test_models_are_asked_for_where_images_cannot_tell():
  images = differences.Part('images', 1e-6, 999, 1000)
  models = differences.Part('models', 1e-2, 2, 2)
  found = differences.Difference(0.05, -0.4, 0.5, (images, models))
  need = differences.needed(found)
  assert need.images is None
  assert need.models > 2 * 1e-2 / 0.05**2 * (Z + 0.84)**2
  both = differences.needed(found._replace(parts=(
      images._replace(variance=1e-2), models)))
  assert both.images / 1000 == pytest.approx(both.models / 2, rel=0.1)


def test_what_is_needed_tells_in_four_of_five_repetitions():
  """By brute force: R models on N images of as much noise as was estimated."""
  rng = np.random.default_rng(4)
  gap, spread, noise = 0.1, 0.12, 0.45

  def drawn(num_models, num_images):
    right = [gap * side + spread * rng.normal(size=(num_models, 1))
             + noise * rng.normal(size=(1, num_images)) for side in (1, 0)]
    return differences.difference(*(
        differences.Sample(v.mean(1), (v.mean(0),)) for v in right),
                                  paired=True)

  few, many = 4, 800
  start = differences.Difference(gap, -1, 1, (
      differences.Part('images', 2 * noise**2 / many, many - 1, many),
      differences.Part('models', 2 * spread**2 / few, 2 * (few - 1), few)))
  need = differences.needed(start)
  assert need.images is None  # No number of images would do.
  told = np.mean([drawn(need.models, many).sign > 0 for _ in range(500)])
  assert abs(told - 0.8) < 0.06  # Three standard errors.


@pytest.mark.errors
def test_what_is_wrong_is_named():
  sample = differences.of_shares(np.ones((1, 5)))
  with pytest.raises(ValueError, match='`paired` samples must be of the same'):
    differences.difference(
        sample, differences.of_shares(np.ones((1, 6))), paired=True)
  with pytest.raises(ValueError, match=r'`right` must be \(R, N\)'):
    differences.of_shares(np.ones(5))
  with pytest.raises(ValueError, match='`right` must be in'):
    differences.of_shares(np.full((1, 5), 1.5))
  with pytest.raises(ValueError, match='`member` must hold members and non'):
    differences.of_auc(np.ones((1, 3)), np.ones(3, bool))
  with pytest.raises(ValueError, match=r'`values` must be \(R,\)'):
    differences.of_models(np.ones((2, 2)))
  for power in (0, 1, 2):
    with pytest.raises(ValueError, match='`power` must be'):
      differences.needed(differences.Difference(0.1, 0, 1), power=power)
