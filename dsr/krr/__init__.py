"""Kernel regression, Gaussian processes, and training in closed form."""
from dsr.krr.any_loss import LossFlow, loss_flow
from dsr.krr.dealt_inverse import (
    fit as fit_directly_on_hosts,
    in_out as in_out_on_hosts,
)
from dsr.krr.dynamics import GradientFlow, gradient_flow
from dsr.krr.ensemble import Ensemble, Gaussian, ensemble
from dsr.krr.iterative import (
    fit_by_cg,
    kernel_matvec,
    nystrom,
    pivoted_cholesky,
)
from dsr.krr.many_hosts import DealtRegressor, fit as fit_on_hosts
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
           'posterior', 'predict_in_tiles', 'random_halves', 'shadows']


def __getattr__(name: str):
  """The estimators, which import scikit-learn, at their first use."""
  if name in ('NTKClassifier', 'NTKRegressor'):
    from dsr.krr import estimators
    return getattr(estimators, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
