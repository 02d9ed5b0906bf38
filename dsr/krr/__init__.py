"""Kernel ridge regression, and gradient flow in closed form."""
from dsr.krr.dynamics import GradientFlow, gradient_flow
from dsr.krr.iterative import (
    fit_by_cg,
    kernel_matvec,
    nystrom,
    pivoted_cholesky,
)
from dsr.krr.on_device import fit_on_device
from dsr.krr.predictor import Regressor, predict_in_tiles
from dsr.krr.regression import accuracy, fit, fit_gram, leave_one_out, mse
from dsr.krr.shadows import (
    InOut,
    Shadows,
    in_out,
    random_halves,
    shadows,
)

__all__ = ['GradientFlow', 'InOut', 'Regressor', 'Shadows', 'accuracy', 'fit',
           'fit_by_cg', 'fit_gram', 'fit_on_device', 'gradient_flow', 'in_out',
           'kernel_matvec', 'leave_one_out', 'mse', 'nystrom',
           'pivoted_cholesky', 'predict_in_tiles', 'random_halves', 'shadows']
