"""Attacks that learn from examples whose membership the attacker knows.

A classifier of scikit-learn sees each example's logits and loss and learns
membership, as in tensorflow-privacy and FRePo (arXiv:2206.00719). It is
cross-fitted: an example's score comes from a classifier that never saw it.
"""
import warnings

import jax
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from dsr import checks
from dsr.probes import scores

MODELS = ('logistic', 'mlp')


def learned_scores(
    key: Key[Array, ''], outputs: Float[Array | np.ndarray, 'N C'],
    y: Int[Array | np.ndarray, 'N'], member: Bool[Array | np.ndarray, 'N'], *,
    model: str = 'logistic', folds: int = 5) -> Float[np.ndarray, 'N']:
  """Cross-fitted log-odds of membership, from logits and cross-entropy.

  Args:
    key: of the folds and, for the MLP, of its start.
    outputs: (N, C) of the attacked model.
    y: (N,) class indices; with C = 1, 0 or 1.
    member: (N,) booleans, the truth.
    model: 'logistic', or 'mlp' with 64 hidden ReLU units.
    folds: stratified parts; at least 2.

  Returns:
    (N,) larger where membership is more likely; a log-odds, so that
    folds compare.

  Raises:
    ValueError: wrong shapes, an unknown model, or a kind (members, others)
      with fewer examples than folds.
  """
  from sklearn import linear_model, neural_network, pipeline, preprocessing
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.model_selection import StratifiedKFold
  import threadpoolctl

  checks.features('outputs', outputs)
  checks.flags('member', member, shape=outputs.shape[:1])
  checks.one_of('model', model, MODELS)
  checks.at_least('folds', folds, 2)
  member = np.asarray(member)
  fewest = min(member.sum(), (~member).sum())
  if fewest < folds:
    raise ValueError(f'`member` must hold at least {folds} members and '
                     f'non-members, one a fold, got {fewest} of one kind.')
  x = np.c_[np.asarray(outputs, float), scores.negative_loss(outputs, y)]
  seed = int(jax.random.bits(key)) % 2**31

  def classifier():
    if model == 'logistic':
      last = linear_model.LogisticRegression(max_iter=1000)
    else:
      last = neural_network.MLPClassifier(
          (64,), max_iter=200, random_state=seed)
    return pipeline.make_pipeline(preprocessing.StandardScaler(), last)

  found = np.empty(len(x))
  split = StratifiedKFold(folds, shuffle=True, random_state=seed)
  # For such small matrices threads of BLAS do nothing but wait for each other.
  with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1, 'blas'):
    # Stopping early is regularisation here.
    warnings.simplefilter('ignore', ConvergenceWarning)
    for train, test in split.split(x, member):
      log_p = classifier().fit(x[train], member[train]).predict_log_proba(
          x[test])
      found[test] = log_p[:, 1] - log_p[:, 0]
  return found
