"""Learned attacks: what they find, and that no example scores itself."""
import jax
import numpy as np
import pytest
from sklearn import linear_model, metrics
import threadpoolctl

from dsr.probes import learned


def _problem(gap, n=200, c=3, seed=0):
  """Members' logits of the right class are higher by `gap`."""
  rng = np.random.default_rng(seed)
  y, member = rng.integers(0, c, n), rng.random(n) < 0.5
  outputs = rng.normal(size=(n, c))
  outputs[np.arange(n), y] += gap * member
  return outputs, y, member


@pytest.mark.parametrize('model', learned.MODELS)
def test_a_gap_is_found(key, model):
  outputs, y, member = _problem(4.0)
  found = learned.learned_scores(key, outputs, y, member, model=model)
  assert metrics.roc_auc_score(member, found) > 0.85


@pytest.mark.parametrize('model', learned.MODELS)
def test_no_example_scores_itself(key, model):
  """Noise that a classifier learns by heart gives it nothing here."""
  outputs, y, member = _problem(0.0, n=100, c=40)
  plain = linear_model.LogisticRegression().fit(outputs, member)
  by_heart = metrics.roc_auc_score(member, plain.decision_function(outputs))
  assert by_heart > 0.9
  found = learned.learned_scores(key, outputs, y, member, model=model)
  assert 0.3 < metrics.roc_auc_score(member, found) < 0.65


def test_scores_repeat_by_key_and_take_one_output(key):
  outputs, y, member = _problem(2.0, n=60, c=2)
  outputs = outputs[:, :1]
  first, again = (learned.learned_scores(key, outputs, y, member)
                  for _ in range(2))
  np.testing.assert_array_equal(first, again)
  other = learned.learned_scores(jax.random.key(1), outputs, y, member)
  assert np.any(first != other)


def test_small_fits_do_not_wait_for_threads(key, monkeypatch):
  seen, fit = set(), linear_model.LogisticRegression.fit

  def threads():
    return {library['num_threads'] for library in
            threadpoolctl.threadpool_info() if library['user_api'] == 'blas'}

  def watched(self, *args, **options):
    seen.update(threads())
    return fit(self, *args, **options)

  monkeypatch.setattr(linear_model.LogisticRegression, 'fit', watched)
  with threadpoolctl.threadpool_limits(2, 'blas'):
    learned.learned_scores(key, *_problem(2.0, n=60))
    assert seen == {1}
    assert threads() == {2}  # The caller's own.


@pytest.mark.errors
@pytest.mark.parametrize(('change', 'message'), [
    ({'model': 'forest'}, '`model` must be one of logistic, mlp'),
    ({'folds': 1}, '`folds` must be an integer of at least 2'),
    ({'member': np.arange(60) < 4}, '`member` must hold at least 5 members'),
    ({'outputs': np.full((60, 3), np.nan)}, '`outputs` must be finite'),
    ({'member': np.zeros(60)}, '`member` must be boolean'),
    ({'targets': np.zeros((60, 2))}, '`targets` has D=2, expected D=3'),
])
def test_bad_arguments_are_named(key, change, message):
  outputs, y, member = _problem(1.0, n=60)
  arguments = {'outputs': outputs, 'y': y, 'member': member} | change
  with pytest.raises(ValueError, match=message):
    learned.learned_scores(key, **arguments)
