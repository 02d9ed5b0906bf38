"""Attack metrics: against scikit-learn, closed forms and their coverage."""
import jax
import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from dsr.probes import membership


def _scores(n, m, shift, *, seed=0, digits=None):
  """n members from N(shift, 1) and m others from N(0, 1), shuffled."""
  rng = np.random.default_rng(seed)
  score = np.r_[rng.normal(shift, 1, n), rng.normal(0, 1, m)]
  order = rng.permutation(n + m)
  member = (np.arange(n + m) < n)[order]
  score = score[order]
  return (score if digits is None else score.round(digits)), member


def _point(key, score, member):
  found = membership.evaluate(key, score, member, num_resamples=1)
  return {name: i.value for name, i in found._asdict().items()}


@pytest.mark.parametrize('digits', [None, 1, 0])  # With ties, and many.
@pytest.mark.parametrize(('n', 'm'), [(300, 200), (3, 400), (1, 1)])
def test_curve_and_metrics_are_those_of_scikit_learn(key, n, m, digits):
  score, member = _scores(n, m, 0.7, digits=digits)
  ours = membership.roc(score, member)
  fpr, tpr, threshold = metrics.roc_curve(
      member, score, drop_intermediate=False)
  np.testing.assert_allclose(ours, (fpr, tpr, threshold), atol=1e-15)
  found = _point(key, score, member)
  assert found['auc'] == pytest.approx(metrics.roc_auc_score(member, score))
  assert found['advantage'] == pytest.approx(np.max(tpr - fpr))
  best = max(metrics.balanced_accuracy_score(member, score >= t)
             for t in threshold)
  assert found['balanced_accuracy'] == pytest.approx(best)
  for limit, name in ((0.01, 'tpr_at_fpr_1e2'), (0.001, 'tpr_at_fpr_1e3')):
    # The definition, a threshold at a time.
    want = max(np.mean(score[member] >= t) for t in threshold
               if np.mean(score[~member] >= t) <= limit)
    assert found[name] == pytest.approx(want)


def test_metrics_of_two_normals_meet_their_closed_forms(key):
  n, d = 20000, 1.5
  found = _point(key, *_scores(n, n, d))
  want = {
      'auc': special.ndtr(d / np.sqrt(2)),
      'advantage': 2 * special.ndtr(d / 2) - 1,
      'balanced_accuracy': special.ndtr(d / 2),
      'tpr_at_fpr_1e2': special.ndtr(special.ndtri(0.01) + d),
      'tpr_at_fpr_1e3': special.ndtr(special.ndtri(0.001) + d)}
  for name, value in want.items():
    assert found[name] == pytest.approx(value, abs=0.04 if '1e3' in name
                                        else 0.015), name


def test_a_perfect_and_a_reversed_score(key):
  member = np.arange(10) < 4
  assert set(_point(key, member * 1.0, member).values()) == {1.0}
  worst = _point(key, -1.0 * member, member)
  assert worst == {'auc': 0, 'balanced_accuracy': 0.5, 'advantage': 0,
                   'tpr_at_fpr_1e2': 0, 'tpr_at_fpr_1e3': 0}


def test_auc_interval_covers_and_repeats_by_key():
  truth, covered = special.ndtr(1 / np.sqrt(2)), []
  for seed in range(150):
    data = _scores(40, 60, 1.0, seed=seed)
    low, high = membership.evaluate(
        jax.random.key(seed), *data, num_resamples=200).auc[1:]
    covered.append(low <= truth <= high)
  assert 0.88 <= np.mean(covered) <= 0.99
  again = [membership.evaluate(jax.random.key(k), *data, num_resamples=50)
           for k in (1, 1, 2)]
  assert again[0] == again[1]
  assert again[0] != again[2]


def test_interval_is_that_of_a_plain_bootstrap(key):
  """Resampled one example at a time, with scikit-learn's AUC."""
  score, member = _scores(80, 50, 0.8, digits=1)
  rng, drawn = np.random.default_rng(3), []
  for _ in range(400):
    rows = np.r_[rng.choice(np.flatnonzero(member), 80),
                 rng.choice(np.flatnonzero(~member), 50)]
    drawn.append(metrics.roc_auc_score(member[rows], score[rows]))
  ours = membership.evaluate(key, score, member, level=0.9).auc
  half = np.subtract(*np.quantile(drawn, [0.95, 0.05])) / 2
  np.testing.assert_allclose(
      ours[1:], np.quantile(drawn, [0.05, 0.95]), atol=0.2 * half)


