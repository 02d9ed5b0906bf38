"""The scikit-learn estimators against `krr.fit`, and its own checks."""
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import base, datasets, model_selection, pipeline, preprocessing
from sklearn.utils import estimator_checks

from dsr import krr
from dsr.types import Examples, KernelFn


def _gaussian(x1, x2):
  return jnp.exp(-((x1[:, None] - x2[None]) ** 2).sum(-1) / 8)


GAUSSIAN = KernelFn(
    cross=_gaussian, symmetric=lambda x: _gaussian(x, x),
    diag=lambda x: jnp.ones(x.shape[0], x.dtype), name='gaussian')


def test_regressor_is_krr_on_centred_targets():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2)) + 5
  model = base.clone(krr.NTKRegressor(GAUSSIAN, ridge=1e-2)).fit(x, y)
  mean = y.mean(0)
  data = Examples(jnp.asarray(x), jnp.asarray(y - mean))
  want = np.asarray(krr.fit(GAUSSIAN, data, ridge=1e-2)(data.x)) + mean
  np.testing.assert_allclose(model.predict(x), want, rtol=1e-8)
  assert model.get_params() == {'kernel': GAUSSIAN, 'ridge': 1e-2}
  assert model.score(x, y) > 0.1
  with pytest.raises(ValueError, match='`ridge` must be finite'):
    model.set_params(ridge=-1).fit(x, y)


@pytest.mark.slow
def test_classifier_on_iris():
  """Two hidden layers, as a user of neural-tangents had it."""
  x, y = datasets.load_iris(return_X_y=True)
  y = np.asarray(['setosa', 'versicolor', 'virginica'])[y]
  model = pipeline.make_pipeline(
      preprocessing.StandardScaler(), krr.NTKClassifier('fcn2', ridge=1e-2))
  train = model_selection.train_test_split(
      np.arange(150), train_size=90, random_state=0, stratify=y)[0]
  model.fit(x[train], y[train])
  rest = np.setdiff1d(np.arange(150), train)
  assert model.score(x[rest], y[rest]) >= 0.9
  p = model.predict_proba(x[rest])
  np.testing.assert_allclose(p.sum(1), 1)
  assert p.min() >= 0
  np.testing.assert_array_equal(
      model.classes_[p.argmax(1)], model.predict(x[rest]))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['NTKRegressor', 'NTKClassifier'])
def test_scikit_learns_own_checks(name):
  estimator_checks.check_estimator(getattr(krr, name)('fcn1', ridge=1e-4))
