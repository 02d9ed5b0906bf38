r"""Training of an infinitely wide network on any loss.

With g = grad L at the outputs of all N training examples, gradient flow moves a
network in its kernel regime by df_t/dt = -K(., X) g(f_t(X)), so that

  f_t(x) = f_0(x) + K(x, X) \alpha_t,   d\alpha/dt = -g(f_0(X) + K \alpha).

For losses such as the cross-entropy that has no closed form, and a solver for
differential equations follows it. It solves for z, \alpha = V a^{-1/2} z with
K = V a V', since |z - z~| times sqrt K(x, x) bounds the error of any output.
Descent is followed step by step instead:

  \alpha_{n+1} = \alpha_n + \beta (\alpha_n - \alpha_{n-1}) - \eta g_n.

For the squared error `gradient_flow` has both at once. L is whatever is given:
if it is a mean over examples, time is in the units of `gradient_flow`.
Axes: N training and M test examples; C outputs; T times.
Refs: arXiv:1902.06720, equations 4 to 6; arXiv:2202.02435, the solver.
"""
from collections.abc import Callable
import dataclasses
import functools
import types

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from dsr import checks, linalg, numerics
from dsr.krr import spectrum
from dsr.krr.dynamics import GradientFlow
from dsr.krr.spectrum import Descent
from dsr.types import Examples, KernelFn


# A dataclass for the reasons given at `krr.Regressor`.
@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('support', 'y', 'spectrum'),
    meta_fields=('kernel_fn', 'loss', 'tolerance', 'max_steps'))
@dataclasses.dataclass(frozen=True)
class LossFlow(GradientFlow):
  """Mean predictions at finite times; a call is one of `GradientFlow`.

  Attributes:
    loss: (outputs (N, C), targets (N, C)) -> L.
    tolerance: of the solver.
    max_steps: of the solver.
  """

  loss: Callable
  tolerance: float
  max_steps: int

  def dual(
      self,
      t: float | Descent | Float[np.ndarray | Array, '*T'] | None = None, *,
      f0_train: Float[Array, 'N C'] | None = None) -> Float[Array, '*T N C']:
    """alpha_t with f_t(x) = f_0(x) + K(x, X) alpha_t, solved anew each time.

    Args:
      t: as in `GradientFlow`, but finite: a loss need not have a limit.
      f0_train: likewise.

    Raises:
      ValueError: wrong shapes, or a `t` that is negative or not finite.
      FloatingPointError: outside of a trace, `max_steps` did not suffice.
        Inside of one the result is NaN.
    """
    start = jnp.zeros(self.y.shape, self.spectrum.vectors.dtype)
    if f0_train is not None:
      checks.targets('f0_train', f0_train, rows=self.y.shape[0])
      start = f0_train.astype(start.dtype)
    if isinstance(t, Descent):
      spectrum.check(t)
      return _descended(self, start, t.rate, t.momentum, steps=t.steps)
    if not isinstance(t, jax.core.Tracer):
      times = np.asarray(t, float)  # None becomes NaN.
      if not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError(
            f'`t` must be finite and not negative, got {t!r}: a general loss '
            'need not have a limit.')
    _diffrax()  # Its absence is no error of a trace.
    dual, done = _followed(self, start, jnp.asarray(t, start.dtype))
    if linalg.is_known(done) and not done:
      raise FloatingPointError(
          f'`max_steps` {self.max_steps} did not lead to time '
          f'{np.max(times):.3g}: give more of them, or a larger `tolerance`.')
    return dual


def _coordinates(flow, start):
  r"""(z -> dz/dt, the matrix that makes \alpha of z)."""
  values, vectors, _, known = flow.spectrum
  root = jnp.where(known, numerics.safe_sqrt(values), 0)[:, None]
  y = flow.y.astype(vectors.dtype)

  def velocity(z):
    outputs = start + numerics.matmul(vectors, root * z)
    slope = jax.grad(flow.loss)(outputs, y)
    return -root * numerics.matmul(vectors.T, slope)

  inverse = numerics.safe_divide(jnp.ones_like(root), root)
  return velocity, vectors * inverse.T


