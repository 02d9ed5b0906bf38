"""Kernel ridge regression, and gradient flow in closed form."""
from dsr.krr.dynamics import GradientFlow, gradient_flow
from dsr.krr.iterative import (
    fit_by_cg,
    kernel_matvec,
    nystrom,
    pivoted_cholesky,
)
from dsr.krr.predictor import Regressor, predict_in_tiles
from dsr.krr.regression import accuracy, fit, fit_gram, leave_one_out, mse

__all__ = ['GradientFlow', 'Regressor', 'accuracy', 'fit', 'fit_by_cg',
           'fit_gram', 'gradient_flow', 'kernel_matvec', 'leave_one_out',
           'mse', 'nystrom', 'pivoted_cholesky', 'predict_in_tiles']
