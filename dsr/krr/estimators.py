r"""Kernel regression by neural tangent kernels as scikit-learn estimators.

Thin: they encode targets, call `krr.fit`, and decode. scikit-learn is imported
with this file, which `dsr.krr` does on the first use of `krr.NTKRegressor` or
`krr.NTKClassifier`. Kernels do not scale inputs: put a `StandardScaler` before,
as in `make_pipeline(StandardScaler(), NTKClassifier())`. They compute in
float64 where jax_enable_x64 is on, else in float32, where a prediction changes
by some 1e-5 with the rows beside it. Pickled they hold arrays, and the kernel
by its name.
Axes: N examples; D features; C outputs or classes.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import base
from sklearn.utils import multiclass, validation

from dsr import checks, kernels, linalg
from dsr.krr.predictor import Regressor, predict_in_tiles
from dsr.krr.regression import fit
from dsr.types import Examples

_TILE = 1024  # Rows predicted at once: bounds the memory to that of 1024 N.
_SOLVED = linalg.Info(np.zeros(1), np.zeros((), int), np.True_)
_named = functools.lru_cache(kernels.by_name)  # Compiled once.


class _NTKEstimator(base.BaseEstimator):
  r"""What both estimators share; see `NTKRegressor`."""

  def __init__(self, kernel='fcn2', ridge=1e-6):
    self.kernel = kernel
    self.ridge = ridge

  def _fit(self, x, targets):
    """Fits centred targets (N, C)."""
    checks.non_negative('ridge', self.ridge)
    self.mean_ = targets.mean(0)
    data = Examples(_array(x), _array(targets - self.mean_[None]))
    found = fit(self._kernel_fn(), data, ridge=self.ridge)
    linalg.report(found.info)
    self.support_, self.dual_ = np.asarray(x), np.asarray(found.dual)
    return self

  def _kernel_fn(self):
    return _named(self.kernel) if isinstance(self.kernel, str) else self.kernel

  def _outputs(self, x):
    """(N, C) in float64, with the mean of the targets."""
    validation.check_is_fitted(self)
    x = validation.validate_data(self, x, reset=False, dtype=np.float64)
    predict_fn = Regressor(
        self._kernel_fn(), _array(self.support_), _array(self.dual_), _SOLVED)
    out = predict_in_tiles(predict_fn, _array(x), tile=_TILE)
    return out.astype(np.float64) + self.mean_[None]


def _array(x):
  """In float64 where x64 is on, else in float32."""
  return jnp.asarray(x, jax.dtypes.canonicalize_dtype(np.float64))


class NTKRegressor(base.RegressorMixin, _NTKEstimator):
  r"""Ridge regression with the kernel of an infinitely wide network.

  f(x) = m + K(x, X) (K + \lambda tr(K)/N I)^{-1} (Y - m), m the mean target.

  Args:
    kernel: a name for `kernels.by_name`, such as 'fcn2', or a `KernelFn` of
      vectors (N, D).
    ridge: \lambda >= 0, relative to the mean of the kernel's diagonal.

  Attributes:
    support_: (N, D) X.
    dual_: (N, C) \alpha, of targets without their mean.
    mean_: (C,) mean targets.
    n_features_in_: D.

  The matrix is solved at once: memory 8 to 24 bytes an entry, time N^3/3.
  """

  def fit(self, X, y):
    """Fits to X (N, D) and y (N,) or (N, C).

    Raises:
      ValueError: misshapen or non-finite arguments, an option out of range.
      FloatingPointError: the solve failed: raise `ridge`.
    """
    X, y = validation.validate_data(
        self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
    self.flat_ = y.ndim == 1
    return self._fit(X, np.asarray(y, np.float64).reshape(len(y), -1))

  def predict(self, X):
    """f(x): (N,) or (N, C), as the targets were."""
    out = self._outputs(X)
    return out[:, 0] if self.flat_ else out

  def __sklearn_tags__(self):
    """What scikit-learn must know: several targets are fine."""
    tags = super().__sklearn_tags__()
    tags.target_tags.multi_output = True
    return tags


class NTKClassifier(base.ClassifierMixin, _NTKEstimator):
  r"""Least-squares classification with the kernel of a wide network.

  Regression of one-hot labels. Its outputs f estimate the probabilities of the
  classes and sum to 1, but may leave [0, 1]; the link of `predict_proba` cuts

    p_c(x) = max(f_c(x), 0) / \sum_k max(f_k(x), 0),

  which keeps the order of what is above 0, so `predict` is the largest p. They
  are not calibrated: use `sklearn.calibration.CalibratedClassifierCV` for that.

  Args:
    kernel: as in `NTKRegressor`.
    ridge: as in `NTKRegressor`.

  Attributes:
    classes_: (C,) the labels.
    support_: (N, D) X.
    dual_: (N, C) \alpha, of one-hot labels without their mean.
    mean_: (C,) share of each class.
    n_features_in_: D.
  """

  def fit(self, X, y):
    """Fits to X (N, D) and labels y (N,), of at least one class.

    Raises:
      ValueError: misshapen or non-finite arguments, labels that are no classes,
        an option out of range.
      FloatingPointError: the solve failed: raise `ridge`.
    """
    X, y = validation.validate_data(self, X, y, dtype=np.float64)
    multiclass.check_classification_targets(y)
    self.classes_, index = np.unique(y, return_inverse=True)
    return self._fit(X, np.eye(len(self.classes_))[index])

  def decision_function(self, X):
    """f (N, C), or f_1 - f_0 (N,) for two classes."""
    out = self._outputs(X)
    return out[:, 1] - out[:, 0] if out.shape[1] == 2 else out

  def predict_proba(self, X):
    """(N, C) probabilities by the link above, in the order of `classes_`."""
    out = np.maximum(self._outputs(X), 0)
    return out / out.sum(1, keepdims=True)

  def predict(self, X):
    """(N,) the labels of the largest outputs."""
    largest = self._outputs(X).argmax(1)  # Before `classes_`: is it fitted?
    return self.classes_[largest]
