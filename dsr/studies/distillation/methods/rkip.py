"""RKIP, by the flags of `experiments.distill`."""
import time

import optax

from dsr.distill import rkip as rkip_lib
from dsr.studies.distillation.methods import learning
from dsr.studies.distillation.methods.method import Learned, Method, optimizer

_MOST = 25_000  # Training images: K_tt takes 8 T^2 bytes.


def _rkip(config, kernel_fn, problem, baseline) -> Learned:
  began = time.monotonic()
  data = rkip_lib.interpolant(kernel_fn, problem.examples(problem.train),
                              ridge=config.ridge, progress=True)
  solver = rkip_lib.rkip(kernel_fn, optimizer(config, optax.adam),
                         ridge=config.ridge, learn_labels=config.learn_labels)
  return learning.learn(config, kernel_fn, problem, baseline, solver, data,
                        remedies=('learning_rate', 'ridge'), began=began)


def _check_data(config, problem) -> None:
  if len(problem.train) > _MOST:
    raise ValueError(
        f'`max_train` must be at most {_MOST} with {config.method}, whose K_tt '
        f'takes 8 T^2 bytes; got {len(problem.train)} training examples.')


RKIP = Method(
    _rkip, 'kernel inducing points for reconstruction (arXiv:2302.01428)',
    reads=frozenset({'ema', 'max_minutes'}), check_data=_check_data,
    from_noise=True, uneven=True)
