"""Finite networks: gradient descent, several starts at once, victims."""
from dsr.train.adversarial import adversarial_descent, fit_adversarial
from dsr.train.batches import LOSSES
from dsr.train.descent import Info, State, gradient_descent
from dsr.train.dp_sgd import Privacy, fit_private
from dsr.train.linearised import solve_linearised
from dsr.train.moments import batch_stats
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
    IDC,
    OPTIMIZERS,
    SCHEDULES,
    SIAMESE,
    Evaluation,
    Protocol,
    evaluate,
    make_optimizer,
)
from dsr.train.rate import automatic_rate, max_eigenvalue
from dsr.train.recipe import Recipe, check_recipe
from dsr.train.shadows import fit_shadows
from dsr.train.victim import Checkpoint, Victim, fit_victim, outputs

__all__ = ['CONDENSATION', 'FREPO', 'IDC', 'LOSSES', 'OPTIMIZERS', 'SCHEDULES',
           'SIAMESE', 'Checkpoint', 'Evaluation', 'Info', 'Privacy', 'Protocol',
           'Recipe', 'State', 'Trained', 'Victim', 'accuracy',
           'adversarial_descent', 'automatic_rate', 'batch_stats',
           'check_recipe', 'evaluate', 'fit_adversarial', 'fit_networks',
           'fit_private', 'fit_shadows', 'fit_victim', 'gradient_descent',
           'init_networks', 'make_optimizer', 'max_eigenvalue', 'outputs',
           'predict', 'solve_linearised']
