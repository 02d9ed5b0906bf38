"""Options of the attack by the infinitely wide network's kernel."""
import math
from typing import NamedTuple

from dsr import checks
from dsr.attack import latents, prior as prior_lib
from dsr.attack.prior import Prior
from dsr.attack.release import Released


class Config(NamedTuple):
  """How the attack is run.

  Attributes:
    ratio: M / N; 0 takes 1.3, and N + 20 at least.
    steps: of Adam.
    learning_rate: of Adam at the start, in units of a pixel.
    last_rate: at the end, as a share of it.
    start_scale: standard deviation of the noise that candidates start from.
    restart_every: steps between two restarts; 0 for none.
    restart_until: share of the steps after which there are no restarts.
    negligible: share of the median gain below which a candidate is dropped.
    jitter: of K, relative to its mean diagonal.
    norm_squared: |f_T - f_0|_H^2 if known, else 0.
    tolerance: relative loss at which to stop, if the norm is known.
    prior: penalties, in the unit of |f_T - f_0|_H^2.
    blur: of candidates as `latents`, in pixels; then start, rate and probes are
      in units of a latent. 0: candidates are pixels.
    probes: pairs of values from which a slope is measured, for each candidate
      and step; 0 differentiates the query.
    probe_scale: deviation of the probes at the start, in units of a pixel or
      latent.
    probe_last: at the end, as a share of it.
    num_seeds: starts run side by side, of which the best is kept.
    dtype: of the candidates and the kernel; solves are float64 under x64.
  """

  ratio: float = 0.0
  steps: int = 2000
  learning_rate: float = 0.02
  last_rate: float = 1e-3
  start_scale: float = 0.2
  restart_every: int = 100
  restart_until: float = 0.7
  negligible: float = 1e-2
  jitter: float = 1e-6
  norm_squared: float = 0.0
  tolerance: float = 0.0
  prior: Prior = Prior()
  blur: float = 0.0
  probes: int = 0
  probe_scale: float = 0.1
  probe_last: float = 0.5
  num_seeds: int = 1
  dtype: str = 'float32'


DEFAULT = Config()
# Of a finite network; chosen on ten images of MNIST's ten classes, width 4096,
# and on digits, whose 8 x 8 pixels ask for blur=0.7 instead.
FINITE = Config(
    ratio=1.3, steps=300, learning_rate=0.1, last_rate=1e-2, start_scale=1.0,
    restart_every=0, jitter=1e-2, blur=1.5, probes=16, probe_scale=0.4)


def num_candidates(released: Released, ratio: float) -> int:
  """M: `ratio` times the number of training images, rounded up; see `Config`.

  Raises:
    ValueError: `ratio` is negative.
  """
  checks.non_negative('ratio', ratio)
  num = released.num_train
  if ratio:
    return math.ceil(ratio * num - 1e-9)
  return max(math.ceil(1.3 * num), num + 20)


def check(released: Released, config: Config) -> None:
  """Raises a ValueError for what is wrong before the run starts."""
  if released.query is None:
    raise ValueError('`released.query` is needed, got None; the finite attack '
                     'works on parameters.')
  num_candidates(released, config.ratio)
  checks.at_least('steps', config.steps, 1)
  checks.positive('learning_rate', config.learning_rate)
  checks.within('last_rate', config.last_rate, 0, 1)
  checks.positive('start_scale', config.start_scale)
  checks.at_least('restart_every', config.restart_every, 0)
  checks.within('restart_until', config.restart_until, 0, 1)
  checks.within('negligible', config.negligible, 0, 1)
  checks.positive('jitter', config.jitter)
  checks.non_negative('norm_squared', config.norm_squared)
  checks.non_negative('tolerance', config.tolerance)
  checks.at_least('probes', config.probes, 0)
  checks.positive('probe_scale', config.probe_scale)
  checks.positive('probe_last', config.probe_last)
  checks.one_of('dtype', config.dtype, ('float32', 'float64'))
  prior_lib.check(config.prior, released)
  latents.check(released, config.blur)
  if config.blur and config.prior.project:
    raise ValueError('`project` must be False with `blur`, whose candidates '
                     'are in the pixel range; got True.')
