r"""Herding: the mean of the chosen features follows the mean of the class.

  s_k = argmin_s | mu - (phi(x_s) + \sum_{j<k} phi(x_{s_j})) / k |_2

over rows not yet chosen: Welling, ICML 2009, in the form of arXiv:1611.07725,
which divides features by their norms first; here that is left to the caller.
"""
from collections.abc import Sequence

from jaxtyping import Array, Float, Int
import numpy as np

from dsr.distill import per_class


def herding(
    features: Float[Array | np.ndarray, 'N ...'],
    labels: Int[Array | np.ndarray, 'N'],
    num_per_class: int | Sequence[int]) -> Int[np.ndarray, 'K']:
  """Rows of each class whose running mean is nearest to the class mean.

  Deterministic; ties go to the first row. O(N K D) time.

  Args:
    features: (N, ...) pixels, or the outputs of a network.
    labels: (N,) class indices.
    num_per_class: rows a class, or a number for each class that occurs.

  Returns:
    Rows of `features`, classes in increasing order, in the order of choice: a
    prefix of a class is what a smaller `num_per_class` would give.

  Raises:
    ValueError: misshapen inputs, more rows than a class has.
  """
  return per_class.choose(features, labels, num_per_class, _one_class)


def _one_class(features, count):
  phi = features.astype(np.float64)
  phi -= phi.mean(0)  # So mu = 0, and sums stay small.
  square = np.einsum('nd,nd->n', phi, phi)
  total = np.zeros(phi.shape[1])
  chosen = []
  for _ in range(count):
    # |phi_s + total|^2 without the constant |total|^2.
    score = square + 2 * (phi @ total)
    score[chosen] = np.inf
    chosen.append(int(score.argmin()))
    total += phi[chosen[-1]]
  return np.asarray(chosen)
