r"""What an attacker reads off a model's outputs: one number per example.

Each score maps outputs f (..., N, C) and class indices y (N,) to (..., N)
and is larger where membership is more likely. Leading axes hold models, so
the outputs of R shadows are scored at once. With C > 1 outputs, p =
softmax(f); a single output means the logits (0, f), class 1 where f > 0, as
in `krr.accuracy`. Computed in float64 from the logits without ever rounding p
to 1, where the surest examples, an attack's best prey, would tie.

Axes: R models; N examples; C outputs.
"""
from collections.abc import Callable

from jaxtyping import Array, Float, Int
import numpy as np
from scipy import special

from dsr import checks

Outputs = Float[Array | np.ndarray, '*R N C']
Labels = Int[Array | np.ndarray, 'N']
Score = Float[np.ndarray, '*R N']


def negative_loss(outputs: Outputs, y: Labels) -> Score:
  """log p_y, minus the cross-entropy (arXiv:1709.01604); ranks as p_y does."""
  logits, y = _logits(outputs, y)
  return _at(_log_probs(logits)[0], y)


def confidence(outputs: Outputs, y: Labels) -> Score:
  """log max_c p_c, which needs no label (arXiv:1806.01246)."""
  logits, _ = _logits(outputs, y)
  return _log_probs(logits)[0].max(-1)


def negative_entropy(outputs: Outputs, y: Labels) -> Score:
  """sum_c p_c log p_c, which needs no label (arXiv:2003.10595)."""
  logits, _ = _logits(outputs, y)
  log_p, _ = _log_probs(logits)
  return np.sum(np.exp(log_p) * log_p, axis=-1)


def negative_modified_entropy(outputs: Outputs, y: Labels) -> Score:
  """(1 - p_y) log p_y + sum_{c != y} p_c log(1 - p_c) (arXiv:2003.10595).

  Unlike the entropy it tells a confident wrong answer from a right one.
  """
  logits, y = _logits(outputs, y)
  log_p, log_rest = _log_probs(logits)
  own = np.exp(_at(log_rest, y)) * _at(log_p, y)
  others = np.exp(_others(log_p, y)) * log_rest  # 0 at y_i.
  return own + others.sum(-1)


def logit_confidence(outputs: Outputs, y: Labels) -> Score:
  """log p_y - log(1 - p_y), near normal over models: the score of LiRA.

  As f_y - log sum_{c != y} exp f_c it stays exact where p_y rounds to 1.
  Ref: arXiv:2112.03570, section V-A.
  """
  logits, y = _logits(outputs, y)
  return _at(logits, y) - special.logsumexp(_others(logits, y), axis=-1)


def margin(outputs: Outputs, y: Labels) -> Score:
  """f_y - max_{c != y} f_c; positive where the answer is right."""
  logits, y = _logits(outputs, y)
  return _at(logits, y) - _others(logits, y).max(-1)


def negative_squared_error(
    outputs: Outputs, targets: Float[Array | np.ndarray, 'N C']) -> Score:
  """-sum_c (f_c - t_c)^2 for encoded targets t: the loss of regression.

  Raises:
    ValueError: `outputs` is no (..., N, C) or `targets` of another (N, C).
  """
  _check_outputs(outputs)
  checks.targets('targets', targets, rows=outputs.shape[-2])
  checks.features('targets', targets, dim=outputs.shape[-1])
  error = np.asarray(outputs, float) - np.broadcast_to(
      np.asarray(targets, float), outputs.shape)
  return -np.sum(error**2, axis=-1)


# One line each to add another: (outputs, y) -> (..., N), larger for members.
SCORES: dict[str, Callable] = {
    'loss': negative_loss,
    'confidence': confidence,
    'entropy': negative_entropy,
    'modified_entropy': negative_modified_entropy,
    'logit_confidence': logit_confidence,
    'margin': margin,
}


def describe() -> str:
  """The scores, a line each, for `--help`."""
  return '\n'.join(['scores:', *(
      f'  {name}: {score.__doc__.partition(".")[0]}'
      for name, score in SCORES.items())])


def _check_outputs(outputs):
  shape = getattr(outputs, 'shape', None)
  if shape is None or len(shape) < 2:
    came = type(outputs).__name__ if shape is None else tuple(shape)
    raise ValueError(f'`outputs` must have shape (..., N, C), got {came}.')
  checks.inputs('outputs', outputs)
  checks.finite('outputs', outputs)


def _logits(outputs, y):
  """Logits (..., N, C), C at least 2, and labels, both of NumPy."""
  _check_outputs(outputs)
  logits = np.asarray(outputs, float)
  if logits.shape[-1] == 1:
    logits = np.concatenate([np.zeros_like(logits), logits], -1)
  y = np.asarray(y)
  checks.labels('y', y, logits.shape[-1])
  if len(y) != logits.shape[-2]:
    raise ValueError(f'`y` has {len(y)} rows, expected {logits.shape[-2]}.')
  return logits, y


def _at(values, y):
  """The entries of class y_i in row i."""
  return values[..., np.arange(len(y)), y]


def _others(values, y):
  """The values, logits or log p, with those of class y_i at -infinity."""
  own = np.arange(values.shape[-1]) == y[:, None]
  return np.where(np.broadcast_to(own, values.shape), -np.inf, values)


def _log_probs(logits):
  """(log p_c, log(1 - p_c)), both to all digits as p nears 0 or 1.

  With r = sum_{c != top} exp(f_c - f_top): log p_top = -log(1 + r), which the
  usual log-softmax rounds to 0 for r below 1e-16.
  """
  top = np.arange(logits.shape[-1]) == logits.argmax(-1)[..., None]
  gap = logits - logits.max(-1, keepdims=True)
  log_r = special.logsumexp(
      np.where(top, -np.inf, gap), axis=-1, keepdims=True)
  log_p_top = -np.log1p(np.exp(log_r))  # r is at most C - 1.
  log_p = gap + log_p_top
  p = np.where(top, 0, np.exp(log_p))  # At most 1/2.
  return log_p, np.where(top, log_r + log_p_top, np.log1p(-p))
