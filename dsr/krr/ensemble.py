r"""Mean and covariance of an ensemble of trained, infinitely wide networks.

Before training the outputs are a Gaussian process of covariance K, the NNGP.
Trained by gradient flow on the squared error, each network f_0 becomes

  f_t(x) = f_0(x) + S_t(x) (Y - f_0(X)),   S_t(x) = \Theta(x, X) V \phi V'

with \Theta = V a V' the NTK, ridge included, \phi = (1 - exp(-t a / N)) / a:
see `spectrum`. Over the draw of f_0 that is a Gaussian process again:

  mean        S_t(x) Y
  covariance  K(x, x') + S_t(x) K(X, X) S_t(x')'
              - S_t(x) K(X, x') - K(x, X) S_t(x')'.

With K in place of \Theta it is an ensemble of which the readout alone is
trained; at t = inf and with noise left out that is regression by the NNGP.
Outputs are independent of each other and have one covariance, so with C of
them the means are (M, C) and the covariance is (M, M).
On paper -> code: \Theta -> ntk, K -> nngp.
Axes: N training and M test examples; C outputs; T times.
Ref: arXiv:1902.06720, equations 13 to 16.
"""
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, linalg, numerics
from dsr.krr import spectrum
from dsr.krr.spectrum import Descent
from dsr.types import Examples, KernelFn

COVARIANCES = ('full', 'diagonal')


class Gaussian(NamedTuple):
  """A Gaussian over outputs, one covariance for all C of them.

  Attributes:
    mean: (*T, M, C).
    covariance: (*T, M, M), positive semi-definite up to rounding; or its
      diagonal (*T, M), never negative.
  """

  mean: Float[Array, '*T M C']
  covariance: Float[Array, '...']


# A dataclass for the reasons given at `krr.Regressor`.
@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('support', 'y', 'spectrum', 'k_train'),
    meta_fields=('ntk', 'nngp'))
@dataclasses.dataclass(frozen=True)
class Ensemble:
  """Mean and covariance at any time, from one eigendecomposition.

  Attributes:
    ntk: the `KernelFn` that trains.
    nngp: the `KernelFn` of the covariance at time 0.
    support: (N, ...) the training inputs X.
    y: (N, C) their targets.
    spectrum: `spectrum.Spectrum` of ntk(X, X).
    k_train: (N, N) nngp(X, X).
  """

  ntk: KernelFn
  nngp: KernelFn
  support: Any
  y: Any
  spectrum: Any
  k_train: Any

  def __call__(
      self, x: Float[Array, 'M ...'],
      t: float | Descent | Float[np.ndarray | Array, '*T'] | None = None, *,
      covariance: str = 'full') -> Gaussian:
    """Outputs at `x` at a time, several times, or after a `Descent`.

    Args:
      x: (M, ...) inputs.
      t: as in `gradient_flow`: units of the learning rate, None is infinity.
      covariance: 'full', (*T, M, M), N^2 M + N M^2 operations and an eigh of
        it for each time; or 'diagonal', (*T, M), N^2 M operations.

    Raises:
      ValueError: wrong shapes, a negative `t`, an unknown `covariance`.
    """
    checks.inputs('x', x, like=self.support)
    checks.one_of('covariance', covariance, COVARIANCES)
    dtype = self.k_train.dtype
    rate = spectrum.learned(self.spectrum, t)
    times, n = rate.shape[:-1], rate.shape[-1]
    at = functools.partial(self._at, x, covariance=covariance)
    if not times:
      return at(rate)
    rows = lax.map(at, rate.reshape(-1, n).astype(dtype))
    return jax.tree.map(lambda a: a.reshape(*times, *a.shape[1:]), rows)

  def _at(self, x, rate, *, covariance):
    """The Gaussian at `x`, for the filter `rate` (N,) = phi."""
    dtype, vectors = self.k_train.dtype, self.spectrum.vectors
    theta = self.ntk(x, self.support)
    out = theta.dtype
    k_cross = self.nngp(x, self.support).astype(dtype)
    half = numerics.matmul(theta.astype(dtype), vectors) * rate[None]
    weights = numerics.matmul(half, vectors.T)  # S (M, N)
    mean = numerics.matmul(weights, self.y.astype(dtype))
    # S K S' - S K' - K S' = (S K - 2 K_x) S', made symmetric.
    left = numerics.matmul(weights, self.k_train) - 2 * k_cross
    if covariance == 'diagonal':
      spread = self.nngp.diag(x).astype(dtype) + (left * weights).sum(1)
      spread = jnp.maximum(spread, 0)
    else:
      spread = self.nngp(x).astype(dtype) + numerics.matmul(left, weights.T)
      spread = positive_part((spread + spread.T) / 2)
    return Gaussian(mean.astype(out), spread.astype(out))


def positive_part(a: Float[Array, 'M M']) -> Float[Array, 'M M']:
  """The nearest positive semi-definite matrix; the derivative of `a` itself.

  Of a covariance that is positive up to rounding, whose negative eigenvalues
  are that rounding.
  """
  values, vectors = jnp.linalg.eigh(lax.stop_gradient(a))
  below = vectors * jnp.minimum(values, 0)[None]
  a = a - lax.stop_gradient(numerics.matmul(below, vectors.T))
  i = np.arange(a.shape[0])
  return a.at[i, i].max(0)


def ensemble(
    ntk: KernelFn, nngp: KernelFn, data: Examples, *, ridge: float = 0.0
) -> Ensemble:
  r"""An ensemble of infinitely wide networks, trained by gradient flow.

    predict_fn = krr.ensemble(fcn(2), fcn(2, get='nngp'), data)
    mean, covariance = predict_fn(x)       # trained to the end
    mean, variance = predict_fn(x, 10.0, covariance='diagonal')

  The memory is that of three (N, N) arrays in the dtype of the solve. What the
  covariance leaves out is noise of the targets: add its variance. Directions
  that rounding hides are not learned, see `spectrum.decompose`.

  Args:
    ntk: the NTK; the NNGP again trains the readout alone.
    nngp: the NNGP kernel of the same network.
    data: inputs (N, ...) and targets (N, C).
    ridge: \lambda >= 0, relative to tr(\Theta)/N: a penalty, as in
      `gradient_flow`. The networks are drawn without it.

  Raises:
    ValueError: `data` is misshapen or `ridge` is negative.
    FloatingPointError: outside of a trace, a kernel is not finite.
  """
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  checks.non_negative('ridge', ridge)
  found = spectrum.decompose(ntk(data.x), ridge)
  k_train = nngp(data.x).astype(found.vectors.dtype)
  if linalg.is_known(k_train) and not np.isfinite(k_train).all():
    raise FloatingPointError('The NNGP of `data.x` is not finite.')
  return Ensemble(ntk, nngp, data.x, data.y, found, k_train)
