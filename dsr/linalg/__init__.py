"""Ridge systems (K + shift I) A = Y: factorise once, solve many."""
from dsr.linalg.cg import conjugate_gradient
from dsr.linalg.direct import (
    RESIDUAL_LIMIT,
    Factor,
    diag_inverse,
    factorise,
    log_det,
    residual_info,
    solve,
    with_ridge,
)
from dsr.linalg.info import Info, is_known, raise_if_failed, report
from dsr.linalg.preconditioners import (
    LowRank,
    nystrom,
    pivoted_cholesky,
    woodbury,
)

__all__ = ['RESIDUAL_LIMIT', 'Factor', 'Info', 'LowRank',
           'conjugate_gradient', 'diag_inverse', 'factorise', 'is_known',
           'log_det', 'nystrom', 'pivoted_cholesky', 'raise_if_failed',
           'report', 'residual_info', 'solve', 'with_ridge', 'woodbury']