def test_resampling_in_blocks_keeps_the_interval(key, monkeypatch):
  data = _scores(300, 300, 0.5)
  whole = membership.evaluate(key, *data).auc
  monkeypatch.setattr(membership, '_TILE', 600 * 64)
  blocks = membership.evaluate(key, *data).auc
  np.testing.assert_allclose(blocks, whole, atol=0.005)


def test_advantage_by_chance_is_the_mean_over_useless_scores(key):
  found = [_point(key, *_scores(300, 500, 0, seed=s))['advantage']
           for s in range(300)]
  error = np.std(found) / np.sqrt(len(found))
  # Asymptotic: at these sizes about 2 % above the mean.
  want = membership.advantage_by_chance(300, 500)
  assert abs(np.mean(found) - want) < 4 * error + 0.03 * want


def _models(num, member, shift, seed):
  """Scores (R, N) that share the difficulty of the examples."""
  rng = np.random.default_rng(seed)
  hard = rng.normal(size=len(member))
  own = rng.normal(size=(num, len(member)))
  return (hard + own) / np.sqrt(2) + shift * member


def test_models_have_the_mean_of_their_metrics(key):
  member = np.arange(300) % 3 == 0
  scores = _models(4, member, 0.7, 0).round(1)
  ours = membership.evaluate_models(key, scores, member)
  for name in membership.Metrics._fields:
    each = [getattr(membership.evaluate(key, s, member, num_resamples=1), name)
            for s in scores]
    assert getattr(ours, name).value == pytest.approx(
        np.mean([m.value for m in each]))
  alone = membership.evaluate_models(key, scores[:1], member)
  assert alone == membership.evaluate(
      key, scores[0], member, num_resamples=500)
  # Examples are shared: four models are no four times as many examples.
  width = lambda found: found.auc.high - found.auc.low
  assert width(ours) > 0.6 * width(alone)


def test_differences_are_paired(key):
  """The same models under a monotone map differ by nothing, surely."""
  member = np.arange(400) % 2 == 0
  scores = _models(1, member, 0.5, 1)
  same = membership.difference(key, scores, np.exp(scores), member)
  assert same.auc == (0, 0, 0)
  better = scores + 0.5 * member
  paired = membership.difference(key, better, scores, member).auc
  want = (metrics.roc_auc_score(member, better[0])
          - metrics.roc_auc_score(member, scores[0]))
  assert paired.value == pytest.approx(want)
  apart = [membership.evaluate(key, s[0], member).auc for s in (better, scores)]
  unpaired = np.sqrt(sum((i.high - i.low) ** 2 for i in apart))
  assert 0 < paired.high - paired.low < 0.7 * unpaired


def test_differences_over_models_keep_their_coverage():
  member, covered = np.arange(80) % 2 == 0, []
  for seed in range(120):
    a, b = (_models(3, member, 0.6, s) for s in (2 * seed, 2 * seed + 1))
    low, high = membership.difference(
        jax.random.key(seed), a, b, member, num_resamples=60).auc[1:]
    covered.append(low <= 0 <= high)
  assert 0.88 <= np.mean(covered)


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda k, s, m: membership.roc(s[:, None], m), '`score` must be a non-e'),
    (lambda k, s, m: membership.roc(list(s), m), '`score` .* got list'),
    (lambda k, s, m: membership.roc(s, m[:-1]), r'`member` .* shape \(5,\)'),
    (lambda k, s, m: membership.roc(s, m * 1), '`member` must be boolean'),
    (lambda k, s, m: membership.roc(s * np.nan, m), '`score` must be finite'),
    (lambda k, s, m: membership.roc(s, m | True), '`member` .* got 5 members'),
    (lambda k, s, m: membership.evaluate(k, s, m, level=95), '`level` must'),
    (lambda k, s, m: membership.evaluate(k, s, m, num_resamples=0),
     '`num_resamples` must be an integer of at least 1'),
    (lambda k, s, m: membership.evaluate_models(k, s, m), r'`scores` must hav'),
    (lambda k, s, m: membership.difference(
        k, s[None], s[None, 1:], m), '`others` has D=4, expected D=5'),
    (lambda k, s, m: membership.advantage_by_chance(0, 1), '`num_members` mu'),
])
def test_bad_arguments_are_named(key, call, message):
  with pytest.raises(ValueError, match=message):
    call(key, np.arange(5.0), np.arange(5) < 2)
