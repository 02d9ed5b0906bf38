"""Kernel regression, Gaussian processes, and training in closed form."""
import importlib

from dsr.krr.any_loss import LossFlow, loss_flow
from dsr.krr.dynamics import GradientFlow, gradient_flow
from dsr.krr.ensemble import Ensemble, Gaussian, ensemble
from dsr.krr.iterative import (
    fit_by_cg,
    kernel_matvec,
    nystrom,
    pivoted_cholesky,
)
from dsr.krr.on_device import fit_on_device
from dsr.krr.posterior import Posterior, log_marginal_likelihood, posterior
from dsr.krr.predictor import Regressor, predict_in_tiles
from dsr.krr.regression import accuracy, fit, fit_gram, leave_one_out, mse
from dsr.krr.shadows import (
    InOut,
    Shadows,
    in_out,
    random_halves,
    shadows,
)
from dsr.krr.spectrum import Descent, max_learning_rate

__all__ = ['DealtRegressor', 'Descent', 'Ensemble', 'Gaussian', 'GradientFlow',
           'InOut', 'LossFlow', 'NTKClassifier', 'NTKRegressor', 'Posterior',
           'Regressor', 'Shadows', 'accuracy', 'ensemble', 'fit', 'fit_by_cg',
           'fit_directly_on_hosts', 'fit_gram', 'fit_on_device', 'fit_on_hosts',
           'gradient_flow', 'in_out', 'in_out_on_hosts', 'kernel_matvec',
           'leave_one_out', 'log_marginal_likelihood', 'loss_flow',
           'max_learning_rate', 'mse', 'nystrom', 'pivoted_cholesky',
           'posterior', 'predict_in_tiles', 'random_halves', 'shadows',
           'shadows_on_hosts']


# Imported at their first use: estimators bring scikit-learn, what is for many
# hosts brings loops and checkpoints.
_LATE = {
    'DealtRegressor': ('many_hosts', 'DealtRegressor'),
    'NTKClassifier': ('estimators', 'NTKClassifier'),
    'NTKRegressor': ('estimators', 'NTKRegressor'),
    'fit_directly_on_hosts': ('dealt_inverse', 'fit'),
    'fit_on_hosts': ('many_hosts', 'fit'),
    'in_out_on_hosts': ('dealt_inverse', 'in_out'),
    'shadows_on_hosts': ('dealt_shadows', 'shadows')}


def __getattr__(name: str):
  if name not in _LATE:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, inside = _LATE[name]
  return getattr(importlib.import_module(f'{__name__}.{module}'), inside)
