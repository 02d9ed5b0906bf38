r"""Attacks that learn from examples whose membership the attacker knows.

A classifier of scikit-learn sees what each example's outputs say and learns
membership, as in tensorflow-privacy and FRePo (arXiv:2206.00719). It is
cross-fitted: an example's score comes from a classifier that never saw it.

Features of an example with outputs f, class y and encoded target t: f_y, the
other outputs in descending order, log p_y, f_y - max_{c != y} f_c, and
log(|f - t|^2 + 1e-12); the logarithm tells an interpolated example from one
that is merely fitted well.

Nothing that only tells an example's class may help, or the score is biased
where nothing leaks. With equal numbers of members and others in a class, those
that a fold holds out are missing among those that are learned from: a
classifier that knows the class then learns the opposite of the truth (one-hot
outputs with noise, folds stratified by membership alone: AUC 0.414). So the
outputs are ordered by the example's own class, the mean of a class, members
and others alike, is taken off each feature, the folds share out the members
and the others of every class in step, and the odds of membership among those
learned from are taken off the score.
"""
import warnings

import jax
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np
from scipy import special

from dsr import checks
from dsr.probes import scores, strata

MODELS = ('logistic', 'mlp')
_INTERPOLATED = 1e-12  # Squared error below which an output is the target.
_SURE = 1e-15  # Distance to 0 and 1 at which probabilities are cut.


def learned_scores(
    key: Key[Array, ''], outputs: Float[Array | np.ndarray, 'N C'],
    y: Int[Array | np.ndarray, 'N'], member: Bool[Array | np.ndarray, 'N'], *,
    targets: Float[Array | np.ndarray, 'N C'] | None = None,
    model: str = 'logistic', folds: int = 5) -> Float[np.ndarray, 'N']:
  """Cross-fitted log-odds of membership, from the features of the module.

  Args:
    key: of the folds and, for the MLP, of its start.
    outputs: (N, C) of the attacked model.
    y: (N,) class indices; with C = 1, 0 or 1.
    member: (N,) booleans, the truth.
    targets: (N, C) encoded labels that the model was fitted to; None takes
      one-hot vectors, and with C = 1 the signs -1 and 1.
    model: 'logistic', or 'mlp' with 64 hidden ReLU units.
    folds: parts, each with its share of the members and others of every class;
      at least 2.

  Returns:
    (N,) larger where membership is more likely; a log-odds, so that
    folds compare.

  Raises:
    ValueError: wrong shapes, an unknown model, or a kind (members, others)
      with fewer examples than folds.
  """
  from sklearn import linear_model, neural_network, pipeline, preprocessing
  from sklearn.exceptions import ConvergenceWarning
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
  y = np.asarray(y)
  features = _features(outputs, y, targets)
  fold_of = _folds(key, y, member, folds)
  seed = int(jax.random.bits(key)) % 2**31

  def classifier():
    if model == 'logistic':
      last = linear_model.LogisticRegression(max_iter=1000)
    else:
      last = neural_network.MLPClassifier(
          (64,), max_iter=200, random_state=seed)
    return pipeline.make_pipeline(preprocessing.StandardScaler(), last)

  found = np.empty(len(y))
  # For such small matrices threads of BLAS do nothing but wait for each other.
  with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1, 'blas'):
    # Stopping early is regularisation here.
    warnings.simplefilter('ignore', ConvergenceWarning)
    for fold in range(folds):
      test, seen = fold_of == fold, fold_of != fold
      x = _less_class_means(features, y, seen)
      fitted = classifier().fit(x[seen], member[seen])
      p = np.clip(fitted.predict_proba(x[test])[:, 1], _SURE, 1 - _SURE)
      # Less those before seeing x: held-out members are missing among these.
      found[test] = special.logit(p) - special.logit(member[seen].mean())
  return found


def _features(outputs, y, targets) -> np.ndarray:
  """(N, C + 3), by the example's own class: none names the class."""
  outputs = np.asarray(outputs, float)
  num = outputs.shape[1]
  if targets is None:
    targets = (np.eye(num)[y] if num > 1 and y.max() < num else
               2.0 * y[:, None] - 1)
  error = -scores.negative_squared_error(outputs, targets)
  columns = [scores.negative_loss(outputs, y), scores.margin(outputs, y),
             np.log(error + _INTERPOLATED)]
  if num == 1:  # Towards its own class.
    return np.stack([np.where(y == 1, 1, -1) * outputs[:, 0], *columns], 1)
  own = np.arange(num) == y[:, None]
  others = -np.sort(-outputs[~own].reshape(len(y), num - 1), axis=1)
  return np.c_[outputs[own], others, np.stack(columns, 1)]


def _less_class_means(x, y, seen) -> np.ndarray:
  """`x` less the mean of its class among the rows `seen`, or else of them all.

  Means of all rows would tie the rows held out to those learned from, whose
  deviations are then their opposite.
  """
  found = x - x[seen].mean(0)
  for c in np.unique(y[seen]):
    found[y == c] = x[y == c] - x[seen & (y == c)].mean(0)
  return found


def _folds(key, y, member, folds) -> np.ndarray:
  """(N,) the fold of each example.

  The members of a class go to folds k, k + 1, ..., and its others to the same
  ones, with k where the members of the class before ended: every fold has its
  share of all members, and equally many of both kinds share their folds.
  """
  found = np.empty(len(y), int)
  rng, begin = strata.generator(key), 0
  for c in np.unique(y):
    for kind in (True, False):
      rows = rng.permutation(np.flatnonzero((y == c) & (member == kind)))
      found[rows] = (begin + np.arange(len(rows))) % folds
    begin += int((member & (y == c)).sum())
  return found
