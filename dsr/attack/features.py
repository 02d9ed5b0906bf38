r"""Gradient features of candidates: exact values, smooth slopes.

The attack needs K_ij = <\phi_i, \phi_j> and v_j = <\phi_j, \Delta>, where
\phi_j = df(x_j)/d\theta. For an MLP with inputs h_l and signals \delta_l of
layer l neither takes a gradient of the size of \theta:

  K = sum_l (a_l^2 h_l h_l' + b_l^2) * (\delta_l \delta_l'),
  v = sum_l <\delta_l, a_l h_l \Delta W_l + b_l \Delta b_l>,

a_l and b_l being the factors of the parameterisation. Other networks take the
Jacobian itself, M C P numbers. Either is had for a block of candidates at a
time if there is no room for all (`blocks`).

A ReLU network's features are piecewise constant in their masks, whose
derivative is 0 almost everywhere. So all values come from the true ReLU and
its true mask, all derivatives with respect to candidates from softplus and
sigmoid of some slope (straight-through).

Axes: M candidates, C outputs, W units.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dsr import numerics
from dsr.attack import blocks
from dsr.nets import MLP


@jax.custom_jvp
def relu(
    z: Float[Array, '...'], slope: float | Float[Array, '']
) -> Float[Array, '...']:
  """max(z, 0), with the derivative sigmoid(slope z)."""
  del slope
  return jnp.maximum(z, 0)


@relu.defjvp
def _relu_jvp(primals, tangents):
  z, slope = primals
  return relu(z, slope), jax.nn.sigmoid(slope * z) * tangents[0]


@jax.custom_jvp
def mask(
    z: Float[Array, '...'], slope: float | Float[Array, '']
) -> Float[Array, '...']:
  """1 where z > 0, with the derivative of sigmoid(slope z)."""
  del slope
  return (z > 0).astype(z.dtype)


@mask.defjvp
def _mask_jvp(primals, tangents):
  z, slope = primals
  share = jax.nn.sigmoid(slope * z)
  return mask(z, slope), slope * share * (1 - share) * tangents[0]


class Features(NamedTuple):
  """Of one set of candidates at one or more parameters, stacked over M.

  Attributes:
    inputs: h_l of each layer, (M, D_l), times a_l.
    biases: b_l of each layer, 0 without biases.
    signals: \\delta_l of each layer, (M, C, W_l).
    change: (M, C) v.
  """

  inputs: tuple[Float[Array, 'M D'], ...]
  biases: tuple[float, ...]
  signals: tuple[Float[Array, 'M C W'], ...]
  change: Float[Array, 'M C']


def of_mlp(
    module: MLP, theta: PyTree, delta: PyTree, x: Float[Array, 'M ...'],
    slope: float | Float[Array, '']) -> Features:
  """Features of `x` at `theta`; see the module text.

  Args:
    module: the architecture, with ReLUs.
    theta: parameters at which gradients are taken.
    delta: theta_T - theta_0.
    x: candidates.
    slope: of the sigmoid, in units of 1 / pre-activation.
  """
  names = [f'hidden_{i}' for i in range(len(module.widths))] + ['readout']
  h = x.reshape(x.shape[0], -1)
  inputs, biases, masks = [], [], []
  for name in names:
    weight, bias = _factors(module, h.shape[1])
    inputs.append(weight * h)
    z = numerics.matmul(inputs[-1], theta[name]['kernel'])
    biased = 'bias' in theta[name]
    biases.append(bias if biased else 0.0)
    if biased:
      z += bias * theta[name]['bias'][None]
    h = relu(z, slope)
    masks.append(mask(z, slope))
  num = theta['readout']['kernel'].shape[1]
  signal = jnp.broadcast_to(jnp.eye(num, dtype=x.dtype), (len(x), num, num))
  signals = [signal]
  for i in reversed(range(len(module.widths))):
    weight, _ = _factors(module, module.widths[i])
    signal = weight * jnp.einsum(
        'mcw,vw->mcv', signal, theta[names[i + 1]]['kernel'],
        precision='highest')
    signal = signal * masks[i][:, None]
    signals.append(signal)
  signals = signals[::-1]
  change = jnp.zeros((len(x), num), x.dtype)
  for name, h, bias, signal in zip(names, inputs, biases, signals):
    moved = numerics.matmul(h, delta[name]['kernel'])
    if bias:
      moved += bias * delta[name]['bias'][None]
    change += jnp.einsum('mcw,mw->mc', signal, moved, precision='highest')
  return Features(tuple(inputs), tuple(biases), tuple(signals), change)


def _factors(module, width):
  if module.parameterisation == 'ntk':
    return module.w_std / width**0.5, module.b_std
  return 1.0, 1.0


def stack(parts: list[Features]) -> Features:
  """Several sets as one, along M."""
  joined = jax.tree.map(lambda *a: jnp.concatenate(a), *[
      part._replace(biases=()) for part in parts])
  return joined._replace(biases=parts[0].biases)


def gram(
    left: Features, right: Features | None = None
) -> Float[Array, 'M N C C']:
  """K between all candidates and outputs of `left` and `right`, or `left`."""
  right = left if right is None else right
  total = 0
  for h1, h2, bias, signal1, signal2 in zip(
      left.inputs, right.inputs, left.biases, left.signals, right.signals):
    near = numerics.matmul(h1, h2.T) + bias**2
    num = signal1.shape[1]
    both = numerics.matmul(
        signal1.reshape(-1, signal1.shape[-1]),
        signal2.reshape(-1, signal2.shape[-1]).T)
    both = both.reshape(len(h1), num, len(h2), num)
    total += near[:, :, None, None] * jnp.swapaxes(both, 1, 2)
  return total


def kernel_of_mlp(
    module: MLP, thetas: list[PyTree], delta: PyTree, x: Float[Array, 'M ...'],
    slope: float | Float[Array, ''], *, batch: int | None = None
) -> tuple[Float[Array, 'R R C C'], Float[Array, 'R C']]:
  """(K, v) in Gram form, the candidates stacked over `thetas`: R rows in all.

  Args:
    module: the architecture, with ReLUs.
    thetas: parameters at which gradients are taken.
    delta: theta_T - theta_0.
    x: candidates.
    slope: see `of_mlp`.
    batch: candidates whose features are held at a time, see `attack.blocks`;
      None is all.
  """
  def rows(x):
    joined = stack([of_mlp(module, theta, delta, x, slope) for theta in thetas])
    return joined, joined.change

  return blocks.kernel(rows, gram, x, batch=batch)


def of_any(
    apply_fn: Callable, thetas: list[PyTree], delta: PyTree,
    x: Float[Array, 'M ...'], *, batch: int | None = None
) -> tuple[Float[Array, 'R R C C'], Float[Array, 'R C']]:
  """(K, v) from Jacobians, the candidates stacked over `thetas`: R rows in all.

  Args:
    apply_fn: (params, x (M, ...)) -> (M, C), its activation smoothed.
    thetas: parameters at which gradients are taken.
    delta: theta_T - theta_0.
    x: candidates.
    batch: candidates whose Jacobians are held at a time, see `attack.blocks`;
      None is all.
  """
  def jacobian(theta, x):
    leaves = jax.tree.leaves(
        jax.jacrev(lambda p: apply_fn(p, x[None])[0])(theta))
    return jnp.concatenate(
        [a.reshape(a.shape[0], -1) for a in leaves], axis=1)

  def rows(x):
    phi = jnp.concatenate(
        [jax.vmap(jacobian, (None, 0))(theta, x) for theta in thetas])
    return phi, numerics.matmul(phi, flat)

  def contract(left, right):
    (size1, num, _), size2 = left.shape, len(right)
    k = numerics.matmul(left.reshape(size1 * num, -1),
                        right.reshape(size2 * num, -1).T)
    return jnp.swapaxes(k.reshape(size1, num, size2, num), 1, 2)

  flat = jnp.concatenate([a.ravel() for a in jax.tree.leaves(delta)])
  return blocks.kernel(rows, contract, x, batch=batch)


def smoothed_relu(slope: float | Float[Array, '']) -> Callable:
  """A ReLU whose derivative is `mask`, to put into a Flax module."""
  @jax.custom_jvp
  def activation(z):
    return jnp.maximum(z, 0)

  @activation.defjvp
  def _(primals, tangents):
    return activation(primals[0]), mask(primals[0], slope) * tangents[0]

  return activation
