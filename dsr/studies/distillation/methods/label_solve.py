"""Label Solve, by the flags of `experiments.distill`."""
import time

from dsr.distill import label_solve as label_solve_lib
from dsr.studies.distillation.methods.method import Learned, Method, unlearned


def _label_solve(config, kernel_fn, problem, baseline) -> Learned:
  began = time.monotonic()
  y = label_solve_lib.label_solve(
      kernel_fn, baseline.x, problem.examples(problem.train),
      ridge=config.ridge, progress=True)
  return unlearned(baseline._replace(y=y), began)


LABEL_SOLVE = Method(
    _label_solve, 'real images with the best labels (arXiv:2011.00050)',
    {'keep': 'last', 'validation': 0.0}, uneven=True)
