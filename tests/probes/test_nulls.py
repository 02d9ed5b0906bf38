"""Every attack where nothing leaks: its AUC is 1/2, whatever the design.

Outputs are one-hot vectors with noise, membership is drawn without a look at
them: `uniform` of all examples, `balanced` with as many members as others in
every class, `tiny` with two examples of each class and of each kind. A biased
attack hides leaks (below 1/2) or invents them (above).
"""
import jax
import numpy as np
import pytest
from sklearn import metrics

from dsr.probes import learned, lira, nearest, scores

C = 10
NUM = {'uniform': 200, 'balanced': 200, 'tiny': 2 * C}
SEEDS = {'uniform': 20, 'balanced': 20, 'tiny': 40}
each_design = pytest.mark.parametrize('design', NUM)


def _labels(rng, design):
  """(y, member): 2 NUM examples."""
  num = NUM[design]
  y = (rng.integers(0, C, 2 * num) if design == 'uniform' else
       np.tile(np.arange(num) % C, 2))
  return y, np.arange(2 * num) < num


def _outputs(rng, y):
  """One-hot with noise, and larger for later classes, as is their loss."""
  return np.eye(C)[y] * (1 + 0.5 * y[:, None]) + 0.05 * rng.normal(
      size=(len(y), C))


def _check(aucs):
  """The mean is 1/2 within what its standard error allows, which is small."""
  aucs = np.asarray(aucs)
  error = aucs.std(ddof=1) / np.sqrt(len(aucs))
  assert 0 < error < 0.03
  assert abs(aucs.mean() - 0.5) < 3 * error


@each_design
@pytest.mark.parametrize('name', [*scores.SCORES, 'squared_error'])
def test_scores_of_outputs(name, design):
  aucs = []
  for seed in range(SEEDS[design]):
    rng = np.random.default_rng(seed)
    y, member = _labels(rng, design)
    outputs = _outputs(rng, y)
    found = (scores.negative_squared_error(outputs, np.eye(C)[y])
             if name == 'squared_error' else scores.SCORES[name](outputs, y))
    aucs.append(metrics.roc_auc_score(member, found))
  _check(aucs)


@each_design
@pytest.mark.parametrize(
    'model', ['logistic', pytest.param('mlp', marks=pytest.mark.slow)])
def test_learned_attacks(model, design):
  aucs = []
  for seed in range(SEEDS[design] // (2 if model == 'mlp' else 1)):
    rng = np.random.default_rng(seed)
    y, member = _labels(rng, design)
    aucs.append(metrics.roc_auc_score(member, learned.learned_scores(
        jax.random.key(seed), _outputs(rng, y), y, member, model=model)))
  _check(aucs)


@pytest.mark.parametrize('model', learned.MODELS)
def test_learned_attacks_find_what_interpolates(model):
  """Where members are fitted exactly, the squared error alone tells all."""
  rng = np.random.default_rng(0)
  y, member = _labels(rng, 'balanced')
  targets = np.eye(C)[y] - 1 / C
  outputs = targets + np.where(member, 1e-6, 0.05)[:, None] * rng.normal(
      size=targets.shape)
  found = learned.learned_scores(
      jax.random.key(0), outputs, y, member, targets=targets, model=model)
  assert metrics.roc_auc_score(member, found) > 0.99


@each_design
@pytest.mark.parametrize('online', [True, False])
def test_shadow_models(online, design):
  """16 shadows of random halves; of every class, if the design is so."""
  aucs = []
  for seed in range(SEEDS[design]):
    rng = np.random.default_rng(seed)
    y, _ = _labels(rng, design)
    member = np.empty((17, len(y)), bool)
    for row in member:
      place = rng.random(len(y))
      if design != 'uniform':  # By rank within the class.
        for c in range(C):
          place[y == c] = place[y == c].argsort().argsort() / (y == c).sum()
      row[:] = place < np.median(place)
    member[1:16:2] = ~member[0:16:2]  # Each example is in half of them.
    outputs = _outputs(rng, np.tile(y, 17)).reshape(17, len(y), C)
    score = scores.margin(outputs, y)
    aucs.append(metrics.roc_auc_score(member[16], lira.lira(
        score[:16], member[:16], score[16], online=online)))
  _check(aucs)


@each_design
@pytest.mark.parametrize('attack', ['distance', 'density', 'kernel'])
def test_attacks_on_the_images_alone(attack, design):
  """Images of a class are alike, and the set has one of each class."""
  aucs = []
  for seed in range(SEEDS[design]):
    rng = np.random.default_rng(seed)
    y, member = _labels(rng, design)
    centres = rng.normal(size=(C, 12))
    x, shown = (centres[z] + 0.5 * rng.normal(size=(len(z), 12))
                for z in (y, np.arange(C)))
    if attack == 'kernel':
      found = nearest.kernel_scores(
          np.sum(x**2, 1), x @ shown.T, np.sum(shown**2, 1))
    else:
      found = {'distance': nearest.nearest_scores,
               'density': nearest.density_scores}[attack](x, shown)
    aucs.append(metrics.roc_auc_score(member, found))
  _check(aucs)
