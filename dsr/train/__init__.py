"""Finite networks: gradient descent, several starts at once, protocols."""
from dsr.train.descent import LOSSES, Info, State, gradient_descent
from dsr.train.networks import (
    Trained,
    accuracy,
    fit_networks,
    init_networks,
    predict,
)
from dsr.train.protocol import (
    CONDENSATION,
    FREPO,
    OPTIMIZERS,
    SCHEDULES,
    Evaluation,
    Protocol,
    evaluate,
    make_optimizer,
)

__all__ = ['CONDENSATION', 'FREPO', 'LOSSES', 'OPTIMIZERS', 'SCHEDULES',
           'Evaluation', 'Info', 'Protocol', 'State', 'Trained', 'accuracy',
           'evaluate', 'fit_networks', 'gradient_descent', 'init_networks',
           'make_optimizer', 'predict']