@jax.jit
def _followed(flow, start, t):
  """(alpha at times in any order, NaN where the solver failed; did it not)."""
  diffrax = _diffrax()
  velocity, back = _coordinates(flow, start)
  order = jnp.argsort(t.reshape(-1))
  times = t.reshape(-1)[order]
  # A solver does not go from 0 to 0.
  end = jnp.maximum(times[-1], jnp.finfo(t.dtype).tiny)
  with jax.numpy_rank_promotion('allow'):  # Inside of the solver.
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, z, args: velocity(z)), diffrax.Tsit5(),
        0.0, end, None, jnp.zeros_like(start),
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(
            rtol=flow.tolerance, atol=flow.tolerance),
        max_steps=flow.max_steps, throw=False)
  done = diffrax.is_okay(found.result)
  z = jnp.where(done, found.ys[jnp.argsort(order)], jnp.nan)
  return numerics.matmul(back, z.reshape(*t.shape, *start.shape)), done


@functools.partial(jax.jit, static_argnames='steps')
def _descended(flow, start, rate, momentum, *, steps):
  velocity, back = _coordinates(flow, start)

  def step(state, _):
    z, change = state
    change = momentum * change + rate * velocity(z)
    return (z + change, change), None

  zero = jnp.zeros_like(start)
  (z, _), _ = lax.scan(step, (zero, zero), None, length=steps)
  return numerics.matmul(back, z)


def loss_flow(
    kernel_fn: KernelFn, data: Examples, loss: Callable, *,
    tolerance: float = 1e-5, max_steps: int = 100_000) -> LossFlow:
  r"""Builds f_t for any loss; see the top of this module.

    cross_entropy = lambda f, y: optax.softmax_cross_entropy(f, y).mean()
    predict_fn = krr.loss_flow(kernel_fn, data, cross_entropy)
    predict_fn(x, t=1000.0)

  Directions of K that rounding hides are not learned: see
  `spectrum.decompose`. Cost: one eigh, then 4 N^2 C operations each time that g
  is looked at: by a step of `Descent` once, by the solver some 6 times a step.
  Its steps are of the length 3 / |K g'| at most, so it takes t |K g'| / 3 or
  more of them, with |K g'| at most |K| / 4N for a mean of softmax losses.
  Differentiable in `data` as `gradient_flow`.

  Args:
    kernel_fn: the kernel, as a rule an NTK.
    data: inputs (N, ...) and targets (N, C), e.g. one-hot.
    loss: (outputs (N, C), targets (N, C)) -> scalar, which JAX differentiates.
    tolerance: of the solver: error of z, in absolute terms and relative.
    max_steps: of the solver.

  Returns:
    A predictor (x (M, ...), t, *, f0_x=None, f0_train=None) -> (M, C), or
    (T, M, C) at times (T,). Times need diffrax, the extra `ode`.

  Raises:
    ValueError: `data` is misshapen, `loss` gives no scalar, or an option out
      of range.
    FloatingPointError: outside of a trace, the kernel is not finite.
  """
  checks.inputs('data.x', data.x)
  checks.targets('data.y', data.y, rows=data.x.shape[0])
  checks.positive('tolerance', tolerance)
  checks.at_least('max_steps', max_steps, 1)
  found = spectrum.decompose(kernel_fn(data.x), 0.0)
  y = jax.ShapeDtypeStruct(data.y.shape, found.vectors.dtype)
  shape = getattr(jax.eval_shape(loss, y, y), 'shape', None)
  if shape != ():
    raise ValueError(f'`loss` must return one number, got shape {shape}.')
  return LossFlow(
      kernel_fn, data.x, data.y, found, loss, tolerance, max_steps)


def _diffrax() -> types.ModuleType:
  """Imported at its first use: the base does without."""
  try:
    import diffrax
  except ImportError as error:
    raise ImportError(
        'Gradient flow of a general loss needs diffrax, which the extra `ode` '
        "has: pip install -e '.[ode]'. A `krr.Descent` does not.") from error
  return diffrax
