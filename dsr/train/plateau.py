r"""When training ends although its loss cannot reach a tolerance.

Weight decay, clipping and noise hold the loss above any small tolerance, and
under cross-entropy it falls like 1/t for ever. So training may also end where
its loss has stopped falling: with L_k the mean loss of the k-th window of W
updates, after the first window k > 1 for which

  L_k > (1 - p) L_{k-1},

with p the least share by which a window must improve on the one before. A loss
like 1/t ends after about W / p updates; one that falls by a factor in each
window does not end at all.

L is the loss as it is reported, without the term of weight decay, which would
go on falling for 1 / (rate times decay) updates after the data are fitted. The
rule sees losses on the host between chunks; the sum of the window and the mean
of the one before are saved with each checkpoint, so that a resumed run ends at
the same update.
"""
import math

from jaxtyping import Float
import numpy as np

from dsr import checks

WINDOW = 500  # Updates, at least: several times what momentum swings for.
SHARE = 0.05  # Of loss, by which a window improves on the one before.


def start() -> dict[str, float]:
  """What `has_stopped_falling` remembers, before the first update."""
  return {'window_sum': 0.0, 'window_before': math.inf}


def has_stopped_falling(
    memory: dict[str, float], step: int, losses: Float[np.ndarray, 'S'], *,
    share: int | float, window: int) -> bool:
  """Whether training ends, after `step` updates of which S are new.

  Args:
    memory: by `start`, changed in place.
    step: updates in all; windows end at multiples of `window`, and no chunk of
      updates may go beyond such an end.
    losses: of the new updates.
    share: p, in [0, 1]; 0 ends where a window is no better than the one before.
    window: W.

  Raises:
    ValueError: `share` or `window` is out of range.
  """
  checks.within('share', share, 0, 1)
  checks.at_least('window', window, 1)
  memory['window_sum'] += float(np.sum(losses, dtype=np.float64))
  if step % window:
    return False
  mean = memory['window_sum'] / window
  stopped = mean > (1 - share) * memory['window_before']
  memory.update(window_sum=0.0, window_before=mean)
  return stopped
