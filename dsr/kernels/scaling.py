"""Scales of the layers with weights, and what a bias does to a gap."""
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsr import checks

PARAMETERISATIONS = 'ntk', 'standard'


class Scales:
  r"""W_std and b_std of a layer, numbers or traced, and what \Theta takes.

  Traced ones go to the pairs on the tape, since the functions of pairs may not
  close over traced values.
  """

  def __init__(self, W_std, b_std, width=None, parameterisation='ntk'):
    checks.one_of('parameterisation', parameterisation, PARAMETERISATIONS)
    if width is not None:
      checks.at_least('width', width, 1)
    self.width, self.standard = width, parameterisation == 'standard'
    self._shift = 0.0 if b_std is None else 1.0
    b_std = 0.0 if b_std is None else b_std
    self.traced = any(isinstance(s, jax.core.Tracer) for s in (W_std, b_std))
    if not isinstance(W_std, jax.core.Tracer):
      checks.positive('W_std', W_std)
    if not isinstance(b_std, jax.core.Tracer):
      checks.non_negative('b_std', b_std)
    self._values = W_std, b_std
    self.biased = isinstance(b_std, jax.core.Tracer) or b_std > 0

  def out(self, q):
    W_std, b_std = self._values
    return W_std**2 * q + b_std**2

  def tape(self):
    return self._values if self.traced else ()

  def squares(self, tape):
    W_std, b_std = tape if self.traced else self._values
    return W_std**2, b_std**2

  def fields(self) -> dict[str, Any]:
    """What a `Layer` says of its weights."""
    return {'weights': True, 'width': self.width, 'standard': self.standard}

  def inner(self, at, weight, count=1):
    r"""What W_std^2 times its mean over the window makes \Theta'."""
    if not self.standard:
      return at.ntk
    own = (at.width * count / weight) * at.nngp
    return own if at.ntk is None else own + at.ntk

  def outer(self, ntk, nngp):
    r"""\Theta' from that: k' is added, or what a bias of rate 1 gives."""
    if self.standard:
      return ntk + self._shift if self._shift else ntk
    return nngp if ntk is None else nngp + ntk

  def __str__(self):
    shown = ['traced' if isinstance(s, jax.core.Tracer) else f'{s:g}'
             for s in self._values]
    return ', '.join(shown + ['standard'] * self.standard)


def bent_by_bias(root1: Array, t1: Array, root2: Array, t2: Array) -> Array:
  """g1 g2 (t1 - t2)^2 / 2, from roots of g."""
  return 0.5 * (root1 * root2 * _apart(t1, t2)) ** 2


@jax.custom_jvp
def bent_by_fixed_bias(root1, t1, rho1, root2, t2, rho2):
  """`bent_by_bias` with t = b_std / g and rho = arcsinh(W_std r / b_std).

  It moves by g1 g2 (t2^2 - t1^2) / 2 (d rho1 - d rho2), so that a backward
  pass sums one (N, M) array.
  """
  del rho1, rho2
  return 0.5 * (root1 * root2 * (t1 - t2)) ** 2


@bent_by_fixed_bias.defjvp
def _bent_by_fixed_bias_jvp(primals, tangents):
  root1, t1, _, root2, t2, _ = primals
  drho1, drho2 = tangents[2], tangents[5]
  slope = 0.5 * (root1 * root2) ** 2 * (_apart(t2, t1) * (t2 + t1))
  return bent_by_fixed_bias(*primals), slope * (drho1 - drho2)


def _apart(a, b):
  """a - b, and 0 where rounding alone may have made it.

  Equal inputs whose lengths two programs rounded otherwise would else seem to
  move apart, by an angle of 1e-16, along which the NTK has a cusp.
  """
  apart = a - b
  rounding = 8 * jnp.finfo(apart.dtype).eps
  return jnp.where(jnp.abs(apart) <= rounding * jnp.abs(a), 0, apart)
