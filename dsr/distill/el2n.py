r"""EL2N: how wrong networks are about an example, early in training.

  score_i = mean over R networks of | softmax(f_r(x_i)) - onehot(y_i) |_2

Ref: arXiv:2107.07075. Scores lie in [0, sqrt(2)]; a high one is a hard example.
"""
from collections.abc import Sequence

from jaxtyping import Array, Float, Int
import numpy as np
from scipy import special

from dsr import checks
from dsr.distill import per_class


def el2n(
    outputs: Float[Array | np.ndarray, 'R N C'],
    labels: Int[Array | np.ndarray, 'N']) -> Float[np.ndarray, 'N']:
  """EL2N scores.

  Args:
    outputs: (R, N, C) logits of R networks. C = 1 is the logit of class 1
      against class 0: its probabilities are sigmoid(-f) and sigmoid(f).
    labels: (N,) class indices, below C (below 2 for C = 1).

  Raises:
    ValueError: misshapen or non-finite outputs, labels out of range.
  """
  checks.inputs('outputs', outputs)
  if len(outputs.shape) != 3:
    raise ValueError(
        f'`outputs` must have shape (R, N, C), got {tuple(outputs.shape)}.')
  outputs = np.asarray(outputs, np.float64)
  checks.finite('outputs', outputs)
  if outputs.shape[2] == 1:  # softmax(0, f) = (sigmoid(-f), sigmoid(f)).
    outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=2)
  checks.labels('labels', labels, outputs.shape[2])
  if len(labels) != outputs.shape[1]:
    raise ValueError(f'`labels` must have N={outputs.shape[1]} rows as '
                     f'`outputs`, got {len(labels)}.')
  error = (special.softmax(outputs, axis=2)
           - np.eye(outputs.shape[2])[np.asarray(labels)])
  return np.linalg.norm(error, axis=2).mean(0)


def hardest(
    scores: Float[Array | np.ndarray, 'N'],
    labels: Int[Array | np.ndarray, 'N'],
    num_per_class: int | Sequence[int]) -> Int[np.ndarray, 'K']:
  """Rows of the highest scores of each class, hardest first.

  Classes come in increasing order; ties go to the first row.

  Raises:
    ValueError: misshapen or non-finite scores, more rows than a class has.
  """
  return _choose(scores, labels, num_per_class, lambda s, k: np.argsort(
      -s, kind='stable')[:k])


def easiest(
    scores: Float[Array | np.ndarray, 'N'],
    labels: Int[Array | np.ndarray, 'N'],
    num_per_class: int | Sequence[int]) -> Int[np.ndarray, 'K']:
  """Rows of the lowest scores of each class, easiest first; see `hardest`."""
  return _choose(scores, labels, num_per_class, lambda s, k: np.argsort(
      s, kind='stable')[:k])


def balanced(
    scores: Float[Array | np.ndarray, 'N'],
    labels: Int[Array | np.ndarray, 'N'],
    num_per_class: int | Sequence[int]) -> Int[np.ndarray, 'K']:
  """Rows of all difficulties alike, easiest first; see `hardest`.

  The n images of a class in the order of their scores make k parts of equal
  size, of which each gives the middle one, number floor((i + 1/2) n / k).
  """
  return _choose(scores, labels, num_per_class, lambda s, k: np.argsort(
      s, kind='stable')[(2 * np.arange(k) + 1) * len(s) // (2 * k)])


def _choose(scores, labels, num_per_class, pick):
  scores = np.asarray(scores)
  if scores.ndim != 1:
    raise ValueError(
        f'`scores` must have shape (N,), got {tuple(scores.shape)}.')
  return per_class.choose(scores[:, None], labels, num_per_class,
                          lambda s, k: pick(s[:, 0], k))
