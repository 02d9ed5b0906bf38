r"""The change of a dense first layer, and the span of the training inputs.

The gradient of a dense layer is a sum of outer products of its inputs x and
signals, so after any (momentum, mini-batch) gradient descent
  \Delta W~ = [\Delta W_1; \Delta b_1] = X~' G,  x~ = [x; 1],  G (N, W),
has rank N at most and its columns lie in the span of the extended inputs:
D + 1 unknown numbers of each image become N. Weight decay, Adam and noise
break this, which shows as full rank. Refs: arXiv:2403.03945, of gradients.

Axes: N images, W units of the first layer, D numbers in an input.
"""
from typing import NamedTuple

from absl import logging
import numpy as np

from dsr.attack.release import Released
from dsr.nets import MLP


class Span(NamedTuple):
  """The change of the first layer, factorised as U S V'.

  Attributes:
    basis: (D~, N) U, where D~ = D + 1 with biases and D without.
    size: (N,) the diagonal of S.
    codes: (N, W) V'.
    maps: (2, N, W) pre-activations of U z at theta_0 and at theta_T are z
      times these.
    noise: the singular value behind the last one, over the last one.
    spread: (N,) deviation of the rounding noise of V', in units of its entries'
      deviation 1 / sqrt(W): that of t' V' is |t * spread|.
    biased: whether inputs are extended by a 1.
  """

  basis: np.ndarray
  size: np.ndarray
  codes: np.ndarray
  maps: np.ndarray
  noise: float
  spread: np.ndarray
  biased: bool


def span(released: Released) -> Span:
  """Factorises the released change; see `Span`.

  With `num_train` an upper bound, the rank is where singular values leave the
  rounding noise, which the value behind that bound shows. Equal images make one
  row together. Where extended inputs are linearly dependent otherwise, as with
  more images than pixels that are not always black, V' holds sums of rows only,
  and no image can be told by them: a lower rank is logged.

  Raises:
    ValueError: parameters before or after are missing, the network is no MLP
      with a hidden layer, there are more images than D~ or W can tell apart,
      the parameters did not change, or by a matrix of rank 1.
  """
  if released.theta_0 is None or released.theta_T is None:
    raise ValueError('`released` must hold theta_0 and theta_T for the '
                     f'first-layer attack, got threat {released.threat!r}.')
  if not isinstance(released.module, MLP) or not released.module.widths:
    raise ValueError('`released.module` must be an MLP with a hidden layer for '
                     f'the first-layer attack, got {released.module!r}.')
  before, after = (_extended(released.module, theta) for theta in (
      released.theta_0, released.theta_T))
  change, (weight, bias) = after[0] - before[0], after[1:]
  # W is used as weight W and b as bias b, so gradients carry these factors.
  unit = np.ones(len(change))
  unit[:released.size] = weight
  unit[released.size:] = bias
  u, s, vt = np.linalg.svd(change / unit[:, None], full_matrices=False)
  num = released.num_train
  if num >= len(s):
    raise ValueError(
        f'`num_train` must be below {len(s)}, the smaller side of the first '
        f"layer's change, for the first-layer attack; got {num}.")
  if not s[0] > 0:
    raise ValueError('`theta_T` must differ from theta_0 in the first layer.')
  num = int(np.sum(s[:num] > 3 * s[num]))
  if not num:
    raise ValueError('`theta_T` - theta_0 has full rank in the first layer: '
                     'it was not made by plain gradient descent on at most '
                     f'{released.num_train} images, or noise was added.')
  if num == 1:
    raise ValueError('`theta_T` - theta_0 must have a rank of 2 at least in '
                     'the first layer, got 1: it is of one image, or noise '
                     'hides the others.')
  if num < released.num_train:
    logging.info('The change of the first layer has rank %d, for %d images at '
                 'most: there are fewer, or some are equal, or others are sums '
                 'of more, which this attack cannot find.', num,
                 released.num_train)
  basis = u[:, :num]
  maps = np.stack([basis.T @ (theta[0] * unit[:, None])
                   for theta in (before, before if released.linearised
                                 else after)])
  # White noise of deviation r leaves r^2 (D~ - N) (W - N) in what is behind.
  sides = np.asarray(change.shape) - num
  rounding = np.sqrt(np.sum(s[num:]**2) / np.prod(sides))
  return Span(basis, s[:num], vt[:num], maps, float(s[num] / s[num - 1]),
              rounding * change.shape[1]**0.5 / s[:num],
              len(change) > released.size)


def _extended(module, theta):
  """([W; b] in float64, factor of W, factor of b) of the first layer."""
  layer = theta['hidden_0']
  rows = [np.asarray(layer['kernel'], np.float64)]
  weight, bias = 1.0, 1.0
  if module.parameterisation == 'ntk':
    weight, bias = module.w_std / np.sqrt(len(rows[0])), module.b_std
  if 'bias' in layer:
    rows.append(np.asarray(layer['bias'], np.float64)[None])
  return np.concatenate(rows), weight, bias
